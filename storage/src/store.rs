//! The contract of a store.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Error, GetResponse, Guard, Operation, Precondition, RangeRequest, RangeResponse, Result, Revision, WatchStream,
};

/// A revisioned key-value store: what Umbra needs of etcd, and no more.
///
/// # Revisions
/// Every successful write raises the revision of the store by one and carries the new revision; a write that fails raises
/// nothing. In a backend that others write to as well, their writes raise it too. Revisions are never reused and never go back, not even across a crash: a revision that a caller
/// has seen, whether in an answer or in a watch, is durable. (etcd lets one transaction change several keys at one
/// revision; nothing in this contract makes such a transaction.)
///
/// # Consistency
/// Writes and reads of the present are linearizable: a read sees every write that was acknowledged before the read
/// began. A read at a revision sees exactly the state right after that revision, always the same, until the revision is
/// compacted. The revision that an answer carries is the one at which its data was read, never older or newer.
///
/// # History
/// [`compact`](Store::compact) gives up the states before a revision. Reads at, and watches after, a revision `r` work
/// for `oldest <= r <= current`. Before that they fail with [`Error::Compacted`] (a backend may still serve a watch after
/// `oldest - 1`, as etcd does), after it with [`Error::FutureRevision`].
///
/// # Watches
/// A watch delivers every change of the keys under its prefix after a given revision exactly once, in the order of their
/// revisions, whether it happened before or after the call. Buffers are bounded. A watcher that falls behind is caught up
/// from history or ended with an error ([`Error::SlowWatcher`], [`Error::Compacted`]); nothing is ever left out. A watch
/// outlives reconnects of the backend. It ends only by an error, and delivers nothing after it.
///
/// # Durability
/// An acknowledged write survives a crash of the process and of the machine.
///
/// # Cancellation
/// Every method is cancel safe in the sense that dropping its future leaves the store intact and leaks nothing. Dropping
/// the future of a write that has begun leaves open whether the write takes place; it is never done in part. An
/// [`Error::Io`] leaves that open too.
///
/// # Keys and values
/// Keys are UTF-8 and ordered by their bytes. A prefix is a plain byte prefix; Umbra's prefixes end with `/`, so that
/// `…/pods/` does not match `…/pods2/`. Values are opaque.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Reads one key as of now.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Io`].
    async fn get(&self, key: &str) -> Result<GetResponse>;

    /// Reads the entries under a prefix, as of now or of a past revision, in pages if asked.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::FutureRevision`] for a revision that is not there; [`Error::Unavailable`],
    /// [`Error::Io`].
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse>;

    /// Puts `value` under `key` if `precondition` holds. Putting the value that is already there is a change like any
    /// other. Answers with the revision of the change.
    ///
    /// # Errors
    /// [`Error::Conflict`] with the current entry if the precondition does not hold; [`Error::Unavailable`],
    /// [`Error::Io`].
    async fn put(&self, key: &str, value: Bytes, precondition: Precondition) -> Result<Revision> {
        only(self.batch(vec![Operation::put(key, value, precondition)]).await)
    }

    /// Deletes `key` if `precondition` holds. Answers with the revision of the change.
    ///
    /// # Errors
    /// [`Error::Conflict`] with the current entry, if any, if the precondition does not hold; [`Error::NotFound`] if the
    /// key does not exist and the precondition does not ask for a revision; [`Error::Unavailable`], [`Error::Io`].
    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision> {
        only(self.batch(vec![Operation::delete(key, precondition)]).await)
    }

    /// Makes several independent writes and answers when all that succeeded are durable. Each has its own revision and its
    /// own outcome, in the order of `operations`; a later operation sees what earlier ones on the same key did. A batch is
    /// a way to pay for durability once, not a transaction: other writes may come in between, and after a crash before
    /// the answer some of the operations may have happened and others not.
    ///
    /// The errors are those of [`put`](Store::put) and [`delete`](Store::delete).
    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>>;

    /// As [`batch`](Store::batch), but each operation takes place only while `guard` holds. Where it does not, the outcome
    /// is [`Error::Conflict`] with the guard's key and what the store holds there.
    ///
    /// The default looks at the guard first and writes then. That is enough where one process alone writes to the backend;
    /// a backend that several processes share checks the guard in the transaction that writes (in etcd one more
    /// comparison), and a store that wraps another one passes the call on.
    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        let refused = match self.get(&guard.key).await {
            Ok(response) if guard.holds(response.entry.as_ref()) => return self.batch(operations).await,
            Ok(response) => Error::Conflict {
                key: guard.key.clone(),
                current: response.entry,
            },
            Err(error) => error,
        };
        vec![Err(refused); operations.len()]
    }

    /// Watches the keys under `prefix`, from the first change after the revision `after` on.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::FutureRevision`] for a revision that is not there, in the answer or as the first
    /// item of the stream; [`Error::Unavailable`], [`Error::Io`].
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream>;

    /// The revision of the store now: not older than any write acknowledged before the call.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Io`].
    async fn current_revision(&self) -> Result<Revision>;

    /// Whether progress that a watch is asked for ([`WatchStream::request_progress`]) comes, and can be trusted. Where it
    /// does not, a cache that has seen no change for a while cannot know whether it is current, and consistent reads
    /// have to go to the store (etcd before 3.4.31 and 3.5.13: `FeatureSupportChecker` in
    /// `k8s.io/apiserver/pkg/storage/feature`). The answer may change when members of the backend are replaced.
    fn progress_on_request(&self) -> bool {
        true
    }

    /// Gives up the states before `revision`, which becomes the oldest one available. To compact to a revision that is
    /// already compacted changes nothing.
    ///
    /// # Errors
    /// [`Error::FutureRevision`], [`Error::Unavailable`], [`Error::Io`].
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Whether the store can serve reads and writes; what `/readyz` asks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    async fn ready(&self) -> Result<()>;
}

/// The outcome of a batch of one.
fn only(mut outcomes: Vec<Result<Revision>>) -> Result<Revision> {
    outcomes
        .pop()
        .unwrap_or_else(|| Err(Error::unavailable("the store gave no answer")))
}
