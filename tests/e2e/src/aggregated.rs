//! A hub behind a real kube-apiserver: two replicas of `umbra serve` on one etcd, with an APIService, the rights of an
//! installation and no more, and the children of the [`World`].
//!
//! What a Service with endpoints does is done by a [`Front`]: it leads each connection to a replica that takes it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;

use crate::any_hub::{AnyHub, Door};
use crate::cluster::Cluster;
use crate::environment::{self, Form, Programs};
use crate::front::Front;
use crate::identity::{self, Context, Credential};
use crate::kubectl::{Kubectl, Outcome};
use crate::replica::{self, Replica};
use crate::turn::Shared;
use crate::wait;
use crate::world::{CHILDREN, World};

/// What an installation applies, without what runs umbra: the tests run it.
pub const MANIFESTS: [&str; 4] = ["namespace.yaml", "service-account.yaml", "rbac.yaml", "roles.yaml"];

/// The hub cluster, and umbra behind it.
#[derive(Debug)]
pub struct Aggregated {
    /// The hub cluster.
    pub cluster: Cluster,
    programs: Programs,
    front: Front,
    replicas: [Replica; 2],
    flags: &'static [&'static str],
    crashes: AtomicUsize,
}

/// The names of the replicas.
const REPLICAS: [&str; 2] = ["first", "second"];

/// Beside a world whose hub is a standalone one.
static BESIDE: LazyLock<Option<Aggregated>> = LazyLock::new(|| {
    let world = World::started()?;
    let hub = Aggregated::start(world.programs, "aggregated", &[]);
    for child in &world.children {
        hub.join(&child.name, &child.name, &child.kubeconfig()).expect_success();
    }
    for name in CHILDREN {
        hub.wait_for_child(name);
    }
    Some(hub)
});

/// Where the manifests are.
#[must_use]
pub fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base")
}

impl Aggregated {
    /// The hub with both children of the world, beside other tests; `None` where the programs are not there. Where the world's
    /// hub is behind a kube-apiserver, it is that one.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn shared() -> Option<Shared<Self>> {
        environment::programs()?;
        Self::started().map(Shared::beside_others)
    }

    /// The same without other tests, for those that kill umbra.
    ///
    /// # Panics
    /// Where it cannot be started, and where the test has asked for something shared before.
    #[must_use]
    pub fn exclusive() -> Option<Shared<Self>> {
        environment::programs()?;
        Self::started().map(Shared::alone)
    }

    fn started() -> Option<&'static Self> {
        match environment::form() {
            Form::Standalone => BESIDE.as_ref(),
            Form::Aggregated => World::started()?.hub.aggregated(),
        }
    }

    /// Starts a hub cluster called `name` with umbra behind it, whose replicas get these flags, and no children.
    ///
    /// # Panics
    /// Where it does not become ready.
    #[must_use]
    pub fn start(programs: &Programs, name: &str, flags: &'static [&'static str]) -> Self {
        let cluster = Cluster::start(programs, name);
        let kubectl = cluster.kubectl();
        for file in MANIFESTS {
            kubectl.ok(["apply", "-f", &manifests().join(file).to_string_lossy()]);
        }
        let ports = REPLICAS.map(|_| environment::free_port());
        let front = Front::start(ports);
        kubectl.apply(&api_service(front.port()));
        // Both at once: they agree on keys and authority by themselves.
        let mut started = ports.iter().zip(REPLICAS);
        let replicas = REPLICAS.map(|_| {
            let (port, name) = started.next().expect("there are as many ports as names");
            Replica {
                name,
                port: *port,
                process: Mutex::new(replica::serve(programs, &cluster, name, *port, flags)),
            }
        });
        let hub = Self {
            cluster,
            programs: programs.clone(),
            front,
            replicas,
            flags,
            crashes: AtomicUsize::new(0),
        };
        for replica in &hub.replicas {
            replica.wait_until_it_serves();
        }
        hub.wait_until_available();
        hub
    }

    /// Waits until kube-apiserver says that it reaches umbra.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait_until_available(&self) {
        let path = r#"{.status.conditions[?(@.type=="Available")]}"#;
        let kubectl = self.cluster.kubectl();
        wait::until("the APIService is available", wait::DEADLINE, || {
            let seen = kubectl.path("apiservice v1alpha1.umbra.dev", path);
            if seen.contains(r#""status":"True""#) {
                return Ok(());
            }
            Err(format!("{seen}\n{}", self.output()))
        });
    }

    /// What the replicas have printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.replicas.iter().map(|replica| replica.process().output()).collect()
    }

    /// How many replicas there are.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Ends a replica with a signal, and says how it ended.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn end(&self, replica: usize, signal: Signal) -> ExitStatus {
        let mut process = self.replicas[replica].process();
        process.signal(signal);
        process.wait(wait::DEADLINE)
    }

    /// Starts a replica again that was ended, with the same port and an empty data directory.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start_again(&self, replica: usize) {
        let replica = &self.replicas[replica];
        let (name, port) = (replica.name, replica.port);
        *replica.process() = replica::serve(&self.programs, &self.cluster, name, port, self.flags);
        replica.wait_until_it_serves();
    }

    /// Tries to start one more replica at the port of the first, and says what came of it.
    ///
    /// # Panics
    /// Where it does not end.
    #[must_use]
    #[track_caller]
    pub fn another_at_the_same_port(&self) -> (u16, Outcome) {
        let port = self.replicas[0].port;
        let command = replica::command(&self.programs, &self.cluster, "one-too-many", port);
        (port, Outcome::of(command, ""))
    }

    /// Leads every new connection to one replica, as long as that lives, and ends all others; `None` leads to both in turn.
    pub fn lead_to(&self, replica: Option<usize>) {
        self.front.lead_to(replica.map(|replica| self.replicas[replica].port));
    }

    /// The port of one replica.
    #[must_use]
    pub fn replica_port(&self, replica: usize) -> u16 {
        self.replicas[replica].port
    }

    /// The port that leads to umbra itself, behind the hub's API server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.front.port()
    }

    /// The authority of umbra's own serving certificate.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn authority_pem(&self) -> String {
        let kubectl = self.cluster.kubectl().namespace("umbra-system");
        let encoded = kubectl.path("secret umbra-serving", r"{.data.ca\.crt}");
        let pem = BASE64
            .decode(&encoded)
            .unwrap_or_else(|error| panic!("{error}: {encoded}"));
        String::from_utf8(pem).expect("PEM is text")
    }

    /// The URL of a root, through the hub's API server.
    #[must_use]
    pub fn root_url(&self, resource: &str, name: &str) -> String {
        AnyHub::root_url(self, resource, name)
    }

    /// kubectl of somebody with a credential of the hub: the contexts `hub`, `view` (all), `fleet` (`team`), and one for each
    /// child.
    ///
    /// # Panics
    /// Where the kubeconfig cannot be written.
    #[must_use]
    #[track_caller]
    pub fn user(&self, name: &str, credential: &Credential) -> Kubectl {
        let authority = identity::authority(self.cluster.folder());
        let context = |name, server| Context {
            name,
            server,
            authority_pem: authority.certificate_pem(),
            credential,
        };
        let mut contexts = vec![
            context("hub", self.cluster.server().to_owned()),
            context("view", self.root_url("views", "all")),
            context("fleet", self.root_url("fleets", "team")),
        ];
        for child in CHILDREN {
            contexts.push(context(child, self.root_url("managedclusters", child)));
        }
        let path = environment::folder(name).join("kubeconfig");
        identity::write_kubeconfig(&path, &contexts);
        Kubectl::new(&self.programs, &path)
    }

    /// A user with a client certificate of the hub.
    ///
    /// # Panics
    /// Where it cannot be issued.
    #[must_use]
    #[track_caller]
    pub fn certificate_user(&self, name: &str, groups: &[&str]) -> Kubectl {
        let authority = identity::authority(self.cluster.folder());
        let certificate = identity::certificate(&authority, name, groups);
        self.user(name, &Credential::Certificate(certificate))
    }

    /// A user with a token of a service account of the hub, which is made in a namespace that is there.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn token_user(&self, namespace: &str, name: &str) -> Kubectl {
        let kubectl = self.cluster.kubectl().namespace(namespace);
        kubectl.ok(["create", "serviceaccount", name]);
        let token = kubectl.ok(["create", "token", name]);
        self.user(name, &Credential::Token(token.trim().to_owned()))
    }
}

impl AnyHub for Aggregated {
    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn url(&self) -> String {
        self.cluster.server().to_owned()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig()
    }

    fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    fn administrator(&self) -> &'static str {
        "kubernetes-admin"
    }

    fn doors(&self) -> Vec<Door> {
        let server = self.cluster.server();
        let port = server.rsplit(':').next().and_then(|port| port.parse().ok());
        vec![
            Door {
                name: "the hub's API server",
                port: port.unwrap_or_else(|| panic!("{server} has no port")),
                authority_pem: identity::authority(self.cluster.folder()).certificate_pem().to_owned(),
            },
            Door {
                name: "umbra itself",
                port: self.port(),
                authority_pem: self.authority_pem(),
            },
        ]
    }

    fn root(&self) -> Kubectl {
        self.cluster.kubectl().clone()
    }

    fn aggregated(&self) -> Option<&Aggregated> {
        Some(self)
    }

    /// The first replica, the second, and both in turn.
    fn crash(&self) {
        let killed: &[usize] = match self.crashes.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => &[0],
            1 => &[1],
            _ => &[0, 1],
        };
        for replica in killed {
            self.end(*replica, Signal::KILL);
        }
    }

    fn recover(&self) {
        for (number, replica) in self.replicas.iter().enumerate() {
            if replica.process().ended().is_some() {
                self.start_again(number);
            }
        }
        self.wait_until_available();
    }
}

/// A Service without endpoints that leads to this machine, and the APIService that names it.
fn api_service(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: umbra, namespace: umbra-system}}
spec: {{type: ExternalName, externalName: localhost}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1alpha1.umbra.dev}}
spec:
  group: umbra.dev
  version: v1alpha1
  groupPriorityMinimum: 1000
  versionPriority: 15
  service: {{name: umbra, namespace: umbra-system, port: {port}}}
"
    )
}
