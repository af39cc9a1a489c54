//! `Rendering`: what one cluster gets of one template, and whether it has it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::placement::{OnConflict, OnRemove};

/// What one cluster gets of one template. Written by Umbra alone; named `{name}.{resource}.{group}@{cluster}`.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "Rendering",
    namespaced,
    derive = "PartialEq",
    status = "RenderingStatus",
    shortname = "rd",
    category = "umbra",
    printcolumn = r#"{"name":"Cluster","type":"string","description":"Where it goes.","jsonPath":".spec.cluster"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","description":"The kind of the object.","jsonPath":".spec.template.kind"}"#,
    printcolumn = r#"{"name":"Object","type":"string","description":"The name of the object.","jsonPath":".spec.template.name"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","description":"Whether the cluster has it.","jsonPath":".status.conditions[?(@.type==\"Applied\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why not, or that all is well.","jsonPath":".status.conditions[?(@.type==\"Applied\")].reason"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"description":"What is wrong, where something is.","jsonPath":".status.conditions[?(@.type==\"Applied\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the rendering was made.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RenderingSpec {
    /// The cluster.
    pub cluster: String,
    /// The template.
    pub template: TemplateReference,
    /// The placement that asks for it; `None` for a namespace that comes along with what is placed in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementReference>,
    /// The object that the cluster gets: the last one that all stages agreed on. Empty as long as they never did.
    #[schemars(schema_with = "embedded_object")]
    pub object: Value,
    /// The overrides that took part, in the order in which they were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<AppliedOverride>,
    /// What to do about an object that is there already.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// What to do with the object when this rendering goes.
    #[serde(default)]
    pub on_remove: OnRemove,
}

fn embedded_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A template of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// The resource and its group: `deployments.apps`, or `configmaps` in the core group.
    pub resource: String,
    /// Namespace; empty for cluster-scoped templates, whose renderings are in the namespace `umbra-system`, except that
    /// those of a Namespace are in the namespace itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The template's UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The generation of the template that was rendered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// A placement of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementReference {
    /// `Placement` or `ClusterPlacement`.
    pub kind: String,
    /// Name; the namespace of a Placement is the rendering's.
    pub name: String,
}

/// An override of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OverrideReference {
    /// `ClusterOverride` or `Override`.
    pub kind: String,
    /// Name; the namespace of an Override is that of the template.
    pub name: String,
}

/// An override that took part in a rendering.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AppliedOverride {
    /// `ClusterOverride` or `Override`.
    pub kind: String,
    /// Name; the namespace of an Override is the rendering's.
    pub name: String,
    /// The generation that took part.
    pub generation: i64,
    /// 1 or 2; a final one appears a second time.
    pub stage: u8,
    /// JSON pointers to what it set or removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// Whether the cluster has what it should.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RenderingStatus {
    /// The generation of the rendering that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The UID of the object in the child, by which Umbra knows its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The override that keeps the object from being rendered anew, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_override: Option<OverrideReference>,
    /// `Rendered`: all stages agreed on the object. `Applied`: the cluster has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The types of a rendering's conditions.
pub mod condition {
    /// All stages agreed on the object.
    pub const RENDERED: &str = "Rendered";
    /// The cluster has the object.
    pub const APPLIED: &str = "Applied";
}
