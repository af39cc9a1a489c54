//! A hub behind a real kube-apiserver: `umbra serve` with an APIService, the rights of an installation and no more, and the
//! children of the [`World`].

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::environment::{self, Programs};
use crate::hub::umbra;
use crate::identity::{self, Context, Credential};
use crate::kubectl::{Kubectl, Outcome};
use crate::process::Process;
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
    port: u16,
    process: Mutex<Process>,
}

static AGGREGATED: LazyLock<Option<RwLock<Aggregated>>> = LazyLock::new(|| {
    let world = World::shared()?;
    let hub = Aggregated::start(world.programs);
    for child in &world.children {
        hub.join(&child.name, &child.kubeconfig()).expect_success();
    }
    for name in CHILDREN {
        hub.wait_for_child(name);
    }
    Some(RwLock::new(hub))
});

/// Where the manifests are.
#[must_use]
pub fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base")
}

impl Aggregated {
    /// The hub with both children of the world, beside other tests; `None` where the programs are not there. To be asked for
    /// before the world.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn shared() -> Option<RwLockReadGuard<'static, Self>> {
        environment::programs()?;
        Some(AGGREGATED.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same without other tests, for those that kill umbra.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn exclusive() -> Option<RwLockWriteGuard<'static, Self>> {
        environment::programs()?;
        Some(AGGREGATED.as_ref()?.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn start(programs: &Programs) -> Self {
        let cluster = Cluster::start(programs, "aggregated");
        let port = environment::free_port();
        let kubectl = cluster.kubectl();
        for file in MANIFESTS {
            kubectl.ok(["apply", "-f", &manifests().join(file).to_string_lossy()]);
        }
        kubectl.apply(&api_service(port));
        let process = serve(programs, &cluster, port);
        let hub = Self {
            cluster,
            programs: programs.clone(),
            port,
            process: Mutex::new(process),
        };
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
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(process.ended().is_none(), "umbra serve ended\n{}", process.output());
            Err(format!("{seen}\n{}", process.output()))
        });
    }

    /// What umbra has printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).output()
    }

    /// Ends umbra with a signal, and starts it again with the same data and port.
    ///
    /// # Panics
    /// Where it does not end or start.
    pub fn restart(&mut self, signal: Signal) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        process.signal(signal);
        process.wait(wait::DEADLINE);
        *process = serve(&self.programs, &self.cluster, self.port);
    }

    /// The port of umbra itself, behind the hub's API server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
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
        format!(
            "{}/apis/umbra.dev/v1alpha1/{resource}/{name}/proxy",
            self.cluster.server()
        )
    }

    /// `umbra join` through the hub's API server.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn join(&self, name: &str, kubeconfig: &std::path::Path) -> Outcome {
        let mut command = umbra(&self.programs);
        command.args(["join", name, "--context", name, "--no-admin-binding", "--kubeconfig"]);
        command
            .arg(kubeconfig)
            .arg("--hub-kubeconfig")
            .arg(self.cluster.kubeconfig());
        Outcome::of(command, "")
    }

    fn wait_for_child(&self, name: &str) {
        let kubectl = self.cluster.kubectl();
        let path = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        wait::for_text(
            &format!("{name} is ready"),
            || kubectl.path(["managedcluster", name], path),
            |text| text == "True",
        );
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
}

/// Runs umbra as the service account of an installation.
fn serve(programs: &Programs, cluster: &Cluster, port: u16) -> Process {
    let folder = cluster.folder().join("umbra");
    let kubeconfig = cluster.folder().join("umbra.kubeconfig");
    let token = cluster
        .kubectl()
        .ok("create token umbra -n umbra-system --duration=24h")
        .trim()
        .to_owned();
    identity::write_kubeconfig(
        &kubeconfig,
        &[Context {
            name: "umbra",
            server: cluster.server().to_owned(),
            authority_pem: identity::authority(cluster.folder()).certificate_pem(),
            credential: &Credential::Token(token),
        }],
    );
    let mut command = umbra(programs);
    command
        .arg("serve")
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .arg("--data-dir")
        .arg(&folder)
        .args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()]);
    let mut process = Process::start_logged(command, &cluster.folder().join("umbra.log"));
    let start = std::time::Instant::now();
    while !process.stderr().contains("umbra serves on") {
        assert!(process.ended().is_none(), "umbra serve ended\n{}", process.output());
        assert!(start.elapsed() < wait::DEADLINE, "{}", process.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    process
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
