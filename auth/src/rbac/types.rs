//! The objects of `rbac.authorization.k8s.io/v1`, as far as decisions need them.
//!
//! Reading is tolerant: unknown fields are skipped, and `null` is what Go writes for an empty list. `apiGroup` of
//! subjects is read but never looked at, as in Kubernetes' evaluation (validation pins it to the kind).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use umbra_apimachinery::selector::LabelSelector;

/// The API group of these kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Reads `null` as the default.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What RBAC needs of an object's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectMeta {
    /// The name.
    pub name: String,
    /// The namespace; empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels, which aggregation selects by.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What is allowed: verbs on resources, or verbs on URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    /// Verbs; `*` is every verb.
    #[serde(deserialize_with = "null_as_default")]
    pub verbs: Vec<String>,
    /// API groups; `*` is every group, the empty string the core group.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names that the rule is restricted to; empty is every name.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths outside the resources; a trailing `*` matches what follows.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

/// Whom a binding is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// The group of the kind; absent means what the kind implies.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The name.
    pub name: String,
    /// The namespace of a service account; absent in a role binding means the binding's own.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// What a binding grants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleRef {
    /// Always `rbac.authorization.k8s.io`.
    #[serde(deserialize_with = "null_as_default")]
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// The name of the role.
    pub name: String,
}

/// A role of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What the role allows.
    #[serde(deserialize_with = "null_as_default")]
    pub rules: Vec<PolicyRule>,
}

/// A role of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRole {
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// What the role allows.
    #[serde(deserialize_with = "null_as_default")]
    pub rules: Vec<PolicyRule>,
    /// Whose rules this role collects; its own `rules` are then overwritten by a controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_rule: Option<AggregationRule>,
}

/// Which cluster roles an aggregated one collects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AggregationRule {
    /// A role is collected where any of these matches its labels.
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_role_selectors: Vec<LabelSelector>,
}

/// Grants a role within one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleBinding {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// To whom.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// Which role: of the same namespace, or of the cluster.
    pub role_ref: RoleRef,
}

/// Grants a cluster role everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRoleBinding {
    /// The name.
    pub metadata: ObjectMeta,
    /// To whom.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// Which cluster role.
    pub role_ref: RoleRef,
}

/// The four kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RbacKind {
    /// `Role`
    Role,
    /// `ClusterRole`
    ClusterRole,
    /// `RoleBinding`
    RoleBinding,
    /// `ClusterRoleBinding`
    ClusterRoleBinding,
}

impl RbacKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Role,
        Self::ClusterRole,
        Self::RoleBinding,
        Self::ClusterRoleBinding,
    ];

    /// The kind's name.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
            Self::RoleBinding => "RoleBinding",
            Self::ClusterRoleBinding => "ClusterRoleBinding",
        }
    }

    /// The plural name in URLs.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }

    /// The kind that a resource of [`GROUP`] holds.
    #[must_use]
    pub fn from_resource(resource: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource() == resource)
    }
}

/// Any of the four.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RbacObject {
    /// A role.
    Role(Role),
    /// A cluster role.
    ClusterRole(ClusterRole),
    /// A role binding.
    RoleBinding(RoleBinding),
    /// A cluster role binding.
    ClusterRoleBinding(ClusterRoleBinding),
}

impl RbacObject {
    /// Reads an object whose kind is known from where it was found.
    ///
    /// # Errors
    /// Where the JSON is not of that shape.
    pub fn from_json(kind: RbacKind, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            RbacKind::Role => Self::Role(serde_json::from_slice(json)?),
            RbacKind::ClusterRole => Self::ClusterRole(serde_json::from_slice(json)?),
            RbacKind::RoleBinding => Self::RoleBinding(serde_json::from_slice(json)?),
            RbacKind::ClusterRoleBinding => Self::ClusterRoleBinding(serde_json::from_slice(json)?),
        })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> RbacKind {
        match self {
            Self::Role(_) => RbacKind::Role,
            Self::ClusterRole(_) => RbacKind::ClusterRole,
            Self::RoleBinding(_) => RbacKind::RoleBinding,
            Self::ClusterRoleBinding(_) => RbacKind::ClusterRoleBinding,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Role(role) => &role.metadata,
            Self::ClusterRole(role) => &role.metadata,
            Self::RoleBinding(binding) => &binding.metadata,
            Self::ClusterRoleBinding(binding) => &binding.metadata,
        }
    }
}
