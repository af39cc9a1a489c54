//! Snapshots that lists page through.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Snapshot;
use crate::Revision;

/// The snapshots kept, oldest use first.
pub(super) struct KeptSnapshots<E> {
    capacity: usize,
    lifetime: Duration,
    snapshots: VecDeque<(Instant, Snapshot<E>)>,
}

impl<E> KeptSnapshots<E> {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self {
            capacity,
            lifetime,
            snapshots: VecDeque::new(),
        }
    }

    /// Keeps a snapshot, for its whole lifetime again if it is kept already.
    pub(super) fn keep(&mut self, snapshot: Snapshot<E>, now: Instant) {
        self.snapshots
            .retain(|(_, kept)| kept.revision() != snapshot.revision());
        self.snapshots.push_back((now, snapshot));
        while self.snapshots.len() > self.capacity {
            self.snapshots.pop_front();
        }
        self.expire(now);
    }

    /// The snapshot of a revision.
    pub(super) fn find(&mut self, revision: Revision, now: Instant) -> Option<Snapshot<E>> {
        self.expire(now);
        self.snapshots
            .iter()
            .find(|(_, kept)| kept.revision() == revision)
            .map(|(_, kept)| kept.clone())
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        while self
            .snapshots
            .pop_front_if(|(kept_at, _)| *kept_at + self.lifetime <= now)
            .is_some()
        {}
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.snapshots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::map::ObjectMap;

    #[test]
    fn keeps_the_most_recently_used_for_their_lifetime() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let snapshot = |revision| Snapshot::<()>::new(Revision(revision), ObjectMap::new());
        let mut kept = KeptSnapshots::new(2, Duration::from_secs(10));
        kept.keep(snapshot(1), at(0));
        kept.keep(snapshot(2), at(1));
        kept.keep(snapshot(1), at(2));
        kept.keep(snapshot(3), at(3));
        assert!(
            kept.find(Revision(2), at(3)).is_none(),
            "pushed out, for 1 was used later"
        );
        assert!(kept.find(Revision(1), at(11)).is_some());
        assert!(kept.find(Revision(1), at(12)).is_none());
        assert!(kept.find(Revision(3), at(12)).is_some());
    }
}
