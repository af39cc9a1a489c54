//! What kube-apiserver prints of the built-in kinds (`pkg/printers/internalversion/printers.go`).
//!
//! The columns are those of the Go handlers, the wide ones with priority 1; every cell is computed from the JSON, where
//! an absent number prints as 0 as in Go.

mod cluster;
mod pod;
mod workload;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::table::ColumnDefinition;

use crate::generic::printer::{DefaultPrinter, Printer};

/// The printer of a built-in resource; [`DefaultPrinter`] where kube-apiserver has none, or where this module has none.
#[must_use]
pub fn printer(resource: &GroupResource) -> Arc<dyn Printer> {
    let handler = match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => Handler(pod::columns, pod::cells),
        ("apps", "deployments") => Handler(workload::deployment_columns, workload::deployment),
        ("apps", "replicasets") => Handler(workload::replica_set_columns, workload::replica_set),
        ("", "replicationcontrollers") => Handler(workload::replica_set_columns, workload::replication_controller),
        ("apps", "statefulsets") => Handler(workload::stateful_set_columns, workload::stateful_set),
        ("apps", "daemonsets") => Handler(workload::daemon_set_columns, workload::daemon_set),
        ("batch", "jobs") => Handler(workload::job_columns, workload::job),
        ("batch", "cronjobs") => Handler(workload::cron_job_columns, workload::cron_job),
        ("", "services") => Handler(cluster::service_columns, cluster::service),
        ("", "configmaps") => Handler(cluster::config_map_columns, cluster::config_map),
        ("", "secrets") => Handler(cluster::secret_columns, cluster::secret),
        ("", "namespaces") => Handler(cluster::namespace_columns, cluster::namespace),
        ("", "nodes") => Handler(cluster::node_columns, cluster::node),
        ("", "serviceaccounts") => Handler(cluster::service_account_columns, cluster::service_account),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            Handler(cluster::role_binding_columns, cluster::role_binding)
        }
        ("" | "events.k8s.io", "events") => Handler(cluster::event_columns, cluster::event),
        ("coordination.k8s.io", "leases") => Handler(cluster::lease_columns, cluster::lease),
        ("discovery.k8s.io", "endpointslices") => Handler(cluster::endpoint_slice_columns, cluster::endpoint_slice),
        ("networking.k8s.io", "ingresses") => Handler(cluster::ingress_columns, cluster::ingress),
        ("", "persistentvolumeclaims") => Handler(cluster::volume_claim_columns, cluster::volume_claim),
        _ => return Arc::new(DefaultPrinter),
    };
    Arc::new(handler)
}

struct Handler(fn() -> Vec<ColumnDefinition>, fn(&Value, Timestamp) -> Vec<Value>);

impl Printer for Handler {
    fn columns(&self) -> Vec<ColumnDefinition> {
        (self.0)()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.1)(object, now)
    }
}

/// A column of type string.
fn text(name: &str, description: &str) -> ColumnDefinition {
    ColumnDefinition::string(name, description)
}

/// A column of type integer.
fn integer(name: &str, description: &str) -> ColumnDefinition {
    text(name, description).of_type("integer")
}

/// The wide columns of kinds with a pod template.
fn container_columns() -> [ColumnDefinition; 2] {
    [
        text("Containers", "Names of each container in the template.").wide(),
        text("Images", "Images referenced by each container in the template.").wide(),
    ]
}

fn selector_column() -> ColumnDefinition {
    text("Selector", "Which pods belong to the object.").wide()
}

fn name(object: &Value) -> Value {
    string(&object["metadata"]["name"])
}

/// A string, empty where there is none, as in Go.
fn string(value: &Value) -> Value {
    value.as_str().unwrap_or_default().into()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The time since an RFC 3339 timestamp, or `<unknown>`.
fn since(timestamp: &Value, now: Timestamp) -> String {
    timestamp
        .as_str()
        .and_then(age::parse)
        .map_or_else(|| "<unknown>".to_owned(), |time| age::human_duration(time, now))
}

fn created(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// Names and images of the containers of a pod template's spec.
fn containers(pod_spec: &Value) -> [Value; 2] {
    let joined = |field: &str| {
        let parts: Vec<&str> = items(&pod_spec["containers"])
            .iter()
            .map(|container| container[field].as_str().unwrap_or_default())
            .collect();
        Value::from(parts.join(","))
    };
    [joined("name"), joined("image")]
}

/// `labels.FormatLabels`: `a=b,c=d`, or `<none>`.
fn label_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

/// `metav1.FormatLabelSelector`: requirements in the order of their keys.
fn selector_text(selector: &Value) -> String {
    let mut requirements: Vec<(String, String)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in items(&selector["matchExpressions"]) {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = items(&expression["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let requirement = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        requirements.push((key.to_owned(), requirement));
    }
    requirements.sort();
    if requirements.is_empty() {
        return "<none>".to_owned();
    }
    let requirements: Vec<String> = requirements.into_iter().map(|(_, requirement)| requirement).collect();
    requirements.join(",")
}

/// The status of the condition of that type.
fn condition<'a>(object: &'a Value, condition_type: &str) -> Option<&'a str> {
    items(&object["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == condition_type)
        .and_then(|condition| condition["status"].as_str())
}

#[cfg(test)]
mod tests;
