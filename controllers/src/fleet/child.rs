//! What dispatching asks of a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use umbra_api::FIELD_MANAGER;
use umbra_child::{Child, ChildError, Children};

/// Why a cluster did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChildFailure {
    /// The hub has no such cluster.
    #[error("cluster {cluster} is not connected to the hub")]
    NotConnected {
        /// The cluster.
        cluster: String,
    },
    /// It could not be asked.
    #[error("{message}")]
    Unreachable {
        /// What happened, with the cluster's name.
        message: String,
    },
    /// It refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// `reason` of the cluster's Status.
        reason: String,
        /// What it said, with the cluster's name.
        message: String,
    },
}

impl ChildFailure {
    /// Whether the cluster answered with that HTTP status.
    #[must_use]
    pub fn is_code(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }

    /// A word for conditions.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::NotConnected { .. } => "ClusterNotConnected",
            Self::Unreachable { .. } => "ClusterUnreachable",
            Self::Refused { reason, .. } if reason.is_empty() => "Refused",
            Self::Refused { reason, .. } => reason,
        }
    }
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Take over fields of other managers.
    pub force: bool,
    /// Do everything but store.
    pub dry_run: bool,
}

/// The clusters, as far as dispatching uses them. Paths are absolute and without a query.
#[async_trait]
pub trait ChildAccess: Send + Sync {
    /// The object at `path`; `None` where there is none.
    ///
    /// # Errors
    /// Everything but 404.
    async fn get(&self, cluster: &str, path: &str) -> Result<Option<Value>, ChildFailure>;

    /// Server-side apply with the field manager of Umbra. Answers with the object as it is now.
    ///
    /// # Errors
    /// What the cluster says.
    async fn apply(
        &self,
        cluster: &str,
        path: &str,
        object: &Value,
        options: ApplyOptions,
    ) -> Result<Value, ChildFailure>;

    /// A merge patch.
    ///
    /// # Errors
    /// What the cluster says.
    async fn merge(&self, cluster: &str, path: &str, patch: &Value) -> Result<(), ChildFailure>;

    /// Deletes the object of that UID, and dependents in the background.
    ///
    /// # Errors
    /// What the cluster says: 404, and 409 where the object has another UID.
    async fn delete(&self, cluster: &str, path: &str, uid: &str) -> Result<(), ChildFailure>;
}

fn child(children: &Children, cluster: &str) -> Result<Child, ChildFailure> {
    children.get(cluster).ok_or_else(|| ChildFailure::NotConnected {
        cluster: cluster.to_owned(),
    })
}

fn failure(error: &ChildError) -> ChildFailure {
    match error {
        ChildError::Status { code, reason, .. } => ChildFailure::Refused {
            code: code.as_u16(),
            reason: reason.clone(),
            message: error.to_string(),
        },
        other => ChildFailure::Unreachable {
            message: other.to_string(),
        },
    }
}

fn parse(cluster: &str, json: &Bytes) -> Result<Value, ChildFailure> {
    serde_json::from_slice(json).map_err(|error| ChildFailure::Unreachable {
        message: format!("cluster {cluster}: unexpected response: {error}"),
    })
}

#[async_trait]
impl ChildAccess for Children {
    async fn get(&self, cluster: &str, path: &str) -> Result<Option<Value>, ChildFailure> {
        match child(self, cluster)?.get_json::<Value>(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn apply(
        &self,
        cluster: &str,
        path: &str,
        object: &Value,
        options: ApplyOptions,
    ) -> Result<Value, ChildFailure> {
        let dry_run = if options.dry_run { "&dryRun=All" } else { "" };
        let url = format!("{path}?fieldManager={FIELD_MANAGER}&force={}{dry_run}", options.force);
        // JSON is YAML.
        let body = object.to_string();
        let sent = child(self, cluster)?
            .request_json(Method::PATCH, &url, "application/apply-patch+yaml", body)
            .await;
        parse(cluster, &sent.map_err(|error| failure(&error))?)
    }

    async fn merge(&self, cluster: &str, path: &str, patch: &Value) -> Result<(), ChildFailure> {
        let url = format!("{path}?fieldManager={FIELD_MANAGER}");
        let sent = child(self, cluster)?
            .request_json(Method::PATCH, &url, "application/merge-patch+json", patch.to_string())
            .await;
        sent.map(drop).map_err(|error| failure(&error))
    }

    async fn delete(&self, cluster: &str, path: &str, uid: &str) -> Result<(), ChildFailure> {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        });
        let sent = child(self, cluster)?
            .request_json(Method::DELETE, path, "application/json", options.to_string())
            .await;
        sent.map(drop).map_err(|error| failure(&error))
    }
}

/// Clusters that are shared.
pub type Access = Arc<dyn ChildAccess>;
