//! Watches of a cache, with the meaning Kubernetes gives to `resourceVersion`, `sendInitialEvents` and
//! `allowWatchBookmarks` (KEP-3157, KEP-956; `k8s.io/apiserver/pkg/storage/cacher/{cacher,cache_watcher}.go`).

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use tokio::time::Instant;
use umbra_apimachinery::status::Status;
use umbra_storage::cache::{Cursor, EventKind};
use umbra_storage::{Cache, CacheEvent, CacheWatch, Error, Indexer, Revision, Snapshot, Store};

use super::beginning::{Beginning, Begun, beginning_status};
use super::metadata::forbidden;
use super::read::{Scope, invalid_options, ready};
use crate::request::{ListOptions, ResourceVersionMatch};
use crate::resource::{Event, EventStream};

/// How often a watch gets a bookmark (`defaultBookmarkFrequency`).
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long before its end a watch gets its last bookmark (`nextBookmarkTime` of `cache_watcher.go`).
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// The shortest time after which the server ends a watch that sets none (`MinRequestTimeout`); the longest is twice that.
const SHORTEST_WATCH: Duration = Duration::from_secs(1800);
/// Events that may wait for one watcher.
pub(super) const BUFFER: usize = umbra_storage::cache::DEFAULT_WATCH_BUFFER;

/// The changes of the objects of `scope`, as asked for. `deadline` bounds the wait for the beginning.
///
/// # Errors
/// 422 for options that do not go together, 410 for revisions that are gone, 504 for revisions to come.
pub async fn watch<I: Indexer, S: Scope<I::Extra>>(
    store: &dyn Store,
    cache: &Arc<Cache<I>>,
    scope: S,
    options: &ListOptions,
    deadline: Instant,
) -> Result<EventStream, Status> {
    validate(options)?;
    let begin = Beginning::of(options);
    ready(cache, deadline).await?;
    let Begun { events, passed, state } = begin.begin(store, cache, &scope, deadline).await?;
    let now = Instant::now();
    let ends = now + timeout(options);
    let mut watching = Watching {
        cache: Arc::clone(cache),
        events,
        initial: None,
        initial_end_due: begin.marks_end,
        bookmarks: options.allow_watch_bookmarks,
        next_bookmark: now,
        ends,
        passed,
        sent: passed.max(Revision(options.resource_version.unwrap_or_default())),
        over: false,
        scope,
    };
    watching.next_bookmark = watching.bookmark_after(now);
    if let Some(state) = state {
        let cursor = watching.first_of(&state);
        watching.initial = Some((state, cursor));
    }
    Ok(Box::pin(stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        Some((event, watching))
    })))
}

/// A watch that has begun.
struct Watching<I: Indexer, S> {
    cache: Arc<Cache<I>>,
    scope: S,
    events: CacheWatch<I>,
    /// What is there and has not been sent yet.
    initial: Option<(Snapshot<I::Extra>, Cursor)>,
    initial_end_due: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    /// The revision up to which the client has everything, though the cache had not come so far when the watch began.
    passed: Revision,
    /// The revision of what was sent last.
    sent: Revision,
    over: bool,
}

impl<I: Indexer, S: Scope<I::Extra>> Watching<I, S> {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        if let Some(event) = self.next_initial() {
            return Some(event);
        }
        loop {
            let wake = self.next_bookmark.min(self.ends);
            tokio::select! {
                biased;
                received = self.events.next() => match received {
                    Some(Ok(event)) => {
                        if let Some(event) = self.translate(&event) {
                            return Some(event);
                        }
                    }
                    Some(Err(error)) => return self.end(&error),
                    None => return None,
                },
                () = tokio::time::sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return None;
                    }
                    self.next_bookmark = self.bookmark_after(now);
                    if let Some(bookmark) = self.bookmark() {
                        return Some(bookmark);
                    }
                }
            }
        }
    }

    /// Where the objects in question begin in the state at the beginning.
    fn first_of(&self, state: &Snapshot<I::Extra>) -> Cursor {
        let prefix = self.scope.prefix();
        let indexed = self.scope.indexed_field();
        indexed
            .and_then(|(field, value)| Some(state.range_of_field(field, value, prefix, None)?.cursor()))
            .unwrap_or_else(|| state.seek(prefix, None))
    }

    /// The next object of the state at the beginning, or the bookmark after the last.
    fn next_initial(&mut self) -> Option<Event> {
        let (snapshot, cursor) = self.initial.as_mut()?;
        while let Some(object) = snapshot.next(cursor) {
            if self.scope.selects(object) {
                return Some(Event::Added(self.scope.object(object)));
            }
        }
        let revision = snapshot.revision();
        self.initial = None;
        self.sent = revision;
        std::mem::take(&mut self.initial_end_due).then_some(Event::Bookmark {
            revision: revision.0,
            initial_events_end: true,
        })
    }

    /// A change as this watch sees it: an object that enters the selection is new, one that leaves it is deleted.
    fn translate(&mut self, event: &CacheEvent<I::Extra>) -> Option<Event> {
        if event.revision <= self.passed {
            return None;
        }
        let is = event.kind == EventKind::Put && self.scope.selects(&event.object);
        let was = event
            .previous
            .as_deref()
            .filter(|previous| self.scope.selects(previous));
        let event = match (is, was) {
            (true, Some(_)) => Event::Modified(self.scope.object(&event.object)),
            (true, None) => Event::Added(self.scope.object(&event.object)),
            (false, Some(_)) if event.kind == EventKind::Delete => Event::Deleted(self.scope.object(&event.object)),
            (false, Some(previous)) => {
                let last = self.cache.indexer().deleted(previous, event.revision);
                Event::Deleted(self.scope.object(&last))
            }
            (false, None) => return None,
        };
        self.sent = self.sent.max(self.events.progress());
        Some(event)
    }

    /// One is due whether or not anything has happened: it also tells the client that the watch lives.
    fn bookmark(&mut self) -> Option<Event> {
        if !self.bookmarks {
            return None;
        }
        let revision = self.events.progress().max(self.sent);
        self.sent = revision;
        Some(Event::Bookmark {
            revision: revision.0,
            initial_events_end: false,
        })
    }

    /// When the next bookmark is due: a period from now, or shortly before the end where that comes first.
    fn bookmark_after(&self, now: Instant) -> Instant {
        let periodic = now + BOOKMARK_PERIOD;
        match self.ends.checked_sub(LAST_BOOKMARK) {
            Some(last) if last > now => periodic.min(last),
            _ => periodic,
        }
    }

    /// Tells why the watch ends. One that is too slow is only cut off: what it got is good to resume from.
    fn end(&mut self, error: &Error) -> Option<Event> {
        self.over = true;
        match error {
            Error::SlowWatcher { .. } => None,
            other => Some(Event::Error(Box::new(beginning_status(other)))),
        }
    }
}

fn timeout(options: &ListOptions) -> Duration {
    match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.min(2 * SHORTEST_WATCH.as_secs())),
        // Spread, so that watches which began together do not end together.
        _ => SHORTEST_WATCH.mul_f64(1.0 + rand::random::<f64>()),
    }
}

/// Options that do not go together (`validateWatchOptions` of
/// `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`).
fn validate(options: &ListOptions) -> Result<(), Status> {
    let matched = options.resource_version_match;
    let (field, why) = match options.send_initial_events {
        Some(_) if matched != Some(ResourceVersionMatch::NotOlderThan) => (
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        None if matched.is_some() => (
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        _ if !options.continue_token.is_empty() => ("continue", "continue is forbidden for watch"),
        _ => return Ok(()),
    };
    Err(invalid_options(forbidden(field, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let alone = ListOptions {
            send_initial_events: Some(true),
            ..ListOptions::default()
        };
        assert_eq!(validate(&alone).unwrap_err().code, 422);
        let both = ListOptions {
            resource_version_match: Some(ResourceVersionMatch::NotOlderThan),
            ..alone
        };
        assert!(validate(&both).is_ok());
    }
}
