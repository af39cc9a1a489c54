//! A watch cache: one prefix of a store in memory, as bytes ready to be served and an index over them.
//!
//! An [`Indexer`] turns each entry of the store into a [`CachedObject`] once, when it arrives. Everything after that shares
//! it: the current state, the snapshots that lists page through, the events that watchers get.
//!
//! * **Reads** take a [`Snapshot`]: a persistent map behind an atomic pointer. Readers never wait for the writer, the writer
//!   never waits for readers, and a snapshot never changes. The objects are ordered by key, so that the objects of a
//!   namespace are a range, and once more by each field that the indexer names. Label selectors scan what is kept of
//!   each object beside its bytes.
//! * **Freshness**: [`Cache::wait_for`] waits until the cache has seen a revision. It asks the store for progress, so that
//!   it does not wait for a change under its own prefix. Where the store's progress cannot be trusted
//!   ([`Store::progress_on_request`]) or does not come, [`Cache::present`] and [`Cache::not_older_than`] read the store, and
//!   share with the cache every object that has not changed.
//! * **Watches** start from now or from a revision within the window of recent events, which is bounded in age, count and
//!   bytes. Each watcher has a bounded queue of shared events; one that falls behind is ended with
//!   [`Error::SlowWatcher`], never skipped. An event visits only the watchers that it may concern. A watch from before the
//!   window catches up from the store's own history ([`Cache::watch_from_history`]), so that a window which many or
//!   large changes have made short costs clients nothing but time.
//! * **Start**: the cache loads a state that lies some changes back and replays what followed, so that watchers can resume
//!   across a restart of the process.
//!
//! A cache outlives failures of the store: it resumes where it was and serves what it last knew meanwhile. If the history it
//! needs is gone, it loads the present and goes on from there, and its watchers end with [`Error::Compacted`]: the events
//! between are not known, and what could be made up from the difference would have neither their number nor their
//! revisions (kube-apiserver ends its watchers likewise, `terminateAllWatchers` in `cacher.go`). A watcher that begins
//! while the cache loads is ended with the others. If the store itself has gone back, as after a backup was restored,
//! the cache is not ready until it has loaded the new present.

mod event;
mod feed;
mod follow;
mod history;
mod kept;
mod map;
mod object;
mod objects;
mod options;
mod snapshot;
mod statistics;
#[cfg(any(test, feature = "contract"))]
pub mod store;
mod strings;
#[cfg(test)]
mod tests;
mod through;
mod watch;
mod watchers;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch as signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use event::{CacheEvent, EventKind};
pub use object::CachedObject;
pub use options::CacheOptions;
pub use snapshot::{Cursor, Iter, Snapshot};
pub use statistics::{CacheStatistics, WindowStatistics};
#[cfg(any(test, feature = "contract"))]
pub use store::CachedStore;
pub use strings::{SharedKeys, StringMap};
pub use through::StorePage;
pub use watch::CacheWatch;

use crate::{Entry, Error, Result, Revision, Store};
use feed::{Feed, Interest};
use kept::KeptSnapshots;
use objects::Objects;

/// Events that may wait for one watcher by default: at 1,000 events/s a watcher may stall for a second.
pub const DEFAULT_WATCH_BUFFER: usize = 1_000;

/// How long [`Cache::wait_for`] waits before it asks the store for progress again. kube-apiserver asks every 100 ms
/// (`progressRequestPeriod` in `k8s.io/apiserver/pkg/storage/cacher/progress`).
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// Turns entries of the store into objects of the cache.
pub trait Indexer: Send + Sync + 'static {
    /// What the cache keeps beside the bytes and the index: table cells, the name of a cluster.
    type Extra: Send + Sync + 'static;

    /// The object of an entry; `None` if the entry is not to be seen in the cache. Called once per change, on the
    /// runtime: it must not block. An entry that cannot be decoded is for the indexer to report.
    fn object(&self, entry: &Entry) -> Option<CachedObject<Self::Extra>>;

    /// `last` as watchers see it in the event of its deletion: Kubernetes puts the revision of the deletion into the
    /// object's `resourceVersion`. The result's revision should be `revision`.
    fn deleted(&self, last: &CachedObject<Self::Extra>, revision: Revision) -> CachedObject<Self::Extra>;

    /// The fields by which the objects are ordered once more, so that those with a certain value are found without looking
    /// at the others, and watchers of a value do not see the events of others. Each costs a pointer an object, and
    /// about as much time with each change as keeping the order by key. Asked for once, at the start. Default: none.
    fn indexed_fields(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the next event.
    Now,
    /// With the first event after this revision.
    After(Revision),
}

/// A watch cache over one prefix of a store. See the [module](self).
pub struct Cache<I: Indexer> {
    store: Arc<dyn Store>,
    prefix: Arc<str>,
    indexer: I,
    options: CacheOptions,
    current: ArcSwap<Snapshot<I::Extra>>,
    feed: Mutex<Feed<I::Extra>>,
    kept: Mutex<KeptSnapshots<I::Extra>>,
    ready: AtomicBool,
    /// Since when the cache is not ready, if it is not.
    unready_since: Mutex<Instant>,
    restarts: AtomicU64,
    /// Watches that are reading the history of the store.
    catching_up: Arc<AtomicUsize>,
    /// How far the cache has come, for those who wait.
    progress: signal::Sender<Progress>,
    /// Wakes the task that follows the store, to ask for progress.
    progress_wanted: Notify,
}

/// How far a cache has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    revision: Revision,
    ready: bool,
}

impl<I: Indexer> Cache<I> {
    /// Starts a cache of the entries of `store` under `prefix`, which ends with `/`. A task of `tracker` fills it and keeps
    /// it current until `cancelled`, which ends its watchers too; await [`ready`](Cache::ready) before serving from it.
    pub fn start(
        store: Arc<dyn Store>,
        prefix: impl Into<Arc<str>>,
        indexer: I,
        options: CacheOptions,
        tracker: &TaskTracker,
        cancelled: CancellationToken,
    ) -> Arc<Self> {
        let fields = indexer.indexed_fields().into_iter().map(String::into_boxed_str);
        let empty = Objects::new(fields.collect());
        let cache = Arc::new(Self {
            store,
            prefix: prefix.into(),
            indexer,
            current: ArcSwap::from_pointee(Snapshot::new(Revision(0), empty)),
            feed: Mutex::new(Feed::new(&options)),
            kept: Mutex::new(KeptSnapshots::new(&options)),
            options,
            ready: AtomicBool::new(false),
            unready_since: Mutex::new(Instant::now()),
            restarts: AtomicU64::new(0),
            catching_up: Arc::default(),
            progress: signal::Sender::new(Progress {
                revision: Revision(0),
                ready: false,
            }),
            progress_wanted: Notify::new(),
        });
        tracker.spawn(follow::run(Arc::clone(&cache), cancelled));
        cache
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The indexer.
    pub fn indexer(&self) -> &I {
        &self.indexer
    }

    /// The state now. Before the cache is ready it is empty or older than the store was at the start.
    pub fn snapshot(&self) -> Snapshot<I::Extra> {
        Snapshot::clone(&self.current.load())
    }

    /// The revision up to which the cache has seen every change; 0 before anything has been loaded.
    pub fn revision(&self) -> Revision {
        self.current.load().revision()
    }

    /// Whether the cache has caught up with what the store held at the start.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// For how long the cache has not been ready; zero if it is. It tells clients when to try again.
    pub fn unready_for(&self) -> Duration {
        if self.is_ready() {
            Duration::ZERO
        } else {
            self.unready_since.lock().elapsed()
        }
    }

    /// Waits until the cache is ready. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after `deadline`.
    pub async fn ready(&self, deadline: Instant) -> Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let ready = tokio::time::timeout_at(deadline, progress.wait_for(|progress| progress.ready)).await;
        match ready {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::unavailable(format!(
                "the cache of {} is not filled yet",
                self.prefix
            ))),
        }
    }

    /// Waits until the cache has seen `revision`; answers with a state that is at least that new. Cancel safe.
    ///
    /// With `revision` from [`Store::current_revision`] this makes a consistent read, which is [`present`](Cache::present).
    ///
    /// # Errors
    /// [`Error::FutureRevision`] after `deadline`, which kube-apiserver sets at 3 seconds.
    pub async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<Snapshot<I::Extra>> {
        let snapshot = self.snapshot();
        if snapshot.revision() >= revision {
            return Ok(snapshot);
        }
        let mut progress = self.progress.subscribe();
        // Where progress is not to be relied on, it is asked for only once the revision does not come by itself, as that
        // of a write does: a backend may have to write to find out.
        let mut asks = self.store.progress_on_request();
        loop {
            let snapshot = self.snapshot();
            if snapshot.revision() >= revision {
                return Ok(snapshot);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::FutureRevision {
                    requested: revision,
                    current: snapshot.revision(),
                });
            }
            if std::mem::replace(&mut asks, true) {
                self.progress_wanted.notify_one();
            }
            let reached = progress.wait_for(|progress| progress.revision >= revision);
            // Either it has come so far or it is time to ask again; the loop looks.
            let _ = tokio::time::timeout_at(deadline.min(now + PROGRESS_PERIOD), reached).await;
        }
    }

    /// Keeps a snapshot for a while, so that [`snapshot_at`](Cache::snapshot_at) finds it: to be called with the answer of
    /// a list that has a next page.
    pub fn keep(&self, snapshot: &Snapshot<I::Extra>) {
        let replaced = self.current.load().replaced();
        self.kept.lock().keep(snapshot.clone(), replaced, Instant::now());
    }

    /// The state at exactly this revision, if it is the present one, or one that has been kept, or if nothing had changed
    /// between that revision and one of these. Otherwise the caller reads the store at that revision.
    ///
    /// A kept state stays available for its time even if the store has compacted it meanwhile.
    pub fn snapshot_at(&self, revision: Revision) -> Option<Snapshot<I::Extra>> {
        let current = self.current.load();
        if let Some(snapshot) = current.as_of(revision) {
            return Some(snapshot);
        }
        self.kept.lock().find(revision, Instant::now())
    }

    /// Watches the keys under `scope`, which lies under the prefix of the cache, with a queue for `buffer` events.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the window begins after the revision, [`Error::FutureRevision`] if the cache has not come
    /// so far: [`wait_for`](Cache::wait_for) it first. [`Error::Unavailable`] if the cache has been stopped.
    pub fn watch(self: &Arc<Self>, scope: &str, from: WatchFrom, buffer: usize) -> Result<CacheWatch<I>> {
        Ok(self.snapshot_and_watch(scope, from, buffer)?.1)
    }

    /// As [`watch`](Cache::watch), with the state that the cache is in when the watch begins: the events of a watch from
    /// now are exactly those that follow this state.
    ///
    /// # Errors
    /// As [`watch`](Cache::watch).
    pub fn snapshot_and_watch(
        self: &Arc<Self>,
        scope: &str,
        from: WatchFrom,
        buffer: usize,
    ) -> Result<(Snapshot<I::Extra>, CacheWatch<I>)> {
        self.snapshot_and_watch_field(scope, None, from, buffer)
    }

    /// As [`snapshot_and_watch`](Cache::snapshot_and_watch), of the events of objects that have a value in a field, or had
    /// it before the change. It pays where the field is an [indexed](Indexer::indexed_fields) one, or one that many
    /// watchers watch values of: an event visits the watchers of its own values only.
    ///
    /// # Errors
    /// As [`watch`](Cache::watch).
    pub fn snapshot_and_watch_field(
        self: &Arc<Self>,
        scope: &str,
        field: Option<(&str, &str)>,
        from: WatchFrom,
        buffer: usize,
    ) -> Result<(Snapshot<I::Extra>, CacheWatch<I>)> {
        let mut feed = self.feed.lock();
        // Snapshots change under the lock of the feed only.
        let snapshot = self.snapshot();
        let after = match from {
            WatchFrom::Now => snapshot.revision(),
            WatchFrom::After(revision) => revision,
        };
        let interest = Interest { scope, field };
        let subscription = feed.subscribe(interest, after, snapshot.revision(), buffer)?;
        drop(feed);
        Ok((snapshot, CacheWatch::new(Arc::clone(self), subscription, after)))
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.feed.lock().watchers()
    }

    /// What the cache holds and has been through.
    pub fn statistics(&self) -> CacheStatistics {
        let current = self.snapshot();
        let (watchers, slow_watchers, window) = {
            let feed = self.feed.lock();
            (feed.watchers(), feed.slow(), feed.window(Instant::now()))
        };
        let kept = self.kept.lock();
        CacheStatistics {
            revision: current.revision(),
            ready: self.is_ready(),
            objects: current.len(),
            object_bytes: current.size(),
            window,
            kept_snapshots: kept.len(),
            kept_bytes: kept.bytes(current.replaced()),
            watchers,
            slow_watchers,
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }
}

impl<I: Indexer> fmt::Debug for Cache<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cache")
            .field("prefix", &self.prefix)
            .field("revision", &self.revision())
            .finish()
    }
}
