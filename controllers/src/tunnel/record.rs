//! What replicas say to each other in the store about tunnels, and who of them is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use umbra_registry::mirror::MirrorState;
use umbra_storage::Revision;

use super::Timing;

/// Where the records are.
pub(super) const RECORDS: &str = "/umbra/tunnels/";

/// What one replica says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where other replicas reach it: `host:port`.
    pub(super) address: String,
    /// The clusters with a tunnel there.
    pub(super) clusters: BTreeSet<Arc<str>>,
}

/// What all replicas say, by identity.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(pub(super) BTreeMap<String, (Record, Revision)>);

impl MirrorState for Records {
    fn put(&mut self, key: &str, value: &Bytes, revision: Revision) {
        match serde_json::from_slice(value) {
            Ok(record) => drop(self.0.insert(key.to_owned(), (record, revision))),
            Err(error) => tracing::warn!(%error, key, "what a replica says of its tunnels cannot be read"),
        }
    }

    fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// Since when each record has been seen as it is.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<String, (Revision, Instant)>);

/// Replicas that live: the addresses of those that have tunnels of a cluster.
pub(super) type Addresses = BTreeMap<Arc<str>, Vec<String>>;
/// Replicas that are gone: their identities, with the revisions of their records.
pub(super) type Gone = Vec<(String, Revision)>;

impl Seen {
    /// Takes note of the records as they are `now`. Gives the addresses of the living replicas other than `own` for each
    /// cluster, and the identities of those that are gone, with the revisions by which they are.
    pub(super) fn look(&mut self, records: &Records, own: &str, now: Instant, timing: Timing) -> (Addresses, Gone) {
        self.0.retain(|identity, _| records.0.contains_key(identity));
        let mut addresses = Addresses::new();
        let mut gone = Vec::new();
        for (identity, (record, revision)) in records.0.iter().filter(|(identity, _)| *identity != own) {
            let seen = self.0.entry(identity.clone()).or_insert((*revision, now));
            if seen.0 != *revision {
                *seen = (*revision, now);
            }
            if now >= seen.1 + timing.duration {
                gone.push((identity.clone(), *revision));
                continue;
            }
            for cluster in &record.clusters {
                addresses
                    .entry(Arc::clone(cluster))
                    .or_default()
                    .push(record.address.clone());
            }
        }
        (addresses, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_counts_as_long_as_its_record_moves() {
        let timing = Timing::default();
        let (start, mut seen) = (Instant::now(), Seen::default());
        let mut records = Records::default();
        let value = |address: &str| Bytes::from(format!(r#"{{"address":"{address}","clusters":["east"]}}"#));
        records.put("a", &value("a:1"), Revision(1));
        records.put("b", &value("b:1"), Revision(2));
        records.put("c", &Bytes::from_static(b"{"), Revision(3));
        let east = |addresses: &Addresses| addresses.get("east").cloned().unwrap_or_default();
        let (addresses, gone) = seen.look(&records, "b", start, timing);
        assert_eq!((east(&addresses), gone.len()), (vec!["a:1".to_owned()], 0));
        // Just before the end of its time it says something again.
        let later = start + timing.duration - Duration::from_secs(1);
        records.put("a", &value("a:2"), Revision(4));
        assert_eq!(east(&seen.look(&records, "b", later, timing).0), ["a:2"]);
        assert_eq!(
            east(&seen.look(&records, "b", start + timing.duration, timing).0),
            ["a:2"]
        );
        let (addresses, gone) = seen.look(&records, "b", later + timing.duration, timing);
        assert_eq!((east(&addresses).len(), gone), (0, vec![("a".to_owned(), Revision(4))]));
        records.remove("a");
        assert!(seen.look(&records, "b", later + timing.duration, timing).1.is_empty());
    }

    use std::time::Duration;
}
