//! DaemonSets: one pod for each node that their `nodeSelector` selects, cordoned or not
//! (`pkg/controller/daemon/daemon_controller.go`).
//!
//! Deviations: the node is written into the pod instead of an affinity, `maxSurge` is 0 and `maxUnavailable` 1, and no
//! ControllerRevisions are kept, so there is no history to undo to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use umbra_apimachinery::status::Status;

use super::queue::ObjectKey;
use super::replica_set::{Pod, number};
use super::writes::{self, count, parse, pod_from_template, template_hash};
use super::{Reconcile, Shared, all};

/// The label that tells pods of one template from those of another.
pub(super) const REVISION_HASH: &str = "controller-revision-hash";

/// Makes the pods of DaemonSets.
pub(crate) struct DaemonSets(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for DaemonSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.daemon_sets.object(key) else {
            return Ok(None);
        };
        let mut set = parse(&object)?;
        let nodes = self.0.nodes_for(&set["spec"]["template"]["spec"], true);
        let hash = template_hash(&set["spec"]["template"], 0);
        if !object.extra.deleting {
            self.fit(&set, &nodes, &hash, &self.0.pods_of(&object.extra.uid))
                .await?;
        }
        let status = status(&set, &nodes, &hash, &self.0.pods_of(&object.extra.uid));
        if set["status"] != status {
            set["status"] = status;
            writes::update(&self.0.daemon_sets.store, "status", &set).await?;
        }
        Ok(None)
    }
}

/// The pods by node, as far as the node is to have one; and those that are too many.
fn by_node(nodes: &[String], pods: &[Pod]) -> (BTreeMap<String, Pod>, Vec<Pod>) {
    let mut placed = BTreeMap::new();
    let mut excess = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.object.extra.deleting) {
        let node = &pod.facts.node;
        if pod.facts.has_ended() || !nodes.contains(node) || placed.contains_key(node) {
            excess.push(Arc::clone(pod));
        } else {
            placed.insert(node.clone(), Arc::clone(pod));
        }
    }
    (placed, excess)
}

impl DaemonSets {
    async fn fit(&self, set: &Value, nodes: &[String], hash: &str, pods: &[Pod]) -> Result<(), Status> {
        let store = &self.0.pods.store;
        let (placed, mut excess) = by_node(nodes, pods);
        // A node is free again when its last pod is gone.
        let taken = |node: &String| pods.iter().any(|pod| pod.facts.node == *node);
        let missing: Vec<&String> = nodes.iter().filter(|node| !taken(node)).collect();
        let all_ready =
            missing.is_empty() && nodes.len() == placed.len() && placed.values().all(|pod| pod.facts.is_ready());
        let rolls = set["spec"]["updateStrategy"]["type"] != "OnDelete";
        if rolls {
            let outdated = placed
                .values()
                .filter(|pod| pod.object.labels.get(REVISION_HASH) != Some(hash));
            // Those that are not ready are replaced at once, the others one after another.
            let (ready, unready): (Vec<&Pod>, Vec<&Pod>) = outdated.partition(|pod| pod.facts.is_ready());
            let next = ready.into_iter().take(usize::from(all_ready));
            excess.extend(unready.into_iter().chain(next).map(Arc::clone));
        }
        all(excess
            .iter()
            .map(|pod| writes::delete(store, &pod.object, None))
            .collect())
        .await?;
        let new: Vec<Value> = missing
            .into_iter()
            .map(|node| {
                let mut pod = pod_from_template(set);
                pod["spec"]["nodeName"] = node.as_str().into();
                pod["metadata"]["labels"][REVISION_HASH] = hash.into();
                pod
            })
            .collect();
        all(new.iter().map(|pod| writes::create(store, pod)).collect()).await
    }
}

fn status(set: &Value, nodes: &[String], hash: &str, pods: &[Pod]) -> Value {
    let (placed, excess) = by_node(nodes, pods);
    let ready = placed.values().filter(|pod| pod.facts.is_ready()).count();
    let updated = placed
        .values()
        .filter(|pod| pod.object.labels.get(REVISION_HASH) == Some(hash));
    let mut status = json!({
        "observedGeneration": count(&set["metadata"], "generation"),
        "desiredNumberScheduled": nodes.len(),
        "currentNumberScheduled": placed.len(),
        "numberMisscheduled": excess.len(),
        "numberReady": ready,
        "updatedNumberScheduled": updated.count(),
        "numberAvailable": ready,
    });
    let unavailable = number(nodes.len()) - number(ready);
    if unavailable > 0 {
        status["numberUnavailable"] = unavailable.into();
    }
    status
}
