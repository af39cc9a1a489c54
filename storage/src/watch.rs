//! What a watch of a store delivers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::BoxStream;

use crate::{Entry, Result, Revision};

/// One item of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A value was put.
    Put {
        /// The entry as it is now; its revision is the revision of the event.
        entry: Entry,
        /// The entry as it was before.
        previous: Option<Entry>,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The entry as it was before.
        previous: Entry,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// Every event up to and including this revision has been delivered, and none after it.
    Progress {
        /// The revision reached.
        revision: Revision,
    },
}

impl WatchEvent {
    /// The revision of the event.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { entry, .. } => entry.revision,
            Self::Delete { revision, .. } | Self::Progress { revision } => *revision,
        }
    }

    /// The key that changed; `None` for progress.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<str>> {
        match self {
            Self::Put { entry, .. } => Some(&entry.key),
            Self::Delete { key, .. } => Some(key),
            Self::Progress { .. } => None,
        }
    }
}

/// How a backend takes the request for a [`WatchEvent::Progress`].
pub trait ProgressRequest: Send + Sync {
    /// Asks for progress. Does not wait.
    fn request(&self);
}

/// The events of one watch, in the order of their revisions. It ends only after an error.
///
/// Cancel safe: dropping a pending `next()` loses nothing. Dropping the stream ends the watch.
pub struct WatchStream {
    events: BoxStream<'static, Result<WatchEvent>>,
    progress: Arc<dyn ProgressRequest>,
}

impl WatchStream {
    /// A watch made of a backend's events and its way of asking for progress.
    pub fn new(
        events: impl Stream<Item = Result<WatchEvent>> + Send + 'static,
        progress: Arc<dyn ProgressRequest>,
    ) -> Self {
        Self {
            events: Box::pin(events),
            progress,
        }
    }

    /// Asks for a [`WatchEvent::Progress`] that is at least at the revision the store has now. It comes after the events
    /// up to its revision; several requests may get one answer. Without being asked a backend sends progress as it sees
    /// fit, or never.
    pub fn request_progress(&self) {
        self.progress.request();
    }

    /// The way to ask for progress, for a store that wraps the watches of another one.
    #[must_use]
    pub fn progress_requests(&self) -> Arc<dyn ProgressRequest> {
        Arc::clone(&self.progress)
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchStream").finish_non_exhaustive()
    }
}
