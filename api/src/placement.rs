//! `Placement` and `ClusterPlacement`: which templates go to which clusters, with how many replicas each.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Places templates of its namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "Placement",
    namespaced,
    derive = "PartialEq",
    status = "PlacementStatus",
    shortname = "pl",
    category = "umbra",
    printcolumn = r#"{"name":"Clusters","type":"integer","description":"How many clusters are selected.","jsonPath":".status.selected"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","description":"Whether every selected cluster has its renderings.","jsonPath":".status.conditions[?(@.type==\"Applied\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why not, or that all is well.","jsonPath":".status.conditions[?(@.type==\"Applied\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the placement was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSpec {
    /// Which templates. Those of a Placement are in its own namespace.
    pub resources: Vec<ResourceSelector>,
    /// Selects clusters by their labels; absent, with `clusterNames` absent too, selects all clusters of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Selects clusters by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_names: Option<Vec<String>>,
    /// Taints of clusters to put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How `spec.replicas` of a template is divided.
    #[serde(default)]
    pub replicas: Replicas,
    /// How many clusters there have to be and may be.
    #[serde(default)]
    pub clusters: ClusterCount,
    /// What to do about an object that is there already and does not belong to the fleet.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// What to do with an object whose template, placement or cluster is withdrawn.
    #[serde(default)]
    pub on_remove: OnRemove,
}

/// Places cluster-scoped templates, and templates of any namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "ClusterPlacement",
    derive = "PartialEq",
    status = "PlacementStatus",
    shortname = "cpl",
    category = "umbra",
    printcolumn = r#"{"name":"Clusters","type":"integer","description":"How many clusters are selected.","jsonPath":".status.selected"}"#,
    printcolumn = r#"{"name":"Applied","type":"string","description":"Whether every selected cluster has its renderings.","jsonPath":".status.conditions[?(@.type==\"Applied\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","description":"Why not, or that all is well.","jsonPath":".status.conditions[?(@.type==\"Applied\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the placement was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPlacementSpec {
    /// The placement.
    #[serde(flatten)]
    pub placement: PlacementSpec,
}

/// Selects templates.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSelector {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
    /// The name; absent, with `labelSelector` absent too, selects all of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Selects by the labels of the templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
}

/// How `spec.replicas` of a template is divided over the clusters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replicas {
    /// The way of dividing.
    pub strategy: ReplicaStrategy,
    /// With `Weighted`: the weight of each cluster by name; clusters without one weigh 1, or 0 where any cluster has one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u32>,
}

/// Ways of dividing replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ReplicaStrategy {
    /// Every cluster gets what the template says.
    #[default]
    Duplicate,
    /// The template's replicas are divided in proportion to weights.
    Weighted,
}

/// How many clusters a placement wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterCount {
    /// With fewer clusters to choose from nothing changes, and the status says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// At most so many clusters are chosen, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// What to do about an object that is in a child already and does not belong to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnConflict {
    /// Leave it alone and say so.
    #[default]
    Fail,
    /// Take it over where applying the rendering would change nothing but marks of ownership.
    AdoptIfSame,
    /// Take it over.
    Adopt,
}

/// What to do with an object whose template, placement or cluster is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnRemove {
    /// Delete it.
    #[default]
    Delete,
    /// Leave it in the child, without marks of ownership.
    Orphan,
}

/// How a placement stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementStatus {
    /// The generation of the placement that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many clusters are selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected: Option<i64>,
    /// How each cluster stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<PlacedCluster>,
    /// `Scheduled`: clusters were found. `Applied`: every one has its renderings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// How one cluster of a placement stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacedCluster {
    /// The cluster's name.
    pub name: String,
    /// The replicas it gets, summed over templates that have replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// How many of its renderings are applied, of how many: `2/2`.
    pub applied: String,
    /// How many replicas are ready there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,
    /// What is wrong, where something is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The types of a placement's conditions.
pub mod condition {
    /// Clusters were found.
    pub const SCHEDULED: &str = "Scheduled";
    /// Every selected cluster has its renderings.
    pub const APPLIED: &str = "Applied";
}
