//! Pods and what runs them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::selector::LabelSelector;
use umbra_apimachinery::status::Cause;

use super::{child, default, text};
use crate::generic::metadata::{forbidden, immutable, invalid, required};
use crate::generic::strategy::Behavior;

/// Fills in what every pod says (`SetDefaults_PodSpec`, `SetDefaults_Container`, `SetDefaults_Probe`).
fn default_pod_spec(owner: &mut Value) {
    let spec = child(owner, "spec");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            default_container(container);
        }
    }
}

fn default_container(container: &mut Value) {
    let policy = if is_latest(text(container, "image")) {
        "Always"
    } else {
        "IfNotPresent"
    };
    let Some(fields) = container.as_object_mut() else {
        return;
    };
    default(fields, "imagePullPolicy", policy);
    default(fields, "resources", json!({}));
    default(fields, "terminationMessagePath", "/dev/termination-log");
    default(fields, "terminationMessagePolicy", "File");
    for port in fields
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(port) = port.as_object_mut() {
            default(port, "protocol", "TCP");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = fields.get_mut(probe).and_then(Value::as_object_mut) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                default(probe, field, value);
            }
            if let Some(http) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                default(http, "scheme", "HTTP");
            }
        }
    }
}

/// Whether an image is named without a tag or digest, or with the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn validate_pod_spec(spec: &Value, field: &str) -> Vec<Cause> {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut causes = Vec::new();
    if containers.is_empty() {
        causes.push(required(format!("{field}.containers"), ""));
    }
    for (index, container) in containers.iter().enumerate() {
        for needed in ["name", "image"] {
            if text(container, needed).is_empty() {
                causes.push(required(format!("{field}.containers[{index}].{needed}"), ""));
            }
        }
        if containers[..index]
            .iter()
            .any(|other| other["name"] == container["name"])
        {
            causes.push(Cause {
                reason: "FieldValueDuplicate".to_owned(),
                message: format!("Duplicate value: {}", container["name"]),
                field: format!("{field}.containers[{index}].name"),
            });
        }
    }
    causes
}

pub(crate) struct Pods;

impl Behavior for Pods {
    fn set_defaults(&self, object: &mut Value) {
        default_pod_spec(object);
        default(child(object, "spec"), "enableServiceLinks", true);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let class = quality_of_service(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": class});
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        validate_pod_spec(&object["spec"], "spec")
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        if fixed_pod_spec(&object["spec"], old) == fixed_pod_spec(&old["spec"], old) {
            return Vec::new();
        }
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                   existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                   previously negative)";
        vec![forbidden("spec", why)]
    }
}

/// The part of a pod's spec that does not change. A node is given to a pod once, by binding it.
fn fixed_pod_spec(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    for kind in ["containers", "initContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("image");
            }
        }
    }
    if let Some(fields) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            fields.remove(field);
        }
        if text(&old["spec"], "nodeName").is_empty() {
            fields.remove("nodeName");
        }
    }
    spec
}

/// `status.qosClass` (`pkg/apis/core/helper/qos`), of containers' own resources.
fn quality_of_service(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|kind| spec[kind].as_array().into_iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        for resource in ["cpu", "memory"] {
            let (limit, request) = (&resources["limits"][resource], &resources["requests"][resource]);
            any |= !limit.is_null() || !request.is_null();
            guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Selector and template of what makes pods.
fn validate_template(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = validate_pod_spec(&spec["template"]["spec"], "spec.template.spec");
    let selector: LabelSelector = match serde_json::from_value(spec["selector"].clone()) {
        Ok(selector) => selector,
        Err(_) => {
            causes.push(required("spec.selector", ""));
            return causes;
        }
    };
    if selector.is_empty() {
        let why = "empty selector is invalid for deployment";
        causes.push(invalid("spec.selector", &spec["selector"], why));
        return causes;
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(spec["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    match selector.to_selector() {
        Ok(selector) if selector.matches(|key| labels.get(key).map(String::as_str)) => {}
        Ok(_) => {
            let why = "`selector` does not match template `labels`";
            causes.push(invalid(
                "spec.template.metadata.labels",
                &spec["template"]["metadata"]["labels"],
                why,
            ));
        }
        Err(error) => causes.push(invalid("spec.selector", &spec["selector"], &error.to_string())),
    }
    causes
}

fn validate_replicas(object: &Value) -> Option<Cause> {
    let replicas = &object["spec"]["replicas"];
    let negative = replicas.as_i64().is_some_and(|replicas| replicas < 0);
    negative.then(|| invalid("spec.replicas", replicas, "must be greater than or equal to 0"))
}

fn validate_workload(object: &Value) -> Vec<Cause> {
    let mut causes = validate_template(object);
    causes.extend(validate_replicas(object));
    causes
}

fn fixed_selector(object: &Value, old: &Value) -> Vec<Cause> {
    immutable(object, old, "/spec/selector").into_iter().collect()
}

/// Defaults of the pod template and of some fields beside it.
fn default_workload(object: &mut Value, fields: &[(&str, Value)]) {
    let spec = child(object, "spec");
    for (field, value) in fields {
        default(spec, field, value.clone());
    }
    if spec.get("template").is_some_and(Value::is_object) {
        default_pod_spec(&mut spec["template"]);
    }
}

pub(crate) struct Deployments;

impl Behavior for Deployments {
    fn set_defaults(&self, object: &mut Value) {
        let fields = [
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("progressDeadlineSeconds", json!(600)),
            ("strategy", json!({"type": "RollingUpdate"})),
        ];
        default_workload(object, &fields);
        let strategy = child(&mut object["spec"], "strategy");
        default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            let rolling = child(&mut object["spec"]["strategy"], "rollingUpdate");
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        validate_workload(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        fixed_selector(object, old)
    }
}

pub(crate) struct ReplicaSets;

impl Behavior for ReplicaSets {
    fn set_defaults(&self, object: &mut Value) {
        default_workload(object, &[("replicas", json!(1))]);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        validate_workload(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        fixed_selector(object, old)
    }
}

pub(crate) struct StatefulSets;

impl Behavior for StatefulSets {
    fn set_defaults(&self, object: &mut Value) {
        let fields = [
            ("replicas", json!(1)),
            ("revisionHistoryLimit", json!(10)),
            ("podManagementPolicy", json!("OrderedReady")),
            (
                "updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            ),
        ];
        default_workload(object, &fields);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        validate_workload(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        fixed_selector(object, old)
    }
}

pub(crate) struct DaemonSets;

impl Behavior for DaemonSets {
    fn set_defaults(&self, object: &mut Value) {
        let update = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
        let fields = [("revisionHistoryLimit", json!(10)), ("updateStrategy", update)];
        default_workload(object, &fields);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        validate_template(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        fixed_selector(object, old)
    }
}

pub(crate) struct Jobs;

impl Behavior for Jobs {
    fn set_defaults(&self, object: &mut Value) {
        let spec = &object["spec"];
        let mut fields = vec![
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
        ];
        // A work queue has a parallelism and no number of completions.
        if spec["completions"].is_null() && spec["parallelism"].is_null() {
            fields.push(("completions", json!(1)));
        }
        fields.push(("parallelism", json!(1)));
        default_workload(object, &fields);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        if object["spec"]["manualSelector"] == true {
            return;
        }
        let (uid, name) = (object.uid().to_owned(), object.name().to_owned());
        let template = &mut object["spec"]["template"];
        if !template.is_object() {
            return;
        }
        let labels = child(&mut template["metadata"], "labels");
        for prefix in ["", "batch.kubernetes.io/"] {
            labels.insert(format!("{prefix}controller-uid"), uid.as_str().into());
            labels.insert(format!("{prefix}job-name"), name.as_str().into());
        }
        object["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = validate_template(object);
        if !matches!(
            text(&object["spec"]["template"]["spec"], "restartPolicy"),
            "Never" | "OnFailure"
        ) {
            let policy = &object["spec"]["template"]["spec"]["restartPolicy"];
            let why = "Unsupported value: supported values: \"OnFailure\", \"Never\"";
            causes.push(invalid("spec.template.spec.restartPolicy", policy, why));
        }
        causes
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        ["/spec/selector", "/spec/completionMode", "/spec/template"]
            .into_iter()
            .filter_map(|pointer| immutable(object, old, pointer))
            .collect()
    }
}
