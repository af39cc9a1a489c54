//! Concurrent histories of the backends, and of stores that are broken.
//!
//! `UMBRA_STORAGE_HISTORIES` says how many histories each test makes; the seed of one that fails is in the message. Each has
//! its own mix of clients and keys: few keys make for conflicts, many for ranges.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::clients::Clients;
use super::fault::Fault;
use super::reference::Reference;
use crate::cache::CacheOptions;
use crate::cache::store::CachedStore;
use crate::{Embedded, Options, Store};

/// Histories per test, unless the environment says otherwise.
const DEFAULT_HISTORIES: u64 = 4;
/// Operations of one client in one history.
const OPERATIONS: usize = 60;

/// How many histories to make.
pub(super) fn histories() -> u64 {
    std::env::var("UMBRA_STORAGE_HISTORIES").map_or(DEFAULT_HISTORIES, |count| count.parse().unwrap())
}

/// Makes one history and checks it. Answers with the number of operations.
pub(super) async fn one_history(store: Arc<dyn Store>, prefix: &str, seed: u64) -> Result<usize, String> {
    let keys = 1 + seed % 5;
    // What can overlap on one key bounds what the checker has to try: few keys, few clients.
    let clients = 3 + seed / 5 % (2 + 2 * keys).min(8);
    let keys = usize::try_from(keys).unwrap();
    let history = Arc::new(Clients::new(store, prefix, keys).await);
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(history.watch().await);
    }
    let mut work = JoinSet::new();
    for client in 0..clients {
        work.spawn(Arc::clone(&history).work(seed * 1_000 + client, OPERATIONS));
    }
    while let Some(client) = work.join_next().await {
        client.map_err(|error| error.to_string())?;
    }
    history.conclude(watches).await
}

/// Makes histories one after another.
async fn many_histories(store: Arc<dyn Store>, name: &str) -> (u64, usize) {
    let mut operations = 0;
    for _ in 0..histories() {
        let seed = rand::random_range(0..1 << 32);
        match one_history(Arc::clone(&store), &format!("/linearizable/{name}/{seed}/"), seed).await {
            Ok(count) => operations += count,
            Err(error) => panic!("{name}, seed {seed}: {error}"),
        }
    }
    (histories(), operations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_of_the_embedded_store() {
    let item = umbra_show::Item::open("storage.linearizable.embedded");
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    let plain = many_histories(Arc::new(store.clone()), "plain").await;
    let (cached, _guard) = CachedStore::start(
        Arc::new(store.clone()),
        "/linearizable/cached/",
        CacheOptions::default(),
        1_000,
    )
    .await
    .unwrap();
    let behind = many_histories(Arc::clone(&cached) as Arc<dyn Store>, "cached").await;
    assert!(cached.served() > 0, "the cache has answered");
    store.close().await;
    item.pass(&format!(
        "{} operations in {} histories, and {} in {} behind the cache",
        plain.1, plain.0, behind.1, behind.0
    ));
}

/// What is found wrong in the histories of a store with the fault, of a number in which a healthy store shows nothing.
async fn found_in(fault: Option<Fault>) -> Option<String> {
    for seed in 0..12 {
        let store = Arc::new(Reference::new(fault));
        if let Err(error) = one_history(store, "/history/", seed).await {
            return Some(format!("seed {seed}: {error}"));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_broken_stores_are_caught() {
    assert_eq!(found_in(None).await, None, "the reference is in order");
    for fault in [
        Fault::StaleReads,
        Fault::NotAtomic,
        Fault::AbsentIgnored,
        Fault::RevisionIgnored,
        Fault::DeleteIgnoresPrecondition,
        Fault::OneFailsAll,
        Fault::RangesAreTorn,
        Fault::ReadsAreAhead,
        Fault::EventsAreMerged,
        Fault::EventsAreDoubled,
    ] {
        assert!(found_in(Some(fault)).await.is_some(), "{fault:?} must be caught");
    }
}
