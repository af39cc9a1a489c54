//! The contract of the store, kept by the embedded store behind the cache.

use proptest::prelude::*;
use tokio_util::sync::DropGuard;

use super::*;
use crate::contract::model::{Expect, KEYS, Step, Write, check};

async fn cached(options: CacheOptions, watch_buffer: usize) -> (Arc<dyn Store>, DropGuard) {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let (cached, guard) = CachedStore::start(store, "", options, watch_buffer).await.unwrap();
    (cached, guard)
}

/// With a window of two events and no snapshots kept nearly everything that is past comes from the store.
fn little_memory() -> CacheOptions {
    CacheOptions {
        max_events: 2,
        kept_snapshots: 0,
        ..CacheOptions::default()
    }
}

#[tokio::test]
async fn the_cache_keeps_the_contract_of_its_store() {
    let item = umbra_show::Item::open("storage.contract.cache");
    let suite = crate::contract::suite();
    for options in [CacheOptions::default(), little_memory()] {
        for function in &suite {
            let (store, _guard) = cached(options.clone(), DEFAULT_WATCH_BUFFER).await;
            (function.run)(store).await;
        }
    }
    item.pass(&format!("{} functions, with much and with little memory", suite.len()));
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expect = prop_oneof![
        4 => Just(Expect::Anything),
        1 => Just(Expect::Absent),
        1 => Just(Expect::Current),
        1 => Just(Expect::Other),
    ];
    let write = (0..KEYS.len(), prop::bool::weighted(0.3), expect);
    let write = write.prop_map(|(key, delete, expect)| Write { key, delete, expect });
    let step = prop_oneof![
        8 => prop::collection::vec(write, 1..6).prop_map(Step::Batch),
        1 => (0..12_u64).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 60_000, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn the_cache_behaves_like_a_map_per_revision(steps in steps(), much in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = if much { CacheOptions::default() } else { little_memory() };
            let (store, _guard) = cached(options, DEFAULT_WATCH_BUFFER).await;
            check(store, steps).await;
        });
    }
}

#[tokio::test]
async fn what_the_cache_has_comes_from_the_cache() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let (cached, _guard) = CachedStore::start(store, PREFIX, CacheOptions::default(), 10)
        .await
        .unwrap();
    let mut revisions = Vec::new();
    for key in ["/objects/a/1", "/objects/a/2", "/other/1"] {
        revisions.push(cached.put(key, "x".into(), Precondition::None).await.unwrap());
    }
    let served = |expected: u64| assert_eq!(cached.served(), expected);
    cached.get("/objects/a/1").await.unwrap();
    served(1);
    let page = cached.range(RangeRequest::prefix(PREFIX).limit(1)).await.unwrap();
    served(2);
    cached
        .put("/objects/a/3", "x".into(), Precondition::None)
        .await
        .unwrap();
    let next = RangeRequest::prefix(PREFIX).at(page.revision).after("/objects/a/1");
    assert_eq!(cached.range(next).await.unwrap().entries.len(), 1);
    served(3);
    drop(cached.watch(PREFIX, revisions[0]).await.unwrap());
    served(4);
    cached.get("/other/1").await.unwrap();
    cached.range(RangeRequest::default()).await.unwrap();
    cached
        .range(RangeRequest::prefix(PREFIX).at(revisions[0]))
        .await
        .unwrap();
    served(4);
}
