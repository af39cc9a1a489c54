//! One watch of the embedded store: first from the log, then live.
//!
//! A watcher registers for live events, which tells it the revision they begin after, and reads the log up to there. If
//! its queue overflows it is taken out of the hub, and does the same again from where it stands. So its memory is bounded
//! and it loses nothing, however slow it is, until it falls behind what has been compacted.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::Stream;

use super::hub::{End, EventSender, Hub, Registration};
use super::reads::Reads;
use crate::bounded::{Received, Receiver, channel};
use crate::{Error, ProgressRequest, Result, Revision, WatchEvent, WatchStream};

/// The state of a watch.
struct Watcher {
    reads: Reads,
    hub: Arc<Hub>,
    prefix: Arc<str>,
    sender: EventSender,
    live: Receiver<WatchEvent, End>,
    registration: Registration,
    /// Everything up to here has been delivered.
    position: Revision,
    /// Live events begin after this revision; up to here the log is read.
    live_after: Revision,
    /// Events read from the log.
    backlog: VecDeque<WatchEvent>,
    /// Where the backlog ends.
    backlog_until: Revision,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.unregister(&self.registration);
    }
}

impl ProgressRequest for EventSender {
    fn request(&self) {
        self.poke();
    }
}

/// Starts a watch of `prefix` after `after`.
pub(super) fn watch(reads: Reads, hub: Arc<Hub>, prefix: &str, after: Revision, buffer: usize) -> Result<WatchStream> {
    let prefix: Arc<str> = Arc::from(prefix);
    let (sender, live) = channel(buffer);
    let (registration, live_after) = hub.register(&prefix, sender.clone())?;
    let watcher = Watcher {
        reads,
        hub,
        prefix,
        sender: sender.clone(),
        live,
        registration,
        position: after,
        live_after,
        backlog: VecDeque::new(),
        backlog_until: after,
    };
    if after > live_after {
        return Err(Error::FutureRevision {
            requested: after,
            current: live_after,
        });
    }
    let oldest = watcher.hub.compacted();
    if after < oldest {
        return Err(Error::Compacted {
            requested: after,
            oldest,
        });
    }
    Ok(WatchStream::new(watcher.into_stream(), Arc::new(sender)))
}

impl Watcher {
    fn into_stream(self) -> impl Stream<Item = Result<WatchEvent>> + Send {
        futures::stream::unfold(Some(self), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                self.position = event.revision();
                return Ok(event);
            }
            self.position = self.position.max(self.backlog_until);
            if self.position < self.live_after {
                let replay = self.reads.replay(&self.prefix, self.position, self.live_after).await?;
                self.backlog = replay.events.into();
                self.backlog_until = replay.until;
                continue;
            }
            match self.live.receive().await {
                Received::Item(event) => {
                    self.position = event.revision();
                    return Ok(event);
                }
                Received::Poked => {
                    if let Some(event) = self.progress() {
                        return Ok(event);
                    }
                }
                Received::Ended(End::Closed) => return Err(Error::unavailable("it has been closed")),
                Received::Ended(End::Overflow(missed)) => self.fall_back_to_log(missed)?,
            }
        }
    }

    /// The progress made, if nothing is queued; otherwise the request is left for later.
    fn progress(&mut self) -> Option<WatchEvent> {
        // In this order: what is published has been queued, so if nothing is queued then, everything is delivered.
        let published = self.hub.published();
        if !self.live.is_idle() {
            self.sender.poke();
            return None;
        }
        self.position = self.position.max(published);
        Some(WatchEvent::Progress {
            revision: self.position,
        })
    }

    fn fall_back_to_log(&mut self, missed: Revision) -> Result<()> {
        // The hub has removed the watcher, so nothing is queued between these lines.
        self.live.reopen();
        self.position = self.position.max(Revision(missed.0 - 1));
        self.backlog_until = self.position;
        (self.registration, self.live_after) = self.hub.register(&self.prefix, self.sender.clone())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use crate::embedded::Embedded;

    #[tokio::test]
    async fn progress_does_not_overtake_an_event() {
        let store = Embedded::in_memory();
        let (hub, prefix) = (Arc::clone(&store.inner.hub), Arc::from("/a/"));
        let (sender, live) = channel(10);
        let (registration, live_after) = hub.register(&prefix, sender.clone()).unwrap();
        let mut watcher = Watcher {
            reads: store.inner.reads.clone(),
            hub: Arc::clone(&hub),
            prefix,
            sender,
            live,
            registration,
            position: live_after,
            live_after,
            backlog: VecDeque::new(),
            backlog_until: live_after,
        };
        let revision = live_after.next();
        let entry = Entry {
            key: "/a/b".into(),
            value: "x".into(),
            create_revision: revision,
            revision,
        };
        let event = WatchEvent::Put { entry, previous: None };
        // As if the event came right after the watcher had found its queue empty and had taken the request.
        hub.publish(std::slice::from_ref(&event), revision);
        assert_eq!(watcher.progress(), None);
        assert_eq!(watcher.next().await.unwrap(), event);
        assert_eq!(
            watcher.next().await.unwrap(),
            WatchEvent::Progress { revision },
            "the request is not forgotten"
        );
    }
}
