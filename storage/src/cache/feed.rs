//! The window of recent events, and who gets the next ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::watchers::{Place, Watchers};
use super::{CacheEvent, CacheOptions, WindowStatistics};
use crate::bounded::{Receiver, channel};
use crate::{Error, Result, Revision};

/// Why a watcher's queue ended.
pub(super) type End = Error;

/// How often to say that the window is too short: as often as clients notice, once a bookmark.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The window and the watchers of a cache.
pub(super) struct Feed<E> {
    window: VecDeque<(Instant, Arc<CacheEvent<E>>)>,
    window_bytes: usize,
    /// The window holds every event after this revision.
    window_after: Revision,
    history: Duration,
    max_events: usize,
    max_bytes: usize,
    watchers: Watchers<E>,
    /// Events that were pushed out of the window before their time.
    pushed_out: u64,
    /// When it was told how many had been pushed out.
    complained: Option<(Instant, u64)>,
    slow: u64,
    /// Why there will be no more events, if so.
    closed: Option<Error>,
}

/// A watcher's end of the feed.
pub(super) struct Subscription<E> {
    pub(super) place: Place,
    /// Past events to deliver first.
    pub(super) backlog: VecDeque<Arc<CacheEvent<E>>>,
    pub(super) live: Receiver<Arc<CacheEvent<E>>, End>,
}

/// What a watcher is to get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interest<'a> {
    /// What the keys start with.
    pub(super) scope: &'a str,
    /// A field and the value that it has to have, before or after the change.
    pub(super) field: Option<(&'a str, &'a str)>,
}

impl Interest<'_> {
    pub(super) fn includes<E>(&self, event: &CacheEvent<E>) -> bool {
        event.object.key.starts_with(self.scope)
            && self.field.is_none_or(|(field, value)| {
                event.object.field(field) == value
                    || event
                        .previous
                        .as_deref()
                        .is_some_and(|previous| previous.field(field) == value)
            })
    }
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
            watchers: Watchers::new(),
            pushed_out: 0,
            complained: None,
            slow: 0,
            closed: None,
        }
    }

    /// Goes from the state at `before` to a state at `revision` without knowing the events between: every watcher is ended.
    pub(super) fn reset(&mut self, before: Revision, revision: Revision) {
        self.window.clear();
        self.window_bytes = 0;
        self.window_after = revision;
        self.watchers.end(&Error::Compacted {
            requested: before,
            oldest: revision,
        });
    }

    /// Ends every watcher, and refuses new ones.
    pub(super) fn close(&mut self, reason: Error) {
        self.watchers.end(&reason);
        self.closed = Some(reason);
    }

    /// Adds a watcher, of a cache that has come to `current`.
    pub(super) fn subscribe(
        &mut self,
        interest: Interest<'_>,
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
        let backlog = past.filter(|event| interest.includes(event)).cloned().collect();
        let (sender, live) = channel(buffer);
        let place = self.watchers.add(interest.scope, interest.field, sender);
        Ok(Subscription { place, backlog, live })
    }

    /// Removes a watcher.
    pub(super) fn unsubscribe(&mut self, place: &Place) {
        self.watchers.remove(place);
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Watchers ended so far because they were too slow.
    pub(super) fn slow(&self) -> u64 {
        self.slow
    }

    pub(super) fn window(&self, now: Instant) -> WindowStatistics {
        WindowStatistics {
            events: self.window.len(),
            bytes: self.window_bytes,
            after: self.window_after,
            age: self
                .window
                .front()
                .map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at)),
            pushed_out: self.pushed_out,
        }
    }

    /// Hands an event to its watchers and adds it to the window.
    pub(super) fn publish(&mut self, event: Arc<CacheEvent<E>>, now: Instant) {
        self.slow += self.watchers.publish(&event) as u64;
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
            if !expired {
                self.pushed_out += 1;
            }
            self.window_after = event.revision;
            self.window_bytes -= event.size();
            self.window.pop_front();
        }
    }

    /// What the window has come to, if events have been pushed out before their time since this was last told, and that was
    /// not just now.
    pub(super) fn complaint(&mut self, now: Instant) -> Option<WindowStatistics> {
        let (at, told) = self.complained.unwrap_or((now, 0));
        if self.pushed_out == told || told > 0 && now < at + COMPLAINT {
            return None;
        }
        self.complained = Some((now, self.pushed_out));
        Some(self.window(now))
    }
}
