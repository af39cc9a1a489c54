//! The same proofs for etcd: one member for what a store is, three for what happens when members die or stand still.
//!
//! | variable | what it is | default |
//! |---|---|---|
//! | `UMBRA_STORAGE_MODEL_OPERATIONS` | operations of the random run | 1,000 |
//! | `UMBRA_STORAGE_HISTORIES` | histories of each kind | 4 |
//! | `UMBRA_STORAGE_CRASH_ROUNDS` | members that are killed | 6 |

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clients::Clients;
use super::linearizable::{histories, one_history};
use crate::Store;
use crate::cache::{CacheOptions, CachedStore};
use crate::contract::etcd_servers::{EtcdServers, EtcdServersOptions, EtcdVersion};
use crate::contract::model::random::random;
use crate::contract::suite;
use crate::etcd::{Etcd, EtcdOptions};

const DEFAULT_OPERATIONS: usize = 1_000;
const DEFAULT_KILLS: usize = 6;
/// Members killed in one history. What a kill leaves open stays open to the end of the history, and every such write doubles
/// what the checker has to try.
const KILLS_PER_HISTORY: usize = 5;
/// Clients of a history with faults, and what each does between two of them.
const CLIENTS: u64 = 6;
const OPERATIONS_PER_FAULT: usize = 12;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

/// A store of these servers that nothing is in yet.
async fn connect(servers: &EtcdServers, prefix: &str) -> (Arc<dyn Store>, DropGuard) {
    let cancelled = CancellationToken::new();
    let options = EtcdOptions {
        prefix: prefix.to_owned(),
        history: None,
        ..EtcdOptions::new(servers.endpoints())
    };
    let store = Etcd::connect(options, &TaskTracker::new(), cancelled.clone()).await;
    (Arc::new(store.unwrap()), cancelled.drop_guard())
}

/// One member that does not wait for its disk: what it holds is lost with the machine and not with the process, and only
/// the latter ends here.
async fn one_member(version: EtcdVersion) -> Option<EtcdServers> {
    EtcdServersOptions::new(1, version)
        .flag("--unsafe-no-fsync")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_etcd_store_keeps_the_contract() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let item = umbra_show::Item::open("storage.contract.etcd");
    let functions = suite();
    for (index, function) in functions.iter().enumerate() {
        println!("{}", function.name);
        let (store, _guard) = connect(&servers, &format!("/contract-{index}")).await;
        (function.run)(store).await;
    }
    item.pass(&format!("{} functions", functions.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_are_those_of_the_model() {
    let Some(mut servers) = one_member(EtcdVersion::V36).await else {
        return;
    };
    let item = umbra_show::Item::open("storage.model.etcd");
    let operations = number("UMBRA_STORAGE_MODEL_OPERATIONS", DEFAULT_OPERATIONS);
    let (store, mut guard) = connect(&servers, "/model").await;
    let done = random(store, rand::random(), operations, async |_| {
        servers.kill(0);
        servers.restart(0).await;
        let (store, new) = connect(&servers, "/model").await;
        guard = new;
        store
    })
    .await;
    drop(guard);
    item.pass(&format!(
        "{} operations, server killed {} times",
        done.operations, done.reopened
    ));
}

/// What is done to a member.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Kill,
    Pause,
}

/// Makes one history during which members are struck one after another, and checks it.
async fn history_with_blows(
    servers: &mut EtcdServers,
    store: Arc<dyn Store>,
    prefix: &str,
    seed: u64,
    blows: &[Blow],
) -> Result<usize, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let history = Arc::new(Clients::new(store, prefix, 3).await);
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(history.watch().await);
    }
    for (round, blow) in (0_u64..).zip(blows) {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let seed = seed + round * CLIENTS + client;
            clients.spawn(Arc::clone(&history).work(seed, OPERATIONS_PER_FAULT));
        }
        // The leader is one in three; half of the blows are meant for it.
        let member = if random.random_bool(0.5) {
            servers.leader().await
        } else {
            random.random_range(0..3)
        };
        let strike = history.count() + random.random_range(0..30);
        while history.count() < strike && clients.try_join_next().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match blow {
            Blow::Kill => servers.kill(member),
            Blow::Pause => servers.pause(member),
        }
        while let Some(client) = clients.join_next().await {
            client.map_err(|error| error.to_string())?;
        }
        match blow {
            Blow::Kill => servers.restart(member).await,
            Blow::Pause => servers.resume(member),
        }
    }
    history.conclude(watches).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_etcd() {
    let Some(mut servers) = EtcdServers::start(3, EtcdVersion::V36).await else {
        return;
    };
    let item = umbra_show::Item::open("storage.linearizable.etcd");
    let (mut made, mut operations) = (0, 0);
    for round in 0..histories() {
        let seed = rand::random_range(0..1 << 32);
        let (store, _guard) = connect(&servers, &format!("/histories-{round}")).await;
        let (cached, _cache) = CachedStore::start(Arc::clone(&store), "/cached/", CacheOptions::default(), 1_000)
            .await
            .unwrap();
        let blows = [Blow::Pause, Blow::Kill];
        let results = [
            one_history(Arc::clone(&store), "/plain/", seed).await,
            one_history(cached, "/cached/", seed).await,
            history_with_blows(&mut servers, store, "/struck/", seed, &blows).await,
        ];
        for (result, kind) in results
            .into_iter()
            .zip(["plain", "behind the cache", "with members paused and killed"])
        {
            match result {
                Ok(count) => operations += count,
                Err(error) => panic!("{kind}, seed {seed}: {error}"),
            }
            made += 1;
        }
    }
    item.pass(&format!(
        "{operations} operations in {made} histories: plain, cached, members paused and killed"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_members_being_killed() {
    let Some(mut servers) = EtcdServers::start(3, EtcdVersion::V36).await else {
        return;
    };
    let item = umbra_show::Item::open("storage.crash.etcd");
    let kills = number("UMBRA_STORAGE_CRASH_ROUNDS", DEFAULT_KILLS);
    let (store, _guard) = connect(&servers, "/crash").await;
    let (mut left, mut operations, mut made) = (kills, 0, 0);
    while left > 0 {
        let blows = vec![Blow::Kill; left.min(KILLS_PER_HISTORY)];
        left -= blows.len();
        let seed = rand::random_range(0..1 << 32);
        let prefix = format!("/{made}/");
        match history_with_blows(&mut servers, Arc::clone(&store), &prefix, seed, &blows).await {
            Ok(count) => operations += count,
            Err(error) => panic!("history {made}, seed {seed}: {error}"),
        }
        made += 1;
    }
    item.pass(&format!(
        "{kills} kills, {operations} operations in {made} linearizable histories, all watched once"
    ));
}
