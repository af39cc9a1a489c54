//! The hub root, and all roots of a hub.
//!
//! A standalone hub ([`start`]) has Umbra's own kinds and the built-in ones that a hub cannot do without. Behind a
//! kube-apiserver ([`aggregated`]) it has Umbra's own kinds alone, and asks the hub's API server who may do what.

pub mod agents;
pub mod aggregated;
mod behavior;
pub mod judge;
pub mod roots;
#[cfg(test)]
mod tests;
pub mod tokens;
mod view_permissions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::SubresourceDescriptor;
use umbra_apimachinery::status::Status;
use umbra_auth::tokens::ServiceAccountTokens;
use umbra_storage::{CacheOptions, Store};

use self::agents::{AdmitJoinRequests, Agents, OpenTunnels};
use crate::builtin;
use crate::builtin::assembly::{Cluster, ClusterParts};
use crate::generic::collection::Installation;
use crate::generic::definition::{self, Defined};
use crate::generic::strategy::Strategy;

pub use behavior::CheckCluster;
pub use judge::Judge;
pub use roots::{HubRoot, HubRoots};
pub use tokens::IssueTokens;

/// The name of the hub root in keys.
pub const HUB: &str = "hub";

/// How long the caches may take to fill.
const START: Duration = Duration::from_secs(60);

/// What the hub root is made of.
#[derive(Debug, Clone)]
pub struct HubDependencies {
    /// Where everything is stored.
    pub store: Arc<dyn Store>,
    /// Issues the tokens of `serviceaccounts/token`.
    pub tokens: Arc<ServiceAccountTokens>,
    /// What serves the agents of clusters.
    pub agents: Agents,
    /// The body of `GET /version`.
    pub version: Bytes,
    /// What the hub's tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the hub's tasks.
    pub cancelled: CancellationToken,
}

/// Starts the hub root of a standalone hub; answers when it serves.
///
/// # Errors
/// 503 where the store does not answer in time.
pub async fn start(dependencies: HubDependencies) -> Result<Cluster, Status> {
    let (umbra, umbra_documents) = umbra_kinds()?;
    let builtin = builtin::hub();
    let documents = builtin::documents(&builtin).into_iter().chain(umbra_documents);
    let tokens = Arc::new(IssueTokens::new(dependencies.tokens));
    let tunnels = Arc::new(OpenTunnels::new(
        dependencies.agents.clone(),
        dependencies.tracker.clone(),
        dependencies.cancelled.clone(),
    ));
    let kinds = builtin.into_iter().chain(umbra).map(|strategy| {
        let issues_tokens = strategy.descriptor.resource.resource == "serviceaccounts";
        let mut installation = with_tunnels(strategy, &tunnels);
        if issues_tokens {
            installation
                .handlers
                .push(("token".to_owned(), Arc::clone(&tokens) as _));
        }
        installation
    });
    let parts = ClusterParts {
        name: HUB.to_owned(),
        store: dependencies.store,
        cache: CacheOptions::default(),
        admission: vec![Arc::new(AdmitJoinRequests::new(dependencies.agents.directory))],
        tokens: None,
        version: dependencies.version,
        tracker: dependencies.tracker,
        cancelled: dependencies.cancelled,
    };
    Cluster::start(parts, kinds, documents, Instant::now() + START).await
}

/// Umbra's own kinds.
fn umbra_kinds() -> Result<Defined, Status> {
    let definitions = umbra_api::hub_definitions();
    let (kinds, documents) = definition::strategies(&definitions).map_err(Status::internal)?;
    Ok((kinds.into_iter().map(checked).collect(), documents))
}

/// ManagedClusters have tunnels.
fn with_tunnels(mut strategy: Strategy, tunnels: &Arc<OpenTunnels>) -> Installation {
    if strategy.descriptor.kind != "ManagedCluster" {
        return Installation::from(strategy);
    }
    strategy.descriptor.subresources.push(SubresourceDescriptor {
        name: "tunnel".to_owned(),
        kind: strategy.kind(),
        verbs: vec!["get".to_owned()],
    });
    Installation {
        connector: Some(Arc::clone(tunnels) as _),
        ..Installation::from(strategy)
    }
}

fn checked(strategy: Strategy) -> Strategy {
    match strategy.descriptor.kind.as_str() {
        "ManagedCluster" => strategy.with_behavior(CheckCluster),
        _ => strategy,
    }
}
