//! Two replicas: either serves, and either goes on when the other ends.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::{admit, namespaces};

/// How long the watch lives that has to live long, in seconds; 100 in the long form.
const WATCH_VARIABLE: &str = "AGGREGATED_WATCH_SECONDS";

#[test]
fn a_watch_through_either_replica_lives_long_and_delivers() {
    let Some(hub) = Aggregated::exclusive() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.watch");
    let namespace = "aggregated-watch";
    namespaces(&world, namespace);
    admit(&hub, &world, namespace, "wanda", "wanda");
    let wanda = hub.certificate_user("wanda", &[]);
    let view = wanda.context("view").namespace(namespace);
    let north = world.children[0].kubectl().namespace(namespace);
    let seconds: u64 = std::env::var(WATCH_VARIABLE)
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(3);
    let mut shortest = Duration::MAX;
    for replica in 0..hub.replicas() {
        hub.lead_to(Some(replica));
        let begun = Instant::now();
        let mut watch = wait::until("the watch", wait::DEADLINE, || {
            // The API server finds out at the first request that its connection has ended.
            let outcome = view.run("get configmaps -o name");
            if !outcome.stdout.contains("kube-root-ca.crt@south") {
                return Err(outcome.to_string());
            }
            Ok(view.start("get configmaps -w --no-headers -o custom-columns=NAME:.metadata.name"))
        });
        watch.wait_for("the beginning", |text| text.contains("kube-root-ca.crt@south"));
        north.ok(format!("create configmap early-{replica}"));
        watch.wait_for("the first event", |text| {
            text.contains(&format!("early-{replica}@north"))
        });
        let quiet = Duration::from_secs(seconds).saturating_sub(begun.elapsed());
        // Nothing happens for as long as somebody wants to know that nothing ends it.
        std::thread::sleep(quiet);
        view.ok(format!("create configmap late-{replica}@south"));
        watch.wait_for("the last event", |text| text.contains(&format!("late-{replica}@south")));
        shortest = shortest.min(begun.elapsed());
        watch.stop();
    }
    hub.lead_to(None);
    item.pass(&format!("each of 2 replicas delivers after {} s", shortest.as_secs()));
}

/// Within how long another replica goes on with what a dead one did.
const TAKEOVER: Duration = Duration::from_secs(15);

#[test]
fn another_replica_goes_on_when_one_is_killed() {
    let Some(hub) = Aggregated::exclusive() else { return };
    let Some(world) = World::shared() else { return };
    let (item, stop) = (Item::open("aggregated.replicas"), Item::open("aggregated.stop"));
    let namespace = "aggregated-replicas";
    namespaces(&world, namespace);
    let view = hub.view().namespace(namespace);
    let authority = hub.authority_pem();
    let mut longest = Duration::ZERO;
    // Each once: whichever copies a child and plans a fleet, it is among them.
    for replica in 0..hub.replicas() {
        hub.end(replica, Signal::KILL);
        longest = longest.max(goes_on(&world, &view, namespace, &format!("killed-{replica}")));
        hub.start_again(replica);
        hub.wait_until_available();
    }
    let ended = hub.end(0, Signal::TERM);
    assert!(ended.success(), "{ended}\n{}", hub.output());
    let moved = goes_on(&world, &view, namespace, "ended");
    hub.start_again(0);
    hub.wait_until_available();
    stop.pass(&format!("goes on after {:.1} s", moved.as_secs_f64()));
    assert_eq!(hub.authority_pem(), authority, "the authority is the same");
    item.measure(
        &format!("{:.1} s after kill -9, each of 2 replicas", longest.as_secs_f64()),
        longest < TAKEOVER,
    );
}

/// Changes something in every child, and waits until the view has it: everything, and nothing twice. How long that took.
#[track_caller]
fn goes_on(world: &World, view: &Kubectl, namespace: &str, name: &str) -> Duration {
    let begun = Instant::now();
    for child in &world.children {
        let kubectl = child.kubectl().namespace(namespace);
        kubectl.ok(["create", "configmap", name]);
    }
    let expected = world
        .children
        .each_ref()
        .map(|child| format!("configmap/{name}@{}", child.name));
    wait::until("what has happened meanwhile", wait::DEADLINE, || {
        let seen = crate::sorted_lines(&view.run("get configmaps -o name").stdout);
        let found = seen.iter().filter(|line| line.contains(name));
        if found.eq(expected.iter()) {
            Ok(())
        } else {
            Err(seen.join("\n"))
        }
    });
    begun.elapsed()
}

#[test]
fn a_replica_whose_port_is_in_use_says_so() {
    let Some(hub) = Aggregated::shared() else { return };
    let item = Item::open("aggregated.main.errors.port");
    let (port, outcome) = hub.another_at_the_same_port();
    crate::errors::says(
        &outcome.expect_failure(),
        &[&port.to_string(), "in use", "choose another address", "--secure-port"],
    );
    item.pass("names the port and the flag");
}
