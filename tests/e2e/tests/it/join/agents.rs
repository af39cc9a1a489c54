//! A hub, a cluster that joins it by tunnel, and agents that run beside the cluster as what its manifest lets them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use base64::Engine as _;
use umbra_e2e::any_hub::AnyHub;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::umbra;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;

use super::scene::GUEST;

pub(super) struct Agents<'a> {
    programs: &'a Programs,
    pub(super) hub: Box<dyn AnyHub>,
    /// The hub's own address: behind a kube-apiserver it is not that of the kube-apiserver.
    url: String,
    pub(super) cluster: &'a Cluster,
    folder: PathBuf,
}

/// An agent that answers probes.
pub(super) struct Agent {
    pub(super) process: Process,
    port: u16,
}

impl<'a> Agents<'a> {
    pub(super) fn new(world: &'a World, cluster: &'a Cluster) -> Self {
        let hub = world.another_hub();
        let folder = environment::folder("agents");
        let (url, authority_pem) = match hub.aggregated() {
            Some(aggregated) => (
                format!("https://127.0.0.1:{}", aggregated.port()),
                aggregated.authority_pem(),
            ),
            None => (
                hub.url(),
                identity::authority(hub.folder()).certificate_pem().to_owned(),
            ),
        };
        std::fs::write(folder.join("ca.crt"), authority_pem).expect("written");
        Self {
            programs: world.programs,
            hub,
            url,
            cluster,
            folder,
        }
    }

    /// `umbra join guest --tunnel` with flags.
    #[track_caller]
    pub(super) fn join(&self, flags: &[&str]) -> Outcome {
        let kubeconfig = self.hub.kubeconfig();
        let hub = [
            "join",
            GUEST,
            "--tunnel",
            "--hub-kubeconfig",
            &kubeconfig.to_string_lossy(),
        ];
        let address = ["--agent-hub", &self.url];
        self.hub.umbra(&[hub.as_slice(), &address, flags].concat())
    }

    /// The same, and applies what was printed.
    #[track_caller]
    pub(super) fn join_and_apply(&self, flags: &[&str]) {
        let manifest = self.join(flags).expect_success();
        let kubectl = self.cluster.kubectl();
        kubectl.ok_with(&manifest, "apply --server-side -f -");
        let token = kubectl.ok("create token umbra-agent -n umbra-agent --duration=2h");
        let authority = identity::authority(self.cluster.folder());
        identity::write_kubeconfig(
            &self.folder.join("kubeconfig"),
            &[Context {
                name: "own",
                server: self.cluster.server().to_owned(),
                authority_pem: authority.certificate_pem(),
                credential: &Credential::Token(token.trim().to_owned()),
            }],
        );
        let bootstrap = kubectl.path("secret umbra-agent-bootstrap -n umbra-agent", "{.data.token}");
        let bootstrap = base64::engine::general_purpose::STANDARD
            .decode(bootstrap)
            .expect("base64");
        std::fs::write(self.folder.join("token"), bootstrap).expect("written");
    }

    /// Another token, which agents find where the one before was.
    #[track_caller]
    pub(super) fn another_token(&self) {
        let token = self.join(&["--token-only"]).expect_success();
        std::fs::write(self.folder.join("token"), token.trim()).expect("written");
    }

    /// An agent as the manifest runs it, but for where.
    pub(super) fn agent(&self) -> Agent {
        let port = environment::free_port();
        let mut command = umbra(self.programs);
        command
            .args(["agent", "--hub", &self.url, "--cluster", GUEST, "--hub-ca-file"])
            .arg(self.folder.join("ca.crt"))
            .arg("--bootstrap-token-file")
            .arg(self.folder.join("token"))
            .arg("--kubeconfig")
            .arg(self.folder.join("kubeconfig"))
            .args(["--state-secret", "umbra-agent/umbra-agent-identity"])
            .args(["--health-port", &port.to_string()]);
        Agent {
            process: Process::start_logged(command, &self.folder.join("agent.log")),
            port,
        }
    }

    /// `umbra VERB guest` or another name.
    #[track_caller]
    pub(super) fn decide(&self, verb: &str, name: &str) -> Outcome {
        let kubeconfig = self.hub.kubeconfig();
        self.hub
            .umbra(&[verb, name, "--hub-kubeconfig", &kubeconfig.to_string_lossy()])
    }

    /// `umbra leave guest` with flags.
    #[track_caller]
    pub(super) fn leave(&self, flags: &[&str]) -> Outcome {
        let kubeconfig = self.hub.kubeconfig();
        let leave = ["leave", GUEST, "--hub-kubeconfig", &kubeconfig.to_string_lossy()];
        self.hub.umbra(&[leave.as_slice(), flags].concat())
    }
}

impl Agents<'_> {
    /// `umbra leave guest` by somebody who may do everything with the cluster but delete it.
    #[track_caller]
    pub(super) fn leave_as(&self, user: &str) -> Outcome {
        self.hub.root().apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {user}}}
rules:
- apiGroups: [umbra.dev]
  resources: ['*']
  verbs: [get, list, watch, patch, update]
- apiGroups: [umbra.dev]
  resources: [managedclusters/proxy]
  verbs: ['*']
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {user}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {user}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]
"
        ));
        let authority = identity::authority(self.hub.folder());
        let kubeconfig = identity::write_kubeconfig(
            &self.folder.join(user),
            &[Context {
                name: user,
                server: self.hub.url(),
                authority_pem: authority.certificate_pem(),
                credential: &Credential::Certificate(identity::certificate(&authority, user, &[])),
            }],
        );
        let visitor = Kubectl::new(self.programs, &kubeconfig);
        wait::until("the permissions count", wait::DEADLINE, || {
            let may = visitor.run("get managedclusters");
            match may.succeeded() {
                true => Ok(()),
                false => Err(may.to_string()),
            }
        });
        self.hub
            .umbra(&["leave", GUEST, "--hub-kubeconfig", &kubeconfig.to_string_lossy()])
    }
}

impl Agent {
    /// What a probe of the kubelet gets: the code and the text.
    pub(super) fn probe(&self, path: &str) -> String {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: pod\r\n\r\n").as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        match answer() {
            Ok(text) => {
                let code = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                format!("{code} {body}")
            }
            Err(error) => error.to_string(),
        }
    }
}
