//! What the fleet asks about the clusters' schemas.

use async_trait::async_trait;
use bytes::Bytes;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::{Reason, Status};

use crate::child_documents::{ChildDocuments, DocumentError};

/// The OpenAPI documents of the clusters. Implementations keep what they have read.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Which group versions the cluster has a document of, each with a hash that changes whenever the document does.
    ///
    /// # Errors
    /// 503 where the cluster cannot be asked and nothing is known.
    async fn index(&self, cluster: &str) -> Result<Vec<(GroupVersion, String)>, Status>;

    /// The document of a group version as JSON.
    ///
    /// # Errors
    /// 404 where the cluster has none; 503 as above.
    async fn document(&self, cluster: &str, version: &GroupVersion) -> Result<Bytes, Status>;

    /// The schema of a kind; `None` where the cluster's documents do not define it.
    ///
    /// # Errors
    /// 503 where the cluster cannot be asked and nothing is known.
    async fn type_schema(&self, cluster: &str, kind: &GroupVersionKind) -> Result<Option<TypeSchema>, Status>;
}

#[async_trait]
impl Documents for ChildDocuments {
    async fn index(&self, cluster: &str) -> Result<Vec<(GroupVersion, String)>, Status> {
        let index = Self::index(self, cluster).await.map_err(|error| status(&error))?;
        let hashes = index
            .iter()
            .map(|(version, location)| (version.clone(), location.hash.clone()));
        Ok(hashes.collect())
    }

    async fn document(&self, cluster: &str, version: &GroupVersion) -> Result<Bytes, Status> {
        let document = Self::document(self, cluster, version).await;
        document.map(|one| one.text).map_err(|error| status(&error))
    }

    async fn type_schema(&self, cluster: &str, kind: &GroupVersionKind) -> Result<Option<TypeSchema>, Status> {
        match Self::type_schema(self, cluster, kind).await {
            Ok(schema) => Ok(schema),
            Err(DocumentError::NotServed { .. }) => Ok(None),
            Err(error) => Err(status(&error)),
        }
    }
}

fn status(error: &DocumentError) -> Status {
    match error {
        DocumentError::NotServed { .. } => Status::no_such_path(),
        other => Status::failure(Reason::ServiceUnavailable, other.to_string()).retry_after(1),
    }
}
