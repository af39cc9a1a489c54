//! Compaction, by agreement of all that use the cluster with the same prefix.
//!
//! As in `k8s.io/apiserver/pkg/storage/etcd3/compact.go`, one key decides who compacts: whoever finds it at the version that
//! it last saw raises it and compacts, the others learn the new version and wait for the next time. Kubernetes compacts to the
//! revision of one interval ago; here each process keeps a record of revisions with their times, so that the interval can
//! be shorter than the history.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::Core;
use super::connection::RequestError;
use super::keys::{number, revision};
use crate::{Error, Result, Revision};

impl Core {
    pub(super) async fn compact_to(&self, requested: Revision) -> Result<()> {
        if requested <= self.connection.compacted() || requested == Revision(0) {
            return Ok(());
        }
        let answer = self
            .connection
            .read(|mut client: KvClient| async move { client.compact(number(requested), None).await });
        match answer.await {
            Ok(answer) => {
                self.connection.note(answer.header());
                self.connection.note_compacted(requested);
                Ok(())
            }
            Err(RequestError::Compacted) => Ok(()),
            Err(RequestError::FutureRevision) => Err(Error::FutureRevision {
                requested,
                current: self.read_current_revision().await?,
            }),
            Err(RequestError::Other(error)) => Err(error),
        }
    }

    /// Raises the version of the key that decides who compacts, if it still is `expected`. Answers with its version now,
    /// whether it was raised, and the current revision.
    async fn take_turn(&self, expected: i64, oldest: Revision) -> Result<(i64, bool, Revision)> {
        let key = self.keys.own("", "compaction");
        let call = |mut client: KvClient| {
            let transaction = Txn::new()
                .when([Compare::version(key.clone(), CompareOp::Equal, expected)])
                .and_then([TxnOp::put(key.clone(), oldest.to_string(), None)])
                .or_else([TxnOp::get(key.clone(), None)]);
            async move { client.txn(transaction).await }
        };
        let answer = self.connection.write("agreeing on a compaction", call).await?;
        let current = self.connection.note(answer.header());
        if answer.succeeded() {
            return Ok((expected + 1, true, current));
        }
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(read) => read.kvs().first().map(|read| (read.version(), read.value().to_vec())),
            _ => None,
        });
        let (version, value) = found.unwrap_or_default();
        // What another process has compacted to; for the errors that name the oldest revision.
        if let Some(oldest) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
            self.connection.note_compacted(revision(oldest));
        }
        Ok((version, false, current))
    }
}

/// Compacts until the store is closed.
pub(super) async fn run(core: Arc<Core>, history: Duration) {
    let mut samples = Samples::default();
    let mut version = 0;
    loop {
        // Replicas do not all come at the same time.
        let pause = core.options.compaction_interval.mul_f64(rand::random_range(0.9..1.1));
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let oldest = samples.older_than(Instant::now(), history);
        let turn = core.take_turn(version, oldest.unwrap_or_else(|| core.connection.compacted()));
        let outcome = match turn.await {
            Ok((now, raised, current)) => {
                version = now;
                samples.add(Instant::now(), current);
                match oldest {
                    Some(oldest) if raised => core.compact_to(oldest).await,
                    _ => Ok(()),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "etcd was not compacted; it is tried again"
            );
        }
    }
}

/// Revisions with the times at which they were the current ones.
#[derive(Debug, Default)]
struct Samples(VecDeque<(Instant, Revision)>);

impl Samples {
    fn add(&mut self, now: Instant, current: Revision) {
        self.0.push_back((now, current));
    }

    /// The newest revision that was current a time `age` ago. What is older is forgotten.
    fn older_than(&mut self, now: Instant, age: Duration) -> Option<Revision> {
        let old = self
            .0
            .iter()
            .take_while(|(time, _)| now.duration_since(*time) >= age)
            .count();
        let newest = old.checked_sub(1)?;
        self.0.drain(..newest);
        self.0.front().map(|(_, revision)| *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_never_shorter_than_asked_for() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = Samples::default();
        let history = Duration::from_secs(10);
        assert_eq!(samples.older_than(start, history), None);
        for second in [0, 4, 8, 12] {
            samples.add(at(second), Revision(second + 100));
        }
        assert_eq!(samples.older_than(at(9), history), None);
        assert_eq!(samples.older_than(at(10), history), Some(Revision(100)));
        assert_eq!(samples.older_than(at(19), history), Some(Revision(108)));
        assert_eq!(samples.older_than(at(19), history), Some(Revision(108)));
        assert_eq!(samples.0.len(), 2, "what is older is forgotten");
    }
}
