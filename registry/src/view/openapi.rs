//! The OpenAPI documents of a view: those of its clusters. Of each group version the document of the first cluster that
//! has one and can be asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::{Reason, Status};
use umbra_child::Health;

use super::services::ViewServices;
use crate::child_documents::DocumentIndex;
use crate::child_errors::document_status;
use crate::root::OpenApi;

/// How long a cluster may take to say which documents it has; without it, the others' are served.
const PATIENCE: Duration = Duration::from_secs(5);

/// The documents of these clusters.
#[derive(Debug)]
pub(super) struct ViewOpenApi {
    pub(super) services: Arc<ViewServices>,
    pub(super) clusters: Vec<String>,
}

impl ViewOpenApi {
    /// The index of each cluster that can be asked, in the order of the clusters.
    async fn indices(&self) -> Vec<(&String, Arc<DocumentIndex>)> {
        let reachable = self.clusters.iter().filter(|cluster| {
            let child = self.services.children.get(cluster);
            child.is_some_and(|child| !matches!(*child.health().borrow(), Health::Unreachable { .. }))
        });
        let asked = reachable.map(|cluster| async move {
            let index = tokio::time::timeout(PATIENCE, self.services.documents.index(cluster)).await;
            match index {
                Ok(Ok(index)) => Some((cluster, index)),
                Ok(Err(error)) => {
                    tracing::debug!(%cluster, %error, "a cluster does not tell which documents it has");
                    None
                }
                Err(_) => None,
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

#[async_trait]
impl OpenApi for ViewOpenApi {
    async fn index(&self) -> Result<Vec<(GroupVersion, String)>, Status> {
        let mut all = BTreeMap::new();
        for (_, index) in self.indices().await {
            for (version, location) in index.iter() {
                all.entry(version.clone()).or_insert_with(|| location.hash.clone());
            }
        }
        Ok(all.into_iter().collect())
    }

    async fn v3(&self, version: &GroupVersion) -> Result<Bytes, Status> {
        let mut failure = None;
        for (cluster, index) in self.indices().await {
            if !index.contains_key(version) {
                continue;
            }
            match tokio::time::timeout(PATIENCE, self.services.documents.document(cluster, version)).await {
                Ok(Ok(document)) => return Ok(document),
                Ok(Err(error)) => failure = Some(document_status(&error)),
                Err(_) => {
                    let message = format!("cluster {cluster} does not answer");
                    failure = Some(Status::failure(Reason::Timeout, message));
                }
            }
        }
        Err(failure.unwrap_or_else(Status::no_such_path))
    }

    async fn v2(&self) -> Result<Bytes, Status> {
        Err(Status::no_such_path())
    }
}
