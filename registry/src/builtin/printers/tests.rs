use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::GroupResource;

use super::printer;

fn row(resource: &str, object: Value) -> String {
    let printer = printer(&GroupResource::parse(resource));
    let now = age::parse("2026-01-01T01:00:00Z").unwrap();
    let mut object = object;
    object["metadata"]["name"] = "a".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let cells = printer.cells(&object, now);
    assert_eq!(cells.len(), printer.columns().len(), "{resource}");
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
        .collect();
    cells.join("|")
}

#[test]
fn pods_print_as_kube_apiserver_prints_them() {
    let running = json!({"ready": true, "state": {"running": {}}, "restartCount": 0});
    for (pod, want) in [
        (
            json!({"spec": {"containers": [{}]}, "status": {"phase": "Pending"}}),
            "a|0/1|Pending|0|60m",
        ),
        (
            json!({"spec": {"containers": [{}, {}]}, "status": {"phase": "Running", "containerStatuses": [
                running, {"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}}]}}),
            "a|1/2|CrashLoopBackOff|3 (5m ago)|60m",
        ),
        (
            json!({"spec": {"containers": [{}], "initContainers": [{"name": "i"}, {"name": "j"}]},
                "status": {"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}}),
            "a|0/1|Init:1/2|0|60m",
        ),
        (
            json!({"spec": {"containers": [{}]}, "status": {"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 2}}}]}}),
            "a|0/1|ExitCode:2|0|60m",
        ),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:55:00Z"}, "spec": {"containers": [{}]},
                "status": {"phase": "Running", "containerStatuses": [running]}}),
            "a|1/1|Terminating|0|60m",
        ),
    ] {
        assert_eq!(row("pods", pod), format!("{want}|<none>|<none>|<none>|<none>"));
    }
}

#[test]
fn other_kinds_print_as_kube_apiserver_prints_them() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    let selector =
        json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
    for (resource, object, want) in [
        (
            "deployments.apps",
            json!({"spec": {"replicas": 3, "template": template, "selector": selector}, "status": {"readyReplicas": 2}}),
            "a|2/3|0|0|60m|c,d|i,j|a in (x,y),b=1",
        ),
        (
            "services",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}}),
            "a|NodePort|10.0.0.1|<none>|80:30080/TCP|60m|<none>",
        ),
        (
            "services",
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {}}}),
            "a|LoadBalancer|<none>|<pending>|<none>|60m|<none>",
        ),
        ("configmaps", json!({"data": {"x": "", "y": ""}}), "a|2|60m"),
        (
            "secrets",
            json!({"type": "Opaque", "data": {"x": ""}}),
            "a|Opaque|1|60m",
        ),
        ("namespaces", json!({"status": {"phase": "Active"}}), "a|Active|60m"),
        (
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.3", "kernelVersion": "6.1", "architecture": "amd64"}}}),
            "a|Ready,SchedulingDisabled|control-plane|60m|v1.36.3|<none>|<none>|<unknown>|6.1 (amd64)|<unknown>",
        ),
        (
            "rolebindings.rbac.authorization.k8s.io",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            "a|Role/r|60m|u||n/s",
        ),
        (
            "events",
            json!({"type": "Normal", "reason": "R", "message": " m ", "lastTimestamp": "2026-01-01T00:59:00Z",
                "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "c", "host": "h"}, "count": 4}),
            "60s|Normal|R|pod/p||c, h|m|<unknown>|4|a",
        ),
        (
            "leases.coordination.k8s.io",
            json!({"spec": {"holderIdentity": "h"}}),
            "a|h|60m",
        ),
        (
            "endpointslices.discovery.k8s.io",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1", "2", "3", "4"]}]}),
            "a|IPv4|80|1,2,3 + 1 more...|60m",
        ),
        (
            "statefulsets.apps",
            json!({"spec": {"replicas": 2, "template": template}}),
            "a|0/2|60m|c,d|i,j",
        ),
        (
            "jobs.batch",
            json!({"spec": {"completions": 2, "template": template}, "status": {"startTime": "2026-01-01T00:00:00Z"}}),
            "a|Running|0/2|60m|60m|c,d|i,j|<none>",
        ),
        (
            "clusterroles.rbac.authorization.k8s.io",
            json!({}),
            "a|2026-01-01T00:00:00Z",
        ),
    ] {
        assert_eq!(row(resource, object), want, "{resource}");
    }
}
