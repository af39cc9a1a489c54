//! What happened to an object of the cache.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::CachedObject;
use crate::Revision;

/// What kind of change an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The object was created or changed.
    Put,
    /// The object was deleted.
    Delete,
}

/// A change of an object. One allocation, shared by the window and all watchers.
pub struct CacheEvent<E> {
    /// What kind of change.
    pub kind: EventKind,
    /// The object after the change; for a deletion, what [`Indexer::deleted`](super::Indexer::deleted) made of the last
    /// state.
    pub object: Arc<CachedObject<E>>,
    /// The object before the change, if it existed.
    pub previous: Option<Arc<CachedObject<E>>>,
    /// The revision of the change.
    pub revision: Revision,
    renderings: Mutex<Vec<(u64, Bytes)>>,
}

/// Forms of one event that are remembered at most: one per encoding, times the kinds of watch event it may become. A form
/// beyond that is made anew each time.
const RENDERINGS: usize = 16;

impl<E> CacheEvent<E> {
    pub(super) fn new(
        kind: EventKind,
        object: Arc<CachedObject<E>>,
        previous: Option<Arc<CachedObject<E>>>,
        revision: Revision,
    ) -> Self {
        Self {
            kind,
            object,
            previous,
            revision,
            renderings: Mutex::default(),
        }
    }

    /// The event as it goes over the wire in some form, made once and shared by all watchers that want the same. `form` is
    /// the caller's number for the form: the encoding, the kind of watch event, the version of the resource. Concurrent
    /// callers of one event wait for each other, so `make` must be quick and must not ask for a rendering itself.
    pub fn rendering(&self, form: u64, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut renderings = self.renderings.lock();
        if let Some((_, bytes)) = renderings.iter().find(|(known, _)| *known == form) {
            return bytes.clone();
        }
        let bytes = make();
        if renderings.len() < RENDERINGS {
            renderings.push((form, bytes.clone()));
        }
        bytes
    }

    /// What the event adds to the window, in bytes.
    pub(super) fn size(&self) -> usize {
        self.object.size()
    }
}

impl<E> fmt::Debug for CacheEvent<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("CacheEvent");
        debug
            .field("kind", &self.kind)
            .field("key", &self.object.key)
            .field("revision", &self.revision);
        debug.finish_non_exhaustive()
    }
}
