//! Tunnels of other replicas: every replica reaches every child, wherever its agent's tunnel ends.
//!
//! Each replica has one record in the store, `/umbra/tunnels/{identity}`: its address, and the clusters whose tunnels end
//! there. It is written at every change and every [`Timing::period`], and is believed as a membership is
//! ([`crate::lease`]): clocks are never compared, and an observer takes a replica for gone when it has seen its record
//! unchanged for [`Timing::duration`] by its own clock. A replica that ends in an orderly way deletes its record.
//!
//! A stream is asked for at the other replica's own port: `GET …/managedclusters/{cluster}/tunnel` with
//! `Upgrade: umbra-stream/1`. Both sides prove themselves by certificates of the agents' authority, which all replicas share:
//! the asking one as the user `umbra:replica`, the asked one by the name [`REPLICA_NAME`], which it shows to whoever asks for
//! that name alone. When the authority changes, they get other certificates, and what is known of the other replicas is made anew.
//! So no address needs to be in a certificate, and nothing that anybody else trusts is involved. What is
//! asked for at a replica is served by tunnels that end there and never passed on, so there are no loops.

mod peers;
mod record;

use std::time::Duration;

pub use peers::{ReplicaCertificates, ReplicaPeers};

/// The name by which replicas ask each other for their certificate. Nobody resolves it.
pub const REPLICA_NAME: &str = "replica.umbra.internal";

/// How long things take; the same for all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a record is written. 2 s by default, as the heartbeats of [`crate::lease`].
    pub period: Duration,
    /// For how long a record is seen unchanged before its replica is taken for gone. 10 s by default, likewise.
    pub duration: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(2),
            duration: Duration::from_secs(10),
        }
    }
}
