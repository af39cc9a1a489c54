//! The contract of the store, kept by the embedded store behind the cache.

use tokio_util::sync::DropGuard;

use super::*;

async fn cached(options: CacheOptions, watch_buffer: usize) -> (Arc<dyn Store>, DropGuard) {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let (cached, guard) = CachedStore::start(store, "", options, watch_buffer).await.unwrap();
    (cached, guard)
}

mod with_defaults {
    crate::contract_tests!(super::cached(
        super::CacheOptions::default(),
        crate::cache::DEFAULT_WATCH_BUFFER
    ));
}

/// With a window of two events and no snapshots kept nearly everything that is past comes from the store.
mod with_little_memory {
    crate::contract_tests!(super::cached(
        super::CacheOptions {
            max_events: 2,
            kept_snapshots: 0,
            ..super::CacheOptions::default()
        },
        crate::cache::DEFAULT_WATCH_BUFFER
    ));
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
