//! Random changes and random faults: whatever happens, what readers and watchers see is what the store held.

use futures::FutureExt;
use proptest::prelude::*;

use super::faulty::Faulty;
use super::*;

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    /// Changes: a key, and what becomes of it.
    Change(Vec<(u8, Change)>),
    /// A change that the cache does not hold.
    Elsewhere,
    /// The cache comes to where the store is, unless the store is cut off.
    Settle,
    /// Events are held back, or flow again.
    Hold(bool),
    /// The watch of the cache breaks.
    Break,
    /// The store can be watched again.
    Recover,
    /// Everything but the present is forgotten by the store.
    Compact,
    /// The process starts again.
    Restart,
    /// Somebody watches from now: everything, or a namespace; or from some revisions ago.
    Watch { namespace: bool, back: u64, buffer: usize },
    /// Watchers take what is there.
    Drain,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Put,
    Hide,
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![4 => Just(Change::Put), 1 => Just(Change::Hide), 2 => Just(Change::Delete)];
    let watch = (any::<bool>(), 0..15_u64, prop_oneof![Just(1_000), Just(4)]);
    let watch = watch.prop_map(|(namespace, back, buffer)| Step::Watch {
        namespace,
        back,
        buffer,
    });
    let step = prop_oneof![
        10 => prop::collection::vec((0..8_u8, change), 1..6).prop_map(Step::Change),
        2 => Just(Step::Elsewhere),
        3 => Just(Step::Settle),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Break),
        2 => Just(Step::Recover),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
        5 => watch,
        3 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..80)
}

type State = BTreeMap<String, (Revision, Bytes)>;

/// A watcher, and what its events have made of the state that it began with.
struct Watcher {
    watch: CacheWatch<TestIndexer>,
    scope: String,
    state: State,
}

impl Watcher {
    fn take(&mut self, event: &CacheEvent<u64>, states: &BTreeMap<u64, State>) {
        let (key, value) = pair(&event.object);
        let before = event.previous.as_deref().map(pair).map(|(_, value)| value);
        let replaced = match event.kind {
            EventKind::Put => self.state.insert(key, value),
            EventKind::Delete => self.state.remove(&key),
        };
        assert_eq!(replaced, before, "at {}", event.revision);
        let expected = within(&states[&event.revision.0], &self.scope);
        assert_eq!(self.state, expected, "at {}", event.revision);
    }
}

struct World {
    store: Arc<Faulty>,
    fixture: Fixture,
    /// What is to be seen after each revision.
    states: BTreeMap<u64, State>,
    watchers: Vec<Watcher>,
    held: bool,
    broken: bool,
    changes: u64,
    /// How many events were delivered.
    delivered: u64,
}

fn pair(object: &CachedObject<u64>) -> (String, (Revision, Bytes)) {
    (object.key.to_string(), (object.revision, object.bytes.clone()))
}

fn within(state: &State, scope: &str) -> State {
    let inside = state.iter().filter(|(key, _)| key.starts_with(scope));
    inside.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl World {
    async fn new() -> Self {
        let store = Faulty::new();
        let start = store.current_revision().await.unwrap();
        Self {
            fixture: Fixture::start(Arc::clone(&store) as _, options()).await,
            store,
            states: BTreeMap::from([(start.0, State::new())]),
            watchers: Vec::new(),
            held: false,
            broken: false,
            changes: 0,
            delivered: 0,
        }
    }

    async fn perform(&mut self, step: Step) {
        match step {
            Step::Change(changes) => {
                for (key, change) in changes {
                    self.change(key, change).await;
                }
            }
            Step::Elsewhere => {
                let revision = self.fixture.put("/elsewhere", "x").await;
                let state = self.state(revision.0 - 1).clone();
                self.states.insert(revision.0, state);
            }
            Step::Settle => self.settle().await,
            Step::Hold(held) => {
                self.store.hold(held);
                self.held = held;
            }
            Step::Break => {
                self.store.break_watches();
                while self.store.is_watched() {
                    self.drain();
                    tokio::task::yield_now().await;
                }
                self.broken = true;
            }
            Step::Recover => self.recover(),
            Step::Compact => {
                let current = self.store.current_revision().await.unwrap();
                self.store.compact(current).await.unwrap();
            }
            Step::Restart => {
                self.fixture.cancelled.cancel();
                self.recover();
                self.fixture = Fixture::start(Arc::clone(&self.store) as _, options()).await;
            }
            Step::Watch {
                namespace,
                back,
                buffer,
            } => self.watch(namespace, back, buffer).await,
            Step::Drain => self.drain(),
        }
        self.look();
    }

    fn recover(&mut self) {
        self.store.hold(false);
        self.store.recover();
        (self.held, self.broken) = (false, false);
    }

    async fn change(&mut self, key: u8, change: Change) {
        let key = format!("/objects/n{}/{}", key % 2, key / 2);
        self.changes += 1;
        let value = self.changes.to_string();
        let current = self.store.current_revision().await.unwrap();
        let mut state = self.state(current.0).clone();
        let revision = match change {
            Change::Put => self.fixture.put(&key, &value).await,
            Change::Hide => self.fixture.put(&key, &format!("hidden {value}")).await,
            Change::Delete => match self.store.delete(&key, Precondition::None).await {
                Ok(revision) => revision,
                Err(_) => return,
            },
        };
        state.remove(&key);
        if matches!(change, Change::Put) {
            state.insert(key, (revision, value.into()));
        }
        self.states.insert(revision.0, state);
    }

    async fn settle(&mut self) {
        if !self.held && !self.broken {
            self.fixture.current().await;
        }
    }

    fn state(&self, revision: u64) -> &State {
        &self.states[&revision]
    }

    /// A reader sees a state that was.
    fn look(&self) {
        let snapshot = self.fixture.cache.snapshot();
        let seen: State = snapshot.iter().map(|object| pair(object)).collect();
        assert_eq!(&seen, self.state(snapshot.revision().0), "at {}", snapshot.revision());
    }

    async fn watch(&mut self, namespace: bool, back: u64, buffer: usize) {
        let scope = if namespace { "/objects/n1/" } else { PREFIX };
        let cache = &self.fixture.cache;
        let begun = if back == 0 {
            let begun = cache.snapshot_and_watch(scope, WatchFrom::Now, buffer);
            begun.map(|(snapshot, watch)| (snapshot.revision(), watch))
        } else {
            let after = Revision(cache.revision().0.saturating_sub(back));
            let begun = cache.watch_from_history(scope, None, after, buffer, soon()).await;
            begun.map(|watch| (after, watch))
        };
        let (start, watch) = match begun {
            Ok(begun) => begun,
            // The store refuses watches while it is cut off.
            Err(Error::Compacted { .. } | Error::Unavailable { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let watcher = Watcher {
            watch,
            scope: scope.to_owned(),
            state: within(self.state(start.0), scope),
        };
        self.watchers.push(watcher);
    }

    /// What watchers have got leads from state to state, and what they are told of their progress is true.
    fn drain(&mut self) {
        for watcher in &mut self.watchers {
            while let Some(event) = watcher.watch.try_next() {
                self.delivered += 1;
                watcher.take(&event, &self.states);
            }
            let progress = watcher.watch.progress();
            let expected = within(&self.states[&progress.0], &watcher.scope);
            assert_eq!(watcher.state, expected, "the progress {progress} is true");
        }
    }

    /// In the end the cache is where the store is, and so is every watcher that was not ended.
    async fn finish(mut self) -> (u64, u64) {
        self.recover();
        self.settle().await;
        self.look();
        self.drain();
        let current = self.store.current_revision().await.unwrap();
        assert_eq!(self.fixture.cache.revision(), current);
        let mut whole = 0;
        for mut watcher in std::mem::take(&mut self.watchers) {
            let deadline = soon();
            while watcher.watch.progress() < current {
                match watcher.watch.next().now_or_never() {
                    Some(Some(Ok(event))) => watcher.take(&event, &self.states),
                    Some(Some(Err(
                        Error::Compacted { .. } | Error::SlowWatcher { .. } | Error::Unavailable { .. },
                    ))) => break,
                    Some(other) => panic!("a watcher that does not go on says why: {other:?}"),
                    None => tokio::task::yield_now().await,
                }
                assert!(
                    Instant::now() < deadline,
                    "a watcher that is not ended comes to the end"
                );
            }
            if watcher.watch.progress() == current {
                assert_eq!(watcher.state, within(self.state(current.0), &watcher.scope));
                whole += 1;
            }
        }
        self.fixture.cancelled.cancel();
        (self.delivered, whole)
    }
}

fn options() -> CacheOptions {
    CacheOptions {
        max_events: 4,
        page_size: 3,
        ..CacheOptions::default()
    }
}

/// How many runs; each breaks the connection a few times, which costs a tenth of a second.
fn cases() -> u32 {
    let cases = std::env::var("UMBRA_STORAGE_CACHE_FAULT_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(32)
}

#[test]
fn what_is_seen_is_what_the_store_held() {
    let item = umbra_show::Item::open("storage.cache.faults");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let totals = std::cell::Cell::new((0, 0));
    let config = ProptestConfig {
        max_shrink_time: 60_000,
        ..ProptestConfig::with_cases(cases())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&steps(), |steps| {
        let (delivered, whole) = runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.perform(step).await;
            }
            world.finish().await
        });
        let (all, watchers) = totals.get();
        totals.set((all + delivered, watchers + whole));
        Ok(())
    });
    outcome.unwrap();
    let (delivered, whole) = totals.get();
    assert!(delivered > 0 && whole > 0);
    item.pass(&format!(
        "{} runs, {delivered} events, {whole} watchers to the end",
        cases()
    ));
}
