//! Readers beside a writer.

use std::sync::mpsc;
use std::thread;

use super::*;

/// Two keys are written in turn, so in every state that ever was the second is at the first, or one behind. Readers on
/// threads of their own see such states only, and never an older one after a newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_states_that_were_in_their_order() {
    const ROUNDS: u64 = 300;
    let item = umbra_show::Item::open("storage.cache.readers");
    let fixture = Fixture::new().await;
    for index in 0..2_000 {
        fixture.put(&format!("/objects/m/{index:04}"), "x").await;
    }
    fixture.current().await;
    let (done, states) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (cache, done, states) = (Arc::clone(&fixture.cache), Arc::clone(&done), Arc::clone(&states));
            thread::spawn(move || {
                let mut last = Revision(0);
                while !done.load(Ordering::Acquire) {
                    let snapshot = cache.snapshot();
                    assert!(snapshot.revision() >= last, "time goes on");
                    states.fetch_add(u64::from(snapshot.revision() > last), Ordering::AcqRel);
                    last = snapshot.revision();
                    let value = |key: &str| {
                        let object = snapshot.get(key)?;
                        assert!(object.revision <= snapshot.revision());
                        std::str::from_utf8(&object.bytes).unwrap().parse::<u64>().ok()
                    };
                    let (first, second) = (value("/objects/a/1"), value("/objects/z/1"));
                    let behind = first.unwrap_or_default() - second.unwrap_or_default();
                    assert!(behind <= 1, "{first:?} {second:?} at {last}");
                    assert_eq!(snapshot.iter().count(), snapshot.len());
                }
            })
        })
        .collect();
    let deadline = soon();
    let mut round = 0;
    // Until enough has been seen, however the threads are scheduled.
    while round < ROUNDS || states.load(Ordering::Acquire) < ROUNDS {
        round += 1;
        for key in ["/objects/a/1", "/objects/z/1"] {
            fixture.put(key, &round.to_string()).await;
        }
        assert!(Instant::now() < deadline, "readers see the writer's progress");
    }
    fixture.current().await;
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
    let states = states.load(Ordering::Acquire);
    item.pass(&format!("{round} rounds of changes, {states} states seen by 3 readers"));
}

/// Decodes nothing until it is let.
struct Stuck {
    entered: mpsc::Sender<()>,
    gate: Arc<Mutex<()>>,
}

impl Indexer for Stuck {
    type Extra = u64;

    fn object(&self, entry: &Entry) -> Option<CachedObject<u64>> {
        if &entry.value[..] == b"stuck" {
            self.entered.send(()).unwrap();
            drop(self.gate.lock());
        }
        TestIndexer.object(entry)
    }

    fn deleted(&self, last: &CachedObject<u64>, revision: Revision) -> CachedObject<u64> {
        TestIndexer.deleted(last, revision)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_do_not_wait_for_the_writer() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    store.put("/objects/a/1", "x".into(), Precondition::None).await.unwrap();
    let (entered, is_entered) = mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let indexer = Stuck {
        entered,
        gate: Arc::clone(&gate),
    };
    let (tracker, cancelled) = (TaskTracker::new(), CancellationToken::new());
    let options = CacheOptions::default();
    let cache = Cache::start(
        Arc::clone(&store),
        PREFIX,
        indexer,
        options,
        &tracker,
        cancelled.clone(),
    );
    cache.ready(soon()).await.unwrap();
    let guard = gate.lock();
    let put = tracker.spawn(async move { store.put("/objects/a/1", "stuck".into(), Precondition::None).await });
    let (report, is_read) = mpsc::channel();
    let reader = Arc::clone(&cache);
    thread::spawn(move || {
        is_entered.recv().unwrap();
        // The writer is in the middle of a change.
        let snapshot = reader.snapshot();
        reader.keep(&snapshot);
        let found = reader.snapshot_at(snapshot.revision()).is_some() && reader.is_ready();
        let watch = reader.watch(PREFIX, WatchFrom::Now, 10).unwrap();
        report
            .send((found, snapshot.get("/objects/a/1").unwrap().bytes.clone(), watch))
            .unwrap();
    });
    let (found, bytes, mut watch) = is_read
        .recv_timeout(Duration::from_secs(30))
        .expect("the reader gets through");
    assert_eq!((found, &bytes[..]), (true, &b"x"[..]));
    drop(guard);
    assert!(put.await.unwrap().is_ok());
    let event = tokio::time::timeout_at(soon(), watch.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(&event.object.bytes[..], b"stuck");
    cancelled.cancel();
}

/// What a watch says of its progress is what bookmarks say: a client that resumes there misses an event that had been before
/// it. Many watchers make the moment long in which a state is shown already and its events are still being handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_never_ahead_of_the_events() {
    const CHANGES: u64 = 2_000;
    let fixture = Fixture::new().await;
    let watch = || fixture.cache.watch(PREFIX, WatchFrom::Now, 10_000).unwrap();
    let others: Vec<_> = (0..200).map(|_| watch()).collect();
    let mut watched = watch();
    let reader = std::thread::spawn(move || {
        let (mut seen, mut told) = (0, Revision(0));
        while seen < CHANGES {
            match watched.try_next() {
                Some(event) => {
                    assert!(
                        event.revision > told,
                        "{} comes after progress at {told}",
                        event.revision
                    );
                    seen += 1;
                }
                None => told = watched.progress(),
            }
        }
    });
    for change in 0..CHANGES {
        fixture.put("/objects/a/one", &change.to_string()).await;
    }
    tokio::task::spawn_blocking(|| reader.join()).await.unwrap().unwrap();
    drop(others);
}
