//! A store that refuses writes of who holds a lease no more.

use std::sync::Arc;

use async_trait::async_trait;
use umbra_storage::{GetResponse, Guard, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchStream};

use super::handle::Held;

tokio::task_local! {
    /// The lease under which the task works.
    static HELD: Arc<Held>;
}

/// Works under a lease: as long as `work` runs, [`still_held`] and [`FencedStore::by_task`] look at it.
pub(super) async fn under<F: Future>(held: Arc<Held>, work: F) -> F::Output {
    HELD.scope(held, work).await
}

/// To be awaited right before a write that no store can fence: it returns only while the lease under which the present task
/// works stands. Where it does not, this waits until the work is ended, which it is about to be. Without a lease there is
/// nothing to wait for.
pub(crate) async fn still_held() {
    if let Ok(held) = HELD.try_with(Arc::clone) {
        held.still().await;
    }
}

/// What fences a write.
#[derive(Debug)]
enum Fence {
    /// This.
    Guard(Guard),
    /// The lease under which the task works that writes; nothing where there is none.
    Task,
}

/// A store as the holder of a lease sees it.
#[derive(Debug)]
pub(super) struct FencedStore {
    inner: Arc<dyn Store>,
    fence: Fence,
}

impl FencedStore {
    /// All writes are fenced by `guard`.
    pub(super) fn new(inner: Arc<dyn Store>, guard: Guard) -> Self {
        let fence = Fence::Guard(guard);
        Self { inner, fence }
    }

    /// Writes are fenced where they are made by a task that works under a lease.
    pub(super) fn by_task(inner: Arc<dyn Store>) -> Self {
        let fence = Fence::Task;
        Self { inner, fence }
    }

    fn guard(&self) -> Option<Guard> {
        match &self.fence {
            Fence::Guard(guard) => Some(guard.clone()),
            Fence::Task => HELD.try_with(|held| held.guard().cloned()).ok().flatten(),
        }
    }
}

#[async_trait]
impl Store for FencedStore {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.inner.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.inner.range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        match self.guard() {
            Some(guard) => self.inner.batch_while(&guard, operations).await,
            None => self.inner.batch(operations).await,
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.inner.watch(prefix, after).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.inner.progress_on_request()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.inner.ready().await
    }
}

#[cfg(test)]
mod tests {
    use umbra_storage::{Embedded, Error, Precondition};

    use super::*;
    use crate::lease::tests::granted;

    #[tokio::test]
    async fn a_task_under_a_lease_is_fenced_and_others_are_not() {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
        let record = store.put("/lease", "a".into(), Precondition::None).await.unwrap();
        let guard = Guard {
            key: "/lease".into(),
            revision: record,
        };
        let held = Arc::new(granted(guard).await);
        let fenced: Arc<dyn Store> = Arc::new(FencedStore::by_task(Arc::clone(&store)));
        let write = || fenced.put("/work", "done".into(), Precondition::None);
        under(Arc::clone(&held), write()).await.unwrap();
        store.put("/lease", "b".into(), Precondition::None).await.unwrap();
        let refused = under(Arc::clone(&held), write()).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict { key, .. } if &*key == "/lease"));
        write().await.unwrap();
        still_held().await;
    }
}
