//! Reads off the runtime's threads: the database blocks.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use redb::Database;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::hub::Hub;
use super::read::{Reader, Replay};
use crate::{Error, GetResponse, RangeRequest, RangeResponse, Result, Revision};

/// The way to the database for readers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    /// Empty once the store has been closed.
    database: Arc<ArcSwapOption<Database>>,
    hub: Arc<Hub>,
    tracker: TaskTracker,
}

impl Reads {
    pub(super) fn new(database: Arc<Database>, hub: Arc<Hub>) -> Self {
        Self {
            database: Arc::new(ArcSwapOption::from(Some(database))),
            hub,
            tracker: TaskTracker::new(),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<GetResponse> {
        let key = key.to_owned();
        self.read("reading a key", move |reader| reader.get(&key).map(Ok)).await
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.read("reading a range", move |reader| reader.range(&request)).await
    }

    pub(super) async fn replay(&self, prefix: &Arc<str>, after: Revision, until: Revision) -> Result<Replay> {
        let prefix = Arc::clone(prefix);
        self.read("reading the log", move |reader| reader.replay(&prefix, after, until))
            .await
    }

    /// How many rows the log, the latest versions and the history have.
    #[cfg(test)]
    pub(super) async fn row_counts(&self) -> (u64, u64, u64) {
        self.read("counting rows", |reader| reader.row_counts().map(Ok))
            .await
            .unwrap()
    }

    /// Refuses further reads, waits for those under way, and lets go of the database.
    pub(super) async fn close(&self) {
        self.database.store(None);
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Reader) -> Result<Result<T>, Failure> + Send + 'static,
    ) -> Result<T> {
        let Some(database) = self.database.load_full() else {
            return Err(Error::unavailable("it has been closed"));
        };
        let hub = Arc::clone(&self.hub);
        let task = self.tracker.spawn_blocking(move || {
            let outcome = Reader::begin(&*database).and_then(|reader| {
                let answer = read(&reader);
                hub.wait_for_published(reader.revision);
                answer
            });
            outcome.unwrap_or_else(|failure| Err(failure.into_error(action)))
        });
        task.await.unwrap_or_else(|error| Err(Error::io(action, error)))
    }
}
