//! How a watch knows that it has made progress, when it is asked for it.
//!
//! A request is answered when the watch has delivered everything up to a revision, its goal, that the store had after the
//! request was made.
//!
//! * Where the member's version can be trusted, the goal is the current revision, by a linearizable read, and etcd is
//!   asked for progress every 100 ms until it says that it has reached it. (It says nothing while a watch is catching up, and
//!   does not come back to it: hence again and again, as in `progressRequester` of kube-apiserver's cacher.)
//! * Elsewhere the answers to such requests mean nothing, and are used as a sign of life alone. The watch puts a key of its
//!   own, which lies in the range that it watches and in none of the store's reads, and the goal is the revision of that.
//!   Events of one watch come in the order of their revisions in every version, so when this one comes, all before it have.
//!   That costs a write for each answer, which is why [`Store::progress_on_request`](crate::Store::progress_on_request)
//!   tells callers not to rely on it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::KvClient;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::Core;
use super::backoff::Backoff;
use super::watch::Position;
use crate::{ProgressRequest, Result, Revision};

/// How often etcd is asked for progress while it is waited for.
pub(super) const REQUEST_INTERVAL: Duration = Duration::from_millis(100);

/// The requests for progress that a watch has not yet taken up.
#[derive(Debug, Default)]
pub(super) struct Requests(Notify);

impl ProgressRequest for Requests {
    fn request(&self) {
        self.0.notify_one();
    }
}

impl Requests {
    /// Waits for a request. Cancel safe.
    pub(super) async fn requested(&self) {
        self.0.notified().await;
    }
}

/// By what a watch knows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// What the member says.
    Answers,
    /// A key that the watch itself puts.
    OwnKey,
}

/// Where requests for progress stand. It outlives the connections of a watch.
#[derive(Default)]
pub(super) struct Progress {
    /// A request came for which there is no goal yet.
    wanted: bool,
    /// The goal of the requests taken up so far.
    goal: Option<Revision>,
    /// What determines the next goal.
    pending: Option<BoxFuture<'static, Revision>>,
}

impl Progress {
    /// Takes up a request.
    pub(super) fn request(&mut self) {
        self.wanted = true;
    }

    /// A new connection: what was under way may not come to an end on it.
    pub(super) fn restart(&mut self, means: Means) {
        if self.pending.take().is_some() || (means == Means::OwnKey && self.goal.is_some()) {
            self.wanted = true;
        }
    }

    /// Waits for the next goal. Never, if nothing was requested. Cancel safe.
    pub(super) async fn next_goal(&mut self, core: &Arc<Core>, prefix: &Arc<str>, means: Means) {
        if self.pending.is_none() && std::mem::take(&mut self.wanted) {
            self.pending = Some(Box::pin(goal(Arc::clone(core), Arc::clone(prefix), means)));
        }
        match &mut self.pending {
            Some(pending) => {
                let goal = pending.await;
                self.pending = None;
                self.goal = self.goal.max(Some(goal));
            }
            None => std::future::pending().await,
        }
    }

    /// Whether a goal is waited for.
    pub(super) fn is_awaited(&self) -> bool {
        self.goal.is_some()
    }

    /// Whether there is a goal, and it is reached. An event at the goal, or after it, does not say so: it may not be the
    /// last one of its revision, and progress is not told at a revision before that of an event which has been delivered.
    pub(super) fn is_reached(&self, position: Position) -> bool {
        position.is_complete() && self.goal.is_some_and(|goal| position.revision >= goal)
    }

    /// The goal has been answered.
    pub(super) fn answered(&mut self) {
        self.goal = None;
    }
}

/// A revision that the store has after this is called, and that a watch can see itself reach.
async fn goal(core: Arc<Core>, prefix: Arc<str>, means: Means) -> Revision {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        let revision = match means {
            Means::Answers => core.read_current_revision().await,
            Means::OwnKey => core.put_progress_key(&prefix).await,
        };
        match revision {
            Ok(revision) => return revision,
            Err(error) => {
                tracing::debug!(%prefix, error = &error as &dyn std::error::Error, "the progress of a watch is not known yet");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

impl Core {
    /// Where the key is by which a watch knows its progress.
    pub(super) fn progress_key(&self, prefix: &str) -> Vec<u8> {
        self.keys.own(prefix, "progress")
    }

    async fn put_progress_key(&self, prefix: &str) -> Result<Revision> {
        let key = self.progress_key(prefix);
        let put = |mut client: KvClient| {
            let key = key.clone();
            async move { client.put(key, Vec::new(), None).await }
        };
        let answer = self.connection.write("putting a mark of progress to etcd", put).await?;
        Ok(self.connection.note(answer.header()))
    }
}
