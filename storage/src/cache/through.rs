//! Reading the store itself, as objects of the cache.
//!
//! Where the cache cannot know that it is current, because the store's progress does not come or cannot be trusted, the
//! state is read from the store (the fallback of consistent reads in
//! `k8s.io/apiserver/pkg/storage/cacher/delegator.go`). An object that the cache has at the same revision is taken from the
//! cache: it is not decoded again and takes no more memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::objects::Objects;
use super::{Cache, CachedObject, Indexer, Snapshot};
use crate::{Entry, Error, RangeRequest, RangeResponse, Result, Revision};

/// How long a read waits for the cache to become fresh enough before it asks the store (`blockTimeout` of
/// `k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`).
const FRESHNESS: Duration = Duration::from_secs(3);

/// A page of the store.
#[derive(Debug)]
pub struct StorePage<E> {
    /// The objects, in the order of their keys. What the indexer does not show is left out.
    pub objects: Vec<Arc<CachedObject<E>>>,
    /// The revision of the state that was read. The next page asks for it.
    pub revision: Revision,
    /// The last key that was read, whether or not it is shown. The next page starts after it.
    pub last_key: Option<Arc<str>>,
    /// Whether entries follow that the limit kept out.
    pub more: bool,
    /// How many follow, if the request asked to count them.
    pub remaining: Option<u64>,
}

impl<I: Indexer> Cache<I> {
    /// A state with everything that was acknowledged before the call, at least of the objects under `prefix`, which lies under
    /// the prefix of the cache. It comes from the cache, which may first have to be filled, where the store's progress tells
    /// that the cache is current; otherwise from the store, and then has the objects under `prefix` only. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store cannot be read by `deadline`, and what [`Store::range`](crate::Store::range) says.
    pub async fn present(&self, prefix: &str, deadline: Instant) -> Result<Snapshot<I::Extra>> {
        let is_ready = self.ready(deadline.min(Instant::now() + FRESHNESS)).await.is_ok();
        if is_ready && self.store.progress_on_request() {
            let current = in_time(deadline, self.store.current_revision()).await?;
            match self.wait_for(current, deadline.min(Instant::now() + FRESHNESS)).await {
                Err(Error::FutureRevision { .. }) => {}
                other => return other,
            }
        }
        self.state_of_store(prefix, None, deadline).await
    }

    /// A state that is not older than `revision`, at least of the objects under `prefix`: from the cache if it is ready and has
    /// come so far or soon does, otherwise from the store, as [`present`](Cache::present). Cancel safe.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] if the store has not come so far either. [`Error::Unavailable`] as in
    /// [`present`](Cache::present).
    pub async fn not_older_than(
        &self,
        prefix: &str,
        revision: Revision,
        deadline: Instant,
    ) -> Result<Snapshot<I::Extra>> {
        if self.is_ready() {
            let patience = if self.store.progress_on_request() {
                deadline.min(Instant::now() + FRESHNESS)
            } else {
                Instant::now()
            };
            match self.wait_for(revision, patience).await {
                Err(Error::FutureRevision { .. }) => {}
                other => return other,
            }
        }
        let snapshot = self.state_of_store(prefix, None, deadline).await?;
        if snapshot.revision() < revision {
            return Err(Error::FutureRevision {
                requested: revision,
                current: snapshot.revision(),
            });
        }
        Ok(snapshot)
    }

    /// A page of the store itself. Cancel safe.
    ///
    /// # Errors
    /// What [`Store::range`](crate::Store::range) says; [`Error::Unavailable`] after `deadline`.
    pub async fn page_of_store(&self, request: RangeRequest, deadline: Instant) -> Result<StorePage<I::Extra>> {
        let response = in_time(deadline, self.store.range(request)).await?;
        let RangeResponse {
            entries,
            revision,
            more,
            remaining,
        } = response;
        let current = self.snapshot();
        Ok(StorePage {
            objects: entries
                .iter()
                .filter_map(|entry| self.shared(entry, &current))
                .collect(),
            revision,
            last_key: entries.last().map(|last| Arc::clone(&last.key)),
            more,
            remaining,
        })
    }

    /// The objects under `prefix` as the store has them at a revision, or now.
    pub(super) async fn state_of_store(
        &self,
        prefix: &str,
        revision: Option<Revision>,
        deadline: Instant,
    ) -> Result<Snapshot<I::Extra>> {
        let mut objects = Objects::new(Arc::clone(self.snapshot().objects().fields()));
        let mut request = RangeRequest::prefix(prefix).limit(self.options.page_size);
        request.revision = revision;
        loop {
            let page = self.page_of_store(request.clone(), deadline).await?;
            for object in &page.objects {
                objects.insert(object);
            }
            let Some(last) = page.last_key.filter(|_| page.more) else {
                return Ok(Snapshot::new(page.revision, objects));
            };
            request.revision = Some(page.revision);
            request.start_after = Some(last.to_string());
            // A store in memory may answer without ever waiting.
            tokio::task::yield_now().await;
        }
    }

    /// The object of an entry: the one that the cache has, if it is the same.
    fn shared(&self, entry: &Entry, current: &Snapshot<I::Extra>) -> Option<Arc<CachedObject<I::Extra>>> {
        let known = current.get(&entry.key).filter(|known| known.revision == entry.revision);
        match known {
            Some(known) => Some(Arc::clone(known)),
            None => self.indexer.object(entry).map(Arc::new),
        }
    }
}

/// An answer of the store, unless it takes too long.
pub(super) async fn in_time<T>(deadline: Instant, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout_at(deadline, answer)
        .await
        .unwrap_or_else(|_| Err(Error::unavailable("the store has not answered in time")))
}
