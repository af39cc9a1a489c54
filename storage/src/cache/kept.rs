//! Snapshots that lists page through.
//!
//! A snapshot shares what has not changed since with the present state, and keeps alive what has: the objects that were
//! replaced or deleted, and its own list of them. Both are bounded together: objects by the bytes that were replaced since
//! the oldest snapshot was taken, which is at least what all of them keep alive, and lists by a pointer an object.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{CacheOptions, Snapshot};
use crate::Revision;

/// The snapshots kept, oldest use first.
pub(super) struct KeptSnapshots<E> {
    capacity: usize,
    max_bytes: usize,
    lifetime: Duration,
    snapshots: VecDeque<(Instant, Snapshot<E>)>,
}

impl<E> KeptSnapshots<E> {
    pub(super) fn new(options: &CacheOptions) -> Self {
        Self {
            capacity: options.kept_snapshots,
            max_bytes: options.max_kept_bytes,
            lifetime: options.kept_for,
            snapshots: VecDeque::new(),
        }
    }

    /// Keeps a snapshot, for its whole lifetime again if it is kept already.
    pub(super) fn keep(&mut self, snapshot: Snapshot<E>, replaced: u64, now: Instant) {
        self.snapshots
            .retain(|(_, kept)| kept.revision() != snapshot.revision());
        self.snapshots.push_back((now, snapshot));
        self.trim(replaced, now);
    }

    /// The state at a revision.
    pub(super) fn find(&mut self, revision: Revision, now: Instant) -> Option<Snapshot<E>> {
        self.expire(now);
        self.snapshots.iter().find_map(|(_, kept)| kept.as_of(revision))
    }

    /// Forgets what is too old, too many or too large, now that the cache has replaced so many bytes.
    pub(super) fn trim(&mut self, replaced: u64, now: Instant) {
        self.expire(now);
        while self.snapshots.len() > self.capacity || self.bytes(replaced) > self.max_bytes {
            self.snapshots.pop_front();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.snapshots.len()
    }

    /// How much memory the snapshots keep alive at most.
    pub(super) fn bytes(&self, replaced: u64) -> usize {
        let oldest = self.snapshots.iter().map(|(_, kept)| kept.replaced()).min();
        let objects = oldest.map_or(0, |oldest| replaced.saturating_sub(oldest));
        let lists: usize = self
            .snapshots
            .iter()
            .map(|(_, kept)| kept.len() * size_of::<usize>())
            .sum();
        usize::try_from(objects).unwrap_or(usize::MAX).saturating_add(lists)
    }

    fn expire(&mut self, now: Instant) {
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
    use std::sync::Arc;

    use super::*;
    use crate::cache::objects::Objects;

    fn snapshot(revision: u64, replaced: u64) -> Snapshot<()> {
        let empty = || Objects::new(Arc::from([]));
        Snapshot::new(Revision(0), empty()).next_state(Revision(revision), empty(), Some(Revision(revision)), replaced)
    }

    #[test]
    fn keeps_the_most_recently_used_for_their_lifetime() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut kept = KeptSnapshots::new(&CacheOptions {
            kept_snapshots: 2,
            kept_for: Duration::from_secs(10),
            ..CacheOptions::default()
        });
        kept.keep(snapshot(1, 0), 0, at(0));
        kept.keep(snapshot(2, 0), 0, at(1));
        kept.keep(snapshot(1, 0), 0, at(2));
        kept.keep(snapshot(3, 0), 0, at(3));
        assert!(
            kept.find(Revision(2), at(3)).is_none(),
            "pushed out, for 1 was used later"
        );
        assert!(kept.find(Revision(1), at(11)).is_some());
        assert!(kept.find(Revision(1), at(12)).is_none());
        assert!(kept.find(Revision(3), at(12)).is_some());
    }

    #[test]
    fn what_snapshots_keep_alive_is_bounded() {
        let now = Instant::now();
        let mut kept = KeptSnapshots::new(&CacheOptions {
            max_kept_bytes: 1_000,
            ..CacheOptions::default()
        });
        kept.keep(snapshot(1, 100), 100, now);
        kept.keep(snapshot(2, 600), 600, now);
        assert_eq!((kept.len(), kept.bytes(1_100)), (2, 1_000));
        kept.trim(1_100, now);
        assert_eq!(kept.len(), 2, "just within the bound");
        kept.trim(1_101, now);
        assert!(kept.find(Revision(1), now).is_none() && kept.find(Revision(2), now).is_some());
        kept.trim(1_601, now);
        assert_eq!((kept.len(), kept.bytes(1_601)), (0, 0));
    }
}
