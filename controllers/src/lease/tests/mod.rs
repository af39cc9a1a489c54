//! Replicas over one store, under tokio's paused clock.

mod replica;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use umbra_storage::WatchEvent;

use super::handle::Shared;
use super::record::{LeaseRecord, Place};
use super::{LeaseKey, LeaseKind, Leases, Membership, Timing};
use replica::{Replica, WORK};
use shared::Backend;

/// Within what time work moves.
const BOUND: Duration = Duration::from_secs(15);
/// Between two looks.
const STEP: Duration = Duration::from_millis(100);

fn clusters(count: usize) -> Vec<LeaseKey> {
    (0..count)
        .map(|number| LeaseKey::cluster(&format!("cluster-{number}")))
        .collect()
}

/// A lease that is held for a minute under this record.
pub(super) async fn granted(guard: umbra_storage::Guard) -> super::Held {
    let shared: Arc<Shared> = Arc::default();
    let mut lease = Leases::shared(Arc::clone(&shared)).lease(LeaseKey::cluster("east"));
    shared.extend(Instant::now() + Duration::from_secs(60));
    shared.grant(&LeaseKey::cluster("east"), guard);
    lease.acquire().await
}

/// Who holds what. Fails where two hold the same.
fn holders(replicas: &BTreeMap<usize, Replica>) -> BTreeMap<LeaseKey, String> {
    let mut holders = BTreeMap::new();
    for replica in replicas.values() {
        for key in replica.leases.held() {
            let other = holders.insert(key.clone(), replica.name.clone());
            assert_eq!(other, None, "{key} is held by two, one of them {}", replica.name);
        }
    }
    holders
}

/// Waits until every lease is held by a healthy replica, evenly; gives how long it took.
async fn settled(replicas: &BTreeMap<usize, Replica>, leases: usize) -> Duration {
    let started = Instant::now();
    loop {
        let holders = holders(replicas);
        let healthy: Vec<&Replica> = replicas.values().filter(|one| one.is_healthy()).collect();
        let count = |one: &&Replica| holders.values().filter(|holder| **holder == one.name).count();
        let counts: Vec<usize> = healthy.iter().map(count).collect();
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        if counts.iter().sum::<usize>() == leases && most - least <= 1 {
            return started.elapsed();
        }
        assert!(
            started.elapsed() < BOUND,
            "after {BOUND:?} the healthy replicas hold {counts:?} of {leases}"
        );
        tokio::time::sleep(STEP).await;
    }
}

/// Every piece of work was done by who held the lease in that moment.
fn work_was_done_by_holders(backend: &Backend) -> usize {
    let mut records: BTreeMap<String, LeaseRecord> = BTreeMap::new();
    let mut done = 0;
    for event in backend.log() {
        let WatchEvent::Put { entry, .. } = event else { continue };
        if let Some(Place::Lease(key)) = Place::parse(&entry.key) {
            records.insert(key.to_string(), serde_json::from_slice(&entry.value).unwrap());
        } else if let Some(key) = entry.key.strip_prefix(WORK) {
            let worker = std::str::from_utf8(&entry.value).unwrap();
            let holder = records[key].holder.split('_').next().unwrap();
            assert_eq!(worker, holder, "{key} at revision {}", entry.revision);
            done += 1;
        }
    }
    done
}

#[tokio::test(start_paused = true)]
async fn two_hundred_clusters_are_spread_evenly_and_move_in_time() {
    let backend = Backend::new();
    let keys = clusters(200);
    let mut replicas = BTreeMap::new();
    for number in 0..3 {
        replicas.insert(number, Replica::start(&backend, &format!("hub-{number}"), &keys));
        settled(&replicas, keys.len()).await;
    }
    let before = holders(&replicas);
    let killed = replicas.remove(&1).unwrap();
    let name = killed.name.clone();
    killed.kill().await;
    let took = settled(&replicas, keys.len()).await;
    assert!(
        took > Duration::from_secs(5),
        "a replica is not given up for one late heartbeat: {took:?}"
    );
    let after = holders(&replicas);
    for (key, holder) in before.iter().filter(|(_, holder)| **holder != name) {
        assert_eq!(after[key], *holder, "{key} had no reason to move");
    }
    // An orderly end is quick.
    replicas[&0].ask_to_leave();
    let leaving = Instant::now();
    while holders(&replicas).values().any(|holder| *holder != "hub-2") || holders(&replicas).len() < keys.len() {
        assert!(
            leaving.elapsed() < Timing::default().retry_period,
            "others wait for a replica that has left"
        );
        tokio::time::sleep(STEP).await;
    }
    assert!(work_was_done_by_holders(&backend) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_wakes_up_late_writes_nothing() {
    let backend = Backend::new();
    let keys = clusters(100);
    let mut replicas = BTreeMap::from([(0, Replica::start(&backend, "hub-0", &keys))]);
    settled(&replicas, keys.len()).await;
    // All write at about the same time, some faster than others: it is stopped with writes on their way.
    let before = backend.log().len();
    while backend.log().len() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    replicas[&0].set_stopped(true);
    replicas.insert(1, Replica::start(&backend, "hub-1", &keys));
    let others = |replicas: &BTreeMap<usize, Replica>| replicas[&1].leases.held().len();
    let started = Instant::now();
    while others(&replicas) < keys.len() {
        holders(&replicas);
        assert!(started.elapsed() < BOUND);
        tokio::time::sleep(STEP).await;
    }
    let (refused, revision) = (backend.refused.load(Ordering::Relaxed), backend.log().len());
    replicas[&0].set_stopped(false);
    settled(&replicas, keys.len()).await;
    assert!(
        backend.refused.load(Ordering::Relaxed) > refused,
        "it tried, in the moment it woke up"
    );
    assert!(backend.log().len() > revision);
    work_was_done_by_holders(&backend);
}

#[tokio::test(start_paused = true)]
async fn leases_that_nobody_wants_any_more_go() {
    let backend = Backend::new();
    let keys = clusters(3);
    let first = Replica::start(&backend, "hub-0", &keys);
    let replicas = BTreeMap::from([(0, first)]);
    settled(&replicas, 3).await;
    for (_, replica) in replicas {
        replica.kill().await;
    }
    let second = BTreeMap::from([(0, Replica::start(&backend, "hub-1", &keys[..1]))]);
    settled(&second, 1).await;
    let started = Instant::now();
    while backend.keys("/umbra/leases/held/") != [keys[0].path()] {
        assert!(started.elapsed() < 10 * BOUND, "{:?}", backend.keys("/umbra/leases/"));
        tokio::time::sleep(STEP).await;
    }
    assert_eq!(backend.keys("/umbra/leases/members/").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_should_have_a_lease_and_does_not_come_is_passed_over() {
    let backend = Backend::new();
    let keys = clusters(6);
    // It takes part, and wants nothing.
    let idle = Replica::start(&backend, "hub-0", &[]);
    let replicas = BTreeMap::from([(1, Replica::start(&backend, "hub-1", &keys))]);
    let started = Instant::now();
    while holders(&replicas).len() < keys.len() {
        assert!(started.elapsed() < 2 * BOUND);
        tokio::time::sleep(STEP).await;
    }
    // And stays so: nothing goes to and fro.
    let revision = |backend: &Backend| {
        let leases = |event: &&WatchEvent| event.key().is_some_and(|key| key.starts_with("/umbra/leases/held/"));
        backend.log().iter().filter(leases).count()
    };
    let before = revision(&backend);
    tokio::time::sleep(4 * BOUND).await;
    assert_eq!((holders(&replicas).len(), revision(&backend)), (keys.len(), before));
    assert!(idle.leases.held().is_empty());
}

#[tokio::test]
async fn a_sole_process_holds_everything_at_once() {
    let mut lease = Leases::sole().lease(LeaseKey::cluster("east"));
    let held = lease.acquire().await;
    let again = lease.acquire().await;
    assert!(held.is_valid() && again.is_valid());
    assert!(!held.lost().is_cancelled());
}

#[tokio::test]
async fn times_that_cannot_work_are_refused() {
    let store: Arc<dyn umbra_storage::Store> = Arc::new(umbra_storage::Embedded::in_memory());
    let timing = Timing {
        renew_deadline: Duration::from_secs(10),
        ..Timing::default()
    };
    assert!(Membership::new(store, "hub", timing).is_err());
}

/// What may happen to a replica.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Start,
    Kill,
    Leave,
    Stop,
    Continue,
    Cut,
    Mend,
}

/// Lets it happen; gives whether it changed anything.
async fn happen(
    happening: Happening,
    number: usize,
    replicas: &mut BTreeMap<usize, Replica>,
    backend: &Arc<Backend>,
    keys: &[LeaseKey],
) {
    replicas.retain(|_, replica| !replica.has_ended());
    let Some(replica) = replicas.get(&number) else {
        if matches!(happening, Happening::Start) {
            replicas.insert(number, Replica::start(backend, &format!("hub-{number}"), keys));
        }
        return;
    };
    match happening {
        Happening::Start => {}
        Happening::Kill => replicas.remove(&number).expect("it is there").kill().await,
        Happening::Leave => replica.ask_to_leave(),
        Happening::Stop => replica.set_stopped(true),
        Happening::Continue => replica.set_stopped(false),
        Happening::Cut => replica.set_connected(false),
        Happening::Mend => replica.set_connected(true),
    }
}

async fn history(script: Vec<(Happening, usize, u64)>) {
    let backend = Backend::new();
    let keys: Vec<LeaseKey> = clusters(7).into_iter().chain([LeaseKey::fleet("all")]).collect();
    let mut replicas = BTreeMap::new();
    let mut disturbed = Instant::now();
    for (happening, number, pause) in script {
        happen(happening, number, &mut replicas, &backend, &keys).await;
        disturbed = Instant::now();
        let until = disturbed + Duration::from_millis(pause);
        while Instant::now() < until {
            tokio::time::sleep(STEP).await;
            let holders = holders(&replicas);
            let healthy: Vec<&String> = replicas
                .values()
                .filter(|one| one.is_healthy())
                .map(|one| &one.name)
                .collect();
            if !healthy.is_empty() && disturbed.elapsed() > BOUND {
                for key in &keys {
                    let holder = holders.get(key);
                    assert!(
                        holder.is_some_and(|one| healthy.contains(&one)),
                        "{key} is held by {holder:?}"
                    );
                }
            }
        }
    }
    // In the end everybody is well, and there is one more.
    for replica in replicas.values() {
        replica.set_stopped(false);
        replica.set_connected(true);
    }
    replicas.insert(9, Replica::start(&backend, "hub-9", &keys));
    let clusters = |replica: &Replica| {
        let held = replica.leases.held().into_iter();
        held.filter(|key| key.kind == LeaseKind::Cluster).count()
    };
    let started = Instant::now();
    loop {
        let held = holders(&replicas).len();
        let healthy = replicas.values().filter(|one| one.is_healthy());
        let counts: Vec<usize> = healthy.map(clusters).collect();
        if held == keys.len() && counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1 {
            break;
        }
        assert!(started.elapsed() < BOUND, "{held} leases are held, clusters {counts:?}");
        tokio::time::sleep(STEP).await;
    }
    assert!(disturbed <= started);
    work_was_done_by_holders(&backend);
}

fn cases() -> u32 {
    let wanted = std::env::var("UMBRA_LEASE_CASES").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_holds_and_somebody_does_in_time(
        script in prop::collection::vec(
            (
                prop_oneof![
                    3 => Just(Happening::Start),
                    1 => Just(Happening::Kill),
                    1 => Just(Happening::Leave),
                    1 => Just(Happening::Stop),
                    1 => Just(Happening::Continue),
                    1 => Just(Happening::Cut),
                    1 => Just(Happening::Mend),
                ],
                0_usize..4,
                prop_oneof![0_u64..3_000, 3_000_u64..25_000],
            ),
            1..14,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(script));
    }
}

#[test]
fn nothing_is_held_where_all_work_is_left_to_others() {
    let leases = Leases::none();
    let mut lease = leases.lease(LeaseKey::cluster("north"));
    assert!(futures::FutureExt::now_or_never(lease.acquire()).is_none());
    assert!(leases.held().is_empty());
}
