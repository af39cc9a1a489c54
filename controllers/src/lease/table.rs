//! What a replica has seen of the records, and since when.

use std::collections::BTreeMap;

use tokio::time::Instant;
use umbra_storage::{Entry, RangeResponse, Revision, WatchEvent};

use super::record::{LeaseKey, LeaseRecord, Place};

/// A member, as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObservedMember {
    /// The revision of its record.
    pub(super) revision: Revision,
    /// When it was first seen at that revision, by the clock of this replica.
    pub(super) since: Instant,
}

/// A lease, as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObservedLease {
    pub(super) record: LeaseRecord,
    pub(super) revision: Revision,
    /// When it was first seen at that revision.
    pub(super) since: Instant,
}

/// All records.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) members: BTreeMap<String, ObservedMember>,
    pub(super) leases: BTreeMap<LeaseKey, ObservedLease>,
}

impl Table {
    /// Replaces everything by what a range found. What has not changed has been seen since before.
    pub(super) fn replace(&mut self, found: &RangeResponse, now: Instant) {
        let before = std::mem::take(self);
        for entry in &found.entries {
            self.put(entry, now);
        }
        for (identity, member) in &mut self.members {
            if let Some(known) = before
                .members
                .get(identity)
                .filter(|known| known.revision == member.revision)
            {
                *member = *known;
            }
        }
        for (key, lease) in &mut self.leases {
            if let Some(known) = before.leases.get(key).filter(|known| known.revision == lease.revision) {
                lease.since = known.since;
            }
        }
    }

    /// Takes what a watch delivers.
    pub(super) fn apply(&mut self, event: &WatchEvent, now: Instant) {
        match event {
            WatchEvent::Put { entry, .. } => self.put(entry, now),
            WatchEvent::Delete { key, revision, .. } => self.delete(key, *revision),
            WatchEvent::Progress { .. } => {}
        }
    }

    /// The revision at which something is known; 0 where it is not.
    fn known(&self, place: &Place) -> Revision {
        match place {
            Place::Member(identity) => self.members.get(identity).map(|known| known.revision),
            Place::Lease(key) => self.leases.get(key).map(|known| known.revision),
        }
        .unwrap_or_default()
    }

    /// Takes an entry, unless a newer one is known: answers to writes overtake the watch.
    pub(super) fn put(&mut self, entry: &Entry, now: Instant) {
        let Some(place) = Place::parse(&entry.key).filter(|place| self.known(place) < entry.revision) else {
            return;
        };
        let (revision, since) = (entry.revision, now);
        match place {
            Place::Member(identity) => drop(self.members.insert(identity, ObservedMember { revision, since })),
            Place::Lease(key) => {
                // A record that cannot be read is nobody's.
                let record = serde_json::from_slice(&entry.value).unwrap_or_default();
                let observed = ObservedLease {
                    record,
                    revision,
                    since,
                };
                self.leases.insert(key, observed);
            }
        }
    }

    /// Forgets what is gone since `revision`, unless it is there again.
    pub(super) fn delete(&mut self, key: &str, revision: Revision) {
        match Place::parse(key).filter(|place| self.known(place) < revision) {
            Some(Place::Member(identity)) => drop(self.members.remove(&identity)),
            Some(Place::Lease(key)) => drop(self.leases.remove(&key)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::record::{encode, member_path};

    fn entry(key: String, value: &'static str, revision: u64) -> Entry {
        Entry {
            key: key.into(),
            value: value.into(),
            create_revision: Revision(revision),
            revision: Revision(revision),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_runs_from_the_first_sight_of_a_revision() {
        let started = Instant::now();
        let later = started + Duration::from_secs(5);
        let mut table = Table::default();
        table.put(&entry(member_path("a"), "{}", 5), started);
        table.put(&entry(member_path("a"), "{}", 5), later);
        assert_eq!(table.members["a"].since, started);
        let found = |revision| RangeResponse {
            entries: vec![entry(member_path("a"), "{}", revision)],
            revision: Revision(revision),
            more: false,
            remaining: None,
        };
        table.replace(&found(5), later);
        assert_eq!(table.members["a"].since, started);
        table.replace(&found(6), later);
        assert_eq!(table.members["a"].since, later);
    }

    #[tokio::test]
    async fn what_is_older_than_what_is_known_changes_nothing() {
        let now = Instant::now();
        let key = LeaseKey::cluster("east");
        let held = LeaseRecord::default().taken("a");
        let mut table = Table::default();
        let mut newer = entry(key.path(), "", 7);
        newer.value = encode(&held);
        table.put(&newer, now);
        table.put(&entry(key.path(), "{}", 6), now);
        table.delete(&key.path(), Revision(6));
        assert_eq!(table.leases[&key].record, held);
        table.delete(&key.path(), Revision(8));
        assert!(table.leases.is_empty());
    }
}
