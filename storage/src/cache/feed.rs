//! The window of recent events, and who gets the next ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{CacheEvent, CacheOptions};
use crate::bounded::{Receiver, Refused, Sender, channel};
use crate::{Error, Result, Revision};

/// Why a watcher's queue ended.
pub(super) type End = Error;

/// The window and the watchers of a cache.
pub(super) struct Feed<E> {
    window: VecDeque<(Instant, Arc<CacheEvent<E>>)>,
    window_bytes: usize,
    /// The window holds every event after this revision.
    window_after: Revision,
    history: Duration,
    max_events: usize,
    max_bytes: usize,
    watchers: BTreeMap<u64, Watcher<E>>,
    next_id: u64,
    /// Why there will be no more events, if so.
    closed: Option<Error>,
}

struct Watcher<E> {
    scope: Box<str>,
    sender: Sender<Arc<CacheEvent<E>>, End>,
}

/// A watcher's end of the feed.
pub(super) struct Subscription<E> {
    pub(super) id: u64,
    /// Past events to deliver first.
    pub(super) backlog: VecDeque<Arc<CacheEvent<E>>>,
    pub(super) live: Receiver<Arc<CacheEvent<E>>, End>,
}

impl<E> Feed<E> {
    pub(super) fn new(options: &CacheOptions) -> Self {
        Self {
            window: VecDeque::new(),
            window_bytes: 0,
            window_after: Revision(0),
            history: options.history,
            max_events: options.max_events,
            max_bytes: options.max_event_bytes,
            watchers: BTreeMap::new(),
            next_id: 0,
            closed: None,
        }
    }

    /// Goes from the state at `before` to a state at `revision` without knowing the events between: every watcher is ended.
    pub(super) fn reset(&mut self, before: Revision, revision: Revision) {
        self.window.clear();
        self.window_bytes = 0;
        self.window_after = revision;
        self.end_watchers(&Error::Compacted {
            requested: before,
            oldest: revision,
        });
    }

    /// Ends every watcher, and refuses new ones.
    pub(super) fn close(&mut self, reason: Error) {
        self.end_watchers(&reason);
        self.closed = Some(reason);
    }

    fn end_watchers(&mut self, reason: &Error) {
        for watcher in std::mem::take(&mut self.watchers).into_values() {
            watcher.sender.end(reason.clone());
        }
    }

    /// Adds a watcher of the keys under `scope`, of a cache that has come to `current`.
    pub(super) fn subscribe(
        &mut self,
        scope: &str,
        after: Revision,
        current: Revision,
        buffer: usize,
    ) -> Result<Subscription<E>> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        if after > current {
            return Err(Error::FutureRevision {
                requested: after,
                current,
            });
        }
        if after < self.window_after {
            return Err(Error::Compacted {
                requested: after,
                oldest: self.window_after,
            });
        }
        let start = self.window.partition_point(|(_, event)| event.revision <= after);
        let past = self.window.range(start..).map(|(_, event)| event);
        let backlog = past
            .filter(|event| event.object.key.starts_with(scope))
            .cloned()
            .collect();
        let (sender, live) = channel(buffer);
        let id = self.next_id;
        self.next_id += 1;
        self.watchers.insert(
            id,
            Watcher {
                scope: scope.into(),
                sender,
            },
        );
        Ok(Subscription { id, backlog, live })
    }

    /// Removes a watcher.
    pub(super) fn unsubscribe(&mut self, id: u64) {
        self.watchers.remove(&id);
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Hands an event to its watchers and adds it to the window.
    pub(super) fn publish(&mut self, event: Arc<CacheEvent<E>>, now: Instant) {
        self.watchers.retain(|_, watcher| {
            if !event.object.key.starts_with(&*watcher.scope) {
                return true;
            }
            match watcher.sender.push(Arc::clone(&event)) {
                Ok(()) => true,
                Err(Refused) => {
                    watcher.sender.end(Error::SlowWatcher {
                        capacity: watcher.sender.capacity(),
                    });
                    false
                }
            }
        });
        self.window_bytes += event.size();
        self.window.push_back((now, event));
        self.trim(now);
    }

    /// Drops events that are too old or too many.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some((at, event)) = self.window.front() {
            let expired = *at + self.history <= now;
            if !expired && self.window.len() <= self.max_events && self.window_bytes <= self.max_bytes {
                break;
            }
            self.window_after = event.revision;
            self.window_bytes -= event.size();
            self.window.pop_front();
        }
    }
}
