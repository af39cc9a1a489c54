//! A hub that is killed after so many writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use umbra_storage::{GetResponse, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchStream};

/// How many writes are left.
#[derive(Debug)]
pub(super) struct Life {
    left: AtomicI64,
    pub(super) over: CancellationToken,
}

impl Life {
    pub(super) fn of(writes: i64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(writes),
            over: CancellationToken::new(),
        })
    }

    /// A write has happened. After the last one nobody hears of it, nor of anything else.
    pub(super) async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.over.cancel();
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn survived(&self) -> bool {
        !self.over.is_cancelled()
    }
}

/// A store as a hub sees it that is killed.
#[derive(Debug)]
pub(super) struct MortalStore {
    pub(super) inner: Arc<dyn Store>,
    pub(super) life: Arc<Life>,
}

#[async_trait]
impl Store for MortalStore {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.inner.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.inner.range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        if !self.life.survived() {
            std::future::pending::<()>().await;
        }
        let outcomes = self.inner.batch(operations).await;
        self.life.step().await;
        outcomes
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.inner.watch(prefix, after).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.inner.ready().await
    }
}
