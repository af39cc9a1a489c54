//! A store that refuses writes of who holds a lease no more.

use std::sync::Arc;

use async_trait::async_trait;
use umbra_storage::{GetResponse, Guard, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchStream};

/// A store as the holder of a lease sees it.
#[derive(Debug)]
pub(super) struct FencedStore {
    inner: Arc<dyn Store>,
    guard: Guard,
}

impl FencedStore {
    pub(super) fn new(inner: Arc<dyn Store>, guard: Guard) -> Self {
        Self { inner, guard }
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
        self.inner.batch_while(&self.guard, operations).await
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
