//! The objects that are stored: pods as a kubelet runs them, all different, 4.7 KB on average as a view serves them.
//!
//! They are made after what `kubectl get pod -o json` prints of a pod of a Deployment in a cluster of today: projected
//! service account token, two probes, resources, tolerations, conditions, container statuses with digests. `managedFields` are
//! left out, as copies leave them out. The same index gives the same pod, in every process.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::table::ColumnDefinition;
use umbra_registry::copies::key::{CopyKey, copy_key};
use umbra_registry::copies::translate::to_view;

/// Clusters that pods are spread over.
const CLUSTERS: u64 = 20;
/// Namespaces of each cluster.
const NAMESPACES: u64 = 25;

/// The resource.
pub(crate) fn resource() -> GroupResource {
    GroupResource::new("", "pods")
}

/// A stored copy of a pod: key and value. `version` tells states of one pod apart.
pub(crate) fn stored(index: u64, version: u64) -> (String, Bytes) {
    let pod = pod(index, version);
    let cluster = format!("cluster-{:02}", index % CLUSTERS);
    let row = (columns(), cells(&pod));
    let text = pod.to_string();
    let copy =
        to_view(text.as_bytes(), &cluster, &resource(), Some((&row.0, row.1))).expect("what was made here is a pod");
    let key = CopyKey {
        cluster: &cluster,
        namespace: Some(&copy.namespace),
        name: &copy.name,
    };
    (copy_key(&resource(), key), copy.envelope.encode())
}

/// The columns that kube-apiserver prints of pods.
fn columns() -> Vec<ColumnDefinition> {
    let names = [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP",
        "Node",
        "Nominated Node",
        "Readiness Gates",
    ];
    let mut columns: Vec<_> = names.iter().map(|name| ColumnDefinition::string(name, "")).collect();
    "name".clone_into(&mut columns[0].format);
    columns
}

fn cells(pod: &Value) -> Vec<Value> {
    let containers = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    vec![
        pod["metadata"]["name"].clone(),
        format!("{containers}/{containers}").into(),
        "Running".into(),
        "0".into(),
        "3d4h".into(),
        pod["status"]["podIP"].clone(),
        pod["spec"]["nodeName"].clone(),
        "<none>".into(),
        "<none>".into(),
    ]
}

fn pod(index: u64, version: u64) -> Value {
    let mut random = StdRng::seed_from_u64(index);
    let app = format!(
        "{}-{}",
        ["web", "cart", "checkout", "search", "ledger"][(index % 5) as usize],
        index / 500
    );
    let namespace = format!("team-{:02}", index / CLUSTERS % NAMESPACES);
    let hash = format!("{:09x}", random.random_range(0..1_u64 << 36));
    let name = format!("{app}-{hash}-{:05x}", index & 0xf_ffff);
    let node = format!(
        "ip-10-{}-{}-{}.compute.internal",
        index % CLUSTERS,
        index / 7 % 250,
        index % 250
    );
    let address = format!("10.{}.{}.{}", 64 + index % 64, index / 250 % 250, index % 250);
    let container_count = 1 + usize::from(random.random_range(0..10) < 1);
    let containers: Vec<Value> = (0..container_count)
        .map(|number| container(&app, number, &mut random))
        .collect();
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| container_status(container, &mut random))
        .collect();
    let created = time(&mut random);
    let mut volumes =
        vec![json!({"name": "config", "configMap": {"name": format!("{app}-config"), "defaultMode": 420}})];
    volumes.push(token_volume());
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "generateName": format!("{app}-{hash}-"), "namespace": namespace, "uid": uid(&mut random),
            "resourceVersion": (1_000_000 + index + version).to_string(), "generation": 1, "creationTimestamp": created,
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/instance": format!("{app}-production"),
                "app.kubernetes.io/managed-by": "Helm", "pod-template-hash": hash, "team": namespace,
            },
            "annotations": {
                "checksum/config": hex(64, &mut random),
                "prometheus.io/scrape": "true", "prometheus.io/port": "9090", "example.com/version": version.to_string(),
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"), "uid": uid(&mut random),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "volumes": volumes, "containers": containers, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": app, "serviceAccount": app, "nodeName": node,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "fsGroup": 10001},
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [toleration("not-ready"), toleration("unreachable")],
        },
        "status": {
            "observedGeneration": 1, "phase": "Running", "conditions": conditions(&created),
            "hostIP": "10.0.0.7", "hostIPs": [{"ip": "10.0.0.7"}], "podIP": address, "podIPs": [{"ip": address}],
            "startTime": created, "containerStatuses": statuses, "qosClass": "Burstable",
        },
    })
}

fn container(app: &str, number: usize, random: &mut StdRng) -> Value {
    let port = 8080 + number;
    let probe = |path: &str, period: u64| {
        json!({
            "httpGet": {"path": path, "port": port, "scheme": "HTTP"}, "initialDelaySeconds": 5, "timeoutSeconds": 1,
            "periodSeconds": period, "successThreshold": 1, "failureThreshold": 3,
        })
    };
    let name = if number == 0 {
        app.to_owned()
    } else {
        format!("proxy-{number}")
    };
    json!({
        "name": name,
        "image": format!("registry.example.com/shop/{app}:v1.{}.{}", random.random_range(0..40), random.random_range(0..9)),
        "args": ["--config=/etc/config/config.yaml", format!("--listen=:{port}"), "--log-format=json"],
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": format!("{app}-database"), "key": "url"}}},
            {"name": "GOMEMLIMIT", "value": format!("{}MiB", random.random_range(64..512))},
        ],
        "resources": {
            "limits": {"memory": "512Mi"},
            "requests": {"cpu": format!("{}m", random.random_range(50..500)), "memory": "256Mi"},
        },
        "volumeMounts": volume_mounts(),
        "livenessProbe": probe("/healthz", 10), "readinessProbe": probe("/readyz", 5),
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        },
    })
}

fn volume_mounts() -> Value {
    json!([
        {"name": "config", "readOnly": true, "mountPath": "/etc/config"},
        {"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ])
}

fn token_volume() -> Value {
    json!({"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

fn toleration(taint: &str) -> Value {
    json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
}

fn conditions(since: &str) -> Value {
    let types = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    types
        .iter()
        .map(|condition| {
            json!({
                "type": condition, "observedGeneration": 1, "status": "True", "lastProbeTime": null,
                "lastTransitionTime": since,
            })
        })
        .collect()
}

fn container_status(container: &Value, random: &mut StdRng) -> Value {
    let image = container["image"].as_str().unwrap_or_default();
    let repository = image.split(':').next().unwrap_or_default();
    json!({
        "name": container["name"], "state": {"running": {"startedAt": time(random)}}, "lastState": {}, "ready": true,
        "restartCount": 0, "image": image, "imageID": format!("{repository}@sha256:{}", hex(64, random)),
        "containerID": format!("containerd://{}", hex(64, random)), "started": true,
        "resources": container["resources"],
    })
}

fn hex(digits: usize, random: &mut StdRng) -> String {
    (0..digits)
        .map(|_| char::from_digit(random.random_range(0..16), 16).unwrap_or('0'))
        .collect()
}

fn uid(random: &mut StdRng) -> String {
    [8, 4, 4, 4, 12].map(|digits| hex(digits, random)).join("-")
}

fn time(random: &mut StdRng) -> String {
    let mut below = |end: u32| random.random_range(0..end);
    format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}Z",
        1 + below(28),
        below(24),
        below(60),
        below(60)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use umbra_registry::copies::envelope::Envelope;

    #[test]
    fn pods_differ_and_have_the_size_that_budgets_speak_of() {
        let pods: Vec<_> = (0..1_000).map(|index| stored(index, 1)).collect();
        let keys: BTreeSet<_> = pods.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 1_000);
        let bytes: usize = pods
            .iter()
            .map(|(_, value)| Envelope::decode(value).unwrap().object(1_000_000).len())
            .sum();
        assert!(
            (4_600..4_800).contains(&(bytes / 1_000)),
            "{} bytes on average",
            bytes / 1_000
        );
        assert_eq!(stored(7, 1), stored(7, 1), "the same in every process");
        assert_ne!(stored(7, 1).1, stored(7, 2).1);
    }
}
