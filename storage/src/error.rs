//! What can go wrong with a store.

use std::sync::Arc;

use crate::encryption::DecryptError;
use crate::{Entry, Revision};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store or a cache did not do what was asked. Cheap to clone, because one failed commit is the answer to every
/// write that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The key to be deleted does not exist.
    #[error("key {key:?} does not exist")]
    NotFound {
        /// The key asked for.
        key: Arc<str>,
    },

    /// A precondition did not hold. Nothing was changed.
    #[error("key {key:?} has changed: it is {}", describe(current.as_ref()))]
    Conflict {
        /// The key asked for.
        key: Arc<str>,
        /// What the store holds under the key instead.
        current: Option<Entry>,
    },

    /// The revision lies before the history that is kept.
    #[error("revision {requested} has been compacted; the oldest one available is {oldest}")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The oldest revision that can be read at and watched from.
        oldest: Revision,
    },

    /// The revision has not happened yet.
    #[error("revision {requested} lies in the future; the current one is {current}")]
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The newest revision known to the store or the cache that answered.
        current: Revision,
    },

    /// A watcher did not take its events fast enough and was ended, so that it misses none unnoticed.
    #[error("the watcher was ended because {capacity} events were waiting for it")]
    SlowWatcher {
        /// How many events the watcher may leave waiting.
        capacity: usize,
    },

    /// The store cannot be reached, is closed or has failed before. Nothing was changed.
    #[error("the store is unavailable: {message}")]
    Unavailable {
        /// What is the matter.
        message: Arc<str>,
    },

    /// Reading or writing failed below the store. Whether a write took place is unknown until the store can be read
    /// again.
    #[error("the store failed while {action}")]
    Io {
        /// What the store was doing.
        action: &'static str,
        /// What the layer below said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// A value that is encrypted at rest cannot be read.
    #[error("the value of {key:?} {reason}")]
    Encryption {
        /// The key that the value is stored under.
        key: Arc<str>,
        /// What is the matter with it.
        reason: DecryptError,
    },

    /// The store holds something that it cannot have written.
    #[error("the store is damaged: {message}")]
    Damaged {
        /// What was found where.
        message: Arc<str>,
    },
}

impl Error {
    /// A failure of the layer below while the store was doing `action`.
    pub(crate) fn io(action: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Io {
            action,
            source: Arc::new(source),
        }
    }

    /// A store that cannot serve.
    pub(crate) fn unavailable(message: impl Into<Arc<str>>) -> Self {
        Self::Unavailable {
            message: message.into(),
        }
    }
}

fn describe(current: Option<&Entry>) -> String {
    current.map_or_else(
        || "absent".to_owned(),
        |entry| format!("at revision {}", entry.revision),
    )
}
