//! What a cache does when its store fails.

use super::faulty::Faulty;
use super::*;

#[tokio::test]
async fn resumes_where_it_was_when_the_store_comes_back() {
    let store = Faulty::new();
    let fixture = Fixture::start(Arc::clone(&store) as _, CacheOptions::default()).await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 100).unwrap();
    let mut revisions = Vec::new();
    for round in 0..3 {
        revisions.push(fixture.put("/objects/a/1", "before").await);
        store.lose_watches().await;
        revisions.push(fixture.put("/objects/a/1", &format!("during {round}")).await);
        assert!(
            !fixture.cache.snapshot().is_empty() || round == 0,
            "what is known stays"
        );
        assert!(fixture.cache.is_ready(), "and is served");
        store.recover();
        fixture.current().await;
    }
    for revision in revisions {
        assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    }
    assert!(watch.try_next().is_none());
    assert_eq!(fixture.cache.statistics().restarts, 0);
}

#[tokio::test]
async fn starts_over_when_the_history_is_gone() {
    let store = Faulty::new();
    let fixture = Fixture::start(Arc::clone(&store) as _, CacheOptions::default()).await;
    let first = fixture.put("/objects/a/1", "x").await;
    fixture.put("/objects/a/2", "x").await;
    fixture.cache.keep(&fixture.current().await);
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(first), 100).unwrap();
    assert_eq!(&*next(&mut watch).await.unwrap().object.name, "2");
    store.lose_watches().await;
    fixture.delete("/objects/a/1").await;
    let last = fixture.put("/objects/a/3", "x").await;
    fixture.store.compact(last).await.unwrap();
    let mut meanwhile = fixture.cache.watch(PREFIX, WatchFrom::Now, 100).unwrap();
    store.recover();
    let snapshot = fixture.current().await;
    assert_eq!(keys(&snapshot, "", None), ["/objects/a/2", "/objects/a/3"]);
    for watch in [&mut watch, &mut meanwhile] {
        assert!(matches!(next(watch).await, Err(Error::Compacted { oldest, .. }) if oldest == last));
    }
    let error = fixture.cache.watch(PREFIX, WatchFrom::After(first), 100).unwrap_err();
    assert!(
        matches!(error, Error::Compacted { oldest, .. } if oldest == last),
        "{error}"
    );
    let revision = fixture.put("/objects/a/4", "x").await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(last), 100).unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    let statistics = fixture.cache.statistics();
    assert_eq!((statistics.restarts, statistics.kept_snapshots), (1, 0));
}

/// A backup has been restored: what the cache holds never was.
#[tokio::test]
async fn follows_a_store_that_has_gone_back() {
    let store = Faulty::new();
    let fixture = Fixture::start(Arc::clone(&store) as _, CacheOptions::default()).await;
    for index in 0..20 {
        fixture.put(&format!("/objects/a/{index}"), "new").await;
    }
    let ahead = fixture.current().await.revision();
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 100).unwrap();
    let backup = Embedded::in_memory();
    backup
        .put("/objects/a/1", "old".into(), Precondition::None)
        .await
        .unwrap();
    store.lose_watches().await;
    store.replace(backup);
    // Whoever waits for a revision of the old store must not spin, nor be told that it is there.
    let waiting = fixture
        .cache
        .wait_for(ahead.next(), Instant::now() + Duration::from_millis(500));
    store.recover();
    assert!(matches!(waiting.await, Err(Error::FutureRevision { .. })));
    fixture.cache.ready(soon()).await.unwrap();
    let snapshot = fixture.current().await;
    assert_eq!(
        (keys(&snapshot, "", None), snapshot.revision() < ahead),
        (vec!["/objects/a/1".to_owned()], true)
    );
    assert!(matches!(next(&mut watch).await, Err(Error::Compacted { .. })));
    let revision = fixture.put("/objects/a/2", "x").await;
    assert_eq!(fixture.cache.wait_for(revision, soon()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn goes_on_when_the_revision_jumps() {
    let fixture = Fixture::new().await;
    let first = fixture.put("/objects/a/1", "x").await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 10).unwrap();
    let elsewhere = (0..500).map(|index| Operation::put(format!("/elsewhere/{index}"), "x", Precondition::None));
    fixture.store.batch(elsewhere.collect()).await;
    let second = fixture.put("/objects/a/2", "x").await;
    assert!(second.0 > first.0 + 500);
    let snapshot = fixture.current().await;
    assert_eq!((snapshot.revision(), snapshot.len()), (second, 2));
    while next(&mut watch).await.unwrap().revision < second {}
    assert!(watch.try_next().is_none() && watch.progress() == second);
}

#[tokio::test]
async fn without_progress_the_present_is_read_from_the_store() {
    let store = Faulty::with_progress(false);
    let inner = Arc::clone(&store) as Arc<dyn Store>;
    for key in ["/objects/a/1", "/objects/a/2", "/objects/b/1"] {
        inner.put(key, "x".into(), Precondition::None).await.unwrap();
    }
    let fixture = Fixture::start(inner, CacheOptions::default()).await;
    let seen = fixture.cache.snapshot();
    assert_eq!(seen.len(), 3, "it is filled though it hears nothing");
    store.hold(true);
    let elsewhere = fixture.put("/elsewhere", "x").await;
    let changed = fixture.put("/objects/a/2", "y").await;
    let present = fixture.cache.present("/objects/a/", soon()).await.unwrap();
    assert_eq!((present.revision(), keys(&present, "", None).len()), (changed, 2));
    let shared = |key: &str| Arc::ptr_eq(present.get(key).unwrap(), seen.get(key).unwrap());
    assert!(shared("/objects/a/1") && !shared("/objects/a/2"));
    assert_eq!(fixture.cache.revision(), seen.revision());
    let newer = fixture.cache.not_older_than(PREFIX, elsewhere, soon()).await.unwrap();
    assert_eq!((newer.revision(), newer.len()), (changed, 3));
    let error = fixture
        .cache
        .not_older_than(PREFIX, changed.next(), soon())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::FutureRevision { current, .. } if current == changed));
    store.hold(false);
    assert_eq!(fixture.cache.wait_for(changed, soon()).await.unwrap().len(), 3);
}

/// What the window has lost the store still has.
#[tokio::test]
async fn a_watch_from_before_the_window_catches_up_from_the_store() {
    for progresses in [true, false] {
        let options = CacheOptions {
            max_events: 3,
            ..CacheOptions::default()
        };
        let store = Faulty::with_progress(progresses);
        let fixture = Fixture::start(Arc::clone(&store) as _, options).await;
        let start = fixture.put("/objects/a/0", "x").await;
        for index in 1..10 {
            fixture
                .put(&format!("/objects/a/{}", index % 3), &index.to_string())
                .await;
            fixture.put(&format!("/objects/b/{index}"), "x").await;
        }
        fixture.put("/objects/a/1", "hidden").await;
        let last = fixture.put("/objects/a/2", "last").await;
        fixture.cache.wait_for(last, soon()).await.unwrap();
        assert!(fixture.cache.watch("/objects/a/", WatchFrom::After(start), 10).is_err());
        let mut watch = fixture
            .cache
            .watch_from_history("/objects/a/", None, start, 10, soon())
            .await
            .unwrap();
        assert_eq!(watch.progress(), start, "what is still to come is not told as done");
        let after = fixture.put("/objects/a/0", "after").await;
        let mut state = BTreeMap::from([("/objects/a/0".to_owned(), Bytes::from("x"))]);
        let mut revisions = Vec::new();
        while revisions.last() != Some(&after) {
            let event = next(&mut watch).await.unwrap();
            let (kind, key, previous, value, revision) = change(&event);
            let replaced = match kind {
                EventKind::Put => state.insert(key, value),
                EventKind::Delete => state.remove(&key),
            };
            assert_eq!(replaced, previous);
            revisions.push(revision);
        }
        assert!(revisions.is_sorted() && revisions.len() == 12, "{revisions:?}");
        let state: Vec<_> = state.values().map(|value| &value[..]).collect();
        assert_eq!(state, [&b"after"[..], b"last"]);
        assert!(watch.try_next().is_none() && watch.progress() >= after);
        store.compact(after).await.unwrap();
        let refused = match fixture
            .cache
            .watch_from_history("/objects/a/", None, start, 10, soon())
            .await
        {
            Ok(mut watch) => next(&mut watch).await.map(|event| event.revision),
            Err(error) => Err(error),
        };
        assert!(matches!(refused, Err(Error::Compacted { .. })), "{refused:?}");
    }
}
