//! What runs umbra in the hub cluster: its Deployment, and the pods of it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::api_service::APPLY;
use super::asking::{Read, SELECTOR};
use super::finding::Finding;

const DEPLOYMENT: &str = "deployment";
const PODS: &str = "pods";
/// A container that was restarted less often may have been moved or updated.
const RESTARTS: i32 = 3;

/// Whether as many replicas are ready as there should be, and why not.
pub(super) fn judge(namespace: &str, deployments: &Read<Vec<Deployment>>, pods: &Read<Vec<Pod>>) -> Vec<Finding> {
    let deployments = match deployments.known(DEPLOYMENT, &format!("the Deployment in {namespace}")) {
        Ok(deployments) => deployments.map(Vec::as_slice).unwrap_or_default(),
        Err(finding) => return vec![finding],
    };
    if deployments.is_empty() {
        let message = format!(
            "there is no Deployment with the label {SELECTOR} in {namespace}: umbra runs elsewhere, or not at all"
        );
        return vec![Finding::not_checked(DEPLOYMENT, message)];
    }
    let mut findings: Vec<Finding> = deployments.iter().map(|one| replicas(namespace, one)).collect();
    match pods.known(PODS, &format!("the pods in {namespace}")) {
        Ok(pods) => findings.extend(pods.into_iter().flatten().filter_map(|one| pod(namespace, one))),
        Err(finding) => findings.push(finding),
    }
    findings
}

fn replicas(namespace: &str, deployment: &Deployment) -> Finding {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let ready = status.ready_replicas.unwrap_or_default();
    let mut message = format!("Deployment {namespace}/{name} has {ready} ready replicas of {wanted}");
    if wanted == 0 {
        let advice = format!("kubectl -n {namespace} scale deployment/{name} --replicas=3");
        return Finding::wrong(DEPLOYMENT, message, advice);
    }
    if ready >= wanted {
        return Finding::ok(DEPLOYMENT, message);
    }
    // What kept pods from being made is said nowhere else.
    let failure = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_.as_deref() == Some("ReplicaFailure") && one.status.as_deref() == Some("True"));
    if let Some(why) = failure.and_then(|one| one.message.as_deref()) {
        message = format!("{message}: {why}");
    }
    let advice =
        format!("see pods, or kubectl -n {namespace} describe deployment {name}; {APPLY} where it was changed");
    if ready == 0 {
        Finding::wrong(DEPLOYMENT, message, advice)
    } else {
        Finding::warning(DEPLOYMENT, message, advice)
    }
}

/// What is the matter with a pod, if anything is.
fn pod(namespace: &str, pod: &Pod) -> Option<Finding> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|one| one.type_ == kind);
    if let Some(unscheduled) = condition("PodScheduled").filter(|one| one.status == "False") {
        let why = unscheduled.message.as_deref().unwrap_or("no node takes it");
        let advice =
            format!("make room on the nodes, or change the requests and the affinity of the Deployment in {namespace}");
        return Some(Finding::wrong(PODS, format!("{name} is not scheduled: {why}"), advice));
    }
    let containers = status.container_statuses.unwrap_or_default();
    if let Some(finding) = containers.iter().find_map(|one| container(namespace, name, one)) {
        return Some(finding);
    }
    if condition("Ready").is_some_and(|one| one.status == "True") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let advice = format!("see store; kubectl -n {namespace} logs {name} says why");
    Some(Finding::warning(PODS, format!("{name} is not ready"), advice))
}

fn container(namespace: &str, pod: &str, container: &ContainerStatus) -> Option<Finding> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let ended = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let ended = ended.map(|ended| {
        let reason = ended.reason.clone().unwrap_or_default();
        format!("{reason}, exit status {}", ended.exit_code)
    });
    let last = ended
        .as_ref()
        .map_or_else(String::new, |ended| format!("; it ended last with {ended}"));
    if let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref())
        && !matches!(reason, "ContainerCreating" | "PodInitializing")
    {
        let said = waiting
            .and_then(|waiting| waiting.message.as_deref())
            .unwrap_or_default();
        let message = format!("{pod} waits ({reason}): {said}{last}");
        let advice = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                "name an image that the nodes can pull: `images:` in the kustomization of manifests/base".to_owned()
            }
            "CreateContainerConfigError" => {
                format!(
                    "a ConfigMap or Secret is missing that the Deployment names: kubectl -n {namespace} describe pod {pod}"
                )
            }
            _ => format!("kubectl -n {namespace} logs {pod} --previous says why it ended"),
        };
        return Some(Finding::wrong(PODS, message, advice));
    }
    if container.restart_count < RESTARTS {
        return None;
    }
    let message = format!("{pod} was restarted {} times{last}", container.restart_count);
    let advice = if last.contains("OOMKilled") {
        format!("raise the memory limit of the Deployment in {namespace}: copies are kept in memory")
    } else {
        format!("kubectl -n {namespace} logs {pod} --previous says why")
    };
    Some(Finding::warning(PODS, message, advice))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::{Level, levels};
    use super::*;

    fn deployment(wanted: i32, ready: i32) -> Read<Vec<Deployment>> {
        let deployment = json!({"metadata": {"name": "umbra"}, "status": {"readyReplicas": ready},
            "spec": {"replicas": wanted, "selector": {}, "template": {}}});
        Read::There(vec![serde_json::from_value(deployment).unwrap()])
    }

    fn pods(status: &Value) -> Read<Vec<Pod>> {
        let pod = json!({"metadata": {"name": "umbra-1"}, "status": status});
        Read::There(vec![serde_json::from_value(pod).unwrap()])
    }

    fn container(state: &Value, last: &Value, restarts: i32) -> Value {
        json!({"containerStatuses": [{"name": "umbra", "image": "i", "imageID": "i", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last}], "conditions": [{"type": "Ready", "status": "True"}]})
    }

    #[test]
    fn replicas_are_counted() {
        let none = Read::There(Vec::new());
        let level = |wanted, ready| levels(&judge("n", &deployment(wanted, ready), &none));
        assert_eq!(level(3, 3), [Level::Ok]);
        assert_eq!(level(3, 2), [Level::Warning]);
        assert_eq!(level(3, 0), [Level::Wrong]);
        assert_eq!(level(0, 0), [Level::Wrong]);
        assert_eq!(
            levels(&judge("n", &Read::There(Vec::new()), &none)),
            [Level::NotChecked]
        );
        let hidden = Read::Unknown("you may not".to_owned());
        assert_eq!(levels(&judge("n", &hidden, &none)), [Level::NotChecked]);
    }

    #[test]
    fn pods_say_what_is_the_matter_and_what_helps() {
        let nothing = json!({});
        for (status, level, part) in [
            (
                container(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), &nothing, 9),
                Level::Wrong,
                "--previous",
            ),
            (
                container(&json!({"waiting": {"reason": "ImagePullBackOff"}}), &nothing, 0),
                Level::Wrong,
                "image",
            ),
            (
                container(
                    &json!({"running": {}}),
                    &json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
                    4,
                ),
                Level::Warning,
                "memory limit",
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}),
                Level::Wrong,
                "make room",
            ),
            (
                json!({"conditions": [{"type": "Ready", "status": "False"}]}),
                Level::Warning,
                "logs umbra-1",
            ),
        ] {
            let findings = judge("n", &deployment(1, 1), &pods(&status));
            assert_eq!(levels(&findings), [Level::Ok, level], "{status}");
            let advice = findings[1].advice.clone().unwrap();
            assert!(advice.contains(part), "{part}: {advice}");
        }
        let good = container(&json!({"running": {}}), &nothing, 1);
        assert_eq!(levels(&judge("n", &deployment(1, 1), &pods(&good))), [Level::Ok]);
    }
}
