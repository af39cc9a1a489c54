//! Which replica of the hub does what: leases, kept in the store that all replicas share.
//!
//! Every replica answers every request, keeps its own mirrors and caches, and is connected to every cluster. What must not
//! be done twice (copying a cluster and writing its status, dispatching to it, planning a fleet) needs the [`Lease`] of that
//! cluster or fleet.
//!
//! | module | concern |
//! |---|---|
//! | `record` | keys and values in the store |
//! | `assign` | which member should hold which lease; pure |
//! | `table` | what this replica has seen of the records, and since when |
//! | `plan` | what this replica has to write next; pure |
//! | `membership` | the heartbeat, the watch, the writes |
//! | `handle` | what controllers see: [`Leases`], [`Lease`], [`Held`] |
//! | `fence` | a store that refuses writes of who holds a lease no more |
//!
//! # Records
//! A member has one record, `/umbra/leases/members/{identity}`, which it renews; a lease is a record
//! `/umbra/leases/held/{kind}/{name}` that names its holder. So one write per period and replica keeps any number of leases,
//! as with the leases of etcd and the sessions of ZooKeeper, where one `Lease` object for each child would cost a thousand
//! writes a period for a thousand children. Everything is written by compare-and-put.
//!
//! They are in the store, not in `coordination.k8s.io` of the hub cluster, because what is protected is in the store: a
//! replica that reaches the hub's API and not the store cannot copy, and one that reaches the store can go on while the hub's
//! API is away. It also lets a lease fence writes (below), and works where there is no hub cluster at all.
//!
//! # Time
//! Clocks of replicas are never compared. A member is gone when *its observer* has seen its record unchanged for
//! [`Timing::duration`] by the observer's own clock (`observedTime` in `k8s.io/client-go/tools/leaderelection`). Then the
//! observer deletes the record, provided that it is still the one observed; what the member held is free from there on. A
//! member whose renewals do not succeed ends all its work [`Timing::renew_deadline`] after the *beginning* of the last one
//! that did, which is before anybody can think it gone. Clocks may differ in speed, by as much as these two are apart.
//!
//! A replica that was killed right after a renewal is noticed after `duration` (10 s) and deleted within half a
//! `retry_period` more (1 s: jitter, so that not all replicas come at once); its leases are taken in the round trip after
//! that. With as much as 2 s for each of these two writes work moves within 15 s. A replica that ends in an orderly way gives
//! its leases back, and they move at once.
//!
//! # Fencing
//! A process can be stopped between looking at the clock and writing, and wake up when somebody else holds its lease. So
//! time alone protects nothing; it only keeps two holders from getting in each other's way. What protects:
//!
//! * **Copies, the catalog, erasing**: every write goes through [`Held::store`] and takes place only while the record of the
//!   lease is at the revision at which the holder took it ([`umbra_storage::Guard`]). Whoever takes the lease over writes
//!   that record, and everything that the last holder sends from then on is refused, for ever: no copy can come back, or go
//!   back to an earlier state. The record is not written while a lease is held, which is why renewals are elsewhere.
//! * **Status of a ManagedCluster**: the last holder may write once too late. The new holder follows the object and writes
//!   what is true.
//! * **Fleets**: the store of a fleet's API is that of users, too; [`Leases::fenced`] fences what the fleet's controllers write
//!   and nothing else. Besides, renderings and statuses are written with the revision or the UID that was read.
//! * **Dispatch**: what is sent to a child cannot be fenced by the hub's store. A holder looks at its lease right before each
//!   write here, too. A late write that slips through is a server-side apply
//!   of a rendering that was stored, or a deletion by UID; both are repeatable. Should it have undone something newer, the copy
//!   shows the difference and the new holder applies again, as with any drift. (Not noticed where a resource is not copied.)
//!
//! # Who holds what
//! See `assign`. A lease moves between living replicas by orderly hand-over: the holder stops, waits until its work has
//! ended, gives the lease back, and the one who should have it takes it. A living member that should have it and does not
//! come (it does not know the cluster, say) is passed over after twice [`Timing::duration`].
//!
//! # One process
//! [`Leases::sole`] holds everything from the start, without a store: the embedded store is locked to one process, so
//! whatever an earlier one has left there means nothing.

mod assign;
mod fence;
mod handle;
mod membership;
mod plan;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use fence::still_held;

use std::time::Duration;

pub use handle::{Held, Lease, Leases};
pub use membership::Membership;
pub use record::{LeaseKey, LeaseKind};

/// How much more than its period a renewal may wait (`JitterFactor` of `k8s.io/client-go/tools/leaderelection`).
const JITTER_FACTOR: f64 = 1.2;

/// How long things take. The same for all replicas of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For how long the record of a member is seen unchanged before it is gone. 10 s by default: what is left of the 15 s
    /// within which work moves is for noticing and taking over.
    pub duration: Duration,
    /// For how long after the beginning of its last renewal a member works on. 7 s by default: three tries to renew, and
    /// 3 s less than `duration` for ending work and for clocks of different speeds.
    pub renew_deadline: Duration,
    /// Between two renewals, up to 1.2 times this. 2 s by default. Also how long one write may take.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(10),
            renew_deadline: Duration::from_secs(7),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Times that cannot work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("leases need duration > renew_deadline > 1.2 × retry_period > 0, not {0:?}")]
pub struct TimingError(Timing);

impl Timing {
    /// Whether a member always stops before others think it gone, and has time to try again
    /// (`NewLeaderElector` of `k8s.io/client-go/tools/leaderelection`).
    fn check(self) -> Result<Self, TimingError> {
        let period = self.retry_period.mul_f64(JITTER_FACTOR);
        let sound = self.duration > self.renew_deadline && self.renew_deadline > period && !period.is_zero();
        if sound { Ok(self) } else { Err(TimingError(self)) }
    }
}
