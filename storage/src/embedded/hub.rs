//! Who watches the store: committed events go to the watchers of their prefixes.
//!
//! The writer publishes every commit once. An event finds its watchers by looking up the prefixes of its key that end
//! with `/` in a hash map, so the cost of an event does not grow with the number of prefixes that are watched. Revisions
//! that concern other prefixes cost a watcher nothing: it reads the published revision when it is asked for progress.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::bounded::{Refused, Sender};
use crate::{Error, Result, Revision, WatchEvent};

/// Why a watcher's queue ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The queue was full. The event of this revision is the first one that is missing.
    Overflow(Revision),
    /// The store has been closed.
    Closed,
}

pub(super) type EventSender = Sender<WatchEvent, End>;

/// The watchers of a store and how far it has come.
#[derive(Debug)]
pub(super) struct Hub {
    registry: Mutex<Registry>,
    /// Signalled when `published` rises and when the store closes.
    published_rose: Condvar,
    published: AtomicU64,
    compacted: AtomicU64,
    failure: Mutex<Option<Error>>,
    damage: Mutex<Option<Error>>,
}

#[derive(Debug, Default)]
struct Registry {
    by_prefix: HashMap<Arc<str>, Vec<Registered>>,
    /// Watchers of prefixes that do not end with `/`; the hash map cannot find these.
    irregular: Vec<(Arc<str>, Registered)>,
    next_id: u64,
    closed: bool,
}

#[derive(Debug)]
struct Registered {
    id: u64,
    sender: EventSender,
}

/// What identifies a registration.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    prefix: Arc<str>,
    id: u64,
}

impl Hub {
    pub(super) fn new(revision: Revision, compacted: Revision) -> Self {
        Self {
            registry: Mutex::default(),
            published_rose: Condvar::new(),
            published: AtomicU64::new(revision.0),
            compacted: AtomicU64::new(compacted.0),
            failure: Mutex::default(),
            damage: Mutex::default(),
        }
    }

    /// The newest revision whose events have been handed to every watcher.
    pub(super) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// The oldest revision available.
    pub(super) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    pub(super) fn set_compacted(&self, revision: Revision) {
        self.compacted.store(revision.0, Ordering::Release);
    }

    /// Remembers why the store cannot be written to.
    pub(super) fn fail(&self, error: Error) {
        *self.failure.lock() = Some(error);
        // Whoever waits for what will not be published now looks again.
        let _registry = self.registry.lock();
        self.published_rose.notify_all();
    }

    /// The store can be written to again.
    pub(super) fn recover(&self) {
        *self.failure.lock() = None;
    }

    /// Why the store cannot be written to, if so.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Remembers that something in the store is damaged, and says so in the log once.
    pub(super) fn damage(&self, error: &Error) {
        let mut damage = self.damage.lock();
        if damage.is_none() {
            tracing::error!(%error, "the store is damaged");
            *damage = Some(error.clone());
        }
    }

    /// What has been found to be damaged, if anything has.
    pub(super) fn damaged(&self) -> Option<Error> {
        self.damage.lock().clone()
    }

    /// Adds a watcher. It gets every event after the revision that is returned, and none up to it.
    pub(super) fn register(&self, prefix: &Arc<str>, sender: EventSender) -> Result<(Registration, Revision)> {
        let mut registry = self.registry.lock();
        if registry.closed {
            return Err(Error::unavailable("it has been closed"));
        }
        let id = registry.next_id;
        registry.next_id += 1;
        let registered = Registered { id, sender };
        if prefix.ends_with('/') {
            registry
                .by_prefix
                .entry(Arc::clone(prefix))
                .or_default()
                .push(registered);
        } else {
            registry.irregular.push((Arc::clone(prefix), registered));
        }
        // Events are published under the same lock, so none lies between the registration and this revision.
        Ok((
            Registration {
                prefix: Arc::clone(prefix),
                id,
            },
            self.published(),
        ))
    }

    /// Removes a watcher; nothing happens if it has been removed already.
    pub(super) fn unregister(&self, registration: &Registration) {
        let mut registry = self.registry.lock();
        if let Some(watchers) = registry.by_prefix.get_mut(&registration.prefix) {
            watchers.retain(|watcher| watcher.id != registration.id);
            if watchers.is_empty() {
                registry.by_prefix.remove(&registration.prefix);
            }
        }
        registry.irregular.retain(|(_, watcher)| watcher.id != registration.id);
    }

    /// Hands the events of a commit to their watchers, then makes `revision` the published one.
    pub(super) fn publish(&self, events: &[WatchEvent], revision: Revision) {
        let mut registry = self.registry.lock();
        for event in events {
            registry.dispatch(event);
        }
        self.published.store(revision.0, Ordering::Release);
        self.published_rose.notify_all();
    }

    /// Blocks until `revision`, which has been committed, is published; `false` if it is not going to be, because the
    /// store is closed or the database it was read from is no longer `current`.
    ///
    /// A read can see a commit in the moment before its events are handed out. Without this, its caller would know a
    /// revision that the store itself does not know yet, and could not watch from it.
    pub(super) fn wait_for_published(&self, revision: Revision, current: impl Fn() -> bool) -> bool {
        if self.published() >= revision {
            return true;
        }
        let mut registry = self.registry.lock();
        loop {
            if self.published() >= revision {
                return true;
            }
            if registry.closed || !current() {
                return false;
            }
            self.published_rose.wait(&mut registry);
        }
    }

    /// How many watchers there are.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        let registry = self.registry.lock();
        registry.irregular.len() + registry.by_prefix.values().map(Vec::len).sum::<usize>()
    }

    /// Ends every watcher, and refuses new ones.
    pub(super) fn close(&self) {
        let mut registry = self.registry.lock();
        registry.closed = true;
        for (_, watchers) in registry.by_prefix.drain() {
            watchers.iter().for_each(|watcher| watcher.sender.end(End::Closed));
        }
        registry
            .irregular
            .drain(..)
            .for_each(|(_, watcher)| watcher.sender.end(End::Closed));
        self.published_rose.notify_all();
    }
}

impl Registry {
    fn dispatch(&mut self, event: &WatchEvent) {
        let Some(key) = event.key() else { return };
        for (index, _) in key.match_indices('/') {
            if let Some(watchers) = self.by_prefix.get_mut(&key[..=index]) {
                watchers.retain(|watcher| deliver(&watcher.sender, event));
            }
        }
        self.irregular
            .retain(|(prefix, watcher)| !key.starts_with(&**prefix) || deliver(&watcher.sender, event));
    }
}

/// Queues the event; `false` if the watcher is to be removed, because the event did not fit.
fn deliver(sender: &EventSender, event: &WatchEvent) -> bool {
    match sender.push(event.clone()) {
        Ok(()) => true,
        Err(Refused) => {
            sender.end(End::Overflow(event.revision()));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_was_read_is_waited_for() {
        let hub = Hub::new(Revision(4), Revision(1));
        let current = std::sync::atomic::AtomicBool::new(true);
        assert!(hub.wait_for_published(Revision(4), || true));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| hub.wait_for_published(Revision(5), || true) && hub.published() == Revision(5));
            std::thread::yield_now();
            hub.publish(&[], Revision(5));
            assert!(reader.join().unwrap());
            let reader = scope.spawn(|| hub.wait_for_published(Revision(6), || current.load(Ordering::SeqCst)));
            current.store(false, Ordering::SeqCst);
            hub.fail(Error::unavailable("its commit failed"));
            assert!(!reader.join().unwrap(), "it is not waited for any more");
            let reader = scope.spawn(|| hub.wait_for_published(Revision(6), || true));
            hub.close();
            assert!(!reader.join().unwrap());
        });
    }
}
