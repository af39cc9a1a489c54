//! The OpenAPI documents of a fleet: its own kinds' from here, those of templates as the clusters publish them.
//!
//! A cluster's document of a group version may define more than the fleet serves of it; clients look kinds up by name, and
//! what they find is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Status;

use super::documents::Documents;
use crate::root::{OpenApi, PublishedDocument};

/// The documents of one state of a fleet.
pub struct FleetOpenApi {
    /// The documents of the kinds that are always there.
    pub own: Arc<dyn OpenApi>,
    /// The clusters' documents.
    pub documents: Arc<dyn Documents>,
    /// The clusters to ask for the document of each group version of templates, in this order.
    pub clusters: BTreeMap<GroupVersion, Vec<String>>,
}

impl std::fmt::Debug for FleetOpenApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetOpenApi")
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

impl FleetOpenApi {
    /// The document that a cluster has, under its own hash.
    async fn of_cluster(&self, cluster: &str, version: &GroupVersion) -> Result<PublishedDocument, Status> {
        let index = self.documents.index(cluster).await?;
        let hash = index.into_iter().find(|(known, _)| known == version);
        let (_, hash) = hash.ok_or_else(Status::no_such_path)?;
        let text = self.documents.document(cluster, version).await?;
        Ok(PublishedDocument { hash, text })
    }
}

#[async_trait]
impl OpenApi for FleetOpenApi {
    async fn index(&self, deadline: Instant) -> Result<Vec<(GroupVersion, String)>, Status> {
        let mut indices: BTreeMap<&str, BTreeMap<GroupVersion, String>> = BTreeMap::new();
        let mut found = Vec::new();
        for (version, clusters) in &self.clusters {
            for cluster in clusters {
                if !indices.contains_key(cluster.as_str()) {
                    // A cluster that does not answer leaves its documents out; another one may have them.
                    let index = self.documents.index(cluster).await.unwrap_or_else(|error| {
                        tracing::warn!(cluster, error = %error.message, "the cluster's OpenAPI documents are left out");
                        Vec::new()
                    });
                    indices.insert(cluster, index.into_iter().collect());
                }
                if let Some(hash) = indices[cluster.as_str()].get(version) {
                    found.push((version.clone(), hash.clone()));
                    break;
                }
            }
        }
        let own = self.own.index(deadline).await?;
        found.extend(
            own.into_iter()
                .filter(|(version, _)| !self.clusters.contains_key(version)),
        );
        Ok(found)
    }

    async fn v3(
        &self,
        version: &GroupVersion,
        hash: Option<&str>,
        deadline: Instant,
    ) -> Result<PublishedDocument, Status> {
        let mut failure = None;
        for cluster in self.clusters.get(version).into_iter().flatten() {
            match self.of_cluster(cluster, version).await {
                Ok(document) => return Ok(document),
                Err(error) => failure = Some(error),
            }
        }
        match (self.own.v3(version, hash, deadline).await, failure) {
            (Ok(document), _) => Ok(document),
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => Err(error),
        }
    }

    async fn v2(&self) -> Result<Bytes, Status> {
        Err(Status::no_such_path())
    }
}
