//! What a cluster says of itself.

use std::time::Duration;

use http::Request;
use http::header::ACCEPT;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use umbra_child::version::check_version;
use umbra_child::{Child, ChildError, Failure, RequestDeadline, empty};

use crate::cluster::connection::Problem;

/// The namespace whose UID identifies a cluster: every cluster has it, and it is made once.
const IDENTITY_NAMESPACE: &str = "/api/v1/namespaces/kube-system";
/// How long a cluster may take for one of these small answers.
const DEADLINE: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
/// The reason of the condition `Reachable` where a cluster does not say who it is.
pub(super) const IDENTITY_UNKNOWN: &str = "IdentityUnknown";
/// The reason where its Kubernetes is too old.
pub(super) const VERSION_UNSUPPORTED: &str = "VersionUnsupported";
/// Nodes are large and only their number counts.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";
/// Nodes a page; the answer says how many more there are.
const NODES: &str = "/api/v1/nodes?limit=500";

/// What a cluster says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The UID of the namespace `kube-system`.
    pub(super) uid: String,
    /// `gitVersion` of `/version`.
    pub(super) version: String,
    /// `platform` of `/version`.
    pub(super) platform: String,
    /// How many nodes there are; `None` where the hub may not see them.
    pub(super) nodes: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    git_version: String,
    platform: String,
}

#[derive(Deserialize)]
struct Identified {
    metadata: IdentifiedMetadata,
}

#[derive(Deserialize)]
struct IdentifiedMetadata {
    uid: String,
}

#[derive(Deserialize)]
struct Counted {
    metadata: CountedMetadata,
    items: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CountedMetadata {
    remaining_item_count: Option<i64>,
    #[serde(rename = "continue")]
    token: String,
}

/// Asks the cluster who it is. A cluster that does not say is not connected.
///
/// # Errors
/// The reason and message of the condition `Reachable`.
pub(super) async fn read(child: &Child) -> Result<Facts, Problem> {
    let version: Version = get(child, "/version", JSON).await.map_err(|error| problem(&error))?;
    check_version(&version.git_version).map_err(|error| Problem::new(VERSION_UNSUPPORTED, error.to_string()))?;
    let identified: Identified = get(child, IDENTITY_NAMESPACE, JSON).await.map_err(|error| match error.status() {
        Some(code) if code.is_client_error() => Problem::new(
            IDENTITY_UNKNOWN,
            format!(
                "the cluster does not let the hub read its namespace kube-system, whose UID identifies it ({error}); grant \
                 the hub's user get, list and watch on namespaces"
            ),
        ),
        _ => problem(&error),
    })?;
    let nodes = get::<Counted>(child, NODES, METADATA).await.ok().and_then(|nodes| {
        let here = i64::try_from(nodes.items.len()).ok()?;
        match nodes.metadata.remaining_item_count {
            Some(remaining) => Some(here + remaining),
            None => nodes.metadata.token.is_empty().then_some(here),
        }
    });
    Ok(Facts {
        uid: identified.metadata.uid,
        version: version.git_version,
        platform: version.platform,
        nodes,
    })
}

async fn get<T: DeserializeOwned>(child: &Child, path: &str, accept: &str) -> Result<T, ChildError> {
    let mut request = Request::get(path).header(ACCEPT, accept).body(empty())?;
    request.extensions_mut().insert(RequestDeadline(DEADLINE));
    let bytes = child.request_bytes(request).await?;
    serde_json::from_slice(&bytes).map_err(|source| ChildError::Json {
        cluster: child.name().clone(),
        source,
    })
}

/// Another cluster answers than the one that was joined.
pub(super) fn wrong_cluster(expected: &str, found: &str) -> Problem {
    let message = format!(
        "another cluster answers: its namespace kube-system has the UID {found}, but this ManagedCluster was joined with \
         {expected}; nothing is copied from it or passed on to it, and the copies stay as they are. Correct the connection, or \
         `umbra leave` and `umbra join` to replace the cluster"
    );
    Problem::new(Failure::WrongCluster.reason(), message)
}

/// Why a cluster that was asked did not answer as it should.
pub(super) fn problem(error: &ChildError) -> Problem {
    let reason = match error {
        ChildError::Configuration { .. } | ChildError::Kubeconfig(_) => "InvalidConnection",
        ChildError::Status { .. } | ChildError::Json { .. } => "UnexpectedAnswer",
        ChildError::WrongCluster { expected, found, .. } => return wrong_cluster(expected, found),
        error => error.failure().reason(),
    };
    Problem::new(reason, error.to_string())
}
