//! What controllers of pods look at, read once for every change of a pod.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use umbra_apimachinery::age;
use umbra_registry::generic::indexer::StoredObject;

use super::follow::Facts;

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) node: String,
    pub(crate) phase: String,
    /// Since when it has been ready.
    pub(crate) ready_since: Option<Timestamp>,
    pub(crate) created: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    creation_timestamp: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

impl Facts for PodFacts {
    fn of(object: &StoredObject) -> Self {
        let pod: Pod = serde_json::from_slice(&object.bytes).unwrap_or_default();
        let ready = pod
            .status
            .conditions
            .iter()
            .find(|one| one.r#type == "Ready" && one.status == "True");
        Self {
            node: pod.spec.node_name,
            phase: pod.status.phase,
            ready_since: ready.map(|ready| {
                let since = ready.last_transition_time.as_deref().and_then(age::parse);
                since.unwrap_or(Timestamp::UNIX_EPOCH)
            }),
            created: pod.metadata.creation_timestamp,
        }
    }
}

impl PodFacts {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// How long the pod has to stay ready until it counts as available: zero where it does, `None` where it is not ready.
    pub(crate) fn available_in(&self, min_ready_seconds: i64, now: Timestamp) -> Option<SignedDuration> {
        let since = self.ready_since?;
        let left = SignedDuration::from_secs(min_ready_seconds) - now.duration_since(since);
        Some(if min_ready_seconds == 0 {
            SignedDuration::ZERO
        } else {
            left.max(SignedDuration::ZERO)
        })
    }
}
