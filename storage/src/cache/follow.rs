//! The task that fills a cache and keeps it current.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::event::{CacheEvent, EventKind};
use super::objects::Objects;
use super::{Cache, CachedObject, Indexer, Progress, Snapshot};
use crate::{Entry, Error, Result, Revision, WatchEvent, WatchStream};

/// Events that are applied before their result is published. Publishing costs a copy of the list of chunks.
const BATCH: usize = 512;
/// How often to ask the store for progress without being asked: bookmarks are at most this much older than the store.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait after a failure: up to the first at first, up to the second after some, with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long the state may take to load: 500,000 objects from a slow disk, many times over. Then it is tried again.
const LOADED: Duration = Duration::from_secs(600);

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
        match &error {
            // What followed the state of the cache is gone.
            Error::Compacted { .. } => target = None,
            // The store is another one than it was, and nothing that the cache holds can be relied on.
            Error::FutureRevision { .. } => {
                target = None;
                cache.forget();
            }
            _ => {}
        }
        if target.is_none() {
            cache.restarts.fetch_add(1, Ordering::Relaxed);
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
    request_progress(cache, &stream);
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
                request_progress(cache, &stream);
                cache.tidy(now);
            }
        }
    }
}

/// Asks for progress though nobody waits, unless it is not to be relied on.
fn request_progress<I: Indexer>(cache: &Cache<I>, stream: &WatchStream) {
    if cache.store.progress_on_request() {
        stream.request_progress();
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
    // Without progress the cache would not learn that it has caught up: it loads the present. A cache that starts over
    // does not go back behind what it has served.
    let back = if cache.store.progress_on_request() {
        cache.options.resume_changes
    } else {
        0
    };
    let earliest = cache.revision().max(Revision::INITIAL);
    let from = Revision(target.0.saturating_sub(back)).max(earliest);
    let state = match load_at(cache, from).await {
        Err(Error::Compacted { oldest, .. }) if oldest <= target => load_at(cache, oldest).await?,
        other => other?,
    };
    cache.install(state, target);
    Ok(target)
}

async fn load_at<I: Indexer>(cache: &Cache<I>, revision: Revision) -> Result<Snapshot<I::Extra>> {
    // Each page has the store's own deadline; how many there are is not known.
    let deadline = Instant::now() + LOADED;
    cache.state_of_store(&cache.prefix, Some(revision), deadline).await
}

impl<I: Indexer> Cache<I> {
    /// Replaces everything by a loaded state.
    fn install(&self, state: Snapshot<I::Extra>, target: Revision) {
        let revision = state.revision();
        let mut feed = self.feed.lock();
        feed.reset(self.revision(), revision);
        self.kept.lock().clear();
        self.current.store(Arc::new(state));
        drop(feed);
        self.tell(revision, target);
    }

    /// Forgets a state that never was, as far as the store is concerned.
    fn forget(&self) {
        *self.unready_since.lock() = Instant::now();
        self.ready.store(false, Ordering::Release);
        let fields = Arc::clone(self.snapshot().objects().fields());
        let nothing = Snapshot::new(Revision(0), Objects::new(fields));
        self.install(nothing, Revision::INITIAL);
    }

    /// Tells those who wait how far the cache has come.
    fn tell(&self, revision: Revision, target: Revision) {
        if revision >= target {
            self.ready.store(true, Ordering::Release);
        }
        self.progress.send_if_modified(|progress| {
            let next = Progress {
                revision,
                ready: self.is_ready(),
            };
            std::mem::replace(progress, next) != next
        });
    }

    /// Drops what is out of date, and says so if the window has become too short.
    fn tidy(&self, now: Instant) {
        let complaint = {
            let mut feed = self.feed.lock();
            feed.trim(now);
            feed.complaint(now)
        };
        self.kept.lock().trim(self.current.load().replaced(), now);
        if let Some(window) = complaint {
            tracing::warn!(
                prefix = %self.prefix,
                events = window.events,
                bytes = window.bytes,
                seconds = window.age.as_secs(),
                wanted = self.options.history.as_secs(),
                "changes are so many or so large that the window of recent events is shorter than it should be; watches \
                 that resume from before it read the history of the store"
            );
        }
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
        let changed = changes.last().map(|change: &CacheEvent<I::Extra>| change.revision);
        let replaced: usize = changes
            .iter()
            .filter_map(|change| change.previous.as_deref())
            .map(CachedObject::size)
            .sum();
        let after = before.next_state(revision, objects, changed, replaced as u64);
        let mut feed = self.feed.lock();
        self.current.store(Arc::new(after));
        for change in changes {
            feed.publish(Arc::new(change), now);
        }
        drop(feed);
        self.tell(revision, target);
    }

    /// Applies one event to the objects; `None` if nothing that the cache shows has changed.
    fn change(&self, event: &WatchEvent, objects: &mut Objects<I::Extra>) -> Option<CacheEvent<I::Extra>> {
        match event {
            WatchEvent::Put { entry, .. } => match self.indexer.object(entry) {
                Some(object) => {
                    let object = Arc::new(object);
                    let previous = objects.insert(&object);
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
    fn removal(&self, key: &str, entry: &Entry, objects: &mut Objects<I::Extra>) -> Option<CacheEvent<I::Extra>> {
        let last = objects.remove(key)?;
        Some(self.deletion(last, entry.revision))
    }

    fn deletion(&self, last: Arc<CachedObject<I::Extra>>, revision: Revision) -> CacheEvent<I::Extra> {
        let object = Arc::new(self.indexer.deleted(&last, revision));
        CacheEvent::new(EventKind::Delete, object, Some(last), revision)
    }
}
