//! What replicas say to each other in the store: who they are, and who holds what.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where everything about leases is.
pub(super) const LEASES: &str = "/umbra/leases/";
/// Where members are, below [`LEASES`].
const MEMBERS: &str = "members/";
/// Where leases are, below [`LEASES`].
const HELD: &str = "held/";

/// What kind of work a lease gives the right to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKind {
    /// Copying a cluster, writing its status, dispatching to it.
    Cluster,
    /// Planning for a fleet: scheduling, rendering, the status of placements, overrides and templates.
    Fleet,
    /// What is done once for the whole hub.
    Hub,
}

impl LeaseKind {
    const ALL: [Self; 3] = [Self::Cluster, Self::Fleet, Self::Hub];

    fn segment(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Fleet => "fleets",
            Self::Hub => "hub",
        }
    }
}

/// Which lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// What kind of work.
    pub kind: LeaseKind,
    /// The cluster, the fleet, or the name of the work.
    pub name: String,
}

impl LeaseKey {
    /// The lease of a cluster.
    #[must_use]
    pub fn cluster(name: &str) -> Self {
        Self::new(LeaseKind::Cluster, name)
    }

    /// The lease of a fleet.
    #[must_use]
    pub fn fleet(name: &str) -> Self {
        Self::new(LeaseKind::Fleet, name)
    }

    /// The lease of a work that the hub does once.
    #[must_use]
    pub fn hub(name: &str) -> Self {
        Self::new(LeaseKind::Hub, name)
    }

    fn new(kind: LeaseKind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
        }
    }

    /// Where the lease is in the store.
    pub(super) fn path(&self) -> String {
        format!("{LEASES}{HELD}{}/{}", self.kind.segment(), self.name)
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.segment(), self.name)
    }
}

/// What a key below [`LEASES`] is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The member of that identity.
    Member(String),
    /// A lease.
    Lease(LeaseKey),
}

impl Place {
    /// Reads a key; `None` where it is no key of this version.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let below = key.strip_prefix(LEASES)?;
        if let Some(identity) = below.strip_prefix(MEMBERS) {
            return Some(Self::Member(identity.to_owned()));
        }
        let (segment, name) = below.strip_prefix(HELD)?.split_once('/')?;
        let kind = LeaseKind::ALL.into_iter().find(|kind| kind.segment() == segment)?;
        Some(Self::Lease(LeaseKey::new(kind, name)))
    }
}

/// Where the record of a member is.
pub(super) fn member_path(identity: &str) -> String {
    format!("{LEASES}{MEMBERS}{identity}")
}

/// The heartbeat of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberRecord {
    /// When it joined, by its own clock. For people: nothing compares it.
    pub(super) joined: Timestamp,
    /// When it renewed last, by its own clock. For people.
    pub(super) renewed: Timestamp,
    /// How often it has renewed.
    pub(super) renewals: u64,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LeaseRecord {
    /// The identity of the member that holds it; empty where nobody does. The lease stands as long as the member does.
    pub(super) holder: String,
    /// How often it has changed hands (`leaderTransitions` of `coordination.k8s.io`).
    pub(super) transitions: u64,
    /// When the holder took it, by its own clock. For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) acquired: Option<Timestamp>,
}

impl LeaseRecord {
    /// What is stored when `holder` takes the lease.
    pub(super) fn taken(&self, holder: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            transitions: self.transitions + 1,
            acquired: Some(Timestamp::now()),
        }
    }

    /// What is stored when the holder gives it back.
    pub(super) fn released(&self) -> Self {
        Self {
            holder: String::new(),
            transitions: self.transitions,
            acquired: None,
        }
    }
}

pub(super) fn encode(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record)
        .expect("records are texts, numbers and times")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for key in [
            LeaseKey::cluster("east"),
            LeaseKey::fleet("all"),
            LeaseKey::hub("roots"),
        ] {
            assert_eq!(Place::parse(&key.path()), Some(Place::Lease(key)));
        }
        let member = "hub-0_5f";
        assert_eq!(
            Place::parse(&member_path(member)),
            Some(Place::Member(member.to_owned()))
        );
        assert_eq!(Place::parse("/umbra/leases/held/moons/io"), None);
        assert_eq!(Place::parse("/umbra/copies/held/clusters/io"), None);
    }
}
