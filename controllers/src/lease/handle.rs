//! What controllers see of leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_storage::{Guard, Store};

use super::fence::{FencedStore, under};
use super::record::LeaseKey;

/// The leases of one replica. Clones are the same.
#[derive(Debug, Clone)]
pub struct Leases(Option<Arc<Shared>>);

/// What handles and [`Membership`](super::Membership) share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    slots: Mutex<BTreeMap<LeaseKey, Slot>>,
    /// Until when this replica may work. `None`: it may not.
    valid_until: Mutex<Option<Instant>>,
    /// Told when somebody begins or ends to be interested, or ends work.
    pub(super) changed: Notify,
}

/// One lease.
#[derive(Debug, Default)]
struct Slot {
    /// Handles there are.
    interest: usize,
    /// Pieces of work under way.
    users: usize,
    grant: watch::Sender<Option<Grant>>,
}

/// The right to work.
#[derive(Debug, Clone)]
struct Grant {
    guard: Guard,
    lost: CancellationToken,
}

/// How a lease is used in this replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Use {
    /// Whether anybody wants it.
    pub(super) wanted: bool,
    /// Whether any work under it has not ended.
    pub(super) busy: bool,
    /// Under which record it is granted.
    pub(super) granted: Option<Guard>,
}

impl Leases {
    /// Everything is held, for ever: for a process that has its store for itself.
    #[must_use]
    pub fn sole() -> Self {
        Self(None)
    }

    /// Nothing is ever held: for a replica that leaves all work to others.
    #[must_use]
    pub fn none() -> Self {
        Self(Some(Arc::default()))
    }

    pub(super) fn shared(shared: Arc<Shared>) -> Self {
        Self(Some(shared))
    }

    /// A lease that this replica wants to hold, if that is how leases are divided. Dropping it ends the wish.
    #[must_use]
    pub fn lease(&self, key: LeaseKey) -> Lease {
        let shared = self.0.as_ref().map(|shared| {
            let grants = {
                let mut slots = shared.slots.lock();
                let slot = slots.entry(key.clone()).or_default();
                slot.interest += 1;
                slot.grant.subscribe()
            };
            shared.changed.notify_one();
            (Arc::clone(shared), grants)
        });
        Lease { key, shared }
    }

    /// A store that fences writes by the lease under which the task works that writes ([`Held::scope`]), and passes on all
    /// others: for what is shared by controllers and by requests of users.
    #[must_use]
    pub fn fenced(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match &self.0 {
            None => store,
            Some(_) => Arc::new(FencedStore::by_task(store)),
        }
    }

    /// The leases that this replica may work under now. Empty for [`Leases::sole`], which has no list of them.
    #[must_use]
    pub fn held(&self) -> Vec<LeaseKey> {
        let Some(shared) = &self.0 else { return Vec::new() };
        if !shared.is_valid() {
            return Vec::new();
        }
        let slots = shared.slots.lock();
        let granted = slots.iter().filter(|(_, slot)| slot.grant.borrow().is_some());
        granted.map(|(key, _)| key.clone()).collect()
    }
}

/// The wish to hold a lease.
#[derive(Debug)]
pub struct Lease {
    key: LeaseKey,
    shared: Option<(Arc<Shared>, watch::Receiver<Option<Grant>>)>,
}

impl Lease {
    /// Waits until this replica holds the lease; at once in a process that has its store for itself. Several may work under
    /// one lease at a time. Cancel safe.
    pub async fn acquire(&mut self) -> Held {
        let Some((shared, grants)) = &mut self.shared else {
            return Held {
                lost: CancellationToken::new(),
                membership: None,
            };
        };
        loop {
            grants.mark_unchanged();
            if let Some(held) = shared.begin(&self.key) {
                return held;
            }
            // The sender stays as long as anybody is interested.
            let _ = grants.changed().await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((shared, _)) = &self.shared {
            if let Some(slot) = shared.slots.lock().get_mut(&self.key) {
                slot.interest -= 1;
            }
            shared.changed.notify_one();
        }
    }
}

/// The right to work under a lease. Whoever has it stops when [`Held::lost`] is cancelled, and drops it when nothing of the
/// work goes on any more: only then is the lease given to another replica.
#[derive(Debug)]
pub struct Held {
    lost: CancellationToken,
    /// `None` in a process that has its store for itself.
    membership: Option<(LeaseKey, Guard, Arc<Shared>)>,
}

impl Held {
    /// Cancelled when the work has to stop.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Whether the lease stands in this moment, by the clock: what to look at right before a write that [`Held::store`]
    /// cannot fence. It may be over before [`Held::lost`] says so, where the process was stopped for a while.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let in_time = self.membership.as_ref().is_none_or(|(_, _, shared)| shared.is_valid());
        in_time && !self.lost.is_cancelled()
    }

    /// Waits for ever where the lease does not stand, which [`Held::lost`] is about to say; else not at all.
    pub async fn still(&self) {
        if !self.is_valid() {
            self.lost.cancelled().await;
            std::future::pending::<()>().await;
        }
    }

    /// What every write under this lease has to be guarded by; nothing in a process that has its store for itself.
    #[must_use]
    pub fn guard(&self) -> Option<&Guard> {
        self.membership.as_ref().map(|(_, guard, _)| guard)
    }

    /// Does `work` under this lease, as far as its writes go to a store of [`Leases::fenced`]. What it spawns is not included.
    pub async fn scope<F: Future>(self: Arc<Self>, work: F) -> F::Output {
        under(self, work).await
    }

    /// The store, to write to under this lease: once another replica has taken it, writes are refused.
    #[must_use]
    pub fn store(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        match &self.membership {
            None => Arc::clone(store),
            Some((_, guard, _)) => Arc::new(FencedStore::new(Arc::clone(store), guard.clone())),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((key, _, shared)) = &self.membership {
            if let Some(slot) = shared.slots.lock().get_mut(key) {
                slot.users -= 1;
            }
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn is_valid(&self) -> bool {
        self.valid_until.lock().is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn valid_until(&self) -> Option<Instant> {
        *self.valid_until.lock()
    }

    /// Says until when this replica may work.
    pub(super) fn extend(&self, until: Instant) {
        *self.valid_until.lock() = Some(until);
    }

    /// Ends all work of this replica.
    pub(super) fn revoke_all(&self) {
        *self.valid_until.lock() = None;
        for slot in self.slots.lock().values() {
            slot.revoke();
        }
    }

    /// How each lease is used. Forgets those that nobody uses.
    pub(super) fn uses(&self) -> BTreeMap<LeaseKey, Use> {
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| slot.interest > 0 || slot.users > 0 || slot.grant.borrow().is_some());
        let uses = slots.iter().map(|(key, slot)| {
            let one = Use {
                wanted: slot.interest > 0,
                busy: slot.users > 0,
                granted: slot.grant.borrow().as_ref().map(|grant| grant.guard.clone()),
            };
            (key.clone(), one)
        });
        uses.collect()
    }

    /// Whether work goes on under any lease.
    pub(super) fn is_busy(&self) -> bool {
        self.slots.lock().values().any(|slot| slot.users > 0)
    }

    /// Lets work begin.
    pub(super) fn grant(&self, key: &LeaseKey, guard: Guard) {
        if let Some(slot) = self.slots.lock().get(key) {
            slot.revoke();
            let lost = CancellationToken::new();
            slot.grant.send_replace(Some(Grant { guard, lost }));
        }
    }

    /// Asks work to end.
    pub(super) fn revoke(&self, key: &LeaseKey) {
        if let Some(slot) = self.slots.lock().get(key) {
            slot.revoke();
        }
    }

    /// Begins a piece of work, where that is allowed.
    fn begin(self: &Arc<Self>, key: &LeaseKey) -> Option<Held> {
        if !self.is_valid() {
            return None;
        }
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(key)?;
        let grant = slot.grant.borrow().clone()?;
        slot.users += 1;
        Some(Held {
            lost: grant.lost,
            membership: Some((key.clone(), grant.guard, Arc::clone(self))),
        })
    }
}

impl Slot {
    fn revoke(&self) {
        self.grant.send_if_modified(|grant| match grant.take() {
            Some(grant) => {
                grant.lost.cancel();
                true
            }
            None => false,
        });
    }
}
