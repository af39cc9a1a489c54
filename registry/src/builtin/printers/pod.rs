//! Pods: `printPod`.

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::table::ColumnDefinition;

use super::{condition, created, items, name, number, text};

pub(super) fn columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text(
            "Ready",
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        text("Status", "The aggregate status of the containers in this pod."),
        text(
            "Restarts",
            "The number of times the containers in this pod have been restarted and when the last container in this pod has \
             restarted.",
        ),
        ColumnDefinition::age(),
        text("IP", "The pod's IP address.").wide(),
        text("Node", "The node the pod is on.").wide(),
        text("Nominated Node", "The node the pod may soon be scheduled to.").wide(),
        text(
            "Readiness Gates",
            "Conditions that count for readiness beside those of the containers.",
        )
        .wide(),
    ]
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let mut restarts = summary.restarts.count.to_string();
    if let (1.., Some(last)) = (summary.restarts.count, summary.restarts.last) {
        restarts = format!("{restarts} ({} ago)", age::human_duration(last, now));
    }
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        created(pod, now),
        or_none(&pod["status"]["podIPs"][0]["ip"]),
        or_none(&pod["spec"]["nodeName"]),
        or_none(&pod["status"]["nominatedNodeName"]),
        readiness_gates(pod).into(),
    ]
}

fn or_none(value: &Value) -> Value {
    match value.as_str() {
        None | Some("") => "<none>".into(),
        Some(text) => text.into(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates
        .iter()
        .filter(|gate| condition(pod, gate["conditionType"].as_str().unwrap_or_default()) == Some("True"))
        .count();
    format!("{passed}/{}", gates.len())
}

/// How often containers were restarted, and when the last one ended before that.
#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += number(&container["restartCount"]);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str();
        self.last = self.last.max(ended.and_then(age::parse));
    }
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = items(&pod["spec"]["initContainers"])
            .iter()
            .filter(|container| container["restartPolicy"] == "Always")
            .count();
        let mut summary = Self {
            ready: 0,
            total: items(&pod["spec"]["containers"]).len() + sidecars,
            reason: first_reason(pod),
            restarts: Restarts::default(),
        };
        let (initializing, sidecar_restarts) = summary.add_init_containers(pod);
        if !initializing || condition(pod, "Initialized") == Some("True") {
            summary.restarts = sidecar_restarts;
            summary.add_containers(pod);
        }
        summary.consider_deletion(pod);
        summary
    }

    /// Returns whether the pod still initializes, and the restarts of sidecars alone.
    fn add_init_containers(&mut self, pod: &Value) -> (bool, Restarts) {
        let specs = items(&pod["spec"]["initContainers"]);
        let mut sidecar_restarts = Restarts::default();
        for (index, container) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
            self.restarts.add(container);
            let is_sidecar = specs
                .iter()
                .any(|spec| spec["name"] == container["name"] && spec["restartPolicy"] == "Always");
            if is_sidecar {
                sidecar_restarts.add(container);
            }
            let state = &container["state"];
            let terminated = &state["terminated"];
            if terminated.is_object() && number(&terminated["exitCode"]) == 0 {
                continue;
            }
            if is_sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            self.reason = if terminated.is_object() {
                format!("Init:{}", ending(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return (true, sidecar_restarts);
        }
        (false, sidecar_restarts)
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut has_running = false;
        let mut failure = None;
        for container in items(&pod["status"]["containerStatuses"]).iter().rev() {
            self.restarts.add(container);
            let state = &container["state"];
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if state["terminated"].is_object() {
                self.reason = ending(&state["terminated"]);
                if number(&state["terminated"]["exitCode"]) != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if container["ready"] == true && state["running"].is_object() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if has_running && condition(pod, "Ready") == Some("True") {
                "Running".clone_into(&mut self.reason);
            } else if let Some(failure) = failure {
                self.reason = failure;
            } else if has_running {
                "NotReady".clone_into(&mut self.reason);
            }
        }
    }

    fn consider_deletion(&mut self, pod: &Value) {
        if pod["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let status = &pod["status"];
        if status["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut self.reason);
        } else if status["phase"] != "Succeeded" && status["phase"] != "Failed" {
            "Terminating".clone_into(&mut self.reason);
        }
    }
}

fn first_reason(pod: &Value) -> String {
    let status = &pod["status"];
    let gated = items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = status["reason"].as_str().filter(|reason| !reason.is_empty());
    reason.or(status["phase"].as_str()).unwrap_or_default().to_owned()
}

/// Why a container ended.
fn ending(terminated: &Value) -> String {
    match terminated["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ if number(&terminated["signal"]) != 0 => format!("Signal:{}", number(&terminated["signal"])),
        _ => format!("ExitCode:{}", number(&terminated["exitCode"])),
    }
}
