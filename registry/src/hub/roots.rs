//! All roots of a hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Method;
use umbra_apimachinery::request::RootName;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::delegation::DelegatedAuthorizer;
use umbra_auth::rbac::Attributes;
use umbra_child::Children;

use super::agents::{AgentGate, Machine};
use super::aggregated;
use super::judge::Judge;
use crate::builtin::assembly::Cluster;
use crate::cluster::ClusterRoot;
use crate::directory::Directory;
use crate::fleet::FleetApi;
use crate::generic::authorization::forbidden;
use crate::generic::collection::StoreApi;
use crate::mirror::Mirror;
use crate::root::{Api, Root, Roots, entrance};
use crate::view::{HubPermissions, ViewApi, ViewServices};

/// The fleets that serve, by name. Whoever runs the fleets' controllers keeps it.
pub type Fleets = Arc<ArcSwap<BTreeMap<String, Arc<FleetApi>>>>;

/// The hub root, and who judges what is done on the hub.
#[derive(Clone)]
pub struct HubRoot {
    api: Arc<dyn Api>,
    judge: Arc<dyn Judge>,
    /// Judges what is done inside views that leave it to the hub.
    permissions: Arc<dyn HubPermissions>,
    /// Judges what is done inside fleets; without it, whoever may enter may do everything.
    delegated: Option<Arc<DelegatedAuthorizer>>,
}

impl std::fmt::Debug for HubRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubRoot").finish_non_exhaustive()
    }
}

impl From<Cluster> for HubRoot {
    /// A standalone hub, which decides by its own RBAC objects.
    fn from(cluster: Cluster) -> Self {
        Self {
            api: cluster.api,
            judge: Arc::clone(&cluster.authorizer) as _,
            permissions: cluster.authorizer,
            delegated: None,
        }
    }
}

impl HubRoot {
    /// A hub behind a kube-apiserver, which decides.
    pub(super) fn aggregated(api: Arc<StoreApi>, authorizer: Arc<DelegatedAuthorizer>) -> Self {
        Self {
            api: aggregated::hub(api, Arc::clone(&authorizer)),
            judge: Arc::clone(&authorizer) as _,
            permissions: Arc::clone(&authorizer) as _,
            delegated: Some(authorizer),
        }
    }
}

/// All roots of a hub.
pub struct HubRoots {
    hub: HubRoot,
    views: Arc<ViewServices>,
    directory: Arc<Mirror<Directory>>,
    children: Children,
    fleets: Fleets,
}

impl std::fmt::Debug for HubRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubRoots").finish_non_exhaustive()
    }
}

impl HubRoots {
    /// The roots over a hub, what its views share, and its fleets.
    #[must_use]
    pub fn new(
        hub: impl Into<HubRoot>,
        views: Arc<ViewServices>,
        directory: Arc<Mirror<Directory>>,
        children: Children,
        fleets: Fleets,
    ) -> Self {
        let mut hub = hub.into();
        hub.api = Arc::new(AgentGate::new(hub.api, Arc::clone(&directory)));
        Self {
            hub,
            views,
            directory,
            children,
            fleets,
        }
    }

    fn fleet(&self, name: &str) -> Result<Root, Status> {
        match self.fleets.load().get(name) {
            Some(fleet) => Ok(Root::Api(match &self.hub.delegated {
                Some(authorizer) => aggregated::fleet(Arc::clone(fleet), Arc::clone(authorizer)),
                None => Arc::clone(fleet) as _,
            })),
            None if self.directory.state().fleets.contains_key(name) => {
                let message = format!("fleet \"{name}\" is starting; try again in a moment");
                Err(Status::failure(Reason::ServiceUnavailable, message).retry_after(1))
            }
            None => {
                let fleets = umbra_apimachinery::gvk::GroupResource::new(umbra_api::GROUP, "fleets");
                Err(Status::not_found(&fleets, name))
            }
        }
    }
}

#[async_trait]
impl Roots for HubRoots {
    async fn root(&self, name: RootName<'_>) -> Result<Root, Status> {
        match name {
            RootName::Hub => Ok(Root::Api(Arc::clone(&self.hub.api))),
            RootName::Cluster(name) => Ok(Root::Forward(Arc::new(ClusterRoot::new(
                name,
                Arc::clone(&self.directory),
                self.children.clone(),
            )?))),
            RootName::View(name) => Ok(Root::Api(Arc::new(ViewApi::new(
                name,
                &self.views,
                &self.hub.permissions,
            )?))),
            RootName::Fleet(name) => self.fleet(name),
        }
    }

    async fn enter(&self, user: &UserInfo, name: RootName<'_>, method: &Method) -> Result<(), Status> {
        let (resource, name) = match name {
            RootName::Hub => return Ok(()),
            RootName::Cluster(name) => ("managedclusters", name),
            RootName::View(name) => ("views", name),
            RootName::Fleet(name) => ("fleets", name),
        };
        if Machine::of(user)?.is_some() {
            let attributes = Attributes::resource("proxy", umbra_api::GROUP, resource, "", name);
            return Err(forbidden(user, &attributes, "agents enter no root"));
        }
        self.hub
            .judge
            .judge(user, &entrance(resource, name, proxy_verb(method)))
            .await
    }
}

/// The verb of a `proxy` request, as for any other resource (`RequestInfoFactory.NewRequestInfo`).
fn proxy_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}
