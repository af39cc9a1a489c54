//! Pods: a scheduler that takes nodes in turn, and kubelets that run nothing.
//!
//! Deviations: resources, affinities, taints and topology are not considered, only `nodeSelector`, cordons and scheduling
//! gates. A pod that does not restart (`restartPolicy` other than `Always`) ends well after a few seconds. Probes and
//! preemption do not exist.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::generic::indexer::StoredObject;

use super::pod_status::{self, Place};
use super::queue::ObjectKey;
use super::writes::{self, parse};
use super::{Reconcile, Shared};

/// How long the containers of a pod take to start: a random time between these, in milliseconds.
const START: std::ops::Range<u64> = 200..800;
/// How long they take to stop; less where the grace period is shorter.
const STOP: std::ops::Range<u64> = 100..400;
/// How long those run that are meant to end.
const RUN: std::ops::Range<u64> = 2_000..5_000;
/// How long a pod waits for a node where none takes it, unless nodes change before.
const UNSCHEDULABLE: Duration = Duration::from_secs(5);

/// Runs pods.
pub(crate) struct Pods {
    shared: Arc<Shared>,
    timers: Mutex<HashMap<ObjectKey, Timer>>,
}

/// A step of a pod that takes time.
struct Timer {
    uid: Box<str>,
    step: Step,
    due: Instant,
}

/// What happens to a pod next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Schedule,
    Start,
    End,
    Stop,
    /// Its containers may have other images.
    Watch,
    Nothing,
}

impl Step {
    fn of(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let scheduled = spec["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return Self::Stop;
        }
        let gated = spec["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty());
        let ours = spec["schedulerName"] == "default-scheduler";
        match pod["status"]["phase"].as_str().unwrap_or("Pending") {
            "Pending" if !scheduled => {
                if ours && !gated {
                    Self::Schedule
                } else {
                    Self::Nothing
                }
            }
            "Pending" if pod["status"]["containerStatuses"].is_null() => Self::Start,
            "Running" if spec["restartPolicy"] != "Always" => Self::End,
            "Pending" | "Running" => Self::Watch,
            _ => Self::Nothing,
        }
    }

    /// How long the step takes.
    fn duration(self, pod: &Value) -> Duration {
        let between = |range: std::ops::Range<u64>| Duration::from_millis(rand::random_range(range));
        match self {
            Self::Start => between(START),
            Self::End => between(RUN),
            Self::Stop => {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"]
                    .as_u64()
                    .unwrap_or_default();
                between(STOP).min(Duration::from_secs(grace))
            }
            Self::Schedule | Self::Watch | Self::Nothing => Duration::ZERO,
        }
    }
}

#[async_trait]
impl Reconcile for Pods {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.shared.pods.object(key) else {
            self.timers.lock().remove(key);
            return Ok(None);
        };
        let pod = parse(&object)?;
        let step = Step::of(&pod);
        if let Some(left) = self.left(key, &object, step, &pod) {
            return Ok(Some(left));
        }
        let again = self.take(step, &object, pod).await?;
        self.timers.lock().remove(key);
        Ok(again)
    }
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            timers: Mutex::default(),
        }
    }

    /// How long the step still takes; it begins when it is first seen.
    fn left(&self, key: &ObjectKey, object: &StoredObject, step: Step, pod: &Value) -> Option<Duration> {
        let now = Instant::now();
        let mut timers = self.timers.lock();
        let known = timers
            .get(key)
            .filter(|timer| timer.uid == object.extra.uid && timer.step == step);
        let due = if let Some(timer) = known {
            timer.due
        } else {
            let due = now + step.duration(pod);
            if due > now {
                let uid = object.extra.uid.clone();
                timers.insert(key.clone(), Timer { uid, step, due });
            }
            due
        };
        (due > now).then(|| due - now)
    }

    async fn take(&self, step: Step, object: &StoredObject, mut pod: Value) -> Result<Option<Duration>, Status> {
        let store = &self.shared.pods.store;
        let now = Timestamp::now();
        let status = match step {
            Step::Nothing => return Ok(None),
            Step::Schedule => {
                let Some(node) = self.shared.choose_node(&pod) else {
                    return self.unschedulable(pod, now).await;
                };
                writes::bind(store, &object.namespace, &object.name, &node).await?;
                return Ok(None);
            }
            Step::Stop => {
                writes::delete(store, object, Some(0)).await?;
                return Ok(None);
            }
            Step::Start => {
                let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                // A node that is not there runs nothing.
                let Some(host_ip) = self.shared.node_address(node) else {
                    return Ok(None);
                };
                let pod_ip = self.shared.new_pod_address();
                let place = Place {
                    host_ip: &host_ip,
                    pod_ip: &pod_ip,
                };
                pod_status::started(&pod, place, now)
            }
            Step::End => pod_status::succeeded(&pod, now),
            Step::Watch => match pod_status::with_new_images(&pod, now) {
                Some(status) => status,
                None => return Ok(None),
            },
        };
        pod["status"] = status;
        writes::update(store, "status", &pod).await?;
        Ok(None)
    }

    /// Says on the pod that no node takes it, as a scheduler does.
    async fn unschedulable(&self, mut pod: Value, now: Timestamp) -> Result<Option<Duration>, Status> {
        let nodes = self.shared.node_count();
        let condition = serde_json::json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastProbeTime": null,
            "message": format!("0/{nodes} nodes are available: none matches nodeSelector and takes new pods."),
        });
        if writes::set_condition(&mut pod["status"]["conditions"], condition, now) {
            tracing::debug!(namespace = pod.namespace(), name = pod.name(), "no node takes this pod");
            writes::update(&self.shared.pods.store, "status", &pod).await?;
        }
        Ok(Some(UNSCHEDULABLE.mul_f64(0.5 + rand::random::<f64>())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_follow_each_other() {
        let mut pod = json!({
            "metadata": {},
            "spec": {"restartPolicy": "Never", "schedulerName": "default-scheduler", "schedulingGates": [{"name": "g"}]},
            "status": {"phase": "Pending"},
        });
        assert_eq!(Step::of(&pod), Step::Nothing);
        pod["spec"]["schedulingGates"] = json!([]);
        assert_eq!(Step::of(&pod), Step::Schedule);
        pod["spec"]["nodeName"] = "n".into();
        assert_eq!(Step::of(&pod), Step::Start);
        pod["status"] = json!({"phase": "Running", "containerStatuses": []});
        assert_eq!(Step::of(&pod), Step::End);
        pod["spec"]["restartPolicy"] = "Always".into();
        assert_eq!(Step::of(&pod), Step::Watch);
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(Step::of(&pod), Step::Nothing);
        pod["metadata"] = json!({"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0});
        assert_eq!(Step::of(&pod), Step::Stop);
        assert_eq!(Step::Stop.duration(&pod), Duration::ZERO);
    }
}
