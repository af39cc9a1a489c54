//! The watches of the reference store: each reads the log by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::fault::Fault;
use super::reference::{Shared, State};
use crate::{Entry, Error, ProgressRequest, Result, Revision, WatchEvent, WatchStream};

/// Changes that may wait for a watcher of [`Fault::SlowWatchersSkip`].
const PATIENCE: usize = 10_000;

/// One watch.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    prefix: String,
    position: Revision,
    /// The revision at which the watch began.
    began: Revision,
    stirred: watch::Receiver<()>,
    requested: Arc<Requested>,
    again: VecDeque<WatchEvent>,
    compactions: u64,
}

struct Requested {
    flag: AtomicBool,
    shared: Arc<Shared>,
}

impl ProgressRequest for Requested {
    fn request(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.shared.stirred.send_replace(());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.shared.has(Fault::DroppedWatchesEndOthers) {
            self.shared.silenced.store(true, Ordering::SeqCst);
        }
    }
}

impl Watcher {
    pub(super) fn start(shared: Arc<Shared>, prefix: &str, after: Revision, current: Revision) -> WatchStream {
        let requested = Arc::new(Requested {
            flag: AtomicBool::new(false),
            shared: Arc::clone(&shared),
        });
        let position = match shared.fault {
            Some(Fault::WatchesStartLive) => current,
            Some(Fault::WatchesSkipTheFirst) => after.next(),
            Some(Fault::WatchesRepeatTheFirst) => Revision(after.0 - 1),
            _ => after,
        };
        let watcher = Self {
            prefix: prefix.to_owned(),
            position,
            began: current,
            stirred: shared.stirred.subscribe(),
            requested: Arc::clone(&requested),
            again: VecDeque::new(),
            compactions: shared.compactions.load(Ordering::SeqCst),
            shared,
        };
        let events = futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        });
        WatchStream::new(events, requested)
    }

    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            self.stirred.borrow_and_update();
            if self.shared.has(Fault::CompactionEndsWatches)
                && self.shared.compactions.load(Ordering::SeqCst) > self.compactions
            {
                return Err(Error::unavailable("it has compacted"));
            }
            if let Some(event) = self.ready() {
                return Ok(event);
            }
            // The sender lives as long as this watch.
            let _ = self.stirred.changed().await;
        }
    }

    fn ready(&mut self) -> Option<WatchEvent> {
        let shared = Arc::clone(&self.shared);
        let state = shared.state.lock();
        if shared.silenced.load(Ordering::SeqCst) {
            return None;
        }
        if shared.has(Fault::ProgressIsAhead) && self.requested.flag.swap(false, Ordering::SeqCst) {
            let revision = state.revision;
            return Some(WatchEvent::Progress { revision });
        }
        if let Some(event) = self.again.pop_front() {
            return Some(event);
        }
        if shared.has(Fault::LaggardsJump) {
            self.position = self.position.max(state.compacted);
        }
        let start = state.log.partition_point(|event| event.revision() <= self.position);
        let pending = &state.log[start..];
        if shared.has(Fault::SlowWatchersSkip) && pending.len() > PATIENCE {
            self.position = pending[pending.len() - PATIENCE].revision();
        }
        for (index, event) in pending.iter().enumerate() {
            if event.revision() <= self.position || !self.concerns(event) {
                continue;
            }
            if shared.has(Fault::WatchesEndWithThePast) && event.revision() > self.began {
                return None;
            }
            let replaced = || pending[index + 1..].iter().any(|later| later.key() == event.key());
            if shared.has(Fault::EventsAreMerged) && replaced() {
                continue;
            }
            self.position = event.revision();
            let event = self.as_delivered(&state, event);
            if shared.has(Fault::EventsAreDoubled) {
                self.again.push_back(event.clone());
            }
            return Some(event);
        }
        self.position = state.revision.max(self.position);
        let answer = self.requested.flag.swap(false, Ordering::SeqCst) && !shared.has(Fault::ProgressNever);
        answer.then_some(WatchEvent::Progress {
            revision: self.position,
        })
    }

    fn concerns(&self, event: &WatchEvent) -> bool {
        event.key().is_some_and(|key| key.starts_with(&self.prefix))
            && !(self.prefix.is_empty() && self.shared.has(Fault::EmptyPrefixIsNothing))
    }

    fn as_delivered(&self, state: &State, event: &WatchEvent) -> WatchEvent {
        let mut event = event.clone();
        let forgets = self.shared.has(Fault::PreviousIsForgotten);
        let forgotten = |entry: &Entry| forgets && entry.revision < state.compacted;
        match &mut event {
            WatchEvent::Put { previous, .. } if previous.as_ref().is_some_and(forgotten) => *previous = None,
            WatchEvent::Delete { previous, .. } if forgotten(previous) => previous.value.clear(),
            _ => {}
        }
        event
    }
}
