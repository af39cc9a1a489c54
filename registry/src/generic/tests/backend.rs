//! A store that can be made to fail as backends do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::watch as signal;
use umbra_storage::{
    Embedded, Error, GetResponse, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchEvent,
    WatchStream,
};

/// Passes everything on, but for what is switched off.
#[derive(Debug)]
pub(super) struct Backend {
    store: Embedded,
    trusted: bool,
    /// Whether the store can be read.
    pub(super) down: AtomicBool,
    /// Whether watches deliver.
    flowing: signal::Sender<bool>,
}

impl Backend {
    /// A store whose progress never comes. `trusted` is what it says of that.
    pub(super) fn without_progress(trusted: bool) -> Arc<Self> {
        Arc::new(Self {
            store: Embedded::in_memory(),
            trusted,
            down: AtomicBool::new(false),
            flowing: signal::Sender::new(true),
        })
    }

    /// Holds back what watches deliver, or lets it go.
    pub(super) fn hold(&self, held: bool) {
        self.flowing.send_replace(!held);
    }

    fn up(&self) -> Result<()> {
        if self.down.load(Ordering::Acquire) {
            let message = "the server cannot be reached".into();
            return Err(Error::Unavailable { message });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Backend {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.up()?;
        self.store.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.up()?;
        self.store.range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.store.batch(operations).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.up()?;
        let stream = self.store.watch(prefix, after).await?;
        let progress = stream.progress_requests();
        let flowing = self.flowing.subscribe();
        let events = stream.filter_map(move |event| {
            let mut flowing = flowing.clone();
            async move {
                let _ = flowing.wait_for(|flowing| *flowing).await;
                Some(event).filter(|event| !matches!(event, Ok(WatchEvent::Progress { .. })))
            }
        });
        Ok(WatchStream::new(events, progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.up()?;
        self.store.current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.trusted
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.store.compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.up()
    }
}
