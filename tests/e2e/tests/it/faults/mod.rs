//! What happens to a hub when the way to a child, or the child, fails: whatever is asked ends in time and says which cluster it
//! is, nothing becomes a deletion, other children do not notice, and it recovers by itself.
//!
//! One cluster is registered once for each fault, with a proxy of its own before it, so that all faults are there at the same
//! time; another cluster is the child that has none. A hub of its own, because `all` is all of these.

mod latency;
mod leak;
mod scene;

use std::time::{Duration, Instant};

use serde_json::json;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::faults::attempt::Attempt;
use umbra_e2e::faults::proxy::Fault;
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use latency::Latency;
use scene::{CASES, Case, NAMESPACE, OTHER, Scene, TIMEOUT};

/// What a request may take beyond its deadline: the TLS handshake of the client and the answer, on a machine that does other
/// things at the same time. Far below the 60 s that requests have without a deadline of their own.
const SLACK: Duration = Duration::from_secs(10);
/// What an `exec` may take until its connection has failed, which has no deadline of its own before 60 s: twice 5 s to connect, and
/// 5 s to ask which cluster answers, and as much again on a busy machine.
const CONNECTING: Duration = Duration::from_secs(30);
/// How long a client waits that should not have to.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a child counts as unreachable: five probes of at most 5 s, with pauses of up to 10 s, twice over.
const OPENED: Duration = Duration::from_secs(150);

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

    let (latency, began) = Latency::measure(&scene, &world);
    let at_once: Vec<String> = CASES.iter().map(|case| requests(&scene, case)).collect();
    across_all(&scene);
    let told: Vec<String> = CASES.iter().map(|case| told(&scene, case, began)).collect();

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
    let (figure, within) = latency.judged();
    others.measure(&figure, within);
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
        // None at all: the answer of the child had begun, and broke before the hub had sent on any of it.
        let answered = matches!(attempt.status, Some(200 | 404) | None);
        if case.reason.is_some() || !answered {
            // The hub says which cluster does not answer.
            let named = matches!(attempt.status, Some(502..=504)) && attempt.text.contains(case.name);
            assert!(named && attempt.whole, "{}: {attempt:?}", case.name);
        } else {
            // What does not come to its end does not look as if it had.
            let ends = attempt.text.trim_end().ends_with(['}', '0']);
            assert!(!attempt.whole || ends, "{}: {}", case.name, attempt.path);
        }
    }
    if case.fault == Fault::Lossy {
        // It is slow, and no failure. Megabytes of the document before it may still be on the way.
        let small = Scene::inside_within(case.name, &small, PATIENCE);
        let attempt = client.get(&small, PATIENCE + SLACK);
        assert!(attempt.status == Some(200) && attempt.whole, "{attempt:?}");
    }
    let longest = attempts.iter().map(|attempt| attempt.took).max().unwrap_or_default();
    let came = attempts.iter().map(|attempt| match attempt.status {
        Some(status) if attempt.whole => status.to_string(),
        Some(status) => format!("{status} broken off"),
        None => "none".to_owned(),
    });
    let came: Vec<String> = came.collect();
    format!("{} within {:.1} s", came.join(", "), longest.as_secs_f64())
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
    // What is stored of the cluster says how it was reached before.
    serves(scene, OTHER);
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
    serves(scene, case.name);
    let after = since.elapsed();
    wait::until(&format!("{} is reachable", case.name), wait::DEADLINE, || {
        scene.reachable(case.name, "True").map(drop)
    });
    after
}

/// Waits until requests to a child are answered.
fn serves(scene: &Scene, name: &str) {
    let path = Scene::inside(name, "/api/v1/namespaces");
    wait::until(&format!("{name} serves"), wait::DEADLINE, || {
        let attempt = scene.client.get(&path, PATIENCE);
        let served = attempt.status == Some(200) && attempt.whole;
        served.then_some(()).ok_or_else(|| format!("{attempt:?}"))
    });
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
