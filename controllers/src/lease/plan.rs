//! What a replica has to do next, given what it has seen. Nothing here waits or writes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use umbra_storage::{Guard, Operation, Precondition};

use super::Timing;
use super::assign::assign;
use super::handle::Use;
use super::record::{LeaseKey, LeaseRecord, encode, member_path};
use super::table::{ObservedLease, Table};

/// After how many `duration`s a lease that its member should have taken may be taken by any other. A member that cannot come
/// because it is gone is deleted before.
const PATIENCE: u32 = 2;
/// For how many `duration`s such a lease then stays where it is.
const PASSED_OVER: u32 = 30;
/// After how many `duration`s a lease that nobody wants is removed. Replicas learn of new clusters within seconds.
const UNWANTED: u32 = 6;

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Leases whose work has to end.
    pub(super) revoke: Vec<LeaseKey>,
    /// Leases whose work may begin, and under which record.
    pub(super) grant: Vec<(LeaseKey, Guard)>,
    /// What to write.
    pub(super) operations: Vec<Operation>,
    /// When to plan again although nothing has happened.
    pub(super) next: Option<Instant>,
}

/// Plans for one member.
#[derive(Debug)]
pub(super) struct Planner {
    identity: String,
    timing: Timing,
    /// Since when leases have been seen to be nobody's.
    free_since: BTreeMap<LeaseKey, Instant>,
    /// Leases that are kept although that other member should have them, because it did not come for them; until when.
    kept: BTreeMap<LeaseKey, (String, Instant)>,
}

/// What a plan is made from.
struct Situation<'a> {
    table: &'a Table,
    assigned: BTreeMap<&'a LeaseKey, &'a str>,
    now: Instant,
}

impl Planner {
    pub(super) fn new(identity: &str, timing: Timing) -> Self {
        Self {
            identity: identity.to_owned(),
            timing,
            free_since: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// What to do now, for a member that may work. `spread` is between 0 and 1: how long to wait before a member that is
    /// gone is deleted, so that not all replicas do it at once.
    pub(super) fn plan(&mut self, table: &Table, uses: &BTreeMap<LeaseKey, Use>, now: Instant, spread: f64) -> Plan {
        let members: Vec<&str> = table.members.keys().map(String::as_str).collect();
        let mut holders: BTreeMap<&LeaseKey, Option<&str>> = BTreeMap::new();
        for (key, lease) in &table.leases {
            holders.insert(key, Some(lease.record.holder.as_str()));
        }
        for (key, _) in uses.iter().filter(|(_, one)| one.wanted) {
            holders.entry(key).or_insert(None);
        }
        let situation = Situation {
            table,
            assigned: assign(&members, &holders),
            now,
        };
        let is_free = |lease: &ObservedLease| !table.members.contains_key(&lease.record.holder);
        self.free_since
            .retain(|key, _| table.leases.get(key).is_some_and(is_free));
        let assigned = &situation.assigned;
        self.kept
            .retain(|key, (member, until)| *until > now && assigned.get(key) == Some(&member.as_str()));
        let mut plan = Plan::default();
        self.delete_dead(&situation, spread, &mut plan);
        let unused = Use::default();
        for key in holders.keys() {
            let one = uses.get(*key).unwrap_or(&unused);
            match table.leases.get(*key) {
                None => self.create(key, &situation, &mut plan),
                Some(lease) if lease.record.holder == self.identity => {
                    self.hold(key, lease, one, &situation, &mut plan);
                }
                Some(lease) => {
                    if one.granted.is_some() {
                        plan.revoke.push((*key).clone());
                    }
                    if is_free(lease) {
                        self.take(key, lease, one, &situation, &mut plan);
                    }
                }
            }
        }
        let gone = uses
            .iter()
            .filter(|(key, one)| one.granted.is_some() && !holders.contains_key(*key));
        plan.revoke.extend(gone.map(|(key, _)| key.clone()));
        plan
    }

    fn is_mine(&self, key: &LeaseKey, situation: &Situation<'_>) -> bool {
        situation.assigned.get(key) == Some(&self.identity.as_str())
    }

    /// Members whose records have not changed for too long.
    fn delete_dead(&self, situation: &Situation<'_>, spread: f64, plan: &mut Plan) {
        let patience = self.timing.duration + self.timing.retry_period.mul_f64(spread / 2.0);
        for (identity, member) in &situation.table.members {
            if *identity == self.identity {
                continue;
            }
            let gone_at = member.since + patience;
            if gone_at <= situation.now {
                tracing::warn!(
                    member = identity,
                    "a replica of the hub is gone; its work is taken over"
                );
                let precondition = Precondition::Revision(member.revision);
                plan.operations
                    .push(Operation::delete(member_path(identity), precondition));
            } else {
                plan.wake(gone_at);
            }
        }
    }

    /// A lease that there is no record of: everybody has to see it to agree on who should have it.
    fn create(&self, key: &LeaseKey, situation: &Situation<'_>, plan: &mut Plan) {
        let record = match self.is_mine(key, situation) {
            true => LeaseRecord::default().taken(&self.identity),
            false => LeaseRecord::default(),
        };
        plan.operations
            .push(Operation::put(key.path(), encode(&record), Precondition::Absent));
    }

    /// A lease that this member holds.
    fn hold(&self, key: &LeaseKey, lease: &ObservedLease, one: &Use, situation: &Situation<'_>, plan: &mut Plan) {
        let precondition = Precondition::Revision(lease.revision);
        let kept = self.kept.get(key);
        if let Some((_, until)) = kept {
            plan.wake(*until);
        }
        if one.wanted && (self.is_mine(key, situation) || kept.is_some()) {
            let guard = Guard {
                key: key.path().into(),
                revision: lease.revision,
            };
            if one.granted.as_ref() != Some(&guard) {
                plan.grant.push((key.clone(), guard));
            }
            return;
        }
        if one.granted.is_some() {
            plan.revoke.push(key.clone());
        } else if !one.busy {
            plan.operations.push(match one.wanted {
                true => Operation::put(key.path(), encode(&lease.record.released()), precondition),
                false => Operation::delete(key.path(), precondition),
            });
        }
    }

    /// A lease that nobody holds.
    fn take(&mut self, key: &LeaseKey, lease: &ObservedLease, one: &Use, situation: &Situation<'_>, plan: &mut Plan) {
        let now = situation.now;
        let since = *self.free_since.entry(key.clone()).or_insert(now);
        let precondition = Precondition::Revision(lease.revision);
        let is_mine = self.is_mine(key, situation);
        if one.wanted {
            let passed_over = since + self.timing.duration * PATIENCE;
            if !is_mine && passed_over > now {
                plan.wake(passed_over);
                return;
            }
            if let Some(other) = situation.assigned.get(key).filter(|_| !is_mine) {
                let until = now + self.timing.duration * PASSED_OVER;
                self.kept.insert(key.clone(), ((*other).to_owned(), until));
            }
            let taken = lease.record.taken(&self.identity);
            plan.operations
                .push(Operation::put(key.path(), encode(&taken), precondition));
        } else if is_mine {
            let unwanted: Duration = self.timing.duration * UNWANTED;
            if since + unwanted <= now {
                plan.operations.push(Operation::delete(key.path(), precondition));
            } else {
                plan.wake(since + unwanted);
            }
        }
    }
}

impl Plan {
    fn wake(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}
