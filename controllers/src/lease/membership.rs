//! Takes part: renews the heartbeat, follows the records, and writes what the plan says.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_storage::{Entry, Error, Operation, Precondition, RangeRequest, Revision, Store, WatchEvent, WatchStream};

use super::handle::{Leases, Shared};
use super::plan::{Plan, Planner};
use super::record::{LEASES, MemberRecord, encode, member_path};
use super::table::Table;
use super::{JITTER_FACTOR, Timing, TimingError};

/// After how many retry periods without any event, although the own heartbeat makes one in each, a watch is taken for dead.
const SILENCE: u32 = 3;

/// A replica's part in dividing the leases.
#[derive(Debug)]
pub struct Membership {
    store: Arc<dyn Store>,
    name: String,
    timing: Timing,
    shared: Arc<Shared>,
}

/// Why a session ended.
enum Ended {
    /// Its record is gone: others take it for dead.
    Deleted,
    /// It was to end.
    Cancelled,
}

/// One membership under one identity. A member that others have taken for dead comes back as another one.
struct Session<'a> {
    store: &'a dyn Store,
    timing: Timing,
    shared: &'a Shared,
    identity: String,
    record: MemberRecord,
    /// The revision of the own record.
    revision: Revision,
    table: Table,
    planner: Planner,
    events: Option<WatchStream>,
    /// When the watch said anything last.
    heard: Instant,
    renew_at: Instant,
    /// No write before this but renewals, after a failure.
    not_before: Instant,
}

impl Membership {
    /// A replica called `name` (its host, say; it need not be unique) that shares `store` with others.
    /// [`Membership::run`] makes it take part; nothing is held before.
    ///
    /// # Errors
    /// Where the times cannot work together.
    pub fn new(store: Arc<dyn Store>, name: &str, timing: Timing) -> Result<Self, TimingError> {
        Ok(Self {
            store,
            name: name.to_owned(),
            timing: timing.check()?,
            shared: Arc::default(),
        })
    }

    /// The leases of this replica.
    #[must_use]
    pub fn leases(&self) -> Leases {
        Leases::shared(Arc::clone(&self.shared))
    }

    /// Takes part until `cancel`. Then it asks all work to end, waits for that as long as the last renewal allows, and leaves;
    /// others take over at once. Dropping the future is like a crash: others take over when the time is up.
    pub async fn run(self, cancel: CancellationToken) {
        // Whatever happens to this future, no work goes on without it.
        let _revoke = RevokeOnDrop(&self.shared);
        loop {
            let mut session = Session::new(&self);
            let ended = session.run(&cancel).await;
            match ended {
                Ended::Cancelled => return session.leave().await,
                Ended::Deleted => {
                    tracing::warn!(
                        member = session.identity,
                        "the other replicas have taken this one for dead; its work has been ended and it joins again"
                    );
                    self.shared.revoke_all();
                }
            }
        }
    }
}

struct RevokeOnDrop<'a>(&'a Shared);

impl Drop for RevokeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.revoke_all();
    }
}

impl<'a> Session<'a> {
    fn new(membership: &'a Membership) -> Self {
        let now = Instant::now();
        // Random, so that two processes of one name, or one that comes back, are different members.
        let random = RandomState::new();
        let identity = format!(
            "{}_{:016x}{:016x}",
            membership.name,
            random.hash_one(0_u8),
            random.hash_one(1_u8)
        );
        let joined = Timestamp::now();
        Self {
            store: &*membership.store,
            timing: membership.timing,
            shared: &membership.shared,
            planner: Planner::new(&identity, membership.timing),
            identity,
            record: MemberRecord {
                joined,
                renewed: joined,
                renewals: 0,
            },
            revision: Revision(0),
            table: Table::default(),
            events: None,
            heard: now,
            renew_at: now,
            not_before: now,
        }
    }

    async fn run(&mut self, cancel: &CancellationToken) -> Ended {
        loop {
            if cancel.is_cancelled() {
                return Ended::Cancelled;
            }
            let now = Instant::now();
            if self.shared.valid_until().is_some_and(|until| until <= now) {
                tracing::warn!(
                    member = self.identity,
                    "the store could not be written to in time; work that needs a lease is ended"
                );
                self.shared.revoke_all();
            }
            if self.renew_at <= now && self.renew().await {
                return Ended::Deleted;
            }
            let next = self.follow_and_act().await;
            if self.wait(next, cancel).await {
                return Ended::Deleted;
            }
        }
    }

    /// Renews the own record, or makes it. Answers whether it has been deleted.
    async fn renew(&mut self) -> bool {
        let began = Instant::now();
        self.record.renewed = Timestamp::now();
        self.record.renewals += 1;
        let precondition = match self.revision {
            Revision(0) => Precondition::Absent,
            revision => Precondition::Revision(revision),
        };
        let path = member_path(&self.identity);
        let value = encode(&self.record);
        let written =
            tokio::time::timeout_at(self.deadline(), self.store.put(&path, value.clone(), precondition)).await;
        match written {
            Ok(Ok(revision)) => {
                let is_new = self.revision == Revision(0);
                if is_new {
                    tracing::info!(member = self.identity, "this replica shares the work of the hub");
                }
                self.adopt(&path, value, revision);
                self.shared.extend(began + self.timing.renew_deadline);
                self.renew_at = began + self.timing.retry_period.mul_f64(1.0 + (JITTER_FACTOR - 1.0) * random());
            }
            // Nobody else writes this key: an earlier renewal came through after all. When, is not known; the next counts.
            Ok(Err(Error::Conflict {
                current: Some(entry), ..
            })) => {
                self.adopt(&path, entry.value, entry.revision);
                self.renew_at = began;
            }
            Ok(Err(Error::Conflict { current: None, .. })) => return true,
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(member = self.identity, %error, "the heartbeat was not written");
                }
                self.renew_at = Instant::now() + self.pause();
            }
        }
        false
    }

    fn adopt(&mut self, path: &str, value: bytes::Bytes, revision: Revision) {
        self.revision = revision;
        let entry = Entry {
            key: path.into(),
            value,
            create_revision: revision,
            revision,
        };
        self.table.put(&entry, Instant::now());
    }

    /// Does what there is to do. Gives when there is more without a change.
    async fn follow_and_act(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let Some(valid_until) = self.shared.valid_until().filter(|until| *until > now) else {
            // Only a renewal helps.
            return None;
        };
        if self.not_before > now {
            return Some(self.not_before.min(valid_until));
        }
        if self.heard + self.timing.retry_period * SILENCE <= now {
            self.events = None;
        }
        if self.events.is_none()
            && let Err(message) = self.read().await
        {
            tracing::debug!(member = self.identity, message, "the leases cannot be read");
            self.not_before = Instant::now() + self.pause();
            return Some(self.not_before);
        }
        let next = self.act().await;
        let silent_at = self.heard + self.timing.retry_period * SILENCE;
        [next, Some(valid_until), Some(silent_at)].into_iter().flatten().min()
    }

    /// Reads everything and watches from there.
    async fn read(&mut self) -> Result<(), String> {
        let read = async {
            let found = self.store.range(RangeRequest::prefix(LEASES)).await?;
            let events = self.store.watch(LEASES, found.revision).await?;
            Ok::<_, Error>((found, events))
        };
        let (found, events) = tokio::time::timeout_at(self.deadline(), read)
            .await
            .map_err(|_| "the store does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let now = Instant::now();
        self.table.replace(&found, now);
        self.events = Some(events);
        self.heard = now;
        Ok(())
    }

    async fn act(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let Plan {
                revoke,
                grant,
                operations,
                next,
            } = self.planner.plan(&self.table, &self.shared.uses(), now, self.spread());
            for key in &revoke {
                tracing::debug!(member = self.identity, lease = %key, "the lease goes to another replica");
                self.shared.revoke(key);
            }
            for (key, guard) in grant {
                tracing::debug!(member = self.identity, lease = %key, "the lease is held");
                self.shared.grant(&key, guard);
            }
            if operations.is_empty() {
                // What has just been revoked may not be in use at all.
                match revoke.is_empty() {
                    true => return next,
                    false => continue,
                }
            }
            if !self.write(operations).await {
                self.not_before = Instant::now() + self.pause();
                return Some(self.not_before);
            }
        }
    }

    /// Writes, and takes note of what came of it. Answers whether everything has an outcome.
    async fn write(&mut self, operations: Vec<Operation>) -> bool {
        let written = tokio::time::timeout_at(self.deadline(), self.store.batch(operations.clone())).await;
        let Ok(outcomes) = written else { return false };
        let now = Instant::now();
        let mut all = true;
        for (operation, outcome) in operations.into_iter().zip(outcomes) {
            match (operation, outcome) {
                (Operation::Put { key, value, .. }, Ok(revision)) => {
                    let entry = Entry {
                        key,
                        value,
                        create_revision: revision,
                        revision,
                    };
                    self.table.put(&entry, now);
                }
                (Operation::Delete { key, .. }, Ok(revision)) => self.table.delete(&key, revision),
                (
                    _,
                    Err(Error::Conflict {
                        current: Some(entry), ..
                    }),
                ) => self.table.put(&entry, now),
                (operation, Err(Error::Conflict { current: None, .. } | Error::NotFound { .. })) => {
                    // It is gone, whatever it was; should it be there again, the watch says so.
                    self.table.delete(operation.key(), Revision(u64::MAX));
                }
                (_, Err(error)) => {
                    tracing::debug!(member = self.identity, %error, "a lease was not written");
                    all = false;
                }
            }
        }
        all
    }

    /// Waits for something to do. Answers whether the own record has been deleted.
    async fn wait(&mut self, next: Option<Instant>, cancel: &CancellationToken) -> bool {
        let wake = next.map_or(self.renew_at, |next| next.min(self.renew_at));
        let event = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => false,
            () = self.shared.changed.notified() => false,
            () = tokio::time::sleep_until(wake) => false,
            event = event => self.take(event),
        }
    }

    fn take(&mut self, event: Option<Result<WatchEvent, Error>>) -> bool {
        let now = Instant::now();
        match event {
            Some(Ok(event)) => {
                self.heard = now;
                self.table.apply(&event, now);
                let own = member_path(&self.identity);
                matches!(&event, WatchEvent::Delete { key, .. } if **key == *own)
            }
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::debug!(member = self.identity, %error, "following the leases is interrupted");
                }
                self.events = None;
                self.not_before = now + self.pause();
                false
            }
        }
    }

    /// Ends all work and leaves. Work that does not end in time keeps its leases until the others notice.
    async fn leave(self) {
        let deadline = self.shared.valid_until();
        self.shared.revoke_all();
        let Some(deadline) = deadline.filter(|deadline| *deadline > Instant::now()) else {
            return;
        };
        let ended = async {
            while self.shared.is_busy() {
                self.shared.changed.notified().await;
            }
        };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            tracing::warn!(member = self.identity, "work under leases has not ended in time");
            return;
        }
        let path = member_path(&self.identity);
        let deleted = self.store.delete(&path, Precondition::Revision(self.revision));
        let deleted = tokio::time::timeout(self.timing.retry_period, deleted).await;
        if !matches!(deleted, Ok(Ok(_))) {
            tracing::info!(
                member = self.identity,
                "the other replicas take over when the time is up"
            );
        }
    }

    /// How long a request to the store may take: no longer than work may go on.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let latest = now + self.timing.retry_period;
        match self.shared.valid_until() {
            Some(until) if until > now => until.min(latest),
            _ => latest,
        }
    }

    /// Before trying again.
    fn pause(&self) -> Duration {
        self.timing.retry_period.mul_f64(0.25 + 0.25 * random())
    }

    /// Where this member stands among those that wait to delete a dead one.
    fn spread(&self) -> f64 {
        let last = self.identity.as_bytes().iter().rev().take(4);
        let number = last.fold(0_u32, |number, byte| {
            number.wrapping_mul(31).wrapping_add(u32::from(*byte))
        });
        f64::from(number % 1_000) / 1_000.0
    }
}

/// Between 0 and 1. The hasher's keys are random, and each call has new ones.
fn random() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}
