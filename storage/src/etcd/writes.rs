//! Writes: each one a transaction of its own with one comparison, as in `k8s.io/apiserver/pkg/storage/etcd3/store.go`.

use std::collections::HashMap;
use std::sync::OnceLock;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse, TxnResponse};
use futures::StreamExt;

use super::Core;
use super::keys::number;
use crate::{Entry, Error, Guard, Operation, Precondition, Result, Revision};

impl Core {
    /// Makes the writes of a batch: those of one key one after the other, those of different keys at the same time.
    pub(super) async fn write_batch(&self, operations: &[Operation], guard: Option<&Guard>) -> Vec<Result<Revision>> {
        if let [operation] = operations {
            return vec![self.write(operation, guard).await];
        }
        let mut lanes: Vec<Vec<usize>> = Vec::new();
        let mut lane_of = HashMap::new();
        for (index, operation) in operations.iter().enumerate() {
            let lane = *lane_of.entry(&**operation.key()).or_insert_with(|| {
                lanes.push(Vec::new());
                lanes.len() - 1
            });
            lanes[lane].push(index);
        }
        let failed = OnceLock::new();
        let outcomes = futures::stream::iter(lanes)
            .map(|lane| self.write_lane(operations, lane, guard, &failed))
            .buffer_unordered(self.options.write_concurrency)
            .concat()
            .await;
        let mut answer = vec![Err(Error::unavailable("the write was not made")); operations.len()];
        for (index, outcome) in outcomes {
            answer[index] = outcome;
        }
        answer
    }

    /// Makes writes of one key, until etcd fails anywhere in the batch: what follows would only wait for its deadline.
    async fn write_lane(
        &self,
        operations: &[Operation],
        lane: Vec<usize>,
        guard: Option<&Guard>,
        failed: &OnceLock<Error>,
    ) -> Vec<(usize, Result<Revision>)> {
        let mut outcomes = Vec::with_capacity(lane.len());
        for index in lane {
            let outcome = match failed.get() {
                None => self.write(&operations[index], guard).await,
                Some(error) => Err(Error::unavailable(format!(
                    "the write was not made, because another one of its batch has failed: {error}"
                ))),
            };
            if let Err(error @ (Error::Unavailable { .. } | Error::Io { .. })) = &outcome {
                failed.get_or_init(|| error.clone());
            }
            outcomes.push((index, outcome));
        }
        outcomes
    }

    async fn write(&self, operation: &Operation, guard: Option<&Guard>) -> Result<Revision> {
        if let Operation::Delete {
            precondition: Precondition::Absent,
            ..
        } = operation
        {
            return self.delete_absent(operation, guard).await;
        }
        let action = match operation {
            Operation::Put { .. } => "putting to etcd",
            Operation::Delete { .. } => "deleting from etcd",
        };
        let answer = self
            .connection
            .write(action, |mut client: KvClient| {
                let transaction = self.transaction(operation, guard);
                async move { client.txn(transaction).await }
            })
            .await?;
        let revision = self.connection.note(answer.header());
        if answer.succeeded() {
            return Ok(revision);
        }
        Err(self.refusal(operation, guard, &answer))
    }

    /// What a deletion of a key that must not exist comes to: nothing is written either way.
    async fn delete_absent(&self, operation: &Operation, guard: Option<&Guard>) -> Result<Revision> {
        if let Some(guard) = guard {
            let current = self.read_key(&guard.key).await?.entry;
            if !guard.holds(current.as_ref()) {
                return Err(conflict(&guard.key, current));
            }
        }
        match self.read_key(operation.key()).await?.entry {
            None => Err(Error::NotFound {
                key: operation.key().clone(),
            }),
            current => Err(conflict(operation.key(), current)),
        }
    }

    fn transaction(&self, operation: &Operation, guard: Option<&Guard>) -> Txn {
        let key = self.keys.locate(operation.key());
        let put_at = |key: Vec<u8>, revision: Revision| match revision {
            // No value was ever put at revision 0: etcd means an absent key by it.
            Revision(0) => Compare::mod_revision(key, CompareOp::Less, 0),
            revision => Compare::mod_revision(key, CompareOp::Equal, number(revision)),
        };
        let (write, precondition) = match operation {
            Operation::Put {
                value, precondition, ..
            } => (TxnOp::put(key.clone(), value.to_vec(), None), precondition),
            Operation::Delete { precondition, .. } => (TxnOp::delete(key.clone(), None), precondition),
        };
        let mut comparisons = Vec::with_capacity(2);
        match (precondition, operation) {
            (Precondition::None, Operation::Put { .. }) => {}
            (Precondition::None, Operation::Delete { .. }) => {
                comparisons.push(Compare::mod_revision(key.clone(), CompareOp::Greater, 0));
            }
            (Precondition::Absent, _) => comparisons.push(Compare::mod_revision(key.clone(), CompareOp::Equal, 0)),
            (Precondition::Revision(revision), _) => comparisons.push(put_at(key.clone(), *revision)),
        }
        let mut reads = vec![TxnOp::get(key, None)];
        if let Some(guard) = guard {
            let key = self.keys.locate(&guard.key);
            comparisons.push(put_at(key.clone(), guard.revision));
            reads.push(TxnOp::get(key, None));
        }
        Txn::new().when(comparisons).and_then([write]).or_else(reads)
    }

    /// Why the comparisons of a transaction did not hold.
    fn refusal(&self, operation: &Operation, guard: Option<&Guard>, answer: &TxnResponse) -> Error {
        let mut found = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(mut read) => read.take_kvs().pop().and_then(|read| self.keys.entry(read)),
            _ => None,
        });
        let current = found.next().flatten();
        if let Some(guard) = guard {
            let record = found.next().flatten();
            if !guard.holds(record.as_ref()) {
                return conflict(&guard.key, record);
            }
        }
        match (operation, current) {
            (
                Operation::Delete {
                    key,
                    precondition: Precondition::None,
                },
                None,
            ) => Error::NotFound { key: key.clone() },
            (operation, current) => conflict(operation.key(), current),
        }
    }
}

fn conflict(key: &std::sync::Arc<str>, current: Option<Entry>) -> Error {
    Error::Conflict {
        key: key.clone(),
        current,
    }
}
