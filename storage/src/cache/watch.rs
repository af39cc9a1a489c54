//! A watch of the cache.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;

use super::feed::{End, Subscription};
use super::history::History;
use super::watchers::Place;
use super::{Cache, CacheEvent, Indexer};
use crate::bounded::{Received, Receiver};
use crate::{Error, Result, Revision};

/// The events of a cache after some revision, in order. Dropping it ends the watch.
pub struct CacheWatch<I: Indexer> {
    cache: Arc<Cache<I>>,
    place: Place,
    /// What comes first, of a watch from before the window.
    history: Option<Box<History<I>>>,
    backlog: VecDeque<Arc<CacheEvent<I::Extra>>>,
    live: Receiver<Arc<CacheEvent<I::Extra>>, End>,
    position: Revision,
    /// Why the history ended, until it is told.
    failed: Option<Error>,
    ended: bool,
}

impl<I: Indexer> CacheWatch<I> {
    pub(super) fn new(cache: Arc<Cache<I>>, subscription: Subscription<I::Extra>, after: Revision) -> Self {
        let Subscription { place, backlog, live } = subscription;
        Self {
            cache,
            place,
            history: None,
            backlog,
            live,
            position: after,
            failed: None,
            ended: false,
        }
    }

    /// This watch, after what `history` has of the events after a revision.
    pub(super) fn preceded_by(mut self, history: History<I>, after: Revision) -> Self {
        self.history = Some(Box::new(history));
        self.position = after;
        self
    }

    /// The next event. `None` after an error. Cancel safe.
    ///
    /// # Errors
    /// [`SlowWatcher`](crate::Error::SlowWatcher) if the watcher has not kept up, [`Compacted`](crate::Error::Compacted) if
    /// the cache had to start over, [`Unavailable`](crate::Error::Unavailable) if it has been stopped: all come after the
    /// events that were queued. The client resumes from the last event, or lists again.
    pub async fn next(&mut self) -> Option<Result<Arc<CacheEvent<I::Extra>>>> {
        if self.ended {
            return None;
        }
        if let Some(error) = self.failed.take() {
            self.ended = true;
            return Some(Err(error));
        }
        if let Some(history) = &mut self.history {
            match history.next().await {
                Some(Ok(event)) => return Some(Ok(self.deliver(event))),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => self.history = None,
            }
        }
        loop {
            if let Some(event) = self.backlog.pop_front() {
                return Some(Ok(self.deliver(event)));
            }
            match self.live.receive().await {
                Received::Item(event) => return Some(Ok(self.deliver(event))),
                Received::Poked => {}
                Received::Ended(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The next event if it is there already, so that a response can send several at once. `None`: nothing is there, or the
    /// watch has ended, which [`next`](CacheWatch::next) tells.
    pub fn try_next(&mut self) -> Option<Arc<CacheEvent<I::Extra>>> {
        if self.ended || self.failed.is_some() {
            return None;
        }
        if let Some(history) = &mut self.history {
            match history.next().now_or_never()? {
                Some(Ok(event)) => return Some(self.deliver(event)),
                Some(Err(error)) => {
                    // For `next` to tell: nothing else comes.
                    self.history = None;
                    self.backlog.clear();
                    self.failed = Some(error);
                    return None;
                }
                None => self.history = None,
            }
        }
        if let Some(event) = self.backlog.pop_front() {
            return Some(self.deliver(event));
        }
        if self.live.is_idle() {
            return None;
        }
        match self.live.try_receive()? {
            Received::Item(event) => Some(self.deliver(event)),
            // The end stays in the queue and is found again.
            Received::Poked | Received::Ended(_) => None,
        }
    }

    /// The revision up to which this watch has delivered everything: what a bookmark may say. It rises with every change
    /// of the store, whether or not it concerns this watch.
    pub fn progress(&mut self) -> Revision {
        // In this order: the events up to what those who wait are told have been queued before, so if nothing is queued then,
        // everything up to there has been delivered. (What readers are shown comes before the events.)
        let reached = self.cache.progress.borrow().revision;
        let is_complete = !self.ended && self.failed.is_none() && self.history.is_none() && self.backlog.is_empty();
        if is_complete && self.live.is_idle() {
            self.position = self.position.max(reached);
        }
        self.position
    }

    fn deliver(&mut self, event: Arc<CacheEvent<I::Extra>>) -> Arc<CacheEvent<I::Extra>> {
        self.position = event.revision;
        event
    }
}

impl<I: Indexer> Drop for CacheWatch<I> {
    fn drop(&mut self) {
        self.cache.feed.lock().unsubscribe(&self.place);
    }
}

impl<I: Indexer> fmt::Debug for CacheWatch<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("CacheWatch");
        debug
            .field("prefix", &self.cache.prefix)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
