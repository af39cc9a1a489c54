//! All roots of a standalone hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Method;
use umbra_apimachinery::request::RootName;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::Attributes;
use umbra_child::Children;

use crate::builtin::assembly::Cluster;
use crate::cluster::ClusterRoot;
use crate::directory::Directory;
use crate::fleet::FleetApi;
use crate::generic::authorization::{Authorizer, forbidden};
use crate::mirror::Mirror;
use crate::root::{Root, Roots};
use crate::view::{ViewApi, ViewServices};

/// The fleets that serve, by name. Whoever runs the fleets' controllers keeps it.
pub type Fleets = Arc<ArcSwap<BTreeMap<String, Arc<FleetApi>>>>;

/// All roots of a standalone hub.
pub struct StandaloneRoots {
    hub: Cluster,
    views: Arc<ViewServices>,
    directory: Arc<Mirror<Directory>>,
    children: Children,
    fleets: Fleets,
}

impl std::fmt::Debug for StandaloneRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StandaloneRoots").finish_non_exhaustive()
    }
}

impl StandaloneRoots {
    /// The roots over a hub, what its views share, and its fleets.
    #[must_use]
    pub fn new(
        hub: Cluster,
        views: Arc<ViewServices>,
        directory: Arc<Mirror<Directory>>,
        children: Children,
        fleets: Fleets,
    ) -> Self {
        Self {
            hub,
            views,
            directory,
            children,
            fleets,
        }
    }
}

#[async_trait]
impl Roots for StandaloneRoots {
    async fn root(&self, name: RootName<'_>) -> Result<Root, Status> {
        match name {
            RootName::Hub => Ok(Root::Api(Arc::clone(&self.hub.api) as _)),
            RootName::Cluster(name) => Ok(Root::Forward(Arc::new(ClusterRoot::new(
                name,
                Arc::clone(&self.directory),
                self.children.clone(),
            )?))),
            RootName::View(name) => Ok(Root::Api(Arc::new(ViewApi::new(name, &self.views)?))),
            RootName::Fleet(name) => match self.fleets.load().get(name) {
                Some(fleet) => Ok(Root::Api(Arc::clone(fleet) as _)),
                None if self.directory.state().fleets.contains_key(name) => {
                    let message = format!("fleet \"{name}\" is starting; try again in a moment");
                    Err(Status::failure(Reason::ServiceUnavailable, message).retry_after(1))
                }
                None => {
                    let fleets = umbra_apimachinery::gvk::GroupResource::new(umbra_api::GROUP, "fleets");
                    Err(Status::not_found(&fleets, name))
                }
            },
        }
    }

    async fn enter(&self, user: &UserInfo, name: RootName<'_>, method: &Method) -> Result<(), Status> {
        let (resource, name) = match name {
            RootName::Hub => return Ok(()),
            RootName::Cluster(name) => ("managedclusters", name),
            RootName::View(name) => ("views", name),
            RootName::Fleet(name) => ("fleets", name),
        };
        let attributes = Attributes {
            verb: proxy_verb(method),
            group: umbra_api::GROUP,
            resource,
            subresource: "proxy",
            namespace: "",
            name,
            path: "",
            is_resource_request: true,
        };
        let verdict = self.hub.authorizer.decide(user, &attributes).await;
        if verdict.allowed {
            Ok(())
        } else {
            Err(forbidden(user, &attributes, &verdict.reason))
        }
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
