//! Watches that begin before the window, from the history of the store.
//!
//! The window is bounded in count and bytes, so many or large changes make it shorter than clients expect, and it begins
//! anew with the process. The store keeps its history for longer. A watch from before the window reads the store's events
//! up to where the cache was when the watch began, and goes on with those of the cache: its own queue has been filling since.
//!
//! Such a watch decodes for itself what others share, and holds a watch of the store while it catches up, so there may be
//! [`CATCHING_UP`] at a time; the others are told to list again, as they would be without this.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tokio::time::Instant;

use super::event::{CacheEvent, EventKind};
use super::feed::Interest;
use super::through::in_time;
use super::{Cache, CacheWatch, Indexer, WatchFrom};
use crate::{Entry, Error, Result, Revision, WatchEvent, WatchStream};

/// Watches of one cache that read the store's history at the same time, at most. Each may keep a queue of a thousand events
/// of 4.7 KB alive that nobody else holds: 150 MB together at the worst.
const CATCHING_UP: usize = 32;

/// The part of a watch that comes from the store.
pub(super) struct History<I: Indexer> {
    cache: Arc<Cache<I>>,
    events: WatchStream,
    scope: Box<str>,
    field: Option<(Box<str>, Box<str>)>,
    /// Where the cache was when the watch began: what follows comes from the cache.
    until: Revision,
    /// The last change up to there.
    last: Revision,
    over: bool,
    _place: Place,
}

/// One of the places for watches that catch up.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = places.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < CATCHING_UP).then_some(taken + 1)
        });
        taken.ok().map(|_| Self(Arc::clone(places)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<I: Indexer> Cache<I> {
    /// Watches as [`snapshot_and_watch_field`](Cache::snapshot_and_watch_field) from the first event after a revision on, also
    /// where the window begins later: what happened before it comes from the history of the store.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history of the store begins after the revision, in the answer or as the end of the watch,
    /// or if many watches are catching up already. [`Error::Unavailable`] if the store has not begun by `deadline`.
    /// Otherwise as [`watch`](Cache::watch) and [`Store::watch`](crate::Store::watch).
    pub async fn watch_from_history(
        self: &Arc<Self>,
        scope: &str,
        field: Option<(&str, &str)>,
        after: Revision,
        buffer: usize,
        deadline: Instant,
    ) -> Result<CacheWatch<I>> {
        let refused = match self.snapshot_and_watch_field(scope, field, WatchFrom::After(after), buffer) {
            Ok((_, watch)) => return Ok(watch),
            Err(error @ Error::Compacted { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some(place) = Place::take(&self.catching_up) else {
            return Err(refused);
        };
        // First, so that what happens meanwhile waits in the queue.
        let (snapshot, watch) = self.snapshot_and_watch_field(scope, field, WatchFrom::Now, buffer)?;
        let events = in_time(deadline, self.store.watch(scope, after)).await?;
        if self.store.progress_on_request() {
            events.request_progress();
        }
        let history = History {
            cache: Arc::clone(self),
            events,
            scope: scope.into(),
            field: field.map(|(field, value)| (field.into(), value.into())),
            until: snapshot.revision(),
            last: snapshot.changed(),
            over: false,
            _place: place,
        };
        Ok(watch.preceded_by(history, after))
    }
}

impl<I: Indexer> History<I> {
    /// The next event; `None` when everything has come that the cache had seen. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Arc<CacheEvent<I::Extra>>>> {
        while !self.over {
            let event = match self.events.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Some(Err(error)),
                None => return Some(Err(Error::unavailable("the watch has ended"))),
            };
            let revision = event.revision();
            self.over = revision >= self.last;
            // One that comes later is in the queue as well.
            if revision > self.until {
                break;
            }
            if let Some(event) = self.event(&event).filter(|event| self.interest().includes(event)) {
                return Some(Ok(Arc::new(event)));
            }
        }
        None
    }

    fn interest(&self) -> Interest<'_> {
        Interest {
            scope: &self.scope,
            field: self.field.as_ref().map(|(field, value)| (&**field, &**value)),
        }
    }

    /// The event as the cache has told it.
    fn event(&self, event: &WatchEvent) -> Option<CacheEvent<I::Extra>> {
        let indexer = &self.cache.indexer;
        let decoded = |entry: &Entry| indexer.object(entry).map(Arc::new);
        let revision = event.revision();
        let (object, previous) = match event {
            WatchEvent::Put { entry, previous } => (decoded(entry), previous.as_ref().and_then(decoded)),
            WatchEvent::Delete { previous, .. } => (None, decoded(previous)),
            WatchEvent::Progress { .. } => return None,
        };
        if let Some(object) = object {
            return Some(CacheEvent::new(EventKind::Put, object, previous, revision));
        }
        let last = previous?;
        let object = Arc::new(indexer.deleted(&last, revision));
        Some(CacheEvent::new(EventKind::Delete, object, Some(last), revision))
    }
}
