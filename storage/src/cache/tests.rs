use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{Embedded, Operation, Precondition, RangeRequest};

mod concurrent;
mod contract;
mod faults;
mod faulty;
mod map;
mod random_faults;
mod watchers;

const PREFIX: &str = "/objects/";

/// Takes `/objects/NAMESPACE/NAME` with the value as the object; what begins with `hidden` is not to be seen.
struct TestIndexer;

impl Indexer for TestIndexer {
    type Extra = u64;

    fn object(&self, entry: &Entry) -> Option<CachedObject<u64>> {
        if entry.value.starts_with(b"hidden") {
            return None;
        }
        let (namespace, name) = entry.key.strip_prefix(PREFIX)?.split_once('/')?;
        Some(CachedObject {
            key: Arc::clone(&entry.key),
            revision: entry.revision,
            bytes: entry.value.clone(),
            namespace: namespace.into(),
            name: name.into(),
            labels: [("app", name)].into_iter().collect(),
            fields: StringMap::default(),
            extra: entry.create_revision.0,
        })
    }

    fn deleted(&self, last: &CachedObject<u64>, revision: Revision) -> CachedObject<u64> {
        CachedObject {
            revision,
            ..last.clone()
        }
    }
}

/// A store, a cache of it, and what ends the cache.
struct Fixture {
    store: Arc<dyn Store>,
    cache: Arc<Cache<TestIndexer>>,
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl Fixture {
    async fn start(store: Arc<dyn Store>, options: CacheOptions) -> Self {
        let (tracker, cancelled) = (TaskTracker::new(), CancellationToken::new());
        let cache = Cache::start(
            Arc::clone(&store),
            PREFIX,
            TestIndexer,
            options,
            &tracker,
            cancelled.clone(),
        );
        cache.ready(soon()).await.unwrap();
        Self {
            store,
            cache,
            tracker,
            cancelled,
        }
    }

    async fn new() -> Self {
        Self::start(Arc::new(Embedded::in_memory()), CacheOptions::default()).await
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        self.store
            .put(key, value.to_owned().into(), Precondition::None)
            .await
            .unwrap()
    }

    async fn delete(&self, key: &str) -> Revision {
        self.store.delete(key, Precondition::None).await.unwrap()
    }

    /// The state of the cache once it has come to the revision of the store.
    async fn current(&self) -> Snapshot<u64> {
        let revision = self.store.current_revision().await.unwrap();
        self.cache.wait_for(revision, soon()).await.unwrap()
    }
}

/// A deadline for what must happen.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn keys(snapshot: &Snapshot<u64>, prefix: &str, start_after: Option<&str>) -> Vec<String> {
    snapshot
        .range(prefix, start_after)
        .map(|object| object.key.to_string())
        .collect()
}

async fn next(watch: &mut CacheWatch<TestIndexer>) -> Result<Arc<CacheEvent<u64>>> {
    tokio::time::timeout_at(soon(), watch.next())
        .await
        .expect("an event must come")
        .expect("it ends by an error")
}

/// Kind, key, value before, value now, revision.
type Change = (EventKind, String, Option<Bytes>, Bytes, Revision);

fn change(event: &CacheEvent<u64>) -> Change {
    assert_eq!(event.object.revision, event.revision);
    let previous = event.previous.as_ref().map(|previous| previous.bytes.clone());
    (
        event.kind,
        event.object.key.to_string(),
        previous,
        event.object.bytes.clone(),
        event.revision,
    )
}

#[tokio::test]
async fn holds_what_the_store_holds() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    for (key, value) in [
        ("/objects/a/1", "x"),
        ("/objects/b/1", "y"),
        ("/objects/b/2", "hidden"),
        ("/other/a", "z"),
    ] {
        store.put(key, value.into(), Precondition::None).await.unwrap();
    }
    let fixture = Fixture::start(store, CacheOptions::default()).await;
    let snapshot = fixture.current().await;
    assert_eq!(keys(&snapshot, "", None), ["/objects/a/1", "/objects/b/1"]);
    let object = snapshot.get("/objects/b/1").unwrap();
    assert_eq!(
        (&*object.namespace, &*object.name, &object.bytes[..]),
        ("b", "1", &b"y"[..])
    );
    assert_eq!(
        (object.labels.get("app"), object.revision, object.extra),
        (Some("1"), Revision(3), 3)
    );
    assert!(snapshot.get("/objects/b/2").is_none());
    fixture.put("/objects/a/0", "x").await;
    fixture.delete("/objects/b/1").await;
    let later = fixture.current().await;
    assert_eq!(keys(&later, "/objects/a/", None), ["/objects/a/0", "/objects/a/1"]);
    assert_eq!(
        keys(&snapshot, "", None),
        ["/objects/a/1", "/objects/b/1"],
        "a snapshot does not change"
    );
}

#[tokio::test]
async fn ranges_know_their_length() {
    let fixture = Fixture::new().await;
    let operations =
        (0..2_000).map(|index| Operation::put(format!("/objects/n{}/{index:04}", index % 4), "x", Precondition::None));
    fixture.store.batch(operations.collect()).await;
    let snapshot = fixture.current().await;
    assert_eq!(
        (snapshot.len(), snapshot.range("/objects/n1/", None).len()),
        (2_000, 500)
    );
    let page: Vec<_> = snapshot
        .range("/objects/n1/", Some("/objects/n1/0005"))
        .take(2)
        .map(|object| &*object.name)
        .collect();
    assert_eq!(page, ["0009", "0013"]);
    assert_eq!(snapshot.range("/objects/n1/", Some("/objects/n1/0005")).len(), 498);
    assert_eq!(snapshot.range("/objects/n1/", Some("/objects/n2")).len(), 0);
    assert_eq!(snapshot.range("/objects/n1/", Some("/a")).len(), 500);
    assert_eq!(snapshot.range("/nothing/", None).len(), 0);
    let mut cursor = snapshot.seek("/objects/n3/", None);
    let mut count = 0;
    while snapshot.next(&mut cursor).is_some() {
        count += 1;
    }
    assert_eq!((count, cursor.remaining()), (500, 0));
}

#[tokio::test]
async fn becomes_fresh_though_only_other_prefixes_change() {
    let fixture = Fixture::new().await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 10).unwrap();
    let revision = fixture.put("/elsewhere/a", "x").await;
    let snapshot = fixture.cache.wait_for(revision, soon()).await.unwrap();
    assert!(snapshot.revision() >= revision && snapshot.is_empty());
    assert!(watch.progress() >= revision, "bookmarks move on too");
    assert!(watch.try_next().is_none());
}

#[tokio::test]
async fn does_not_wait_for_the_future_for_ever() {
    let fixture = Fixture::new().await;
    let current = fixture.current().await.revision();
    let error = fixture
        .cache
        .wait_for(Revision(current.0 + 5), Instant::now())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::FutureRevision { requested, .. } if requested.0 == current.0 + 5));
}

#[tokio::test]
async fn watches_deliver_each_change_once() {
    let fixture = Fixture::new().await;
    let first = fixture.put("/objects/a/1", "x").await;
    let second = fixture.put("/objects/a/1", "y").await;
    fixture.current().await;
    let mut past = fixture.cache.watch(PREFIX, WatchFrom::After(first), 10).unwrap();
    let (snapshot, mut live) = fixture.cache.snapshot_and_watch(PREFIX, WatchFrom::Now, 10).unwrap();
    let mut scoped = fixture.cache.watch("/objects/b/", WatchFrom::After(first), 10).unwrap();
    assert_eq!(snapshot.revision(), second);
    let deletion = fixture.delete("/objects/a/1").await;
    let third = fixture.put("/objects/b/1", "z").await;
    let a = || "/objects/a/1".to_owned();
    let (x, y, z) = (|| Bytes::from("x"), || Bytes::from("y"), Bytes::from("z"));
    let update = (EventKind::Put, a(), Some(x()), y(), second);
    let deleted = (EventKind::Delete, a(), Some(y()), y(), deletion);
    let creation = (EventKind::Put, "/objects/b/1".to_owned(), None, z, third);
    for expected in [update, deleted.clone(), creation.clone()] {
        assert_eq!(change(&next(&mut past).await.unwrap()), expected);
    }
    for expected in [deleted, creation.clone()] {
        assert_eq!(change(&next(&mut live).await.unwrap()), expected);
    }
    assert_eq!(change(&next(&mut scoped).await.unwrap()), creation);
    let revision = fixture.put("/objects/b/2", "z").await;
    let events = (next(&mut live).await.unwrap(), next(&mut past).await.unwrap());
    assert!(Arc::ptr_eq(&events.0, &events.1), "an event is shared");
    assert_eq!((events.0.revision, live.progress()), (revision, revision));
    let rendered = events.0.rendering(1, || Bytes::from("once"));
    assert_eq!(events.1.rendering(1, || Bytes::from("twice")), rendered);
    assert_eq!(events.1.rendering(2, || Bytes::from("other")), "other");
    drop((past, live, scoped));
    assert_eq!(fixture.cache.watchers(), 0);
}

#[tokio::test]
async fn an_object_that_is_hidden_is_deleted() {
    let fixture = Fixture::new().await;
    fixture.put("/objects/a/1", "x").await;
    fixture.current().await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 10).unwrap();
    let hidden = fixture.put("/objects/a/1", "hidden").await;
    fixture.put("/objects/a/1", "hidden still").await;
    let shown = fixture.put("/objects/a/1", "y").await;
    let event = next(&mut watch).await.unwrap();
    assert_eq!((event.kind, event.revision), (EventKind::Delete, hidden));
    let event = next(&mut watch).await.unwrap();
    assert_eq!(
        (event.kind, event.revision, event.previous.is_none()),
        (EventKind::Put, shown, true)
    );
}

#[tokio::test]
async fn a_slow_watcher_is_ended_and_a_fast_one_is_not() {
    let fixture = Fixture::new().await;
    let mut slow = fixture.cache.watch(PREFIX, WatchFrom::Now, 3).unwrap();
    let mut fast = fixture.cache.watch(PREFIX, WatchFrom::Now, 10).unwrap();
    for index in 0..10 {
        fixture.put(&format!("/objects/a/{index}"), "x").await;
    }
    fixture.current().await;
    assert!(
        slow.progress() < fixture.cache.revision(),
        "a bookmark must not pass what is missing"
    );
    for index in 0..3 {
        assert_eq!(&*next(&mut slow).await.unwrap().object.name, index.to_string());
    }
    assert!(slow.progress() < fixture.cache.revision());
    assert!(slow.try_next().is_none());
    assert!(matches!(next(&mut slow).await, Err(Error::SlowWatcher { capacity: 3 })));
    assert!(slow.next().await.is_none());
    for index in 0..10 {
        assert_eq!(&*next(&mut fast).await.unwrap().object.name, index.to_string());
    }
}

#[tokio::test]
async fn the_window_is_bounded() {
    let options = CacheOptions {
        max_events: 5,
        ..CacheOptions::default()
    };
    let fixture = Fixture::start(Arc::new(Embedded::in_memory()), options).await;
    let mut revisions = Vec::new();
    for index in 0..8 {
        revisions.push(fixture.put(&format!("/objects/a/{index}"), "x").await);
    }
    fixture.current().await;
    let error = fixture
        .cache
        .watch(PREFIX, WatchFrom::After(revisions[1]), 10)
        .unwrap_err();
    assert!(
        matches!(error, Error::Compacted { oldest, .. } if oldest == revisions[2]),
        "{error}"
    );
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(revisions[2]), 10).unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revisions[3]);
    let error = fixture
        .cache
        .watch(PREFIX, WatchFrom::After(Revision(1_000)), 10)
        .unwrap_err();
    assert!(matches!(error, Error::FutureRevision { .. }));
}

#[test]
fn the_window_is_bounded_in_bytes_and_age() {
    let event = |revision: u64| {
        let entry = Entry {
            key: "/objects/a/1".into(),
            value: vec![b'x'; 1_000].into(),
            create_revision: Revision(1),
            revision: Revision(revision),
        };
        let object = Arc::new(TestIndexer.object(&entry).unwrap());
        Arc::new(CacheEvent::new(EventKind::Put, object, None, entry.revision))
    };
    let start = Instant::now();
    let options = CacheOptions {
        max_event_bytes: 5_000,
        ..CacheOptions::default()
    };
    let mut feed = Feed::new(&options);
    for revision in 1..=9 {
        feed.publish(event(revision), start + Duration::from_secs(revision));
    }
    let oldest =
        |feed: &mut Feed<u64>| match feed.subscribe(Interest { scope: "", field: None }, Revision(0), Revision(9), 1) {
            Err(Error::Compacted { oldest, .. }) => oldest,
            other => panic!(
                "expected Compacted, got {:?}",
                other.map(|subscription| subscription.place)
            ),
        };
    assert_eq!(oldest(&mut feed), Revision(6), "three events of 1,512 bytes fit");
    let window = feed.window(start + Duration::from_secs(9));
    assert_eq!(
        (window.events, window.pushed_out, window.age, window.after),
        (3, 6, Duration::from_secs(2), Revision(6)),
        "the window has become shorter than it should be"
    );
    let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);
    assert_eq!(feed.complaint(minute(0)).map(|window| window.pushed_out), Some(6));
    assert_eq!(feed.complaint(minute(2)), None, "this has been told");
    feed.trim(start + Duration::from_secs(8) + options.history);
    assert_eq!(
        feed.window(start).pushed_out,
        6,
        "what goes in its time was not pushed out"
    );
    assert_eq!(
        oldest(&mut feed),
        Revision(8),
        "the event of revision 9 is a second too young"
    );
}

#[tokio::test]
async fn a_watch_resumes_across_a_restart() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let fixture = Fixture::start(Arc::clone(&store), CacheOptions::default()).await;
    let first = fixture.put("/objects/a/1", "x").await;
    let second = fixture.put("/objects/a/1", "y").await;
    let third = fixture.put("/objects/a/2", "z").await;
    fixture.cancelled.cancel();
    fixture.tracker.close();
    fixture.tracker.wait().await;

    let fixture = Fixture::start(Arc::clone(&store), CacheOptions::default()).await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(first), 10).unwrap();
    let event = next(&mut watch).await.unwrap();
    assert_eq!(
        change(&event),
        (
            EventKind::Put,
            "/objects/a/1".into(),
            Some("x".into()),
            "y".into(),
            second
        )
    );
    assert_eq!(next(&mut watch).await.unwrap().revision, third);

    store.compact(second).await.unwrap();
    let fixture = Fixture::start(Arc::clone(&store), CacheOptions::default()).await;
    let error = fixture.cache.watch(PREFIX, WatchFrom::After(first), 10).unwrap_err();
    assert!(
        matches!(error, Error::Compacted { oldest, .. } if oldest == second),
        "{error}"
    );
    fixture.cache.watch(PREFIX, WatchFrom::After(second), 10).unwrap();
}

#[tokio::test]
async fn a_stopped_cache_ends_its_watchers() {
    let fixture = Fixture::new().await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 10).unwrap();
    let revision = fixture.put("/objects/a/1", "x").await;
    fixture.current().await;
    fixture.cancelled.cancel();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable { .. })));
    assert!(matches!(
        fixture.cache.watch(PREFIX, WatchFrom::Now, 10),
        Err(Error::Unavailable { .. })
    ));
    assert_eq!(fixture.cache.snapshot().len(), 1, "what it knows can still be read");
}

#[tokio::test]
async fn kept_snapshots_are_found_again() {
    let fixture = Fixture::new().await;
    fixture.put("/objects/a/1", "x").await;
    let first = fixture.current().await;
    fixture.cache.keep(&first);
    fixture.put("/objects/a/2", "x").await;
    let second = fixture.current().await;
    fixture.put("/objects/a/3", "x").await;
    let third = fixture.current().await;
    assert_eq!(fixture.cache.snapshot_at(first.revision()).unwrap().len(), 1);
    assert!(fixture.cache.snapshot_at(second.revision()).is_none());
    assert_eq!(fixture.cache.snapshot_at(third.revision()).unwrap().len(), 3);
}

/// A list followed by a watch leads to the state of the store, wherever it starts, while several writers write.
#[tokio::test]
async fn list_and_watch_follow_the_store() {
    let fixture = Fixture::new().await;
    let operation = |index: usize| {
        let key = format!("/objects/n{}/{}", index % 3, (index * 7) % 50);
        if index.is_multiple_of(4) {
            Operation::delete(key, Precondition::None)
        } else {
            Operation::put(key, index.to_string(), Precondition::None)
        }
    };
    let writers = futures::future::join_all((0..4_usize).map(|writer| {
        let store = &fixture.store;
        async move {
            for round in 0..30 {
                let start = writer * 1_000 + round * 20;
                store.batch((start..start + 20).map(operation).collect()).await;
            }
        }
    }));
    let readers = async {
        let mut started = Vec::new();
        for _ in 0..10 {
            fixture.current().await;
            started.push(
                fixture
                    .cache
                    .snapshot_and_watch(PREFIX, WatchFrom::Now, 10_000)
                    .unwrap(),
            );
        }
        started
    };
    let (_, started) = futures::future::join(writers, readers).await;
    let end = fixture.store.current_revision().await.unwrap();
    fixture.current().await;
    let stored = fixture.store.range(RangeRequest::prefix(PREFIX)).await.unwrap();
    let expected: BTreeMap<_, _> = stored
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), (entry.revision, entry.value.clone())))
        .collect();
    for (snapshot, mut watch) in started {
        let pair = |object: &Arc<CachedObject<u64>>| (object.key.clone(), (object.revision, object.bytes.clone()));
        let mut state: BTreeMap<_, _> = snapshot.iter().map(pair).collect();
        while watch.progress() < end {
            let event = next(&mut watch).await.unwrap();
            let before = event
                .previous
                .as_ref()
                .map(|previous| (previous.revision, previous.bytes.clone()));
            let (key, value) = pair(&event.object);
            let replaced = match event.kind {
                EventKind::Put => state.insert(key, value),
                EventKind::Delete => state.remove(&key),
            };
            assert_eq!(replaced, before);
        }
        assert_eq!(state, expected);
    }
}

/// Controllers look at the state because of an event; a state without the event's change would be acted on and never
/// looked at again. Two threads, because on one the writer is never seen between its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_has_the_change_of_every_event() {
    const CHANGES: u64 = 500;
    let fixture = Fixture::new().await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 10_000).unwrap();
    let store = Arc::clone(&fixture.store);
    let writer = fixture.tracker.spawn(async move {
        for change in 0..CHANGES {
            let value = change.to_string();
            store
                .put("/objects/a/1", value.into(), Precondition::None)
                .await
                .unwrap();
        }
    });
    for _ in 0..CHANGES {
        let event = next(&mut watch).await.unwrap();
        assert!(fixture.cache.snapshot().revision() >= event.revision);
    }
    writer.await.unwrap();
}
