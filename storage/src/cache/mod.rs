//! A watch cache: one prefix of a store in memory, as bytes ready to be served and an index over them.
//!
//! An [`Indexer`] turns each entry of the store into a [`CachedObject`] once, when it arrives. Everything after that shares
//! it: the current state, the snapshots that lists page through, the events that watchers get.
//!
//! * **Reads** take a [`Snapshot`]: a persistent map behind an atomic pointer. Readers never wait for the writer, the writer
//!   never waits for readers, and a snapshot never changes.
//! * **Freshness**: [`Cache::wait_for`] waits until the cache has seen a revision. It asks the store for progress, so that
//!   it does not wait for a change under its own prefix.
//! * **Watches** start from now or from a revision within the window of recent events, which is bounded in age, count and
//!   bytes. Each watcher has a bounded queue of shared events; one that falls behind is ended with
//!   [`Error::SlowWatcher`], never skipped.
//! * **Start**: the cache loads a state that lies some changes back and replays what followed, so that watchers can resume
//!   across a restart of the process.
//!
//! A cache outlives failures of the store: it resumes where it was, serves what it last knew meanwhile, and starts over if
//! the history it needs is gone; then its watchers end with [`Error::Compacted`].

mod event;
mod feed;
mod follow;
mod kept;
mod map;
mod object;
mod snapshot;
#[cfg(any(test, feature = "contract"))]
pub mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch as signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use event::{CacheEvent, EventKind};
pub use object::{CachedObject, StringMap};
pub use snapshot::{Cursor, Iter, Snapshot};
#[cfg(any(test, feature = "contract"))]
pub use store::CachedStore;
pub use watch::CacheWatch;

use crate::{Entry, Error, Result, Revision, Store};
use feed::Feed;
use kept::KeptSnapshots;

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
}

/// How a cache works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheOptions {
    /// How long events stay in the window, unless the bounds below push them out. Default: 75 seconds, as kube-apiserver
    /// (`DefaultEventFreshDuration`): longer than the minute between bookmarks, so that a client that resumes from its
    /// last bookmark finds its place.
    pub history: Duration,
    /// Events in the window at most. Default: 102,400, as kube-apiserver's largest ring.
    pub max_events: usize,
    /// Bytes of objects in the window at most. Default: 64 MiB: 75 s of 180 changes/s of 4.7 KB.
    pub max_event_bytes: usize,
    /// How many changes of the store to go back at the start, so that watchers can resume from before it. Changes of all
    /// prefixes count. Default: 10,000, which costs each cache about 10 ms of reading at the start.
    pub resume_changes: u64,
    /// Entries to read from the store at once. Default: 1,000, about 5 MB.
    pub page_size: usize,
    /// Snapshots kept for paging at most. Default: 64.
    pub kept_snapshots: usize,
    /// How long a snapshot is kept for paging. Default: 5 minutes, as etcd keeps revisions for kube-apiserver.
    pub kept_for: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(75),
            max_events: 102_400,
            max_event_bytes: 64 << 20,
            resume_changes: 10_000,
            page_size: 1_000,
            kept_snapshots: 64,
            kept_for: Duration::from_secs(300),
        }
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
        let cache = Arc::new(Self {
            store,
            prefix: prefix.into(),
            indexer,
            current: ArcSwap::from_pointee(Snapshot::empty()),
            feed: Mutex::new(Feed::new(&options)),
            kept: Mutex::new(KeptSnapshots::new(options.kept_snapshots, options.kept_for)),
            options,
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
        self.progress.borrow().ready
    }

    /// Waits until the cache is ready. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after `deadline`.
    pub async fn ready(&self, deadline: Instant) -> Result<()> {
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
    /// With `revision` from [`Store::current_revision`] this makes a consistent read.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] after `deadline`, which kube-apiserver sets at 3 seconds.
    pub async fn wait_for(&self, revision: Revision, deadline: Instant) -> Result<Snapshot<I::Extra>> {
        let mut progress = self.progress.subscribe();
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
            self.progress_wanted.notify_one();
            let reached = progress.wait_for(|progress| progress.revision >= revision);
            // Either it has come so far or it is time to ask again; the loop looks.
            let _ = tokio::time::timeout_at(deadline.min(now + PROGRESS_PERIOD), reached).await;
        }
    }

    /// Keeps a snapshot for a while, so that [`snapshot_at`](Cache::snapshot_at) finds it: to be called with the answer of
    /// a list that has a next page.
    pub fn keep(&self, snapshot: &Snapshot<I::Extra>) {
        self.kept.lock().keep(snapshot.clone(), Instant::now());
    }

    /// The state at exactly this revision, if it is the present one or has been kept. Otherwise the caller reads the
    /// store at that revision.
    pub fn snapshot_at(&self, revision: Revision) -> Option<Snapshot<I::Extra>> {
        let current = self.current.load();
        if current.revision() == revision {
            return Some(Snapshot::clone(&current));
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
        let mut feed = self.feed.lock();
        // Snapshots change under the lock of the feed only.
        let snapshot = self.snapshot();
        let after = match from {
            WatchFrom::Now => snapshot.revision(),
            WatchFrom::After(revision) => revision,
        };
        let subscription = feed.subscribe(scope, after, snapshot.revision(), buffer)?;
        drop(feed);
        Ok((snapshot, CacheWatch::new(Arc::clone(self), subscription, after)))
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.feed.lock().watchers()
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
