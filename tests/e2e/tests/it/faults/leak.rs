//! Faults that come and go: nothing of them is left in the hub.

use std::time::Duration;

use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::faults::attempt::Client;
use umbra_e2e::faults::proxy::{Fault, FaultProxy};
use umbra_e2e::faults::resources::Resources;
use umbra_e2e::hub::Hub;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::scene::{Scene, proxy_before, register, server_at};

/// The child.
const NAME: &str = "leaky";
/// How long a client waits in a cycle before it hangs up.
const PATIENCE: Duration = Duration::from_millis(150);
/// What may come and go while nothing leaks: connections of the probes, of the pools and of whoever asks.
const DESCRIPTORS: usize = 8;
/// The same of tasks, of which a connection has two and a request one.
const TASKS: usize = 24;
/// What memory may grow by, in KiB: fragments and caches that fill once. A leak of 100 KiB in each of 1,000 cycles is more.
const MEMORY: usize = 64 << 10;
/// What is left over after the last cycle ends within the longest of the deadlines: 60 s for requests and for idle connections.
const SETTLED: Duration = Duration::from_secs(180);

/// One after the other, in the cycles.
const FAULTS: [Fault; 7] = [
    Fault::Mute,
    Fault::Dropped,
    Fault::Reset(4 << 10),
    Fault::Refused,
    Fault::Expired,
    Fault::Slow(2 << 10),
    Fault::Lossy,
];

#[test]
fn faults_leave_nothing_behind() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.leak");
    let cycles: usize = std::env::var("FAULTS_CYCLES")
        .ok()
        .and_then(|cycles| cycles.parse().ok())
        .unwrap_or(21);
    let hub = Hub::start(world.programs, &[]);
    let cluster = &world.children[0];
    let proxy = proxy_before(cluster);
    register(&hub, NAME, cluster, &server_at(&proxy));
    hub.wait_for_child(NAME);
    let client = Client::administrator(&hub);
    // Everything that fills once has been filled.
    for fault in FAULTS {
        cycle(&client, &proxy, fault);
    }
    let root = hub.root();
    let before = settled(&hub, None);
    for number in 0..cycles {
        cycle(&client, &proxy, FAULTS[number % FAULTS.len()]);
    }
    let after = settled(&hub, Some(before));
    assert!(root.ok("get managedclusters").contains(NAME));
    let grown = after.memory.saturating_sub(before.memory);
    item.measure(
        &format!("{cycles} cycles: before {before}; after {after}"),
        grown < MEMORY,
    );
}

/// What the hub holds once nobody asks for anything; where it is known what that was before, once that is so again.
fn settled(hub: &Hub, before: Option<Resources>) -> Resources {
    let root = hub.root();
    let mut last: Option<Resources> = None;
    wait::until("what the hub holds", SETTLED, || {
        let now = Resources::of(hub.id(), &root);
        let (same, text) = match (before, last) {
            (Some(before), _) => {
                let flat = now.descriptors <= before.descriptors + DESCRIPTORS && now.tasks <= before.tasks + TASKS;
                (flat, format!("before {before}, now {now}"))
            }
            // Nothing that a fault has left ends any more: it has been the same for a while.
            (None, Some(last)) => (
                now.descriptors == last.descriptors && now.tasks == last.tasks,
                now.to_string(),
            ),
            (None, None) => (false, now.to_string()),
        };
        if same {
            return Ok(now);
        }
        last = Some(now);
        std::thread::sleep(Duration::from_secs(2));
        Err(text)
    })
}

/// A fault begins, clients ask and hang up, it ends, and the child serves.
fn cycle(client: &Client, proxy: &FaultProxy, fault: Fault) {
    let paths = [
        Scene::inside(NAME, "/api/v1/namespaces/default"),
        Scene::inside(NAME, "/openapi/v2"),
        Scene::inside(NAME, "/api/v1/configmaps?watch=true"),
        Scene::across("views", "/api/v1/namespaces/default/secrets"),
        Scene::across("views", "/api/v1/configmaps?watch=true"),
    ];
    let exec = Scene::inside(
        NAME,
        "/api/v1/namespaces/default/pods/none/exec?command=true&stdout=true",
    );
    proxy.set(fault);
    std::thread::scope(|scope| {
        for path in &paths {
            scope.spawn(move || client.get(path, PATIENCE));
        }
        scope.spawn(|| client.upgrade(&exec, PATIENCE));
    });
    proxy.set(Fault::None);
    wait::until("the child serves again", wait::DEADLINE, || {
        let attempt = client.get(&paths[0], Duration::from_secs(10));
        if attempt.status == Some(200) {
            Ok(())
        } else {
            Err(format!("{attempt:?}"))
        }
    });
}
