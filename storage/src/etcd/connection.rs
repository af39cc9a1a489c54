//! The cluster as one: which member is asked, and who is asked next when it fails.
//!
//! Requests go to the member that has answered last. Reads move on to the next one after a part of their time, so that a
//! member that is stopped or cut off delays them once and hangs none. A write is sent again only where it is certain that
//! it was not done; else its outcome is unknown, and that is the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, KvClient, ResponseHeader};
use tokio::time::Instant;

use super::LEAST_ATTEMPT;
use super::backoff::Backoff;
use super::failure::{Kind, OutcomeUnknown, describe, kind};
use super::keys::revision;
use super::member::{AttemptError, Member, Reply};
use super::options::EtcdOptions;
use crate::{Error, Revision};

/// The longest answer that is read: the longest that an etcd server is able to send (`defaultMaxSendBytes` in its
/// `v3rpc/grpc.go` is the largest 32-bit integer), as in etcd's own client. The library's own limit of 4 MiB is less than
/// a page of 1,000 pods of 4.7 KB. What bounds memory is how much is asked for, not this.
pub(super) const LONGEST_ANSWER: usize = i32::MAX as usize;

/// Pauses after all members have failed.
const LEAST_PAUSE: Duration = Duration::from_millis(25);
const MOST_PAUSE: Duration = Duration::from_millis(500);

/// All members, and what is known of the cluster's revisions.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) members: Vec<Arc<Member>>,
    preferred: AtomicUsize,
    request_deadline: Duration,
    /// The newest revision that an answer has shown.
    known: AtomicU64,
    /// The oldest available revision that an answer has shown.
    compacted: AtomicU64,
}

/// Why a request has failed.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The revision asked for has been compacted.
    Compacted,
    /// The revision asked for is in the future.
    FutureRevision,
    /// Anything else, ready to be answered.
    Other(Error),
}

impl RequestError {
    /// The error of a request that does not ask for a revision.
    pub(super) fn unexpected(self) -> Error {
        match self {
            Self::Compacted | Self::FutureRevision => {
                Error::unavailable("etcd speaks of a revision that was not asked for")
            }
            Self::Other(error) => error,
        }
    }
}

/// How to ask.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Again, as long as there is time.
    Read,
    /// Again only if it is certain that nothing was done.
    Write {
        /// What the store is doing, for the error.
        action: &'static str,
    },
}

impl Connection {
    pub(super) fn new(options: &EtcdOptions) -> Self {
        let client = options.client();
        let members = options.endpoints.iter();
        Self {
            members: members
                .map(|endpoint| Arc::new(Member::new(endpoint.clone(), client.clone())))
                .collect(),
            // Hubs and their replicas begin at different members.
            preferred: AtomicUsize::new(rand::random_range(0..options.endpoints.len())),
            request_deadline: options.request_deadline,
            known: AtomicU64::new(0),
            compacted: AtomicU64::new(0),
        }
    }

    /// The members, beginning with the one that has answered last.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        let (count, first) = (self.members.len(), self.preferred.load(Ordering::Relaxed));
        (0..count).map(move |step| {
            let index = (first + step) % count;
            (index, &self.members[index])
        })
    }

    /// Makes a request that may be made any number of times.
    pub(super) async fn read<T, F: Future<Output = Reply<T>> + Send>(
        &self,
        call: impl Fn(KvClient) -> F + Send + Sync,
    ) -> Result<T, RequestError> {
        self.read_within(self.request_deadline, call).await
    }

    /// The same with a deadline of its own.
    pub(super) async fn read_within<T, F: Future<Output = Reply<T>> + Send>(
        &self,
        deadline: Duration,
        call: impl Fn(KvClient) -> F + Send + Sync,
    ) -> Result<T, RequestError> {
        self.request(deadline, Manner::Read, call).await
    }

    /// Makes a request that must not be made twice.
    pub(super) async fn write<T, F: Future<Output = Reply<T>> + Send>(
        &self,
        action: &'static str,
        call: impl Fn(KvClient) -> F + Send + Sync,
    ) -> Result<T, Error> {
        let answer = self
            .request(self.request_deadline, Manner::Write { action }, call)
            .await;
        answer.map_err(RequestError::unexpected)
    }

    async fn request<T, F: Future<Output = Reply<T>> + Send>(
        &self,
        deadline: Duration,
        manner: Manner,
        call: impl Fn(KvClient) -> F + Send + Sync,
    ) -> Result<T, RequestError> {
        let end = Instant::now() + deadline;
        let share = match manner {
            // Time to ask everybody, and one of them again.
            Manner::Read => deadline / u32::try_from(self.members.len() + 1).unwrap_or(u32::MAX),
            Manner::Write { .. } => deadline,
        };
        let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
        let mut faults = vec![None; self.members.len()];
        loop {
            for (index, member) in self.in_turn() {
                let attempt = share.min(end.saturating_duration_since(Instant::now()));
                if attempt < LEAST_ATTEMPT && faults.iter().any(Option::is_some) {
                    return Err(RequestError::Other(self.unavailable(&faults)));
                }
                let answer = member.attempt(attempt, |client: Client| {
                    call(client.kv_client().max_decoding_message_size(LONGEST_ANSWER))
                });
                match answer.await {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(error) => faults[index] = Some(self.fault(member, manner, attempt, error).await?),
                }
            }
            tokio::time::sleep(backoff.next().min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// What to say of a member that has failed, if another one may be asked.
    async fn fault(
        &self,
        member: &Member,
        manner: Manner,
        deadline: Duration,
        error: AttemptError,
    ) -> Result<String, RequestError> {
        let kind = match &error {
            AttemptError::Timeout(_) => Kind::Unknown,
            AttemptError::Etcd(error) => kind(error),
        };
        let reason = error.describe();
        match (kind, manner) {
            (Kind::Compacted, _) => Err(RequestError::Compacted),
            (Kind::FutureRevision, _) => Err(RequestError::FutureRevision),
            (Kind::Refused, _) => Err(RequestError::Other(Error::unavailable(format!(
                "etcd at {} refuses the request: {reason}",
                member.endpoint
            )))),
            (Kind::StaleCredentials, _) => Ok(match member.authenticate(deadline).await {
                Ok(()) => reason,
                Err(error) => error.describe(),
            }),
            (Kind::NotDone, _) | (Kind::Unknown, Manner::Read) => Ok(reason),
            (Kind::Unknown, Manner::Write { action }) => {
                // The next request has better chances elsewhere.
                self.preferred.fetch_add(1, Ordering::Relaxed);
                Err(RequestError::Other(Error::io(
                    action,
                    OutcomeUnknown {
                        endpoint: member.endpoint.clone(),
                        reason,
                    },
                )))
            }
        }
    }

    fn unavailable(&self, faults: &[Option<String>]) -> Error {
        let faults = self.members.iter().zip(faults);
        let faults: Vec<_> = faults
            .filter_map(|(member, fault)| Some(format!("{}: {}", member.endpoint, fault.as_ref()?)))
            .collect();
        Error::unavailable(format!("no etcd endpoint has answered: {}", faults.join("; ")))
    }

    /// Takes note of the revision that an answer carries, and returns it.
    pub(super) fn note(&self, header: Option<&ResponseHeader>) -> Revision {
        let seen = revision(header.map_or(0, ResponseHeader::revision));
        self.known.fetch_max(seen.0, Ordering::Relaxed);
        seen
    }

    /// The newest revision that an answer has shown.
    pub(super) fn known(&self) -> Revision {
        Revision(self.known.load(Ordering::Relaxed))
    }

    /// Takes note that revisions before this one are gone.
    pub(super) fn note_compacted(&self, oldest: Revision) {
        self.compacted.fetch_max(oldest.0, Ordering::Relaxed);
    }

    /// The oldest available revision that an answer has shown.
    pub(super) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Relaxed))
    }
}

/// What a member that cannot be connected to says; for [`ConnectError`](super::ConnectError).
pub(super) fn refusal(error: &AttemptError) -> Option<String> {
    match error {
        AttemptError::Etcd(error) if matches!(kind(error), Kind::Refused | Kind::StaleCredentials) => {
            Some(describe(error))
        }
        _ => None,
    }
}
