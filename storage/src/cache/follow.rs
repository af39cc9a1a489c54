//! The task that fills a cache and keeps it current.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::event::{CacheEvent, EventKind};
use super::map::ObjectMap;
use super::snapshot::Snapshot;
use super::{Cache, Indexer, Progress};
use crate::{Entry, Error, RangeRequest, Result, Revision, WatchEvent, WatchStream};

/// Events that are applied before their result is published. Publishing costs a copy of the list of chunks.
const BATCH: usize = 512;
/// How often to ask the store for progress without being asked: bookmarks are at most this much older than the store.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait after a failure: up to the first at first, up to the second after some, with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Follows the store until cancelled, then ends the watchers.
pub(super) async fn run<I: Indexer>(cache: Arc<Cache<I>>, cancelled: CancellationToken) {
    let _ = cancelled.run_until_cancelled(follow_forever(&cache)).await;
    cache
        .feed
        .lock()
        .close(Error::unavailable("the cache has been stopped"));
}

async fn follow_forever<I: Indexer>(cache: &Cache<I>) {
    let mut target = None;
    let mut backoff = BACKOFF.0;
    loop {
        let before = cache.revision();
        let Err(error) = follow(cache, &mut target).await;
        if matches!(error, Error::Compacted { .. } | Error::FutureRevision { .. }) {
            // What followed the state of the cache is gone, or the store is another one than it was.
            target = None;
            tracing::info!(prefix = %cache.prefix, %error, "the cache starts over");
        } else {
            tracing::warn!(prefix = %cache.prefix, %error, "the cache has lost the store; it tries again");
        }
        backoff = if cache.revision() > before {
            BACKOFF.0
        } else {
            (backoff * 2).min(BACKOFF.1)
        };
        let pause = rand::rng().random_range(Duration::ZERO..backoff);
        tokio::time::sleep(pause).await;
    }
}

/// Loads the state unless it is loaded, then applies events for as long as there are any. `target` is the revision at which
/// the cache has caught up with the start; `None` before the state is loaded.
async fn follow<I: Indexer>(cache: &Cache<I>, target: &mut Option<Revision>) -> Result<std::convert::Infallible> {
    let target = match *target {
        Some(revision) => revision,
        None => *target.insert(load(cache).await?),
    };
    let mut stream = cache.store.watch(&cache.prefix, cache.revision()).await?;
    stream.request_progress();
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cache.progress_wanted.notified() => stream.request_progress(),
            event = stream.next() => {
                let first = event.ok_or_else(ended)??;
                let (events, error) = gather(first, &mut stream);
                cache.apply(&events, target);
                if let Some(error) = error {
                    return Err(error);
                }
            }
            now = ticks.tick() => {
                stream.request_progress();
                cache.feed.lock().trim(now);
                cache.kept.lock().expire(now);
            }
        }
    }
}

fn ended() -> Error {
    Error::unavailable("the watch has ended")
}

/// The events that are there already, and the error behind them, if any.
fn gather(first: WatchEvent, stream: &mut WatchStream) -> (Vec<WatchEvent>, Option<Error>) {
    let mut events = vec![first];
    while events.len() < BATCH {
        match stream.next().now_or_never() {
            None => break,
            Some(Some(Ok(event))) => events.push(event),
            Some(Some(Err(error))) => return (events, Some(error)),
            Some(None) => return (events, Some(ended())),
        }
    }
    (events, None)
}

/// Loads a state that lies some changes back, if the store still has it. Answers with the revision of the store, at which
/// the cache will have caught up.
async fn load<I: Indexer>(cache: &Cache<I>) -> Result<Revision> {
    let target = cache.store.current_revision().await?;
    let from = Revision(
        target
            .0
            .saturating_sub(cache.options.resume_changes)
            .max(Revision::INITIAL.0),
    );
    let (revision, objects) = match load_at(cache, from).await {
        Err(Error::Compacted { oldest, .. }) if oldest <= target => load_at(cache, oldest).await?,
        other => other?,
    };
    cache.install(revision, objects);
    Ok(target)
}

async fn load_at<I: Indexer>(cache: &Cache<I>, revision: Revision) -> Result<(Revision, ObjectMap<I::Extra>)> {
    let mut objects = ObjectMap::new();
    let mut request = RangeRequest::prefix(&*cache.prefix)
        .limit(cache.options.page_size)
        .at(revision);
    loop {
        let response = cache.store.range(request.clone()).await?;
        for object in response.entries.iter().filter_map(|entry| cache.indexer.object(entry)) {
            objects.insert(Arc::new(object));
        }
        match response.entries.last() {
            Some(last) if response.more => request.start_after = Some(last.key.to_string()),
            _ => return Ok((revision, objects)),
        }
        // A store in memory may answer without ever waiting.
        tokio::task::yield_now().await;
    }
}

impl<I: Indexer> Cache<I> {
    /// Replaces everything by a loaded state.
    fn install(&self, revision: Revision, objects: ObjectMap<I::Extra>) {
        let mut feed = self.feed.lock();
        feed.reset(self.revision(), revision);
        self.kept.lock().clear();
        self.current.store(Arc::new(Snapshot::new(revision, objects)));
    }

    /// Applies events and publishes the result: first to readers, then to watchers, then to those who wait. Who looks at a
    /// snapshot because of an event finds the event's change there.
    fn apply(&self, events: &[WatchEvent], target: Revision) {
        let now = Instant::now();
        let before = self.snapshot();
        let mut objects = before.objects().clone();
        let mut revision = before.revision();
        // Decoding is what takes time; it needs no lock.
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            revision = revision.max(event.revision());
            changes.extend(self.change(event, &mut objects));
        }
        let mut feed = self.feed.lock();
        self.current.store(Arc::new(Snapshot::new(revision, objects)));
        for change in changes {
            feed.publish(Arc::new(change), now);
        }
        drop(feed);
        self.progress.send_if_modified(|progress| {
            let next = Progress {
                revision,
                ready: progress.ready || revision >= target,
            };
            std::mem::replace(progress, next) != next
        });
    }

    /// Applies one event to the objects; `None` if nothing that the cache shows has changed.
    fn change(&self, event: &WatchEvent, objects: &mut ObjectMap<I::Extra>) -> Option<CacheEvent<I::Extra>> {
        match event {
            WatchEvent::Put { entry, .. } => match self.indexer.object(entry) {
                Some(object) => {
                    let object = Arc::new(object);
                    let previous = objects.insert(Arc::clone(&object));
                    Some(CacheEvent::new(EventKind::Put, object, previous, entry.revision))
                }
                None => self.removal(&entry.key, entry, objects),
            },
            WatchEvent::Delete { key, revision, .. } => {
                let last = objects.remove(key)?;
                Some(self.deletion(last, *revision))
            }
            WatchEvent::Progress { .. } => None,
        }
    }

    /// An entry that is no longer to be seen is deleted as far as the cache is concerned.
    fn removal(&self, key: &str, entry: &Entry, objects: &mut ObjectMap<I::Extra>) -> Option<CacheEvent<I::Extra>> {
        let last = objects.remove(key)?;
        Some(self.deletion(last, entry.revision))
    }

    fn deletion(&self, last: Arc<super::CachedObject<I::Extra>>, revision: Revision) -> CacheEvent<I::Extra> {
        let object = Arc::new(self.indexer.deleted(&last, revision));
        CacheEvent::new(EventKind::Delete, object, Some(last), revision)
    }
}
