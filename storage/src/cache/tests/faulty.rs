//! A store with the faults of backends: watches that break, stall or say nothing of their progress, a store that is down, and
//! one that has gone back to a backup.

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch as signal;

use super::*;
use crate::{GetResponse, RangeResponse, WatchEvent, WatchStream};

/// Passes everything on to a store, but for what it is told to do.
#[derive(Debug)]
pub(super) struct Faulty {
    store: ArcSwap<Embedded>,
    breaks: signal::Sender<u64>,
    flowing: signal::Sender<bool>,
    /// Refuses watches while set.
    down: Mutex<bool>,
    /// Whether progress comes. What it says of itself is the same.
    progresses: bool,
}

impl Faulty {
    pub(super) fn new() -> Arc<Self> {
        Self::with_progress(true)
    }

    pub(super) fn with_progress(progresses: bool) -> Arc<Self> {
        Arc::new(Self {
            store: ArcSwap::from_pointee(Embedded::in_memory()),
            breaks: signal::Sender::new(0),
            flowing: signal::Sender::new(true),
            down: Mutex::new(false),
            progresses,
        })
    }

    /// Breaks the watches, and refuses new ones until [`recover`](Self::recover). Returns once the cache, which is the only
    /// one who watches, has lost its watch.
    pub(super) async fn lose_watches(&self) {
        self.break_watches();
        // It must have lost its watch before anything happens that it is to miss.
        while self.is_watched() {
            tokio::task::yield_now().await;
        }
    }

    /// Breaks the watches, as those notice who ask them for events, and refuses new ones.
    pub(super) fn break_watches(&self) {
        *self.down.lock() = true;
        self.breaks.send_modify(|count| *count += 1);
    }

    /// Whether somebody watches and has not noticed a break.
    pub(super) fn is_watched(&self) -> bool {
        self.breaks.receiver_count() > 0
    }

    pub(super) fn recover(&self) {
        *self.down.lock() = false;
    }

    /// Holds back what watches deliver, or lets it go.
    pub(super) fn hold(&self, held: bool) {
        self.flowing.send_replace(!held);
    }

    /// Puts another store in the place of this one.
    pub(super) fn replace(&self, store: Embedded) {
        self.store.store(Arc::new(store));
    }

    fn inner(&self) -> Arc<Embedded> {
        self.store.load_full()
    }
}

fn lost() -> Error {
    Error::unavailable("the connection was lost")
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.inner().get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.inner().range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.inner().batch(operations).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        if *self.down.lock() {
            return Err(lost());
        }
        let mut breaks = self.breaks.subscribe();
        let flowing = self.flowing.subscribe();
        let progresses = self.progresses;
        let stream = self.inner().watch(prefix, after).await?;
        let progress = stream.progress_requests();
        let broken = async move {
            let _ = breaks.changed().await;
        };
        let events = stream
            .filter_map(move |event| {
                let mut flowing = flowing.clone();
                async move {
                    let _ = flowing.wait_for(|flowing| *flowing).await;
                    Some(event).filter(|event| progresses || !matches!(event, Ok(WatchEvent::Progress { .. })))
                }
            })
            .take_until(Box::pin(broken))
            .chain(futures::stream::once(async { Err(lost()) }));
        Ok(WatchStream::new(events, progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner().current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.progresses
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner().compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.inner().ready().await
    }
}
