//! A watch, across all the connections that it takes.
//!
//! A task follows etcd and fills a bounded queue. It reads from the connection whether the queue has room or not, because
//! streams share their connection's flow control window, and one that is not read would hold up the others. When the queue
//! is full, it ends the stream, and takes up the history again when half of the queue has been read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;

use super::Core;
use super::backoff::Backoff;
use super::progress::{Progress, Requests};
use super::session::SessionEnd;
use crate::{Error, Result, Revision, WatchEvent, WatchStream};

/// Pauses between connections: the first is short, since another member can take over at once.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How long a member may be silent at most before another one is tried, however often this was in vain.
const MOST_PATIENCE: Duration = Duration::from_mins(1);

/// A watch.
pub(super) struct Watcher {
    pub(super) core: Arc<Core>,
    pub(super) prefix: Arc<str>,
    pub(super) events: mpsc::Sender<WatchEvent>,
    pub(super) requests: Arc<Requests>,
    pub(super) position: Position,
    pub(super) progress: Progress,
    /// The cluster that the watch began in.
    pub(super) cluster: Option<u64>,
    /// How long to wait for a sign of life.
    pub(super) patience: Duration,
    /// Whether a new token was got since the last event.
    pub(super) authenticated: bool,
    /// Whether there was a connection before.
    pub(super) connected: bool,
}

/// How far a watch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The last revision of which something was delivered.
    pub(super) revision: Revision,
    /// How many events of that revision were, as long as it is not certain that it was all of them. (The store's own
    /// transactions have one event each; those of others may have several, and an answer can end between them.)
    pub(super) delivered: Option<usize>,
}

impl Position {
    /// Everything up to this revision has been delivered.
    pub(super) fn complete(revision: Revision) -> Self {
        Self {
            revision,
            delivered: None,
        }
    }

    /// The revision up to which certainly everything has been delivered.
    pub(super) fn complete_until(self) -> Revision {
        match self.delivered {
            None => self.revision,
            Some(_) => Revision(self.revision.0 - 1),
        }
    }

    /// Whether there is certainly nothing more of the revision of the position.
    pub(super) fn is_complete(self) -> bool {
        self.delivered.is_none()
    }

    /// Everything up to `revision` has been delivered. What is behind the position is no news.
    pub(super) fn advance(&mut self, revision: Revision) {
        if revision >= self.revision {
            *self = Self::complete(revision);
        }
    }

    /// One more event has been delivered.
    pub(super) fn deliver(&mut self, revision: Revision) {
        let before = if revision == self.revision {
            self.delivered.unwrap_or(0)
        } else {
            0
        };
        *self = Self {
            revision,
            delivered: Some(before + 1),
        };
    }
}

/// Starts a watch.
pub(super) async fn watch(core: &Arc<Core>, prefix: &str, after: Revision) -> Result<WatchStream> {
    // What an answer has shown exists; of anything else the store has to be asked.
    if after > core.connection.known() {
        let current = core.read_current_revision().await?;
        if after > current {
            return Err(Error::FutureRevision {
                requested: after,
                current,
            });
        }
    }
    let (sender, receiver) = mpsc::channel(core.options.watch_buffer);
    let requests = Arc::new(Requests::default());
    let watcher = Watcher {
        core: Arc::clone(core),
        prefix: Arc::from(prefix),
        events: sender,
        requests: Arc::clone(&requests),
        position: Position::complete(after),
        progress: Progress::default(),
        cluster: None,
        patience: core.options.heartbeat,
        authenticated: false,
        connected: false,
    };
    let end = Arc::new(OnceLock::new());
    core.tasks.spawn(watcher.run(Arc::clone(&end)));
    Ok(WatchStream::new(events(receiver, end), requests))
}

/// The events, and after them the reason why there are no more.
fn events(
    receiver: mpsc::Receiver<WatchEvent>,
    end: Arc<OnceLock<Error>>,
) -> impl Stream<Item = Result<WatchEvent>> + Send {
    futures::stream::unfold(Some((receiver, end)), |state| async move {
        let (mut receiver, end) = state?;
        match receiver.recv().await {
            Some(event) => Some((Ok(event), Some((receiver, end)))),
            None => {
                let reason = end.get().cloned();
                let reason = reason.unwrap_or_else(|| Error::unavailable("the watch has ended without a reason"));
                Some((Err(reason), None))
            }
        }
    })
}

impl Watcher {
    async fn run(mut self, end: Arc<OnceLock<Error>>) {
        let (shutdown, events) = (self.core.shutdown.clone(), self.events.clone());
        let reason = tokio::select! {
            biased;
            () = shutdown.cancelled() => Error::unavailable("it has been closed"),
            () = events.closed() => return,
            reason = self.follow() => reason,
        };
        // Before the queue ends, which it does when this returns.
        end.get_or_init(|| reason);
    }

    /// Follows etcd from connection to connection, until it is certain that this cannot be gone on with.
    async fn follow(&mut self) -> Error {
        let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let mut member = rand::random_range(0..self.core.connection.members.len());
        loop {
            let before = self.position;
            match self.session(member).await {
                SessionEnd::Fatal(error) => return error,
                SessionEnd::Full => {
                    let half = self.events.max_capacity().div_ceil(2);
                    // An error means that nobody reads any more, and then this is not polled again.
                    let _ = self.events.reserve_many(half).await;
                    backoff.reset();
                    continue;
                }
                SessionEnd::Silent(connection) => {
                    self.patience = (self.patience * 2).min(MOST_PATIENCE);
                    self.lost(member, "it is silent");
                    self.core.connection.members[member]
                        .forget_watch_connection(&connection)
                        .await;
                }
                SessionEnd::Lost(reason) => self.lost(member, &reason),
            }
            if self.position != before {
                backoff.reset();
            }
            member = (member + 1) % self.core.connection.members.len();
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn lost(&self, member: usize, reason: &str) {
        let endpoint = &self.core.connection.members[member].endpoint;
        tracing::debug!(endpoint, prefix = %self.prefix, reason, "a watch looks for another etcd member");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_complete_once_something_later_is_known() {
        let mut position = Position::complete(Revision(5));
        position.deliver(Revision(7));
        position.deliver(Revision(7));
        assert_eq!(
            position,
            Position {
                revision: Revision(7),
                delivered: Some(2)
            }
        );
        assert_eq!(position.complete_until(), Revision(6));
        position.advance(Revision(6));
        assert_eq!(
            position.complete_until(),
            Revision(6),
            "a member that lags behind says nothing new"
        );
        position.advance(Revision(7));
        assert_eq!(position.complete_until(), Revision(7));
        position.deliver(Revision(9));
        assert_eq!(
            position,
            Position {
                revision: Revision(9),
                delivered: Some(1)
            }
        );
    }
}
