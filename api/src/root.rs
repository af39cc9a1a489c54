//! `View` and `Fleet`: the roots that show and place over a selection of clusters, and the units of tenancy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A view: the copies of a selection of clusters as one API, at its subresource `proxy`.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "View",
    derive = "PartialEq",
    status = "RootStatus",
    shortname = "vw",
    category = "umbra",
    printcolumn = r#"{"name":"Clusters","type":"integer","description":"How many clusters are selected.","jsonPath":".status.clusters"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the view was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ViewSpec {
    /// Selects clusters by their labels; absent, with `clusterNames` absent too, selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Selects clusters by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_names: Option<Vec<String>>,
    /// Who decides what a caller sees of the copies.
    #[serde(default)]
    pub authorization: ViewAuthorization,
}

/// Who decides what a caller sees of the copies of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ViewAuthorization {
    /// The RBAC of each cluster, for the copies of that cluster.
    #[default]
    #[serde(rename = "ChildRBAC")]
    ChildRbac,
    /// The hub, for the copies of all clusters of the view: a permission for `pods` in the group `core.view.umbra.dev` is one
    /// for the pods of all of them. What is sent to a cluster needs the permission of that cluster, too.
    #[serde(rename = "HubRBAC")]
    HubRbac,
}

/// A fleet: templates and how they are placed on a selection of clusters, at its subresource `proxy`.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "Fleet",
    derive = "PartialEq",
    status = "RootStatus",
    shortname = "fl",
    category = "umbra",
    printcolumn = r#"{"name":"Clusters","type":"integer","description":"How many clusters are selected.","jsonPath":".status.clusters"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the fleet was created.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// Selects clusters by their labels; absent, with `clusterNames` absent too, selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Selects clusters by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_names: Option<Vec<String>>,
}

/// What a view or a fleet has selected.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RootStatus {
    /// How many clusters are selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<i64>,
    /// How the root stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
