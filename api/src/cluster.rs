//! `ManagedCluster`: a child cluster that is registered with the hub.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A child cluster: how to reach it, who its callers are there, and what is copied from it.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "ManagedCluster",
    derive = "PartialEq",
    status = "ManagedClusterStatus",
    shortname = "mcl",
    category = "umbra",
    printcolumn = r#"{"name":"Ready","type":"string","description":"Whether requests reach the cluster and its copies are up to date.","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reachable","type":"string","description":"Whether the last probe was answered.","jsonPath":".status.conditions[?(@.type==\"Reachable\")].status"}"#,
    printcolumn = r#"{"name":"Synced","type":"string","description":"Whether all copies are up to date.","jsonPath":".status.conditions[?(@.type==\"Synced\")].status"}"#,
    printcolumn = r#"{"name":"Version","type":"string","description":"The cluster's Kubernetes version.","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","description":"How many nodes the cluster has.","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Server","type":"string","priority":1,"description":"Where the cluster's API server is.","jsonPath":".spec.connection.server"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the cluster was joined.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedClusterSpec {
    /// How the hub reaches the cluster.
    #[serde(default)]
    pub connection: Connection,
    /// How callers of the hub are named in the cluster.
    #[serde(default)]
    pub identity: Identity,
    /// Which resources are copied, beside and instead of the default ones.
    #[serde(default)]
    pub sync: Sync,
    /// Whether writes are passed on.
    #[serde(default)]
    pub access: Access,
    /// Keep placements away unless they tolerate these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// How the hub reaches a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// Who opens the connection.
    pub mode: ConnectionMode,
    /// The URL of the cluster's API server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Further URLs of the same API server, in the order in which they are preferred after `server`. One that the stored
    /// kubeconfig has among its clusters is trusted as that entry says; others need the certificate of the first server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub endpoints: Vec<String>,
    /// How much the hub does with the cluster at once. What is above waits for its turn, and is refused after 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ConnectionLimits>,
    /// The certificate authorities that the server's certificate is verified against: PEM, base64-encoded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_data: String,
    /// The name that the server's certificate has to be for, where it is not the host of `server`.
    #[serde(skip_serializing_if = "String::is_empty", rename = "tlsServerName")]
    pub tls_server_name: String,
    /// The proxy on the way to the server.
    #[serde(skip_serializing_if = "String::is_empty", rename = "proxyURL")]
    pub proxy_url: String,
    /// The Secret on the hub whose key `kubeconfig` holds the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// Who may open tunnels, where the mode is Tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelSettings>,
}

/// Which agents may join as this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TunnelSettings {
    /// The SHA-256, in hexadecimal, of the token with which an agent may ask to join; empty for none. Taking it away
    /// revokes the token, and leaves agents that have joined.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bootstrap_token_hash: String,
    /// Until when the token counts. Without, it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_token_expires: Option<Time>,
    /// Who decides about an agent that has the token.
    pub approval: Approval,
}

/// Who decides about an agent that asks to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// The token: it was made for this cluster, and whoever has it may join.
    #[default]
    Token,
    /// A person, with `umbra approve`.
    Manual,
}

/// How much the hub does with a cluster at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionLimits {
    /// Requests that end soon. 400 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests: Option<u32>,
    /// Watches of the hub itself, one for each resource that is copied. 4000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub watches: Option<u32>,
    /// What callers stream: watches and logs. 4000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub streams: Option<u32>,
    /// Sessions of exec, attach and port-forward. 512 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub upgrades: Option<u32>,
}

/// Who opens the connection between the hub and a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConnectionMode {
    /// The hub.
    #[default]
    Direct,
    /// An agent in the cluster.
    Tunnel,
}

/// A Secret on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretReference {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
}

/// How callers of the hub are named in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// Put before the names of users.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_prefix: String,
    /// Put before the names of groups.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_prefix: String,
    /// Pass groups that begin with `system:` on, among them `system:masters`.
    pub forward_system_groups: bool,
}

/// Which resources are copied. Patterns are `resource.group`, `*.group`, or `*`; the core group is empty: `pods`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sync {
    /// Copied too, even where the default leaves them out (Secrets, Events, Leases).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Not copied. Wins over `include`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Whether writes are passed on to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// They are.
    #[default]
    ReadWrite,
    /// They are refused, as are exec, attach and port-forward.
    ReadOnly,
}

/// What is known of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedClusterStatus {
    /// `Reachable`: the last probe was answered. `Synced`: all copies are up to date. `Ready`: both. `CredentialsExpiring`:
    /// the hub's credential ends within 7 days.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The cluster's Kubernetes version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The UID of the cluster's `kube-system` namespace, which identifies the cluster wherever it moves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// When the cluster last answered or failed to answer a probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// The endpoint that is used now, where the cluster has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// When the hub's credential for the cluster ends, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_expire: Option<Time>,
    /// How many nodes the cluster has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i64>,
    /// Facts for selecting clusters and for overrides to use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// The resources that are copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<CopiedResource>,
}

/// How the copies of one resource stand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CopiedResource {
    /// The API group; empty for core.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// How many copies there are.
    pub copies: i64,
    /// Why the copies are not up to date, where they are not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The types of a ManagedCluster's conditions.
pub mod condition {
    /// The last probe was answered.
    pub const REACHABLE: &str = "Reachable";
    /// All copies are up to date.
    pub const SYNCED: &str = "Synced";
    /// The hub's credential for the cluster ends within 7 days, and nobody renews it by itself.
    pub const CREDENTIALS_EXPIRING: &str = "CredentialsExpiring";
    /// Requests reach the cluster and its copies are up to date.
    pub const READY: &str = "Ready";
}
