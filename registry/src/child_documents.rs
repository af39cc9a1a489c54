//! The OpenAPI documents of the children: what views publish, and what the fleet validates and merges templates with.
//!
//! A child's index (`/openapi/v3`) names each document together with a hash. The index is asked for again when it is
//! older than [`INDEX_LIFETIME`]; a document only when its hash has changed. Documents are kept for each child by itself:
//! a hash is the child's own claim, and one child must not answer for another.
//!
//! Who asks many children for their indices and waits for all can note which have kept it waiting
//! ([`ChildDocuments::note_silence`]), so that those who come next do not wait for the same again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::schema::TypeSchema;
use umbra_child::{Child, ChildError, Children, empty};
use umbra_openapi::Document;

use crate::root::PublishedDocument;

/// Definitions of custom resources change rarely, and a client that has just made one expects to see it soon.
const INDEX_LIFETIME: Duration = Duration::from_secs(10);
/// For how long a child that was silent is better not asked. A client asks for one document after the other, within seconds.
const SILENCE_LIFETIME: Duration = Duration::from_secs(10);

/// Why a document is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// There is no such cluster.
    #[error("cluster {0} is not known")]
    UnknownCluster(String),
    /// The cluster did not give it.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The cluster has no document for the group version.
    #[error("cluster {cluster} has no OpenAPI document for {version}")]
    NotServed {
        /// The cluster.
        cluster: String,
        /// The group version.
        version: GroupVersion,
    },
    /// The document cannot be read.
    #[error("the OpenAPI document of {version} of cluster {cluster} cannot be read: {message}")]
    Malformed {
        /// The cluster.
        cluster: String,
        /// The group version.
        version: GroupVersion,
        /// Why not.
        message: String,
    },
}

impl DocumentError {
    /// Whether the cluster says that it has no such document.
    #[must_use]
    pub fn is_not_served(&self) -> bool {
        match self {
            Self::NotServed { .. } => true,
            Self::Child(ChildError::Status { code, .. }) => *code == StatusCode::NOT_FOUND,
            _ => false,
        }
    }
}

/// Where the documents of a child are: path and hash.
pub type DocumentIndex = BTreeMap<GroupVersion, DocumentLocation>;

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLocation {
    /// The path in the child, with its query.
    pub path: String,
    /// Changes whenever the document does; empty where the child gives none.
    pub hash: String,
}

#[derive(Deserialize)]
struct IndexBody {
    paths: BTreeMap<String, IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(rename = "serverRelativeURL")]
    server_relative_url: String,
}

#[derive(Debug, Clone)]
struct KeptDocument {
    hash: String,
    text: Bytes,
    parsed: Arc<Document>,
}

#[derive(Debug, Default)]
struct Kept {
    index: Option<(Instant, Arc<DocumentIndex>)>,
    silent: Option<Instant>,
    documents: HashMap<GroupVersion, KeptDocument>,
}

/// The children's documents.
#[derive(Debug)]
pub struct ChildDocuments {
    children: Children,
    kept: Mutex<HashMap<String, Kept>>,
}

impl ChildDocuments {
    /// The documents of `children`.
    #[must_use]
    pub fn new(children: Children) -> Self {
        Self {
            children,
            kept: Mutex::default(),
        }
    }

    /// Which documents a cluster has.
    ///
    /// # Errors
    /// Where the cluster does not say.
    pub async fn index(&self, cluster: &str) -> Result<Arc<DocumentIndex>, DocumentError> {
        let fresh = |kept: &Kept| kept.index.clone().filter(|(asked, _)| asked.elapsed() < INDEX_LIFETIME);
        if let Some((_, index)) = self.kept.lock().get(cluster).and_then(fresh) {
            return Ok(index);
        }
        let body: IndexBody = self.child(cluster)?.get_json("/openapi/v3").await?;
        let index: DocumentIndex = body
            .paths
            .into_iter()
            .filter_map(|(name, entry)| location(&name, entry))
            .collect();
        let index = Arc::new(index);
        let mut kept = self.kept.lock();
        let kept = kept.entry(cluster.to_owned()).or_default();
        kept.index = Some((Instant::now(), Arc::clone(&index)));
        kept.silent = None;
        Ok(index)
    }

    /// A document.
    ///
    /// # Errors
    /// Where the cluster has none, or does not give it.
    pub async fn document(&self, cluster: &str, version: &GroupVersion) -> Result<PublishedDocument, DocumentError> {
        let KeptDocument { hash, text, .. } = self.kept_document(cluster, version).await?;
        Ok(PublishedDocument { hash, text })
    }

    /// Notes that a cluster has not told which documents it has although it had the time.
    pub fn note_silence(&self, cluster: &str) {
        self.kept.lock().entry(cluster.to_owned()).or_default().silent = Some(Instant::now());
    }

    /// Whether that was noted of a cluster in the last 10 s, and it has not told anything since.
    #[must_use]
    pub fn was_silent(&self, cluster: &str) -> bool {
        let kept = self.kept.lock();
        let silent = kept.get(cluster).and_then(|kept| kept.silent);
        silent.is_some_and(|silent| silent.elapsed() < SILENCE_LIFETIME)
    }

    /// The schema of a kind; `None` where the cluster's documents do not define it.
    ///
    /// # Errors
    /// As [`ChildDocuments::document`].
    pub async fn type_schema(
        &self,
        cluster: &str,
        kind: &GroupVersionKind,
    ) -> Result<Option<TypeSchema>, DocumentError> {
        let document = self.kept_document(cluster, &kind.group_version()).await?;
        Ok(document.parsed.type_schema(kind))
    }

    /// Forgets a cluster that has left.
    pub fn forget(&self, cluster: &str) {
        self.kept.lock().remove(cluster);
    }

    fn child(&self, cluster: &str) -> Result<Child, DocumentError> {
        self.children
            .get(cluster)
            .ok_or_else(|| DocumentError::UnknownCluster(cluster.to_owned()))
    }

    async fn kept_document(&self, cluster: &str, version: &GroupVersion) -> Result<KeptDocument, DocumentError> {
        let index = self.index(cluster).await?;
        let location = index.get(version).ok_or_else(|| DocumentError::NotServed {
            cluster: cluster.to_owned(),
            version: version.clone(),
        })?;
        let kept = self
            .kept
            .lock()
            .get(cluster)
            .and_then(|kept| kept.documents.get(version))
            .cloned();
        // Without a hash nothing says that it is still the same.
        if let Some(kept) = kept.filter(|kept| kept.hash == location.hash && !kept.hash.is_empty()) {
            return Ok(kept);
        }
        let request = Request::get(&location.path).header(http::header::ACCEPT, "application/json");
        let text = self
            .child(cluster)?
            .request_bytes(request.body(empty()).map_err(ChildError::from)?)
            .await?;
        let parsed = Document::parse(&text).map_err(|error| DocumentError::Malformed {
            cluster: cluster.to_owned(),
            version: version.clone(),
            message: error.to_string(),
        })?;
        let document = KeptDocument {
            hash: location.hash.clone(),
            text,
            parsed: Arc::new(parsed),
        };
        let mut kept = self.kept.lock();
        kept.entry(cluster.to_owned())
            .or_default()
            .documents
            .insert(version.clone(), document.clone());
        Ok(document)
    }
}

/// `apis/apps/v1` and `api/v1` are group versions; other documents (`version`, `.well-known/…`) are of no concern here.
fn location(name: &str, entry: IndexEntry) -> Option<(GroupVersion, DocumentLocation)> {
    let version = match name.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => GroupVersion::new("", version),
        ["apis", group, version] => GroupVersion::new(group, version),
        _ => return None,
    };
    let path = entry.server_relative_url;
    // It goes into URLs and entity tags as it is. Kubernetes takes hexadecimal digits.
    let is_plain = |hash: &&str| {
        hash.chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-._~".contains(letter))
    };
    let hash = path.split_once("hash=").map(|(_, hash)| hash).filter(is_plain);
    let hash = hash.unwrap_or_default().to_owned();
    Some((version, DocumentLocation { path, hash }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_remembered_of_who_was_silent() {
        let documents = ChildDocuments::new(crate::scripted_child::children());
        documents.note_silence("east");
        assert!(documents.was_silent("east") && !documents.was_silent("west"));
        documents.forget("east");
        assert!(!documents.was_silent("east"));
    }

    #[test]
    fn the_index_names_group_versions() {
        let body = r#"{"paths":{
            "apis/apps/v1":{"serverRelativeURL":"/openapi/v3/apis/apps/v1?hash=AB"},
            "api/v1":{"serverRelativeURL":"/openapi/v3/api/v1"},
            "apis/odd/v1":{"serverRelativeURL":"/openapi/v3/apis/odd/v1?hash=A&b=\u000d"},
            "version":{"serverRelativeURL":"/openapi/v3/version"},
            "apis/apps":{"serverRelativeURL":"/openapi/v3/apis/apps"}}}"#;
        let body: IndexBody = serde_json::from_str(body).unwrap();
        let index: DocumentIndex = body
            .paths
            .into_iter()
            .filter_map(|(name, entry)| location(&name, entry))
            .collect();
        assert_eq!(index.len(), 3);
        assert_eq!(index[&GroupVersion::new("odd", "v1")].hash, "");
        assert_eq!(index[&GroupVersion::new("apps", "v1")].hash, "AB");
        assert_eq!(index[&GroupVersion::new("", "v1")].path, "/openapi/v3/api/v1");
    }
}
