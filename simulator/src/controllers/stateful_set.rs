//! StatefulSets: pods with numbers, one after another (`pkg/controller/statefulset/stateful_set_control.go`).
//!
//! Deviations: no volume claims are made, and no ControllerRevisions are kept, so there is no history to undo to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;

use super::daemon_set::REVISION_HASH;
use super::queue::ObjectKey;
use super::replica_set::Pod;
use super::writes::{self, count, parse, pod_from_template, template_hash};
use super::{Reconcile, Shared, all};

/// Makes the pods of StatefulSets.
pub(crate) struct StatefulSets(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for StatefulSets {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.stateful_sets.object(key) else {
            return Ok(None);
        };
        let mut set = parse(&object)?;
        let hash = format!("{}-{}", set.name(), template_hash(&set["spec"]["template"], 0));
        if !object.extra.deleting {
            let pods = by_ordinal(&self.0.pods_of(&object.extra.uid));
            let next = next(&set, &hash, &pods);
            let store = &self.0.pods.store;
            all(next
                .delete
                .iter()
                .map(|pod| writes::delete(store, &pod.object, None))
                .collect())
            .await?;
            let new: Vec<Value> = next.create.iter().map(|ordinal| pod(&set, *ordinal, &hash)).collect();
            all(new.iter().map(|pod| writes::create(store, pod)).collect()).await?;
        }
        let status = status(&set, &hash, &by_ordinal(&self.0.pods_of(&object.extra.uid)));
        if set["status"] != status {
            set["status"] = status;
            writes::update(&self.0.stateful_sets.store, "status", &set).await?;
        }
        Ok(None)
    }
}

fn by_ordinal(pods: &[Pod]) -> BTreeMap<i64, Pod> {
    let numbered = pods.iter().filter_map(|pod| {
        let (_, ordinal) = pod.object.name.rsplit_once('-')?;
        Some((ordinal.parse().ok()?, Arc::clone(pod)))
    });
    numbered.collect()
}

fn pod(set: &Value, ordinal: i64, hash: &str) -> Value {
    let mut pod = pod_from_template(set);
    let name = format!("{}-{ordinal}", set.name());
    let metadata = pod.metadata_mut();
    metadata.remove("generateName");
    metadata.insert("name".to_owned(), name.as_str().into());
    let labels = &mut pod["metadata"]["labels"];
    labels[REVISION_HASH] = hash.into();
    labels["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
    labels["apps.kubernetes.io/pod-index"] = ordinal.to_string().into();
    pod["spec"]["hostname"] = name.into();
    if let Some(service) = set["spec"]["serviceName"]
        .as_str()
        .filter(|service| !service.is_empty())
    {
        pod["spec"]["subdomain"] = service.into();
    }
    pod
}

/// What to do now; more follows when that is done.
#[derive(Default)]
struct Next {
    create: Vec<i64>,
    delete: Vec<Pod>,
}

fn next(set: &Value, hash: &str, pods: &BTreeMap<i64, Pod>) -> Next {
    let spec = &set["spec"];
    let start = count(&spec["ordinals"], "start");
    let end = start + spec["replicas"].as_i64().unwrap_or(1);
    let in_order = spec["podManagementPolicy"] != "Parallel";
    let mut next = Next::default();
    let settled = |pod: &Pod| pod.facts.is_ready() && !pod.object.extra.deleting;
    for ordinal in start..end {
        match pods.get(&ordinal) {
            None => next.create.push(ordinal),
            // One that has ended is made anew.
            Some(pod) if pod.facts.has_ended() && !pod.object.extra.deleting => next.delete.push(Arc::clone(pod)),
            Some(pod) if settled(pod) || !in_order => continue,
            Some(_) => return next,
        }
        if in_order {
            return next;
        }
    }
    // From the last down, each when the one above is gone.
    let excess = pods.range(end..).chain(pods.range(..start)).rev().map(|(_, pod)| pod);
    for pod in excess {
        if !pod.object.extra.deleting {
            next.delete.push(Arc::clone(pod));
        }
        if in_order {
            return next;
        }
    }
    if !next.create.is_empty() || !next.delete.is_empty() || spec["updateStrategy"]["type"] == "OnDelete" {
        return next;
    }
    let partition = count(&spec["updateStrategy"]["rollingUpdate"], "partition");
    for (_, pod) in pods.range(partition.max(start)..end.max(partition.max(start))).rev() {
        if !settled(pod) {
            return next;
        }
        if pod.object.labels.get(REVISION_HASH) != Some(hash) {
            next.delete.push(Arc::clone(pod));
            return next;
        }
    }
    next
}

fn status(set: &Value, hash: &str, pods: &BTreeMap<i64, Pod>) -> Value {
    let ready = pods.values().filter(|pod| pod.facts.is_ready()).count();
    let updated = pods
        .values()
        .filter(|pod| pod.object.labels.get(REVISION_HASH) == Some(hash))
        .count();
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
    let complete = updated as u64 == wanted && ready as u64 == wanted && pods.len() as u64 == wanted;
    let before = set["status"]["currentRevision"]
        .as_str()
        .filter(|current| !current.is_empty());
    let current = if complete { hash } else { before.unwrap_or(hash) };
    let mut status = json!({
        "observedGeneration": count(&set["metadata"], "generation"),
        "replicas": pods.len(),
        "currentRevision": current,
        "updateRevision": hash,
        "availableReplicas": ready,
        "collisionCount": 0,
    });
    let of_current = pods
        .values()
        .filter(|pod| pod.object.labels.get(REVISION_HASH) == Some(current))
        .count();
    for (field, number) in [
        ("readyReplicas", ready),
        ("updatedReplicas", updated),
        ("currentReplicas", of_current),
    ] {
        if number > 0 {
            status[field] = number.into();
        }
    }
    status
}
