//! Everything but workloads: configuration, network, nodes, RBAC, events.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::table::ColumnDefinition;

use super::{condition, created, items, label_text, name, number, since, string, text};

pub(super) fn service_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Type", "How the service is exposed."),
        text("Cluster-IP", "The address inside the cluster."),
        text("External-IP", "Addresses outside the cluster."),
        text("Port(s)", "The ports the service listens on."),
        ColumnDefinition::age(),
        text("Selector", "Which pods get the traffic.").wide(),
    ]
}

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let ports: Vec<String> = items(&spec["ports"]).iter().map(service_port).collect();
    vec![
        name(object),
        string(&spec["type"]),
        spec["clusterIPs"][0].as_str().unwrap_or("<none>").into(),
        external_ip(object).into(),
        if ports.is_empty() {
            "<none>".into()
        } else {
            ports.join(",").into()
        },
        created(object, now),
        label_text(&spec["selector"]).into(),
    ]
}

fn service_port(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    match number(&port["nodePort"]) {
        node_port @ 1.. => format!("{}:{node_port}/{protocol}", number(&port["port"])),
        _ => format!("{}/{protocol}", number(&port["port"])),
    }
}

fn strings(value: &Value) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let external = strings(&spec["externalIPs"]);
    match spec["type"].as_str().unwrap_or_default() {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut addresses = balancer_addresses(&service["status"]);
            addresses.extend(external.into_iter().map(str::to_owned));
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        "ExternalName" => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses of a load balancer, sorted and without repetitions.
fn balancer_addresses(status: &Value) -> Vec<String> {
    let addresses: BTreeSet<&str> = items(&status["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|ingress| ingress["ip"].as_str().or(ingress["hostname"].as_str()))
        .collect();
    addresses.into_iter().map(str::to_owned).collect()
}

pub(super) fn ingress_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Class", "The IngressClass that is used."),
        text("Hosts", "Hosts that incoming requests are matched against."),
        text("Address", "The ingress points of the load balancer."),
        text("Ports", "Ports that are open."),
        ColumnDefinition::age(),
    ]
}

pub(super) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let mut hosts: Vec<&str> = Vec::new();
    for rule in items(&spec["rules"]) {
        if let Some(host) = rule["host"]
            .as_str()
            .filter(|host| !host.is_empty() && !hosts.contains(host))
        {
            hosts.push(host);
        }
    }
    let shown = hosts.len().min(3);
    let mut host_text = hosts[..shown].join(",");
    if hosts.len() > shown {
        host_text = format!("{host_text} + {} more...", hosts.len() - shown);
    } else if host_text.is_empty() {
        "*".clone_into(&mut host_text);
    }
    let ports = if items(&spec["tls"]).is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(object),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        host_text.into(),
        balancer_addresses(&object["status"]).join(",").into(),
        ports.into(),
        created(object, now),
    ]
}

pub(super) fn config_map_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Data", "How many keys there are."),
        ColumnDefinition::age(),
    ]
}

fn fields(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = fields(&object["data"]) + fields(&object["binaryData"]);
    vec![name(object), keys.into(), created(object, now)]
}

pub(super) fn secret_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Type", "What the secret is for."),
        text("Data", "How many keys there are."),
        ColumnDefinition::age(),
    ]
}

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        string(&object["type"]),
        fields(&object["data"]).into(),
        created(object, now),
    ]
}

pub(super) fn namespace_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Status", "The status of the namespace"),
        ColumnDefinition::age(),
    ]
}

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), string(&object["status"]["phase"]), created(object, now)]
}

pub(super) fn service_account_columns() -> Vec<ColumnDefinition> {
    vec![ColumnDefinition::name(), ColumnDefinition::age()]
}

pub(super) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), created(object, now)]
}

pub(super) fn node_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Status", "The status of the node"),
        text("Roles", "The roles of the node"),
        ColumnDefinition::age(),
        text("Version", "The kubelet's version."),
        text("Internal-IP", "The node's address inside the cluster.").wide(),
        text("External-IP", "The node's address outside the cluster.").wide(),
        text("OS-Image", "The operating system.").wide(),
        text("Kernel-Version", "The kernel.").wide(),
        text("Container-Runtime", "The container runtime.").wide(),
    ]
}

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = vec![match condition(object, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object["spec"]["unschedulable"] == true {
        status.push("SchedulingDisabled");
    }
    let info = &object["status"]["nodeInfo"];
    let known = |field: &str| match info[field].as_str() {
        None | Some("") => "<unknown>".to_owned(),
        Some(text) => text.to_owned(),
    };
    let mut kernel = known("kernelVersion");
    if let Some(architecture) = info["architecture"].as_str().filter(|text| !text.is_empty()) {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(object),
        status.join(",").into(),
        node_roles(object).into(),
        created(object, now),
        string(&info["kubeletVersion"]),
        node_address(object, "InternalIP").into(),
        node_address(object, "ExternalIP").into(),
        known("osImage").into(),
        kernel.into(),
        known("containerRuntimeVersion").into(),
    ]
}

fn node_roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => {
                roles.insert(role);
            }
            _ if key == "kubernetes.io/role" => roles.extend(value.as_str().filter(|role| !role.is_empty())),
            _ => {}
        }
    }
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn node_address<'a>(node: &'a Value, address_type: &str) -> &'a str {
    items(&node["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == address_type)
        .and_then(|address| address["address"].as_str())
        .unwrap_or("<none>")
}

pub(super) fn role_binding_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Role", "The role that is granted."),
        ColumnDefinition::age(),
        text("Users", "Users in the binding").wide(),
        text("Groups", "Groups in the binding").wide(),
        text("ServiceAccounts", "ServiceAccounts in the binding").wide(),
    ]
}

pub(super) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let subjects: Vec<String> = items(&object["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| {
                let subject_name = subject["name"].as_str().unwrap_or_default();
                if kind == "ServiceAccount" {
                    format!("{}/{subject_name}", subject["namespace"].as_str().unwrap_or_default())
                } else {
                    subject_name.to_owned()
                }
            })
            .collect();
        Value::from(subjects.join(", "))
    };
    let role = &object["roleRef"];
    let part = |field: &str| role[field].as_str().unwrap_or_default();
    vec![
        name(object),
        format!("{}/{}", part("kind"), part("name")).into(),
        created(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn event_columns() -> Vec<ColumnDefinition> {
    let mut event_name = ColumnDefinition::name().wide();
    "The event's own name.".clone_into(&mut event_name.description);
    vec![
        text("Last Seen", "How long ago it happened last."),
        text("Type", "Normal or Warning."),
        text("Reason", "Why, for programs."),
        text("Object", "What it happened to."),
        text("Subobject", "Which part of it.").wide(),
        text("Source", "Who saw it.").wide(),
        text("Message", "What happened."),
        text("First Seen", "How long ago it happened first.").wide(),
        text("Count", "How often it happened.").wide(),
        event_name,
    ]
}

/// Reads both `v1` and `events.k8s.io/v1`, whose fields are named otherwise.
pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |one: &str, other: &str| {
        if object[one].is_null() {
            &object[other]
        } else {
            &object[one]
        }
    };
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let first_seen = since(if first.is_null() { &object["eventTime"] } else { first }, now);
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let mut last_seen = if last.is_null() {
        first_seen.clone()
    } else {
        since(last, now)
    };
    let mut count = number(either("count", "deprecatedCount")).max(1);
    let series = &object["series"];
    if series.is_object() {
        last_seen = since(&series["lastObservedTime"], now);
        count = number(&series["count"]);
    }
    let regarding = either("involvedObject", "regarding");
    let kind = regarding["kind"].as_str().unwrap_or_default().to_lowercase();
    let target = match regarding["name"].as_str().filter(|text| !text.is_empty()) {
        Some(target) => format!("{kind}/{target}"),
        None => kind,
    };
    let message = either("message", "note").as_str().unwrap_or_default().trim();
    vec![
        last_seen.into(),
        string(&object["type"]),
        string(&object["reason"]),
        target.into(),
        string(&regarding["fieldPath"]),
        event_source(object, either("source", "deprecatedSource")).into(),
        message.into(),
        first_seen.into(),
        count.into(),
        name(object),
    ]
}

fn event_source(event: &Value, source: &Value) -> String {
    let first = |values: [&Value; 3]| {
        let found = values
            .into_iter()
            .filter_map(Value::as_str)
            .find(|text| !text.is_empty());
        found.unwrap_or_default().to_owned()
    };
    let component = first([
        &source["component"],
        &event["reportingComponent"],
        &event["reportingController"],
    ]);
    let instance = first([&source["host"], &event["reportingInstance"], &Value::Null]);
    if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    }
}

pub(super) fn lease_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Holder", "Who holds the lease."),
        ColumnDefinition::age(),
    ]
}

pub(super) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        string(&object["spec"]["holderIdentity"]),
        created(object, now),
    ]
}

pub(super) fn endpoint_slice_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("AddressType", "IPv4, IPv6 or FQDN."),
        text("Ports", "The ports of the endpoints."),
        text("Endpoints", "The addresses of the endpoints."),
        ColumnDefinition::age(),
    ]
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = items(&object["ports"]).iter().map(|port| match port["port"].as_i64() {
        Some(one) => one.to_string(),
        None => port["name"].as_str().unwrap_or("*").to_owned(),
    });
    let addresses = items(&object["endpoints"])
        .iter()
        .flat_map(|endpoint| strings(&endpoint["addresses"]))
        .map(str::to_owned);
    vec![
        name(object),
        string(&object["addressType"]),
        first_three(&ports.collect::<Vec<_>>()).into(),
        first_three(&addresses.collect::<Vec<_>>()).into(),
        created(object, now),
    ]
}

/// `listWithMoreString`.
fn first_three(list: &[String]) -> String {
    match list.len() {
        0 => "<unset>".to_owned(),
        1..=3 => list.join(","),
        count => format!("{} + {} more...", list[..3].join(","), count - 3),
    }
}

pub(super) fn volume_claim_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        text("Status", "Whether the claim is bound."),
        text("Volume", "The volume it is bound to."),
        text("Capacity", "How much there is."),
        text("Access Modes", "How it can be mounted."),
        text("StorageClass", "StorageClass of the pvc"),
        text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
        ColumnDefinition::age(),
        text("VolumeMode", "Filesystem or Block.").wide(),
    ]
}

pub(super) fn volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let phase = if object["metadata"]["deletionTimestamp"].is_null() {
        status["phase"].as_str().unwrap_or_default()
    } else {
        "Terminating"
    };
    let bound = !spec["volumeName"].as_str().unwrap_or_default().is_empty();
    let modes: Vec<&str> = strings(&status["accessModes"]).into_iter().map(access_mode).collect();
    vec![
        name(object),
        phase.into(),
        string(&spec["volumeName"]),
        if bound {
            string(&status["capacity"]["storage"])
        } else {
            "".into()
        },
        if bound { modes.join(",") } else { String::new() }.into(),
        string(&spec["storageClassName"]),
        spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
        created(object, now),
        spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
    ]
}

fn access_mode(mode: &str) -> &str {
    match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    }
}
