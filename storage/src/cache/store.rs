//! A store behind a watch cache, as a store: what the suite needs to hold the cache to the contract of what it caches.
//!
//! Writes go to the store. Reads and watches come from the cache wherever it has what the contract promises, and from the
//! store where it does not:
//!
//! * the present, if the store's progress can be trusted and the cache catches up in time;
//! * the state at a revision, if the cache is there or has kept it for paging;
//! * a watch, if the window reaches back to its beginning, or the store's history does.
//!
//! It is compiled for tests only, because nothing else needs it: the product reads objects, with selectors and pages, and
//! asks the cache itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Cache, CacheEvent, CacheOptions, CacheWatch, CachedObject, EventKind, Indexer, Snapshot, StringMap};
use crate::{
    Entry, Error, GetResponse, Guard, Operation, ProgressRequest, RangeRequest, RangeResponse, Result, Revision, Store,
    WatchEvent, WatchStream,
};

/// How long a read waits for the cache before it asks the store, as kube-apiserver waits (`blockTimeout` of
/// `k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`).
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before the store is asked for its revision again.
const RETRY: Duration = Duration::from_millis(100);
/// How long to wait before the progress of a watch is looked at again.
const LOOK: Duration = Duration::from_millis(5);
/// How long a cache may take to be filled at the start.
const FILLED: Duration = Duration::from_secs(30);

/// Keeps entries as they are.
#[derive(Debug)]
pub struct Entries;

impl Indexer for Entries {
    /// The revision at which the key came into being.
    type Extra = Revision;

    fn object(&self, entry: &Entry) -> Option<CachedObject<Revision>> {
        Some(CachedObject {
            key: Arc::clone(&entry.key),
            revision: entry.revision,
            bytes: entry.value.clone(),
            namespace: Box::default(),
            name: Box::default(),
            labels: StringMap::default(),
            fields: StringMap::default(),
            extra: entry.create_revision,
        })
    }

    fn deleted(&self, last: &CachedObject<Revision>, revision: Revision) -> CachedObject<Revision> {
        CachedObject {
            revision,
            ..last.clone()
        }
    }
}

fn entry(object: &CachedObject<Revision>) -> Entry {
    Entry {
        key: Arc::clone(&object.key),
        value: object.bytes.clone(),
        create_revision: object.extra,
        revision: object.revision,
    }
}

/// A store behind a cache of one of its prefixes.
pub struct CachedStore {
    store: Arc<dyn Store>,
    cache: Arc<Cache<Entries>>,
    watch_buffer: usize,
    /// What is older has been compacted through this store; the cache may still know it, and must not tell.
    compacted: AtomicU64,
    /// Answers that came from the cache.
    served: AtomicU64,
}

impl CachedStore {
    /// Puts a cache of `prefix` before `store`, and waits until it is filled. The cache ends when the guard is dropped.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the cache is not filled in half a minute.
    pub async fn start(
        store: Arc<dyn Store>,
        prefix: &str,
        options: CacheOptions,
        watch_buffer: usize,
    ) -> Result<(Arc<Self>, DropGuard)> {
        let cancelled = CancellationToken::new();
        let tracker = TaskTracker::new();
        let guard = cancelled.clone().drop_guard();
        let cache = Cache::start(Arc::clone(&store), prefix, Entries, options, &tracker, cancelled);
        cache.ready(Instant::now() + FILLED).await?;
        let cached = Arc::new(Self {
            store,
            cache,
            watch_buffer,
            compacted: AtomicU64::new(0),
            served: AtomicU64::new(0),
        });
        Ok((cached, guard))
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<Cache<Entries>> {
        &self.cache
    }

    /// How many reads and watches were answered by the cache.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn covers(&self, prefix: &str) -> bool {
        prefix.starts_with(self.cache.prefix())
    }

    fn count(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// A state of the cache with every write that was acknowledged before the call; `None` if the store has to be asked.
    async fn present(&self) -> Result<Option<Snapshot<Revision>>> {
        if !self.store.progress_on_request() {
            return Ok(None);
        }
        let current = self.store.current_revision().await?;
        match self.cache.wait_for(current, Instant::now() + PATIENCE).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(Error::FutureRevision { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_compacted(&self, revision: Revision) -> bool {
        revision.0 < self.compacted.load(Ordering::Acquire)
    }

    fn page(&self, snapshot: &Snapshot<Revision>, request: &RangeRequest) -> RangeResponse {
        self.count();
        let mut objects = snapshot.range(&request.prefix, request.start_after.as_deref());
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let entries = objects.by_ref().take(limit).map(|object| entry(object)).collect();
        let remaining = objects.len();
        if remaining > 0 {
            self.cache.keep(snapshot);
        }
        RangeResponse {
            entries,
            revision: snapshot.revision(),
            more: remaining > 0,
            remaining: request.count_remaining.then_some(remaining as u64),
        }
    }

    /// A watch of the cache; `None` if it cannot begin so early, or so late.
    async fn watch_cache(&self, prefix: &str, after: Revision) -> Result<Option<CacheWatch<Entries>>> {
        if after > self.cache.revision() {
            if !self.store.progress_on_request() {
                return Ok(None);
            }
            let current = self.store.current_revision().await?;
            if after > current {
                return Err(Error::FutureRevision {
                    requested: after,
                    current,
                });
            }
            match self.cache.wait_for(after, Instant::now() + PATIENCE).await {
                Ok(_) => {}
                Err(Error::FutureRevision { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let (buffer, deadline) = (self.watch_buffer, Instant::now() + FILLED);
        match self
            .cache
            .watch_from_history(prefix, None, after, buffer, deadline)
            .await
        {
            Ok(watch) => Ok(Some(watch)),
            Err(Error::Compacted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Store for CachedStore {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        if !self.covers(key) {
            return self.store.get(key).await;
        }
        let Some(snapshot) = self.present().await? else {
            return self.store.get(key).await;
        };
        self.count();
        Ok(GetResponse {
            entry: snapshot.get(key).map(|object| entry(object)),
            revision: snapshot.revision(),
        })
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        if !self.covers(&request.prefix) {
            return self.store.range(request).await;
        }
        let snapshot = match request.revision {
            None => self.present().await?,
            Some(revision) if self.is_compacted(revision) => None,
            Some(revision) => self.cache.snapshot_at(revision),
        };
        match snapshot {
            Some(snapshot) => Ok(self.page(&snapshot, &request)),
            None => self.store.range(request).await,
        }
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.store.batch(operations).await
    }

    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.store.batch_while(guard, operations).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        if !self.covers(prefix) || self.is_compacted(after) {
            return self.store.watch(prefix, after).await;
        }
        let Some(watch) = self.watch_cache(prefix, after).await? else {
            return self.store.watch(prefix, after).await;
        };
        self.count();
        let asked = Arc::new(Asked::default());
        let watching = Watching {
            store: Arc::clone(&self.store),
            cache: Arc::clone(&self.cache),
            watch,
            asked: Arc::clone(&asked),
            reaching: None,
            wanted: None,
        };
        let events = stream::unfold(watching, |mut watching| async move {
            let event = watching.next().await?;
            Some((event, watching))
        });
        Ok(WatchStream::new(events, asked))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.store.current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.store.progress_on_request()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.store.compact(revision).await?;
        self.compacted.fetch_max(revision.0, Ordering::AcqRel);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("CachedStore");
        debug.field("store", &self.store).field("cache", &self.cache);
        debug.finish_non_exhaustive()
    }
}

/// That progress was asked for.
#[derive(Default)]
struct Asked(Notify);

impl ProgressRequest for Asked {
    fn request(&self) {
        self.0.notify_one();
    }
}

/// A watch of the cache as one of the store.
struct Watching {
    store: Arc<dyn Store>,
    cache: Arc<Cache<Entries>>,
    watch: CacheWatch<Entries>,
    asked: Arc<Asked>,
    /// Finds out what the revision of the store is, once progress is asked for, and waits for the cache to come so far.
    reaching: Option<BoxFuture<'static, Revision>>,
    /// The progress to tell, as soon as the events up to it are delivered.
    wanted: Option<Revision>,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            let revision = self.watch.progress();
            if self.wanted.take_if(|wanted| *wanted <= revision).is_some() {
                return Some(Ok(WatchEvent::Progress { revision }));
            }
            let reached = async {
                match &mut self.reaching {
                    Some(reaching) => reaching.await,
                    None => std::future::pending().await,
                }
            };
            // The end of what a watch reads from the store's history shows in its progress only.
            let look_again = async {
                match self.wanted {
                    Some(_) => tokio::time::sleep(LOOK).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // An answer that is on its way may be older than this request: it is found out anew.
                () = self.asked.0.notified() => {
                    self.reaching = Some(reach(Arc::clone(&self.store), Arc::clone(&self.cache)).boxed());
                }
                revision = reached => {
                    self.reaching = None;
                    self.wanted = Some(revision);
                }
                event = self.watch.next() => return event.map(|event| event.map(|event| translate(&event))),
                () = look_again => {}
            }
        }
    }
}

/// Waits for the cache to come to where the store is now.
async fn reach(store: Arc<dyn Store>, cache: Arc<Cache<Entries>>) -> Revision {
    let revision = loop {
        match store.current_revision().await {
            Ok(revision) => break revision,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    while cache.wait_for(revision, Instant::now() + PATIENCE).await.is_err() {}
    revision
}

fn translate(event: &CacheEvent<Revision>) -> WatchEvent {
    let previous = event.previous.as_deref().map(entry);
    match (event.kind, previous) {
        (EventKind::Delete, Some(previous)) => WatchEvent::Delete {
            key: Arc::clone(&event.object.key),
            previous,
            revision: event.revision,
        },
        (_, previous) => WatchEvent::Put {
            entry: entry(&event.object),
            previous,
        },
    }
}
