//! Reads off the runtime's threads: the database blocks.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::hub::Hub;
use super::medium::Medium;
use super::read::{Reader, Replay};
use super::slot::{Generation, Slot};
use super::writer::Command;
use crate::{Error, GetResponse, RangeRequest, RangeResponse, Result, Revision};

/// How often a read is begun again because the database was replaced under it, before it gives up.
const ATTEMPTS: usize = 3;

/// The way to the database for readers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    slot: Arc<Slot>,
    hub: Arc<Hub>,
    medium: Arc<dyn Medium>,
    /// Where to tell that the database has failed. Weak, because watches outlive the store that they are of.
    commands: mpsc::WeakSender<Command>,
    tracker: TaskTracker,
}

impl Reads {
    pub(super) fn new(
        slot: Arc<Slot>,
        hub: Arc<Hub>,
        medium: Arc<dyn Medium>,
        commands: mpsc::WeakSender<Command>,
    ) -> Self {
        Self {
            slot,
            hub,
            medium,
            commands,
            tracker: TaskTracker::new(),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<GetResponse> {
        let key = key.to_owned();
        self.read("reading", move |reader| reader.get(&key).map(Ok)).await
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.read("reading", move |reader| reader.range(&request)).await
    }

    pub(super) async fn replay(&self, prefix: &Arc<str>, after: Revision, until: Revision) -> Result<Replay> {
        let prefix = Arc::clone(prefix);
        self.read("reading", move |reader| reader.replay(&prefix, after, until))
            .await
    }

    /// How many rows the log, the latest versions and the history have.
    #[cfg(test)]
    pub(super) async fn row_counts(&self) -> (u64, u64, u64) {
        self.read("reading", |reader| reader.row_counts().map(Ok))
            .await
            .unwrap()
    }

    /// Waits for the reads under way, and until the writer has let go of the database.
    pub(super) async fn closed(&self) {
        let slot = Arc::clone(&self.slot);
        // Should the wait be cancelled, it still ends: the writer ends in any case.
        self.tracker.spawn_blocking(move || slot.wait_until_closed());
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Reads one state, beside other reads and the writer. `read` may run more than once.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl Fn(&Reader<'_>) -> Result<Result<T>, Failure> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let task = self.tracker.spawn_blocking(move || this.read_blocking(action, read));
        task.await.unwrap_or_else(|error| Err(Error::io(action, error)))
    }

    /// As [`read`](Self::read), on this thread.
    pub(super) fn read_blocking<T>(
        &self,
        action: &'static str,
        read: impl Fn(&Reader<'_>) -> Result<Result<T>, Failure>,
    ) -> Result<T> {
        let mut interrupted = None;
        for _ in 0..ATTEMPTS {
            let (generation, begun) = self.slot.begin_read(interrupted)?;
            let outcome = Failure::guard(|| {
                let transaction = begun?;
                let reader = Reader::begin(&transaction)?;
                let answer = read(&reader)?;
                // What a failed commit has left in memory is never published, and goes with its database.
                let current = || self.slot.holds(generation);
                if self.hub.wait_for_published(reader.revision, current) && current() {
                    Ok(answer)
                } else {
                    Err(Failure::Database(redb::Error::DatabaseClosed))
                }
            });
            let failure = match outcome {
                Ok(answer) => return answer,
                Err(failure) => failure,
            };
            if !failure.is_interruption() {
                return Err(self.report(&failure, action, generation));
            }
            // A failure that only this read has met leaves the database unusable too.
            self.tell(generation, failure);
            interrupted = Some(generation);
        }
        Err(Error::unavailable("it keeps failing and being opened again"))
    }

    /// As [`read_blocking`](Self::read_blocking), for what cannot be begun again once it has begun.
    pub(super) fn read_once<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Reader<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let (generation, begun) = self.slot.begin_read(None)?;
        let outcome = Failure::guard(|| {
            let transaction = begun?;
            let reader = Reader::begin(&transaction)?;
            let current = || self.slot.holds(generation);
            if self.hub.wait_for_published(reader.revision, current) && current() {
                read(&reader)
            } else {
                Err(Failure::Database(redb::Error::DatabaseClosed))
            }
        });
        outcome.map_err(|failure| self.report(&failure, action, generation))
    }

    /// What the reader is told. Others hear of it too: a damaged file makes the store not ready, a failing disk has the
    /// database opened again.
    fn report(&self, failure: &Failure, action: &'static str, generation: Generation) -> Error {
        let error = failure.to_error(action, self.medium.path());
        if failure.is_damage() {
            self.hub.damage(&error);
        }
        if !matches!(failure, Failure::Damaged(_)) {
            let explained = failure.explain(action, self.medium.path());
            self.tell(
                generation,
                Failure::Database(redb::Error::Io(std::io::Error::other(explained))),
            );
        }
        error
    }

    fn tell(&self, generation: Generation, failure: Failure) {
        if let Some(commands) = self.commands.upgrade() {
            // A full queue is no loss: the next write finds out.
            let _ = commands.try_send(Command::Reopen { generation, failure });
        }
    }
}
