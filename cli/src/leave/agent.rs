//! The agent that `umbra join --tunnel` printed, taken out of its cluster.
//!
//! Through the tunnel that cannot be done object by object: with the first that lets the agent act for the hub's users, the tunnel
//! is of no more use for the rest. So everything outside of the agent's namespace is given to the namespace, as its owner, and the
//! last request deletes the namespace; the cluster's own garbage collector does the rest.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::{Value, json};
use umbra_child::{Child, ChildError};

use crate::join::child::{BINDINGS, get, is_ours};

/// The namespace of the manifest, which holds nothing but the agent.
pub(super) const NAMESPACE: &str = "umbra-agent";
/// The ClusterRoles of the manifest, and the ClusterRoleBindings of the same names.
pub(super) const ROLES: [&str; 3] = ["umbra:agent:read", "umbra:agent:impersonate", "umbra:agent:place"];
/// The annotation of the namespace that names the ManagedCluster by its UID.
const REGISTRATION: &str = "umbra.dev/registration";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const JSON: &str = "application/json";
/// How long the cluster may take to delete the namespace: its pods have 40 s to end.
const GONE: Duration = Duration::from_secs(60);
/// How often it is asked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The agent's namespace, where it is that of one registration.
#[derive(Debug)]
pub(super) struct Agent {
    uid: String,
}

/// Whose agent there is in a cluster.
#[derive(Debug)]
pub(super) enum Found {
    /// That of this registration.
    Own(Agent),
    /// One that Umbra's manifest made, before it named the registration.
    Unnamed,
    /// None, or that of another registration or hub.
    Other,
}

impl Found {
    fn of(namespace: &Value, registration: &str) -> Self {
        let metadata = &namespace["metadata"];
        match metadata["annotations"][REGISTRATION].as_str() {
            _ if !is_ours(namespace) => Self::Other,
            None => Self::Unnamed,
            Some(named) if named == registration && !registration.is_empty() => Self::Own(Agent {
                uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
            }),
            Some(_) => Self::Other,
        }
    }
}

impl Agent {
    /// Looks for the agent of the registration with this UID.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn find(child: &Child, registration: &str) -> Result<Found> {
        let namespace: Value = match get(child, &format!("/api/v1/namespaces/{NAMESPACE}")).await {
            Ok(namespace) => namespace,
            Err(ChildError::Status { code, .. }) if code.as_u16() == 404 => return Ok(Found::Other),
            Err(error) => return Err(error).context("the agent's namespace cannot be read"),
        };
        Ok(Found::of(&namespace, registration))
    }

    /// Deletes the namespace and, with it, the roles and bindings of the agent and the binding `administrators`. The last thing
    /// that can be done through the agent.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn delete(&self, child: &Child, administrators: &str) -> Result<()> {
        let bindings = ROLES.iter().copied().chain([administrators]);
        let paths = ROLES
            .iter()
            .map(|name| format!("{CLUSTER_ROLES}/{name}"))
            .chain(bindings.map(|name| format!("{BINDINGS}/{name}")));
        let owned = json!({"metadata": {"ownerReferences":
            [{"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": self.uid}]}})
        .to_string();
        for path in paths {
            if of_umbra(child, &path).await? {
                child
                    .request_json(Method::PATCH, &path, "application/merge-patch+json", owned.clone())
                    .await
                    .with_context(|| format!("{path} cannot be given to the namespace {NAMESPACE}"))?;
            }
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": self.uid}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        match child
            .request_json(Method::DELETE, &path, JSON, options.to_string())
            .await
        {
            // It is being deleted already.
            Err(ChildError::Status { code, .. }) if matches!(code.as_u16(), 404 | 409) => Ok(()),
            deleted => deleted
                .map(drop)
                .with_context(|| format!("the Namespace {NAMESPACE} cannot be deleted")),
        }
    }

    /// Waits until the namespace is gone; whether it is, within [`GONE`].
    pub(super) async fn gone(&self, child: &Child) -> bool {
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        let gone = async {
            loop {
                match get::<Value>(child, &path).await {
                    Err(ChildError::Status { code, .. }) if code.as_u16() == 404 => return,
                    Ok(other) if other["metadata"]["uid"] != self.uid.as_str() => return,
                    _ => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        tokio::time::timeout(GONE, gone).await.is_ok()
    }
}

/// Whether there is something at a path, and umbra has made it.
async fn of_umbra(child: &Child, path: &str) -> Result<bool> {
    match get::<Value>(child, path).await {
        Ok(object) => Ok(is_ours(&object)),
        Err(ChildError::Status { code, .. }) if code.as_u16() == 404 => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{path} cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agent_of_the_registration_is_its_own() {
        let found = |labels: Value, annotations: Value, registration: &str| {
            let namespace = json!({"metadata": {"uid": "n1", "labels": labels, "annotations": annotations}});
            Found::of(&namespace, registration)
        };
        let ours = || json!({"app.kubernetes.io/managed-by": "umbra"});
        let named = |uid: &str| json!({REGISTRATION: uid});
        assert!(matches!(found(ours(), named("r1"), "r1"), Found::Own(agent) if agent.uid == "n1"));
        assert!(matches!(found(ours(), named("r2"), "r1"), Found::Other));
        assert!(matches!(found(ours(), named(""), ""), Found::Other));
        assert!(matches!(found(ours(), Value::Null, "r1"), Found::Unnamed));
        assert!(matches!(found(Value::Null, named("r1"), "r1"), Found::Other));
    }
}
