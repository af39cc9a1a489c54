//! `ClusterOverride` and `Override`: what a template receives on its way to a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::placement::ResourceSelector;

/// Stage 1: patches by those who run the platform, on templates of any namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "ClusterOverride",
    derive = "PartialEq",
    status = "OverrideStatus",
    shortname = "cov",
    category = "umbra",
    printcolumn = r#"{"name":"Priority","type":"integer","description":"Later ones, with higher numbers, win.","jsonPath":".spec.priority"}"#,
    printcolumn = r#"{"name":"Final","type":"boolean","description":"Whether it is applied once more at the end.","jsonPath":".spec.final"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","description":"Whether all its patches apply.","jsonPath":".status.conditions[?(@.type==\"Applied\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"description":"Which patch fails, and why.","jsonPath":".status.conditions[?(@.type==\"Applied\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the override was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterOverrideSpec {
    /// 0 to 1000; overrides of a stage are applied from low to high, so higher ones win.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i64,
    /// Apply once more after stage 2, so that no Override undoes it.
    #[serde(default, rename = "final")]
    pub is_final: bool,
    /// Selects clusters by their labels; absent selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Which objects are patched.
    pub resources: Vec<ResourceSelector>,
    /// When a change of this override reaches objects that are already placed.
    #[serde(default)]
    pub rollout: Rollout,
    /// The patches, applied in order.
    pub patches: Vec<Patch>,
}

/// Stage 2: patches by tenants, on templates of their own namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "Override",
    namespaced,
    derive = "PartialEq",
    status = "OverrideStatus",
    shortname = "ov",
    category = "umbra",
    printcolumn = r#"{"name":"Priority","type":"integer","description":"Later ones, with higher numbers, win.","jsonPath":".spec.priority"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","description":"Whether all its patches apply.","jsonPath":".status.conditions[?(@.type==\"Applied\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"description":"Which patch fails, and why.","jsonPath":".status.conditions[?(@.type==\"Applied\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the override was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct OverrideSpec {
    /// 0 to 1000; overrides of a stage are applied from low to high, so higher ones win.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i64,
    /// Selects clusters by their labels; absent selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Which objects are patched.
    pub resources: Vec<ResourceSelector>,
    /// When a change of this override reaches objects that are already placed.
    #[serde(default)]
    pub rollout: Rollout,
    /// The patches, applied in order.
    pub patches: Vec<Patch>,
}

fn default_priority() -> i64 {
    500
}

/// When a change of an override reaches objects that are already placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Rollout {
    /// At once.
    #[default]
    Immediate,
    /// When their template or placement changes.
    OnNextUpdate,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    /// How the patch is written.
    #[serde(rename = "type")]
    pub patch_type: PatchType,
    /// The patch: a list of operations for `JSONPatch`, an object for `MergePatch`. In strings, `${cluster.name}`,
    /// `${cluster.labels['k']}`, `${cluster.annotations['k']}` and `${cluster.properties['k']}` stand for the cluster's;
    /// `$${` is a literal `${`.
    #[schemars(schema_with = "any_value")]
    pub value: Value,
    /// Patch inside a string of the object, such as a file in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Field>,
    /// Skip operations on paths that the object does not have, instead of failing.
    #[serde(default)]
    pub optional: bool,
}

fn any_value(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PatchType {
    /// RFC 6902.
    JSONPatch,
    /// RFC 7396.
    MergePatch,
}

/// A string of the object that holds a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// A JSON pointer (RFC 6901) to the string.
    pub path: String,
    /// How the document is written.
    pub format: Format,
}

/// How a document in a string is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// YAML.
    YAML,
    /// JSON.
    JSON,
}

/// How an override stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OverrideStatus {
    /// The generation of the override that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Applied`: all its patches apply to every rendering that it matches; the message names object, cluster and patch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
