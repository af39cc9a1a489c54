//! ReplicaSets: as many pods as they say (`pkg/controller/replicaset/replica_set.go`).
//!
//! Deviation: pods without an owner are not adopted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};
use umbra_apimachinery::status::Status;
use umbra_registry::generic::indexer::StoredObject;

use super::follow::Known;
use super::pod_facts::PodFacts;
use super::queue::ObjectKey;
use super::writes::{self, count, parse, pod_from_template};
use super::{Reconcile, Shared, all};

/// Makes and deletes the pods of ReplicaSets.
pub(crate) struct ReplicaSets(pub(crate) Arc<Shared>);

pub(crate) type Pod = Arc<Known<PodFacts>>;

/// Pods that count: neither ended nor going (`IsPodActive`).
pub(crate) fn active(pods: &[Pod]) -> Vec<Pod> {
    let counts = |pod: &&Pod| !pod.facts.has_ended() && !pod.object.extra.deleting;
    pods.iter().filter(counts).map(Arc::clone).collect()
}

/// Pods in the order in which they are given up: those that matter least first (`ActivePodsWithRanks`).
fn by_dispensability(pods: &mut [Pod]) {
    let rank = |pod: &Pod| {
        let facts = &pod.facts;
        (!facts.node.is_empty(), facts.phase != "Pending", facts.is_ready())
    };
    // Of equals the newest goes.
    pods.sort_by(|a, b| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| b.facts.created.cmp(&a.facts.created))
    });
}

#[async_trait]
impl Reconcile for ReplicaSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.replica_sets.object(key) else {
            return Ok(None);
        };
        let set = parse(&object)?;
        let pods = active(&self.0.pods_of(&object.extra.uid));
        if !object.extra.deleting {
            self.fit(&set, &pods).await?;
        }
        // Counted again, with what was made and deleted just now.
        let pods = active(&self.0.pods_of(&object.extra.uid));
        self.write_status(&object, set, &pods).await
    }
}

impl ReplicaSets {
    async fn fit(&self, set: &Value, pods: &[Pod]) -> Result<(), Status> {
        let wanted = usize::try_from(count(&set["spec"], "replicas")).unwrap_or_default();
        let store = &self.0.pods.store;
        if pods.len() < wanted {
            let pod = pod_from_template(set);
            return all((pods.len()..wanted).map(|_| writes::create(store, &pod)).collect()).await;
        }
        let mut pods = pods.to_vec();
        by_dispensability(&mut pods);
        let excess = pods.len() - wanted;
        all(pods[..excess]
            .iter()
            .map(|pod| writes::delete(store, &pod.object, None))
            .collect())
        .await
    }

    async fn write_status(
        &self,
        object: &StoredObject,
        mut set: Value,
        pods: &[Pod],
    ) -> Result<Option<Duration>, Status> {
        let now = Timestamp::now();
        let seconds = count(&set["spec"], "minReadySeconds");
        let waits: Vec<_> = pods
            .iter()
            .filter_map(|pod| pod.facts.available_in(seconds, now))
            .collect();
        let labels = set["spec"]["template"]["metadata"]["labels"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let labelled = pods.iter().filter(|pod| carries(&pod.object, &labels)).count();
        let mut status = Map::new();
        let numbers = [
            ("observedGeneration", count(&set["metadata"], "generation")),
            ("fullyLabeledReplicas", number(labelled)),
            ("readyReplicas", number(waits.len())),
            (
                "availableReplicas",
                number(waits.iter().filter(|wait| wait.is_zero()).count()),
            ),
        ];
        status.insert("replicas".to_owned(), pods.len().into());
        for (field, value) in numbers {
            if value != 0 {
                status.insert(field.to_owned(), value.into());
            }
        }
        let status = Value::Object(status);
        if set["status"] != status {
            set["status"] = status;
            writes::update(&self.0.replica_sets.store, "status", &set).await?;
            tracing::trace!(key = %object.key, "wrote the status of a ReplicaSet");
        }
        let next = waits.into_iter().filter(|wait| !wait.is_zero()).min();
        Ok(next.map(|wait| wait.unsigned_abs()))
    }
}

fn carries(pod: &StoredObject, labels: &Map<String, Value>) -> bool {
    labels.iter().all(|(key, value)| pod.labels.get(key) == value.as_str())
}

/// A count as Kubernetes writes it.
pub(crate) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use umbra_storage::Revision;

    use super::*;

    fn pod(name: &str, facts: PodFacts) -> Pod {
        Arc::new(Known {
            object: Arc::new(StoredObject {
                key: name.into(),
                revision: Revision(1),
                bytes: bytes::Bytes::new(),
                namespace: "n".into(),
                name: name.into(),
                labels: std::iter::empty::<(&str, &str)>().collect(),
                fields: std::iter::empty::<(&str, &str)>().collect(),
                extra: Default::default(),
            }),
            facts,
        })
    }

    #[test]
    fn what_matters_least_goes_first() {
        let facts = |node: &str, phase: &str, ready: bool, created: &str| PodFacts {
            node: node.to_owned(),
            phase: phase.to_owned(),
            ready_since: ready.then_some(Timestamp::UNIX_EPOCH),
            created: created.to_owned(),
        };
        let mut pods = [
            pod("old", facts("n", "Running", true, "1")),
            pod("new", facts("n", "Running", true, "2")),
            pod("unready", facts("n", "Running", false, "1")),
            pod("pending", facts("n", "Pending", false, "1")),
            pod("unscheduled", facts("", "Pending", false, "1")),
            pod("ended", facts("n", "Failed", false, "1")),
        ];
        assert_eq!(active(&pods).len(), 5);
        by_dispensability(&mut pods);
        let names: Vec<&str> = pods
            .iter()
            .map(|pod| &*pod.object.name)
            .filter(|name| *name != "ended")
            .collect();
        assert_eq!(names, ["unscheduled", "pending", "unready", "new", "old"]);
    }
}
