//! What a store is asked for.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Entry, Revision};

/// What must hold of a key for a write to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The key does not exist.
    Absent,
    /// The key exists, and its value was put at this revision.
    Revision(Revision),
}

/// What must hold of another key than the one that is written: that its value was put at this revision and is still there.
///
/// It fences writers: who writes only while the record that made it the writer stands cannot do harm once that record has
/// changed, however late its writes arrive ("sequencers", Burrows, The Chubby lock service, OSDI 2006, section 2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: Arc<str>,
    /// The revision at which its value was put.
    pub revision: Revision,
}

impl Guard {
    /// Whether `entry`, which is what the store has under [`Guard::key`], is the one that is meant.
    #[must_use]
    pub fn holds(&self, entry: Option<&Entry>) -> bool {
        entry.is_some_and(|entry| entry.revision == self.revision)
    }
}

/// One write of a batch.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Puts a value under a key.
    Put {
        /// The key.
        key: Arc<str>,
        /// The value.
        value: Bytes,
        /// What must hold of the key.
        precondition: Precondition,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Arc<str>,
        /// What must hold of the key.
        precondition: Precondition,
    },
}

impl Operation {
    /// Puts `value` under `key`.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Bytes>, precondition: Precondition) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            precondition,
        }
    }

    /// Deletes `key`.
    pub fn delete(key: impl Into<Arc<str>>, precondition: Precondition) -> Self {
        Self::Delete {
            key: key.into(),
            precondition,
        }
    }

    /// The key that is written to.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// How many bytes the operation carries: key and value.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// The answer to a read of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetResponse {
    /// The entry, if the key exists.
    pub entry: Option<Entry>,
    /// The revision of the store at which the key was read.
    pub revision: Revision,
}

/// Which entries to read.
#[derive(Debug, Clone, Default)]
pub struct RangeRequest {
    /// Only keys that start with this. Empty: all keys.
    pub prefix: String,
    /// Only keys after this one, in byte order: the last key of the page before.
    pub start_after: Option<String>,
    /// At most this many entries. 0: all of them.
    pub limit: usize,
    /// Read the state as of this revision. `None`: the present.
    pub revision: Option<Revision>,
    /// Whether to count the entries that the limit keeps out. It costs the embedded store a walk over their keys.
    pub count_remaining: bool,
}

impl RangeRequest {
    /// All entries under `prefix` as of now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// At most `limit` entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// As of `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Also count what the limit keeps out.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.count_remaining = true;
        self
    }

    /// Only keys after `key`.
    #[must_use]
    pub fn after(mut self, key: impl Into<String>) -> Self {
        self.start_after = Some(key.into());
        self
    }
}

/// The answer to a [`RangeRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeResponse {
    /// The entries in the byte order of their keys.
    pub entries: Vec<Entry>,
    /// The revision of the state that was read. The next page asks for it.
    pub revision: Revision,
    /// Whether entries follow that the limit kept out.
    pub more: bool,
    /// How many follow, if the request asked to count them.
    pub remaining: Option<u64>,
}
