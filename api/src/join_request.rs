//! `ClusterJoinRequest`: the agent of a cluster asks for the certificate with which it may open tunnels.
//!
//! It is to a hub what a CertificateSigningRequest is to a cluster (`certificates.k8s.io/v1`), for one purpose: who may have
//! it decides by a condition, and the hub signs. The request stays for as long as the agent does: a certificate counts
//! while the request it was issued for is there and not denied, so that deleting or denying it cuts the agent off at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::ManagedCluster;

/// The request of an agent for the certificate of its cluster.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "umbra.dev",
    version = "v1alpha1",
    kind = "ClusterJoinRequest",
    derive = "PartialEq",
    status = "ClusterJoinRequestStatus",
    shortname = "cjr",
    category = "umbra",
    printcolumn = r#"{"name":"Cluster","type":"string","description":"The ManagedCluster whose agent asks.","jsonPath":".spec.clusterName"}"#,
    printcolumn = r#"{"name":"Requestor","type":"string","description":"Who sent the request.","jsonPath":".spec.username"}"#,
    printcolumn = r#"{"name":"Approved","type":"string","description":"Whether the agent may have the certificate.","jsonPath":".status.conditions[?(@.type==\"Approved\")].status"}"#,
    printcolumn = r#"{"name":"Denied","type":"string","description":"Whether the agent may not, or not any more.","jsonPath":".status.conditions[?(@.type==\"Denied\")].status"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","format":"date-time","description":"When the certificate expires, unless the agent renews it.","jsonPath":".status.expires"}"#,
    printcolumn = r#"{"name":"Age","type":"date","description":"How long ago the agent asked.","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterJoinRequestSpec {
    /// The ManagedCluster whose agent asks.
    pub cluster_name: String,
    /// The UID of the cluster's namespace `kube-system`, as the agent sees it.
    #[serde(default, rename = "clusterUID")]
    pub cluster_uid: String,
    /// The cluster's Kubernetes version, as the agent sees it.
    #[serde(default)]
    pub version: String,
    /// The PKCS #10 request, as PEM. Only its public key counts. The agent replaces it to renew the certificate.
    pub request: String,
    /// Who sent the request. Set by the hub.
    #[serde(default)]
    pub username: String,
    /// The UID of who sent the request. Set by the hub.
    #[serde(default)]
    pub uid: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterJoinRequestStatus {
    /// `Approved`: the agent may have the certificate. `Denied`: it may not, or not any more. Denied wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The certificate, as PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// The SHA-256, in hexadecimal, of `spec.request` as it was when the certificate was issued.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_hash: String,
    /// When the certificate expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// The UID of the ManagedCluster that the certificate is for. It counts for no other of the same name.
    #[serde(skip_serializing_if = "String::is_empty", rename = "managedClusterUID")]
    pub managed_cluster_uid: String,
    /// The authorities by which the agent is to verify the hub from now on, as PEM: the one that signs now and the next, where that
    /// is published. Empty where the hub's certificate is not of its own authority.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hub_certificate_authority: String,
}

/// The types of a ClusterJoinRequest's conditions.
pub mod condition {
    /// The agent may have the certificate.
    pub const APPROVED: &str = "Approved";
    /// The agent may not have the certificate, or not any more.
    pub const DENIED: &str = "Denied";
}

/// The group of agents, and of nobody else.
pub const AGENTS: &str = "umbra:agents";
/// The group of who presents a bootstrap token.
pub const BOOTSTRAPPERS: &str = "umbra:bootstrappers";
/// The group of the hub's own replicas, when they ask each other for streams of a tunnel.
pub const REPLICAS: &str = "umbra:replicas";

/// What bootstrap tokens begin with.
pub const BOOTSTRAP_TOKEN_PREFIX: &str = "umbra-bootstrap.";

/// The annotation of a ClusterJoinRequest that came with a bootstrap token: the token's SHA-256, in hexadecimal. Set by the hub.
pub const BOOTSTRAP_TOKEN: &str = "umbra.dev/bootstrap-token";
/// The annotation of a ManagedCluster whose bootstrap token was used: the token's SHA-256 in hexadecimal, a slash, and the UID of the
/// ClusterJoinRequest that it has approved, or that came with it and was approved or denied by a person. Set by the hub. A token is
/// for one request.
pub const BOOTSTRAP_TOKEN_USED: &str = "umbra.dev/bootstrap-token-used";

/// The UID of the ClusterJoinRequest for which the present bootstrap token of `cluster` was used; `None` where it was used for none.
#[must_use]
pub fn bootstrap_token_used(cluster: &ManagedCluster) -> Option<&str> {
    let settings = cluster.spec.connection.tunnel.as_ref()?;
    let used = cluster.metadata.annotations.as_ref()?.get(BOOTSTRAP_TOKEN_USED)?;
    let (hash, request) = used.split_once('/')?;
    (hash == settings.bootstrap_token_hash).then_some(request)
}

/// The user name of a cluster's agents.
#[must_use]
pub fn agent_user(cluster: &str) -> String {
    format!("umbra:agent:{cluster}")
}

/// The user name of who presents the bootstrap token of a cluster.
#[must_use]
pub fn bootstrap_user(cluster: &str) -> String {
    format!("umbra:bootstrap:{cluster}")
}

impl ClusterJoinRequest {
    /// Whether a condition is true.
    #[must_use]
    pub fn has(&self, condition: &str) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions
            .into_iter()
            .any(|one| one.type_ == condition && one.status == "True")
    }

    /// Whether it is approved or denied.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.has(condition::APPROVED) || self.has(condition::DENIED)
    }

    /// The SHA-256, in hexadecimal, of the bootstrap token that it came with; `None` where it came without.
    #[must_use]
    pub fn bootstrap_token(&self) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(BOOTSTRAP_TOKEN).map(String::as_str)
    }
}
