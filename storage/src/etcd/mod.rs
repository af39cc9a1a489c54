//! A store in an etcd cluster, which several processes share.
//!
//! | file | what it is about |
//! |---|---|
//! | `options` | what the store is told |
//! | `member`, `connection` | one member; the cluster as one, with failover |
//! | `failure` | what an error of etcd means for a request |
//! | `keys` | where keys are in etcd |
//! | `reads`, `writes`, `compaction`, `health` | the calls |
//! | `watch`, `session`, `progress` | a watch; one connection of it; how its progress is known |
//! | `version` | which etcd can be trusted with progress |
//!
//! # What is different from etcd's own client
//! * A watch reconnects by itself, as that of the Go client does, and notices a server that is silent.
//! * A watch takes up an interrupted history at the last revision that it delivered, not at the next one, and leaves out
//!   what it has delivered. So etcd itself ends it if that revision is compacted meanwhile. From the next revision on it
//!   would serve the watch, and older servers would leave out a deletion at exactly the revision that was compacted to
//!   (<https://github.com/etcd-io/etcd/issues/18089>).
//! * Watches fragment their answers, so that no answer is much longer than the largest request.
//!
//! # Where etcd is weaker than the contract
//! * The writes of a batch that concern different keys happen in any order; those of one key in theirs.
//! * Progress on request cannot be trusted before etcd 3.4.31 and 3.5.13 ([`Store::progress_on_request`] is false then). A
//!   request is still answered, by other means: see `progress`. Each answer costs one write then. The same holds where
//!   etcd does not tell its version, which 3.6 does only to users with the role `root`.
//! * A watch that compaction overtakes between an event and the look-up of what was there before ends with
//!   [`Error::Compacted`](crate::Error::Compacted).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod backoff;
mod compaction;
mod connection;
mod failure;
mod health;
mod keys;
mod member;
mod options;
mod progress;
mod reads;
mod session;
#[cfg(test)]
mod tests;
mod version;
mod watch;
mod writes;

pub use options::{EtcdCredentials, EtcdIdentity, EtcdOptions, EtcdTls};

use self::backoff::Backoff;
use self::connection::{Connection, refusal};
use self::keys::Keys;
use self::member::{AttemptError, Member};
use crate::{GetResponse, Guard, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchStream};

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options cannot work.
    #[error("the etcd options cannot work: {reason}")]
    Invalid {
        /// Why, and what to do.
        reason: String,
    },
    /// A member answers, and refuses.
    #[error("etcd at {endpoint} refuses the connection: {reason}")]
    Refused {
        /// Which.
        endpoint: String,
        /// Why, and what to do.
        reason: String,
    },
    /// No member answers.
    #[error("no etcd endpoint answers: {}", faults.join("; "))]
    Unreachable {
        /// What is the matter with each endpoint.
        faults: Vec<String>,
    },
}

/// What is left of a deadline when it is not worth asking again: the answer would be "no answer in time", which says less
/// than the one before.
const LEAST_ATTEMPT: Duration = Duration::from_millis(250);

/// A store in an etcd cluster. Cheap to clone; the clones are one store.
#[derive(Clone)]
pub struct Etcd {
    core: Arc<Core>,
}

/// What the calls share.
struct Core {
    connection: Connection,
    keys: Keys,
    options: EtcdOptions,
    progress_on_request: AtomicBool,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Etcd {
    /// Connects to a cluster. One member that answers is enough.
    ///
    /// Watches, compaction and the look at the members' versions run in tasks of `tasks`, until `shutdown` is cancelled.
    /// Watches end then, and what is called afterwards fails.
    ///
    /// # Errors
    /// If the options cannot work, if a member refuses the user, or if none answers within
    /// [`EtcdOptions::connect_deadline`].
    pub async fn connect(
        options: EtcdOptions,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, ConnectError> {
        options.validate()?;
        let core = Arc::new(Core {
            connection: Connection::new(&options),
            keys: Keys::new(&options.prefix),
            progress_on_request: AtomicBool::new(false),
            tasks: tasks.clone(),
            shutdown,
            options,
        });
        core.wait_for_an_answer().await?;
        core.look_at_versions().await;
        tasks.spawn(health::run(Arc::clone(&core)));
        if let Some(history) = core.options.history {
            tasks.spawn(compaction::run(Arc::clone(&core), history));
        }
        Ok(Self { core })
    }
}

impl Core {
    /// Waits until a member answers a linearizable read. The members are asked at the same time.
    async fn wait_for_an_answer(&self) -> Result<(), ConnectError> {
        let deadline = self.options.connect_deadline;
        let end = Instant::now() + deadline;
        // An attempt that a starting cluster leaves unanswered is made again.
        let share = deadline / 2;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let members = &self.connection.members;
            let asked = members.iter().map(|member| {
                let left = share
                    .min(end.saturating_duration_since(Instant::now()))
                    .max(LEAST_ATTEMPT);
                let nothing = self.keys.own("", "");
                let read = |client: Client| async move { client.kv_client().get(nothing, None).await };
                member.attempt(left, read)
            });
            let mut faults = Vec::new();
            let mut answered = false;
            for (member, answer) in members.iter().zip(futures::future::join_all(asked).await) {
                match answer {
                    Ok(answer) => {
                        self.connection.note(answer.header());
                        answered = true;
                    }
                    Err(error) => match refusal(&error) {
                        Some(reason) => {
                            let endpoint = member.endpoint.clone();
                            return Err(ConnectError::Refused { endpoint, reason });
                        }
                        None => faults.push(fault(member, &error)),
                    },
                }
            }
            if answered {
                for fault in faults {
                    tracing::warn!("an etcd endpoint does not answer: {fault}");
                }
                return Ok(());
            }
            if end.saturating_duration_since(Instant::now()) < LEAST_ATTEMPT {
                return Err(ConnectError::Unreachable { faults });
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn still_open(&self) -> Result<()> {
        if self.shutdown.is_cancelled() {
            return Err(crate::Error::unavailable("it has been closed"));
        }
        Ok(())
    }
}

/// What to say of a member that does not answer.
fn fault(member: &Member, error: &AttemptError) -> String {
    let (endpoint, reason) = (&member.endpoint, error.describe());
    // In TLS 1.3 a client has done its part before the server looks at its certificate, and sees the connection end.
    let ended = [
        "connection closed",
        "connection reset",
        "broken pipe",
        "connection error",
    ];
    if endpoint.starts_with("https://") && ended.iter().any(|text| reason.to_lowercase().contains(text)) {
        return format!("{endpoint}: {reason} (the server may not accept the client certificate, or ask for one)");
    }
    format!("{endpoint}: {reason}")
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.core.still_open()?;
        self.core.read_key(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.core.still_open()?;
        self.core.read_range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        match self.core.still_open() {
            Ok(()) => self.core.write_batch(&operations, None).await,
            Err(error) => vec![Err(error); operations.len()],
        }
    }

    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        match self.core.still_open() {
            Ok(()) => self.core.write_batch(&operations, Some(guard)).await,
            Err(error) => vec![Err(error); operations.len()],
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.core.still_open()?;
        watch::watch(&self.core, prefix, after).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.core.still_open()?;
        self.core.read_current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.core.progress_on_request.load(Ordering::Relaxed)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.core.still_open()?;
        self.core.compact_to(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.core.check().await
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Etcd")
            .field("connection", &self.core.connection)
            .field("prefix", &self.core.options.prefix)
            .finish_non_exhaustive()
    }
}
