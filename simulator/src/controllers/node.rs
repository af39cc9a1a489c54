//! The nodes of a simulated cluster, and an index of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_registry::generic::indexer::StoredObject;

use super::follow::View;

/// A node as the scheduler and kubelets see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) takes_pods: bool,
    labels: BTreeMap<String, String>,
}

impl Node {
    fn of(object: &StoredObject) -> Option<Self> {
        let node: Value = serde_json::from_slice(&object.bytes).ok()?;
        let mut addresses = node["status"]["addresses"].as_array()?.iter();
        let address = addresses.find(|address| address["type"] == "InternalIP")?;
        Some(Self {
            name: object.name.to_string(),
            address: address["address"].as_str()?.to_owned(),
            takes_pods: node["spec"]["unschedulable"] != true && !object.extra.deleting,
            labels: object
                .labels
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Whether a pod's `nodeSelector` selects this node.
    pub(crate) fn is_selected_by(&self, selector: &Value) -> bool {
        let mut wanted = selector.as_object().into_iter().flatten();
        wanted.all(|(key, value)| self.labels.get(key).map(String::as_str) == value.as_str())
    }
}

/// All nodes by name.
#[derive(Default)]
pub(crate) struct Nodes(pub(crate) BTreeMap<Box<str>, Node>);

impl View for Nodes {
    fn insert(&mut self, object: &Arc<StoredObject>) {
        if let Some(node) = Node::of(object) {
            self.0.insert(object.name.clone(), node);
        }
    }

    fn remove(&mut self, object: &StoredObject) {
        self.0.remove(&object.name);
    }
}

/// Node number `index` of a cluster, without its status.
pub(crate) fn object(cluster: &str, index: usize) -> Value {
    let name = format!("{cluster}-node-{}", index + 1);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "node.umbra.dev/simulated": "true",
                "topology.kubernetes.io/region": cluster,
                "topology.kubernetes.io/zone": format!("{cluster}-{}", char::from(b'a' + (index % 3) as u8)),
            },
        },
        "spec": {"podCIDR": format!("10.244.{}.0/24", index % 256), "providerID": format!("simulated://{name}")},
    })
}

/// The status of node number `index`: ready, with 8 CPUs and 32 GiB, and room for any number of pods a test may want
/// (nothing counts them).
pub(crate) fn status(node: &Value, index: usize, kubelet_version: &str, now: Timestamp) -> Value {
    let at = age::rfc3339(now);
    let capacity = json!({"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "10000"});
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": at, "lastTransitionTime": at,
        })
    };
    json!({
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [
            {"type": "InternalIP", "address": format!("172.18.{}.{}", (index + 2) / 256, (index + 2) % 256)},
            {"type": "Hostname", "address": node["metadata"]["name"]},
        ],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "a simulated node has no memory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "a simulated node has no disk"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "a simulated node has no processes"),
            condition("Ready", "True", "KubeletReady", "simulated: pods are shown as running, and nothing runs"),
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "osImage": "simulated",
            "kernelVersion": "simulated",
            "containerRuntimeVersion": "simulated://1",
            "kubeletVersion": kubelet_version,
            "kubeProxyVersion": "",
            "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}
