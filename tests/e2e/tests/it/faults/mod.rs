//! What happens to a hub when the way to a child, or the child, fails: whatever is asked ends in time and says which cluster it
//! is, nothing becomes a deletion, other children do not notice, and it recovers by itself.
//!
//! One cluster is registered once for each fault, with a proxy of its own before it, so that all faults are there at the same
//! time; another cluster is the child that has none. A hub of its own, because `all` is all of these.

mod latency;
mod leak;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::faults::attempt::{Attempt, Client};
use umbra_e2e::faults::proxy::{Fault, FaultProxy};
use umbra_e2e::hub::Hub;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use latency::Latency;

const NAMESPACE: &str = "faults";
/// The child without a fault.
const OTHER: &str = "other";
/// What requests ask for as their deadline (`?timeout=`), in seconds.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What a request may take beyond its deadline: the TLS handshake of the client and the answer, on a machine that does other
/// things at the same time. Far below every other deadline on the way (5 s to connect, 60 s for requests).
const SLACK: Duration = Duration::from_secs(2);
/// What an `exec` may take until its connection has failed, which has no deadline of its own before 60 s: twice 5 s to connect, and
/// 5 s to ask which cluster answers.
const CONNECTING: Duration = Duration::from_secs(17);
/// How long a client waits that should not have to.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a child counts as unreachable: five probes of at most 5 s, with pauses of up to 10 s, twice over.
const OPENED: Duration = Duration::from_secs(150);

/// A fault, and what there has to be of it.
struct Case {
    name: &'static str,
    item: &'static str,
    fault: Fault,
    /// The reason of the condition `Reachable`, where no request gets through.
    reason: Option<&'static str>,
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
const CASES: [Case; 8] = [
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
struct Scene {
    hub: Hub,
    client: Client,
    proxies: Vec<(&'static Case, FaultProxy)>,
}

impl Scene {
    fn start(world: &World) -> Self {
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

    fn begin(&self, world: &World) {
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

    fn end(&self, world: &World) {
        for (case, proxy) in &self.proxies {
            proxy.set(Fault::None);
            if case.name == "dns" {
                register(&self.hub, case.name, &world.children[0], &server_at(proxy));
            }
        }
    }

    fn names() -> impl Iterator<Item = &'static str> {
        CASES.iter().map(|case| case.name).chain([OTHER])
    }

    /// A path of the root of a cluster.
    fn inside(cluster: &str, path: &str) -> String {
        with_timeout(&format!("managedclusters/{cluster}/proxy{path}"))
    }

    /// A path of the root of all children.
    fn across(root: &str, path: &str) -> String {
        with_timeout(&format!("{root}/all/proxy{path}"))
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

    fn watch(&self) -> Process {
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
    fn reachable(&self, name: &str, status: &str) -> Result<(String, String), String> {
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

fn with_timeout(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!(
        "/apis/umbra.dev/v1alpha1/{path}{separator}timeout={}s",
        TIMEOUT.as_secs()
    )
}

fn proxy_before(cluster: &Cluster) -> FaultProxy {
    FaultProxy::start(address_of(cluster), &identity::authority(cluster.folder()))
}

fn address_of(cluster: &Cluster) -> SocketAddr {
    let address = cluster.server().trim_start_matches("https://").trim_end_matches('/');
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn server_at(proxy: &FaultProxy) -> String {
    format!("https://127.0.0.1:{}", proxy.port())
}

/// Registers a cluster under a name, at an address. `umbra join` would refuse the same cluster for a second time.
fn register(hub: &Hub, name: &str, cluster: &Cluster, server: &str) {
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
    // What `umbra join` does.
    cluster.kubectl().apply(
        r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-faults}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'umbra:admins'}]
",
    );
}

#[test]
fn faults_stay_where_they_are_and_end() {
    let Some(world) = World::shared() else { return };
    let items: Vec<Item> = CASES.iter().map(|case| Item::open(case.item)).collect();
    let (others, restart) = (
        Item::open("children.faults.others"),
        Item::open("children.faults.restart"),
    );
    let scene = Scene::start(&world);
    let mut watch = scene.watch();

    let before = Latency::measure(&scene);
    scene.begin(&world);
    let began = Instant::now();
    let during = Latency::measure(&scene);
    let at_once: Vec<String> = CASES.iter().map(|case| requests(&scene, case)).collect();
    across_all(&scene);
    let told: Vec<String> = CASES.iter().map(|case| told(&scene, case, began)).collect();
    let (ratio, within) = during.against(&before);

    // All of it ends, without anybody's doing. Who has watched all the time has missed nothing.
    scene.end(&world);
    let healed = Instant::now();
    let recovered = all_recover(&scene, healed);
    changes_arrive(&scene, &world, &mut watch, "once");
    let watched = stop(watch);
    assert!(!watched.contains("DELETED"), "{watched}");

    scene.begin(&world);
    let restarted = restarted(&scene);
    let mut watch = scene.watch();
    scene.end(&world);
    changes_arrive(&scene, &world, &mut watch, "twice");
    let watched = stop(watch);
    assert!(!watched.contains("DELETED"), "{watched}");

    for (((item, at_once), told), recovered) in items.into_iter().zip(at_once).zip(told).zip(recovered) {
        item.pass(&format!(
            "{at_once}; {told}serves {:.0} s after",
            recovered.as_secs_f64()
        ));
    }
    others.measure(&ratio, within);
    restart.pass(&restarted);
    for cluster in &world.children {
        cluster.kubectl().ok(["delete", "namespace", NAMESPACE, "--wait=false"]);
    }
}

/// Ends a watch, for what it has told.
fn stop(mut watch: Process) -> String {
    assert!(watch.ended().is_none(), "the watch goes on\n{}", watch.output());
    watch.stop();
    watch.stdout()
}

/// Sends requests to a child that has its fault, and says how they ended.
fn requests(scene: &Scene, case: &Case) -> String {
    let small = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/seen");
    let exec = format!("/api/v1/namespaces/{NAMESPACE}/pods/none/exec?command=true&stdout=true");
    let large = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let paths = [small.as_str(), "/openapi/v2", large].map(|path| Scene::inside(case.name, path));
    let exec = Scene::inside(case.name, &exec);
    let client = &scene.client;
    let attempts: Vec<Attempt> = std::thread::scope(|scope| {
        let gets: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || client.get(path, PATIENCE)))
            .collect();
        let upgrade = scope.spawn(|| client.upgrade(&exec, PATIENCE));
        let all = gets.into_iter().chain([upgrade]);
        all.map(|attempt| attempt.join().expect("the hub listens")).collect()
    });
    for attempt in &attempts {
        if attempt.path.contains("/exec") {
            assert!(!attempt.given_up && attempt.took < CONNECTING, "{attempt:?}");
        } else {
            ends_in_time(case.name, attempt);
        }
        match (case.reason, attempt.status) {
            // No way leads there: a Status that names the cluster.
            (Some(_), status) => {
                assert!(
                    matches!(status, Some(502..=504)) && attempt.whole && attempt.text.contains(case.name),
                    "{}: {attempt:?}",
                    case.name
                );
            }
            // What does not come to its end does not look as if it had.
            (None, Some(200)) => {
                let json = attempt.text.trim_end().ends_with('}') || attempt.text.trim_end().ends_with("0");
                assert!(!attempt.whole || json, "{}: {}", case.name, attempt.path);
            }
            (None, _) => {}
        }
    }
    if case.fault == Fault::Lossy {
        assert!(
            attempts[0].status == Some(200) && attempts[0].whole,
            "{:?}",
            attempts[0]
        );
    }
    let longest = attempts.iter().map(|attempt| attempt.took).max().unwrap_or_default();
    let whole = attempts
        .iter()
        .filter(|one| one.whole && one.status == Some(200))
        .count();
    format!(
        "{} requests ended within {:.1} s, {whole} well",
        attempts.len(),
        longest.as_secs_f64()
    )
}

#[track_caller]
fn ends_in_time(name: &str, attempt: &Attempt) {
    assert!(
        !attempt.given_up && attempt.took < TIMEOUT + SLACK,
        "{name}: {} hangs past its deadline: {:?}, {:?}",
        attempt.path,
        attempt.status,
        attempt.took
    );
}

/// Asks the roots of all children: they answer in time, with what is known of each.
fn across_all(scene: &Scene) {
    let copies = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let live = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let view = scene.client.get(&Scene::across("views", &copies), PATIENCE);
    ends_in_time("view", &view);
    for name in Scene::names() {
        assert!(view.text.contains(&format!("seen@{name}\"")), "{name} is in {view:?}");
    }
    let asked = scene.client.get(&Scene::across("views", &live), PATIENCE);
    ends_in_time("view, live", &asked);
    assert!(
        asked.status == Some(200) && asked.text.contains(&format!("live@{OTHER}\"")),
        "{asked:?}"
    );
    let fleet = scene.client.get(&Scene::across("fleets", &copies), PATIENCE);
    ends_in_time("fleet", &fleet);
    assert_eq!(fleet.status, Some(200), "{fleet:?}");
    let clusters = scene.client.get("/apis/umbra.dev/v1alpha1/managedclusters", PATIENCE);
    assert_eq!(clusters.status, Some(200), "{clusters:?}");
}

/// Waits until the condition of a child says what is wrong, where requests cannot get through; they end at once then.
fn told(scene: &Scene, case: &Case, since: Instant) -> String {
    let Some(reason) = case.reason else {
        return String::new();
    };
    let name = case.name;
    wait::until(&format!("{name} is not reachable: {reason}"), OPENED, || {
        let (found, message) = scene.reachable(name, "False")?;
        if found == reason {
            Ok(())
        } else {
            Err(format!("{found}: {message}"))
        }
    });
    let after = since.elapsed();
    let path = Scene::inside(name, "/api/v1/namespaces");
    let refused = scene.client.get(&path, PATIENCE);
    assert!(
        refused.status == Some(503) && refused.text.contains(name) && refused.took < SLACK,
        "{refused:?}"
    );
    format!("{reason} after {:.0} s; ", after.as_secs_f64())
}

/// Kills the hub while all faults are there, and starts it again.
fn restarted(scene: &Scene) -> String {
    scene.hub.kill();
    let began = Instant::now();
    scene.hub.start_again();
    let ready = began.elapsed();
    scene.hub.wait_for_child(OTHER);
    let serves = began.elapsed();
    across_all(scene);
    for case in &CASES {
        let path = Scene::inside(case.name, "/api/v1/namespaces");
        ends_in_time(case.name, &scene.client.get(&path, PATIENCE));
    }
    format!(
        "ready after {:.1} s, a child without a fault after {:.1} s, all copies there",
        ready.as_secs_f64(),
        serves.as_secs_f64()
    )
}

/// Waits for all children at the same time.
fn all_recover(scene: &Scene, since: Instant) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let waiting: Vec<_> = CASES
            .iter()
            .map(|case| scope.spawn(move || recovers(scene, case, since)))
            .collect();
        let recovered = waiting.into_iter().map(std::thread::ScopedJoinHandle::join);
        recovered.map(|after| after.expect("it serves again")).collect()
    })
}

/// Waits until a child serves again, and says after how long.
fn recovers(scene: &Scene, case: &Case, since: Instant) -> Duration {
    let path = Scene::inside(case.name, "/api/v1/namespaces");
    wait::until(&format!("{} serves again", case.name), wait::DEADLINE, || {
        let attempt = scene.client.get(&path, PATIENCE);
        if attempt.status == Some(200) && attempt.whole {
            Ok(())
        } else {
            Err(format!("{attempt:?}"))
        }
    });
    let after = since.elapsed();
    wait::until(&format!("{} is reachable", case.name), wait::DEADLINE, || {
        scene.reachable(case.name, "True").map(drop)
    });
    after
}

/// What changes in a child comes to those who have watched all the time.
fn changes_arrive(scene: &Scene, world: &World, watch: &mut Process, changed: &str) {
    let change = json!({"data": {"changed": changed}}).to_string();
    for cluster in &world.children {
        cluster.kubectl().ok([
            "patch",
            "configmap",
            "seen",
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            &change,
        ]);
    }
    watch.wait_for("the change of every child", |text| {
        Scene::names().all(|name| {
            text.lines()
                .any(|line| line.starts_with("MODIFIED") && line.contains(&format!("seen@{name} ")))
        })
    });
    let view = scene.hub.view();
    for name in Scene::names() {
        let copies = view.ok([
            "get",
            "configmap",
            &format!("seen@{name}"),
            "-n",
            NAMESPACE,
            "-o",
            "json",
        ]);
        assert!(copies.contains(&format!("\"changed\": \"{changed}\"")), "{copies}");
    }
}
