//! The hub root and the fleets of a server behind a kube-apiserver: the hub's API server says who may do what.
//!
//! The hub root has Umbra's own kinds and nothing else, because everything else is the hub's: its namespaces and Secrets,
//! its RBAC, its garbage collection, which follows owners and finalizers of Umbra's kinds through their API.
//!
//! Inside a fleet, `create deployments.apps` needs the permission `create deployments.apps.fleet.umbra.dev` on the hub, for
//! the namespace that is written to: a tenant's Role in the hub's namespace `shop` is what the tenant may do in the fleet's
//! namespace `shop`. What everybody may ask about themselves, and what there is, is open to whoever may enter.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::delegation::{DelegatedAuthorizer, VirtualGroup};
use umbra_storage::{CacheOptions, Store};

use super::agents::{AdmitJoinRequests, Agents, OpenTunnels};
use super::judge::{FleetAuthorizer, Judge, in_group};
use super::roots::HubRoot;
use super::{HUB, START, umbra_kinds, with_tunnels};
use crate::fleet::FleetApi;
use crate::generic::authorization::{AllowAll, attributes};
use crate::generic::collection::{RootParts, StoreApi};
use crate::generic::reviews::Reviews;
use crate::request::RequestContext;
use crate::resource::Resource;
use crate::root::{Api, OpenApi};

/// What the hub root of an aggregated server is made of.
#[derive(Debug, Clone)]
pub struct AggregatedDependencies {
    /// Where everything is stored.
    pub store: Arc<dyn Store>,
    /// Asks the hub's API server.
    pub authorizer: Arc<DelegatedAuthorizer>,
    /// What serves the agents of clusters.
    pub agents: Agents,
    /// The body of `GET /version`.
    pub version: Bytes,
    /// What the root's tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the root's tasks.
    pub cancelled: CancellationToken,
}

/// Starts the hub root of an aggregated server; answers when it serves.
///
/// # Errors
/// 503 where the store does not answer in time.
pub async fn start(dependencies: AggregatedDependencies) -> Result<HubRoot, Status> {
    let (kinds, documents) = umbra_kinds()?;
    let tunnels = Arc::new(OpenTunnels::new(
        dependencies.agents.clone(),
        dependencies.tracker.clone(),
        dependencies.cancelled.clone(),
    ));
    let kinds: Vec<_> = kinds.into_iter().map(|kind| with_tunnels(kind, &tunnels)).collect();
    let api = StoreApi::new(RootParts {
        name: HUB.to_owned(),
        store: dependencies.store,
        cache: CacheOptions::default(),
        admission: Arc::new(AdmitJoinRequests::new(dependencies.agents.directory)),
        // Never asked: see `Gate`.
        authorizer: Arc::new(AllowAll),
        reviews: None,
        version: dependencies.version,
        tracker: dependencies.tracker,
        cancelled: dependencies.cancelled,
    });
    api.install(kinds, documents);
    api.ready(Instant::now() + START).await?;
    Ok(HubRoot::aggregated(api, dependencies.authorizer))
}

/// An API with another gate.
struct Gate<A> {
    api: Arc<A>,
    authorizer: Arc<DelegatedAuthorizer>,
}

/// The hub root, whose requests the hub judges as they are.
pub(super) fn hub(api: Arc<StoreApi>, authorizer: Arc<DelegatedAuthorizer>) -> Arc<dyn Api> {
    Arc::new(Gate { api, authorizer })
}

/// A fleet, whose requests the hub judges by its permissions for [`VirtualGroup::Fleet`].
pub(super) fn fleet(api: Arc<FleetApi>, authorizer: Arc<DelegatedAuthorizer>) -> Arc<dyn Api> {
    Arc::new(Gate { api, authorizer })
}

/// How requests to an API are judged.
#[async_trait]
trait Gated: Api {
    async fn judge(&self, authorizer: &DelegatedAuthorizer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status>;

    /// Who answers reviews; `None` where the API itself does.
    fn reviews(&self, authorizer: &Arc<DelegatedAuthorizer>) -> Option<Reviews>;
}

#[async_trait]
impl Gated for StoreApi {
    async fn judge(&self, authorizer: &DelegatedAuthorizer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        authorizer.judge(user, &attributes(info)).await
    }

    fn reviews(&self, _authorizer: &Arc<DelegatedAuthorizer>) -> Option<Reviews> {
        None
    }
}

#[async_trait]
impl Gated for FleetApi {
    async fn judge(&self, authorizer: &DelegatedAuthorizer, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        if !info.is_resource_request || is_about_oneself(info) {
            return Ok(());
        }
        let group = VirtualGroup::Fleet.of(&info.group);
        authorizer.judge(user, &in_group(&attributes(info), &group)).await
    }

    fn reviews(&self, authorizer: &Arc<DelegatedAuthorizer>) -> Option<Reviews> {
        Some(Reviews::new(Arc::new(FleetAuthorizer(Arc::clone(authorizer))), None))
    }
}

/// What ClusterRole `system:basic-user` gives to everybody.
fn is_about_oneself(info: &RequestInfo) -> bool {
    matches!(
        (info.group.as_str(), info.resource.as_str()),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
        ) | ("authentication.k8s.io", "selfsubjectreviews")
    )
}

#[async_trait]
impl<A: Gated> Api for Gate<A> {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        self.api.judge(&self.authorizer, user, info).await
    }

    fn discovery(&self) -> Arc<Discovery> {
        self.api.discovery()
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        self.api.resource(resource)
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        self.api.openapi()
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        match self.api.reviews(&self.authorizer) {
            Some(reviews) => reviews.answer(context, body).await,
            None => self.api.review(context, body).await,
        }
    }

    fn version(&self) -> Bytes {
        self.api.version()
    }
}
