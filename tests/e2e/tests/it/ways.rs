//! One cluster and the ways to it: directly, through a hub that dials it, and through a hub to which an agent in it has dialled.
//!
//! Both hubs call it `guest` and have no other child. What works directly has to work the same through either.

use std::path::PathBuf;

use umbra_e2e::any_hub::AnyHub;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::process::Process;
use umbra_e2e::world::World;

use crate::tunnel::Tunnelled;

/// What both hubs call the cluster.
const NAME: &str = "guest";

/// The contexts of [`Ways::kubeconfig`]: the cluster itself, its root, and its root through the tunnel.
pub(crate) const CONTEXTS: [&str; 3] = ["direct", "root", "tunnel"];

/// Lets somebody speak for anybody; its name is missing.
const ANYBODY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
rules:
- {apiGroups: [""], resources: [users, groups], verbs: [impersonate]}
- {apiGroups: [authentication.k8s.io], resources: ["*"], verbs: [impersonate]}
"#;

/// A cluster with a hub that dials it and another one that it has dialled.
#[derive(Debug)]
pub(crate) struct Ways<'a> {
    cluster: &'a Cluster,
    dialling: Box<dyn AnyHub>,
    tunnelled: Tunnelled<'a>,
    agent: Process,
}

impl<'a> Ways<'a> {
    /// Starts both hubs and the agent; both have copied the cluster when this returns.
    #[track_caller]
    pub(crate) fn start(world: &'a World, cluster: &'a Cluster) -> Self {
        let dialling = world.another_hub();
        dialling
            .join(NAME, &cluster.name, &cluster.kubeconfig())
            .expect_success();
        let tunnelled = Tunnelled::start(world, cluster);
        let agent = tunnelled.agent();
        let ways = Self {
            cluster,
            dialling,
            tunnelled,
            agent,
        };
        for hub in ways.hubs() {
            hub.wait_for_child(NAME);
        }
        ways
    }

    /// The hub that dials the cluster, and the one that it has dialled.
    pub(crate) fn hubs(&self) -> [&dyn AnyHub; 2] {
        [&*self.dialling, &self.tunnelled.hub]
    }

    /// A kubeconfig with [`CONTEXTS`] for somebody with this name, who may do everything in the cluster and nothing on the hubs
    /// but enter its root, as everybody may, and speak for others there, which a hub judges before the cluster does.
    #[track_caller]
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        let there = format!("--user={user}");
        let everything = [
            "create",
            "clusterrolebinding",
            user,
            "--clusterrole=cluster-admin",
            &there,
        ];
        self.cluster.kubectl().ok(everything);
        let mut servers = vec![(
            self.cluster.server().to_owned(),
            identity::authority(self.cluster.folder()),
        )];
        for hub in self.hubs() {
            let root = hub.root();
            root.ok([
                "create",
                "clusterrole",
                user,
                "--verb=get,create,update,patch,delete",
                "--resource=managedclusters.umbra.dev/proxy",
            ]);
            let speaker = format!("{user}-speaks-for-others");
            root.apply(&format!("{ANYBODY}metadata: {{name: {speaker}}}\n"));
            let role = |name: &str| format!("--clusterrole={name}");
            // Whoever is spoken for is judged at the door, too.
            let everybody = "--group=system:authenticated";
            root.ok(["create", "clusterrolebinding", user, &role(user), everybody]);
            root.ok(["create", "clusterrolebinding", &speaker, &role(&speaker), &there]);
            servers.push((hub.cluster_url(NAME), identity::authority(hub.folder())));
        }
        let credentials: Vec<Credential> = servers
            .iter()
            .map(|(_, authority)| Credential::Certificate(identity::certificate(authority, user, &[])))
            .collect();
        let contexts: Vec<Context<'_>> = CONTEXTS
            .into_iter()
            .zip(servers.iter().zip(&credentials))
            .map(|(name, ((server, authority), credential))| Context {
                name,
                server: server.clone(),
                authority_pem: authority.certificate_pem(),
                credential,
            })
            .collect();
        identity::write_kubeconfig(&environment::folder(user).join("kubeconfig"), &contexts)
    }

    /// The cluster leaves both hubs.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.dialling.leave(NAME).expect_success();
        self.agent.stop();
        self.tunnelled.hub.leave(NAME).expect_success();
        self.cluster.kubectl().ok("delete namespace umbra-agent --timeout=90s");
    }
}
