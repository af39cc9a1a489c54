//! Watches that go on while the model changes.

use super::super::{TestStore, next, row};
use super::Model;
use crate::{Error, Revision, WatchEvent, WatchStream};

/// A watch, and how far it has been followed.
pub(super) struct Following {
    stream: WatchStream,
    prefix: &'static str,
    position: u64,
}

impl Following {
    pub(super) async fn start(store: &TestStore, prefix: &'static str, position: u64) -> Self {
        Self {
            stream: store.watch(prefix, Revision(position)).await.unwrap(),
            prefix,
            position,
        }
    }
}

impl Model {
    pub(super) async fn watch(&mut self, store: &TestStore, prefix: &'static str, back: u64) {
        let position = self.current.saturating_sub(back).max(self.oldest);
        self.watches.push(Following::start(store, prefix, position).await);
    }

    /// The store was away: the watches are begun again where they were.
    pub(super) async fn watch_again(&mut self, store: &TestStore) {
        let oldest = self.oldest;
        self.watches.retain(|watch| watch.position >= oldest);
        for watch in &mut self.watches {
            watch.stream = store.watch(watch.prefix, Revision(watch.position)).await.unwrap();
        }
    }

    /// Every watch delivers exactly what has changed under its prefix. One that compaction has overtaken is given up.
    pub(super) async fn follow(&mut self, store: &TestStore) {
        let progress = store.progress_on_request();
        let mut watches = std::mem::take(&mut self.watches);
        for mut watch in watches.drain(..) {
            if self.follow_one(&mut watch, progress).await {
                self.watches.push(watch);
            }
        }
    }

    /// Answers whether the watch goes on.
    pub(super) async fn follow_one(&self, watch: &mut Following, progress: bool) -> bool {
        if watch.position < self.oldest {
            // What it has to deliver has been given up, here too. What it may do then is a function of the suite.
            return false;
        }
        if progress {
            // It must not overtake what is still to come.
            watch.stream.request_progress();
        }
        let changes = self.changes.range(watch.position + 1..);
        for (revision, (key, before, after)) in changes.filter(|(_, change)| change.0.starts_with(watch.prefix)) {
            let event = loop {
                match next(&mut watch.stream).await {
                    Ok(WatchEvent::Progress { revision: reached }) => {
                        assert!(
                            reached.0 < *revision,
                            "progress at {reached} before the change at {revision}"
                        );
                    }
                    Ok(event) => break event,
                    // Allowed, as long as nothing was left out before: the suite asks for more where more is due.
                    Err(Error::SlowWatcher { .. } | Error::Compacted { .. }) => return false,
                    Err(error) => panic!("watched from {} on: {error}", watch.position),
                }
            };
            let (found_before, found_after) = match &event {
                WatchEvent::Put { entry, previous } => (previous.as_ref().map(row), Some(row(entry))),
                WatchEvent::Delete { previous, .. } => (Some(row(previous)), None),
                WatchEvent::Progress { .. } => unreachable!("progress is passed over"),
            };
            assert_eq!(
                (
                    event.revision().0,
                    event.key().map(|key| &**key),
                    &found_before,
                    &found_after
                ),
                (*revision, Some(*key), before, after),
                "under {:?}",
                watch.prefix
            );
        }
        if progress {
            watch.stream.request_progress();
            loop {
                match next(&mut watch.stream).await.unwrap() {
                    WatchEvent::Progress { revision } if revision.0 >= self.current => break,
                    WatchEvent::Progress { .. } => watch.stream.request_progress(),
                    event => panic!("{event:?} comes after everything"),
                }
            }
        }
        watch.position = self.current;
        true
    }
}
