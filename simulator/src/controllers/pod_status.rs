//! The statuses that a kubelet would write, of pods that run nowhere.

use jiff::Timestamp;
use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::metadata::ObjectAccess;

use super::writes::{count, set_condition};

/// An annotation of pods that makes them run without becoming ready, to see what a failing rollout does.
const READY_ANNOTATION: &str = "kubelet.umbra.dev/ready";

/// Where a pod is: who hosts it, and under which addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host_ip: &'a str,
    pub(crate) pod_ip: &'a str,
}

fn containers<'a>(pod: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][field].as_array().into_iter().flatten()
}

/// Whether the host of the image cannot exist (RFC 2606): such an image is never pulled.
fn cannot_be_pulled(container: &Value) -> bool {
    let image = container["image"].as_str().unwrap_or_default();
    let host = image.split('/').next().unwrap_or_default();
    image.contains('/') && host.split(':').next().is_some_and(|host| host.ends_with(".invalid"))
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// The status of a pod whose containers have been started, as far as their images can be had.
pub(crate) fn started(pod: &Value, place: Place<'_>, now: Timestamp) -> Value {
    let mut status = pod["status"].clone();
    let at = age::rfc3339(now);
    let init_fails = containers(pod, "initContainers").any(cannot_be_pulled);
    let init: Vec<Value> = containers(pod, "initContainers")
        .map(|container| match () {
            () if init_fails => waiting(pod, container, "PodInitializing"),
            () if is_sidecar(container) => running(pod, container, &at),
            () => completed(pod, container, &at, &at),
        })
        .collect();
    let main: Vec<Value> = containers(pod, "containers")
        .map(|container| {
            if init_fails {
                waiting(pod, container, "PodInitializing")
            } else {
                running(pod, container, &at)
            }
        })
        .collect();
    let runs = main.iter().any(|container| container["state"]["running"].is_object());
    let ready = main.iter().all(|container| container["ready"] == true);
    status["phase"] = if runs { "Running" } else { "Pending" }.into();
    status["containerStatuses"] = main.into();
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    status["startTime"] = at.into();
    status["hostIP"] = place.host_ip.into();
    status["hostIPs"] = json!([{"ip": place.host_ip}]);
    let host_network = pod["spec"]["hostNetwork"] == true;
    let address = if host_network { place.host_ip } else { place.pod_ip };
    status["podIP"] = address.into();
    status["podIPs"] = json!([{"ip": address}]);
    set_conditions(pod, &mut status, !init_fails, ready, "", now);
    status
}

/// The status of a pod whose containers have ended well.
pub(crate) fn succeeded(pod: &Value, now: Timestamp) -> Value {
    let mut status = pod["status"].clone();
    let at = age::rfc3339(now);
    for field in ["containers", "initContainers"] {
        let statuses = if field == "containers" {
            "containerStatuses"
        } else {
            "initContainerStatuses"
        };
        let ended: Vec<Value> = containers(pod, field)
            .map(|container| {
                let begun = container_status(&pod["status"], container)
                    .and_then(|status| status["state"]["running"]["startedAt"].as_str())
                    .unwrap_or(&at);
                completed(pod, container, begun, &at)
            })
            .collect();
        if !ended.is_empty() {
            status[statuses] = ended.into();
        }
    }
    status["phase"] = "Succeeded".into();
    set_conditions(pod, &mut status, true, false, "PodCompleted", now);
    status
}

/// The status of a running pod whose containers got other images, which restarts them; `None` where all run what they
/// should.
pub(crate) fn with_new_images(pod: &Value, now: Timestamp) -> Option<Value> {
    let at = age::rfc3339(now);
    let mut changed = false;
    let statuses: Vec<Value> = containers(pod, "containers")
        .map(|container| {
            let Some(old) = container_status(&pod["status"], container) else {
                return running(pod, container, &at);
            };
            if old["image"] == container["image"] {
                return old.clone();
            }
            changed = true;
            let mut new = running(pod, container, &at);
            new["restartCount"] = (count(old, "restartCount") + 1).into();
            if let Some(begun) = old["state"]["running"]["startedAt"].as_str() {
                new["lastState"] = completed(pod, container, begun, &at)["state"].clone();
            }
            new
        })
        .collect();
    if !changed {
        return None;
    }
    let mut status = pod["status"].clone();
    let ready = statuses.iter().all(|container| container["ready"] == true);
    let runs = statuses
        .iter()
        .any(|container| container["state"]["running"].is_object());
    status["phase"] = if runs {
        "Running"
    } else {
        pod["status"]["phase"].as_str().unwrap_or("Pending")
    }
    .into();
    status["containerStatuses"] = statuses.into();
    set_conditions(pod, &mut status, true, ready, "", now);
    Some(status)
}

/// The status of a container as a pod's status has it.
pub(crate) fn container_status<'a>(status: &'a Value, container: &Value) -> Option<&'a Value> {
    ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|field| status[field].as_array().into_iter().flatten())
        .find(|status| status["name"] == container["name"])
}

fn base(pod: &Value, container: &Value) -> Value {
    json!({
        "name": container["name"],
        "image": container["image"],
        // Nothing was pulled.
        "imageID": "",
        "containerID": format!("simulated://{}/{}", pod.uid(), container["name"].as_str().unwrap_or_default()),
        "lastState": {},
        "restartCount": 0,
    })
}

fn running(pod: &Value, container: &Value, at: &str) -> Value {
    if cannot_be_pulled(container) {
        return waiting(pod, container, "ImagePullBackOff");
    }
    let mut status = base(pod, container);
    status["state"] = json!({"running": {"startedAt": at}});
    status["ready"] = (pod.annotation(READY_ANNOTATION) != Some("false")).into();
    status["started"] = true.into();
    status
}

fn waiting(pod: &Value, container: &Value, reason: &str) -> Value {
    let reason = if cannot_be_pulled(container) {
        "ImagePullBackOff"
    } else {
        reason
    };
    let mut status = base(pod, container);
    status["containerID"] = "".into();
    status["state"] = json!({"waiting": {"reason": reason}});
    if reason == "ImagePullBackOff" {
        let image = container["image"].as_str().unwrap_or_default();
        status["state"]["waiting"]["message"] = format!("Back-off pulling image \"{image}\"").into();
    }
    status["ready"] = false.into();
    status["started"] = false.into();
    status
}

fn completed(pod: &Value, container: &Value, begun: &str, ended: &str) -> Value {
    let mut status = base(pod, container);
    status["state"] = json!({"terminated": {
        "exitCode": 0, "reason": "Completed", "startedAt": begun, "finishedAt": ended,
        "containerID": status["containerID"],
    }});
    // An init container that has completed counts as ready.
    status["ready"] = containers(pod, "initContainers")
        .any(|one| one["name"] == container["name"])
        .into();
    status["started"] = false.into();
    status
}

fn set_conditions(pod: &Value, status: &mut Value, initialized: bool, ready: bool, reason: &str, now: Timestamp) {
    let generation = count(&pod["metadata"], "generation");
    let gates = pod["spec"]["readinessGates"].as_array().into_iter().flatten();
    let gates_pass = gates.clone().all(|gate| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .clone()
            .any(|one| one["type"] == gate["conditionType"] && one["status"] == "True")
    });
    let conditions = &mut status["conditions"];
    for (kind, holds) in [
        ("PodReadyToStartContainers", true),
        ("Initialized", initialized),
        ("Ready", ready && gates_pass),
        ("ContainersReady", ready),
    ] {
        let mut condition =
            json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastProbeTime": null});
        if generation > 0 {
            condition["observedGeneration"] = generation.into();
        }
        if !holds {
            condition["reason"] = match (reason, kind) {
                ("", "Initialized") => "ContainersNotInitialized",
                ("", _) => "ContainersNotReady",
                (reason, _) => reason,
            }
            .into();
        }
        set_condition(conditions, condition, now);
    }
    if generation > 0 {
        status["observedGeneration"] = generation.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: &str) -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "generation": 1},
            "spec": {"containers": [{"name": "c", "image": image}], "initContainers": [{"name": "i", "image": "x"}]},
            "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
        })
    }

    const PLACE: Place<'static> = Place {
        host_ip: "172.18.0.2",
        pod_ip: "10.244.0.1",
    };

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
        let mut all = status["conditions"].as_array().unwrap().iter();
        all.find(|one| one["type"] == kind).unwrap()["status"].as_str().unwrap()
    }

    #[test]
    fn a_started_pod_is_ready() {
        let status = started(&pod("nginx"), PLACE, Timestamp::UNIX_EPOCH);
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["podIP"], "10.244.0.1");
        assert_eq!(status["containerStatuses"][0]["ready"], true);
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        for kind in ["Ready", "ContainersReady", "Initialized", "PodScheduled"] {
            assert_eq!(condition(&status, kind), "True", "{kind}");
        }
    }

    #[test]
    fn an_image_that_cannot_exist_is_not_pulled() {
        let status = started(&pod("registry.invalid/web:1"), PLACE, Timestamp::UNIX_EPOCH);
        assert_eq!(status["phase"], "Pending");
        assert_eq!(
            status["containerStatuses"][0]["state"]["waiting"]["reason"],
            "ImagePullBackOff"
        );
        assert_eq!(condition(&status, "Ready"), "False");
    }

    #[test]
    fn a_pod_can_run_without_being_ready() {
        let mut pod = pod("nginx");
        pod["metadata"]["annotations"] = json!({READY_ANNOTATION: "false"});
        let status = started(&pod, PLACE, Timestamp::UNIX_EPOCH);
        assert_eq!(status["phase"], "Running");
        assert_eq!(condition(&status, "Ready"), "False");
    }

    #[test]
    fn another_image_restarts_the_container() {
        let mut pod = pod("nginx:1");
        pod["status"] = started(&pod, PLACE, Timestamp::UNIX_EPOCH);
        assert_eq!(with_new_images(&pod, Timestamp::UNIX_EPOCH), None);
        pod["spec"]["containers"][0]["image"] = "nginx:2".into();
        let status = with_new_images(&pod, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
        assert_eq!(status["containerStatuses"][0]["image"], "nginx:2");
        assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 0);
    }

    #[test]
    fn a_pod_that_ends_is_completed() {
        let mut pod = pod("busybox");
        pod["status"] = started(&pod, PLACE, Timestamp::UNIX_EPOCH);
        let status = succeeded(&pod, Timestamp::UNIX_EPOCH);
        assert_eq!(status["phase"], "Succeeded");
        assert_eq!(condition(&status, "Ready"), "False");
        assert_eq!(
            status["containerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
    }
}
