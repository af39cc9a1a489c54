//! A hub whose children are behind proxies that fail.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::faults::attempt::Client;
use umbra_e2e::faults::proxy::{Fault, FaultProxy};
use umbra_e2e::hub::Hub;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;

pub(super) const NAMESPACE: &str = "faults";
/// The child without a fault.
pub(super) const OTHER: &str = "other";
/// What requests ask for as their deadline (`?timeout=`), in seconds.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// A fault, and what there has to be of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) item: &'static str,
    pub(super) fault: Fault,
    /// The reason of the condition `Reachable`, where no request gets through.
    pub(super) reason: Option<&'static str>,
}

const fn case(name: &'static str, item: &'static str, fault: Fault, reason: Option<&'static str>) -> Case {
    Case {
        name,
        item,
        fault,
        reason,
    }
}

/// `dns` has no fault of its proxy: its server has a name that nobody knows.
pub(super) const CASES: [Case; 8] = [
    case("dropped", "children.faults.dropped", Fault::Dropped, Some("Timeout")),
    case("mute", "children.faults.mute", Fault::Mute, Some("Timeout")),
    case("slow", "children.faults.slow", Fault::Slow(16 << 10), None),
    case("reset", "children.faults.reset", Fault::Reset(48 << 10), None),
    case(
        "refused",
        "children.faults.refused",
        Fault::Refused,
        Some("ConnectionRefused"),
    ),
    case("lossy", "children.faults.loss", Fault::Lossy, None),
    case("dns", "children.faults.dns", Fault::None, Some("DNS")),
    case("expired", "children.faults.certificate", Fault::Expired, Some("TLS")),
];

/// A hub, the children behind proxies, and the other one.
pub(super) struct Scene {
    pub(super) hub: Hub,
    pub(super) client: Client,
    proxies: Vec<(&'static Case, FaultProxy)>,
}

impl Scene {
    pub(super) fn start(world: &World) -> Self {
        let [faulty, other] = &world.children;
        let hub = Hub::start(world.programs, &[]);
        register(&hub, OTHER, other, other.server());
        let proxies: Vec<_> = CASES.iter().map(|case| (case, proxy_before(faulty))).collect();
        for (case, proxy) in &proxies {
            register(&hub, case.name, faulty, &server_at(proxy));
        }
        for cluster in [faulty, other] {
            let kubectl = cluster.kubectl();
            kubectl.ok(["create", "namespace", NAMESPACE]);
            kubectl.ok(["create", "configmap", "seen", "-n", NAMESPACE, "--from-literal=a=1"]);
            kubectl.ok(["create", "secret", "generic", "live", "-n", NAMESPACE]);
        }
        for name in CASES.iter().map(|case| case.name).chain([OTHER]) {
            hub.wait_for_child(name);
        }
        let scene = Self {
            client: Client::administrator(&hub),
            hub,
            proxies,
        };
        scene.wait_for_copies();
        scene
    }

    pub(super) fn begin(&self, world: &World) {
        for (case, proxy) in &self.proxies {
            proxy.set(case.fault);
            if case.name == "dns" {
                register(
                    &self.hub,
                    case.name,
                    &world.children[0],
                    "https://dns.umbra-faults.invalid:6443",
                );
            }
        }
    }

    pub(super) fn end(&self, world: &World) {
        for (case, proxy) in &self.proxies {
            proxy.set(Fault::None);
            if case.name == "dns" {
                register(&self.hub, case.name, &world.children[0], &server_at(proxy));
            }
        }
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        CASES.iter().map(|case| case.name).chain([OTHER])
    }

    /// A path of the root of a cluster.
    pub(super) fn inside(cluster: &str, path: &str) -> String {
        Self::inside_within(cluster, path, TIMEOUT)
    }

    /// The same, which has that much time.
    pub(super) fn inside_within(cluster: &str, path: &str, timeout: Duration) -> String {
        with_timeout(&format!("managedclusters/{cluster}/proxy{path}"), timeout)
    }

    /// A path of the root of all children.
    pub(super) fn across(root: &str, path: &str) -> String {
        with_timeout(&format!("{root}/all/proxy{path}"), TIMEOUT)
    }

    fn wait_for_copies(&self) {
        let view = self.hub.view();
        wait::for_text(
            "every child is copied",
            || {
                view.run(["get", "configmaps", "-n", NAMESPACE, "-o", "name"])
                    .to_string()
            },
            |text| Self::names().all(|name| text.contains(&format!("/seen@{name}\n"))),
        );
    }

    pub(super) fn watch(&self) -> Process {
        let mut watch = self.hub.view().start([
            "get",
            "configmaps",
            "-n",
            NAMESPACE,
            "--watch",
            "--output-watch-events",
            "--no-headers",
        ]);
        watch.wait_for("what is there", |text| {
            Self::names().all(|name| text.contains(&format!("seen@{name} ")))
        });
        watch
    }

    /// The reason and the message of the condition `Reachable`, where it is `status`.
    pub(super) fn reachable(&self, name: &str, status: &str) -> Result<(String, String), String> {
        let cluster = self.hub.root().json(["get", "managedcluster", name]);
        let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|one| one["type"] == "Reachable");
        let text = |field: &str| {
            found
                .map_or("", |one| one[field].as_str().unwrap_or_default())
                .to_owned()
        };
        if text("status") == status {
            Ok((text("reason"), text("message")))
        } else {
            Err(cluster["status"]["conditions"].to_string())
        }
    }
}

fn with_timeout(path: &str, timeout: Duration) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!(
        "/apis/umbra.dev/v1alpha1/{path}{separator}timeout={}s",
        timeout.as_secs()
    )
}

pub(super) fn proxy_before(cluster: &Cluster) -> FaultProxy {
    FaultProxy::start(address_of(cluster), &identity::authority(cluster.folder()))
}

fn address_of(cluster: &Cluster) -> SocketAddr {
    let address = cluster.server().trim_start_matches("https://").trim_end_matches('/');
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

pub(super) fn server_at(proxy: &FaultProxy) -> String {
    format!("https://127.0.0.1:{}", proxy.port())
}

/// Registers a cluster under a name, at an address. `umbra join` would refuse the same cluster for a second time.
pub(super) fn register(hub: &Hub, name: &str, cluster: &Cluster, server: &str) {
    let authority = identity::authority(cluster.folder());
    let certificate = identity::certificate(&authority, "faults-hub", &["system:masters"]);
    let path = identity::write_kubeconfig(
        &environment::folder(name).join("kubeconfig"),
        &[Context {
            name,
            server: server.to_owned(),
            authority_pem: authority.certificate_pem(),
            credential: &Credential::Certificate(certificate),
        }],
    );
    let kubeconfig = std::fs::read_to_string(path).expect("it was written just now");
    let secret = format!("{name}-kubeconfig");
    let credential = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": secret, "namespace": "umbra-system"}, "stringData": {"kubeconfig": kubeconfig}});
    let registration = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": name},
        "spec": {"connection": {"server": server, "credentialsSecretRef": {"namespace": "umbra-system", "name": secret}}}});
    hub.root().apply(&format!("{credential}\n---\n{registration}\n"));
    // What `umbra join` does. By the server, because others do the same at the same time.
    cluster.kubectl().ok_with(
        r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-faults}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'umbra:admins'}]
",
        "apply --server-side -f -",
    );
}
