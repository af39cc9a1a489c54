//! A view as a root.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use umbra_api::root::ViewAuthorization;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;

use super::openapi::ViewOpenApi;
use super::permissions::HubPermissions;
use super::resource::ViewResource;
use super::services::ViewServices;
use super::shape::Shape;
use super::sight::Authority;
use crate::generic::authorization::{attributes, forbidden};
use crate::request::RequestContext;
use crate::resource::Resource;
use crate::root::{Api, OpenApi};

/// The version of Kubernetes that a view claims where no cluster has told its own: the one whose API conventions it
/// follows.
const VERSION: &str = "v1.36.0";

/// One view, as it is now: made for each request, which costs a look at a few maps.
#[derive(Debug, Clone)]
pub struct ViewApi {
    pub(super) name: Arc<str>,
    pub(super) services: Arc<ViewServices>,
    pub(super) shape: Arc<Shape>,
    pub(super) authority: Authority,
    /// Decides who may enter, whoever decides inside.
    pub(super) hub: Arc<dyn HubPermissions>,
}

impl ViewApi {
    /// The view of that name. `hub` decides in views that leave it to the hub.
    ///
    /// # Errors
    /// 404 where there is no such `View`.
    pub fn new(name: &str, services: &Arc<ViewServices>, hub: &Arc<dyn HubPermissions>) -> Result<Self, Status> {
        let views = GroupResource::new("umbra.dev", "views");
        let shape = services.shape(name).ok_or_else(|| Status::not_found(&views, name))?;
        Ok(Self {
            name: name.into(),
            services: Arc::clone(services),
            authority: match shape.authorization {
                ViewAuthorization::ChildRbac => Authority::Children,
                ViewAuthorization::HubRbac => Authority::Hub(Arc::clone(hub)),
            },
            shape,
            hub: Arc::clone(hub),
        })
    }
}

/// Whether a request asks what there is, which everyone may know who may enter.
pub(super) fn discovers(verb: &str, path: &str) -> bool {
    let open = |root: &str| {
        let below = path.strip_prefix(root);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    };
    matches!(verb, "get" | "head") && (path == "/" || ["/api", "/apis", "/openapi", "/version"].into_iter().any(open))
}

#[async_trait]
impl Api for ViewApi {
    /// Requests for resources are decided object by object, where copies are read, and by the children where they are
    /// asked. Everyone who may enter may find out what there is.
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        if info.is_resource_request || discovers(&info.verb, &info.path) {
            return Ok(());
        }
        let hint = format!("in the view \"{}\"", self.name);
        Err(forbidden(user, &attributes(info), &hint))
    }

    fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.shape.discovery)
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        let served = self.shape.served(resource)?;
        Some(Arc::new(ViewResource {
            services: Arc::clone(&self.services),
            view: Arc::clone(&self.name),
            shape: Arc::clone(&self.shape),
            authority: self.authority.clone(),
            hub: Arc::clone(&self.hub),
            served: Arc::clone(served),
            printed: Mutex::default(),
            layout: Mutex::default(),
        }))
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        Arc::new(ViewOpenApi {
            services: Arc::clone(&self.services),
            clusters: self.shape.seniority(),
        })
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        self.answer_review(context, body).await
    }

    /// The lowest version among the clusters: what a client may count on everywhere.
    fn version(&self) -> Bytes {
        let lowest = self
            .shape
            .clusters
            .keys()
            .filter_map(|cluster| self.services.cluster(cluster)?.status.clone())
            .map(|status| status.version)
            .filter_map(|version| Some((numbers(&version)?, version)))
            .min();
        let ((major, minor), version) = lowest.unwrap_or_else(|| ((1, 36), VERSION.to_owned()));
        let version = json!({
            "major": major.to_string(),
            "minor": minor.to_string(),
            "gitVersion": version,
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        });
        version.to_string().into()
    }
}

/// Major and minor of `v1.36.3`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix('v')?.split('.');
    let minor = |part: &str| {
        part.trim_end_matches(|other: char| !other.is_ascii_digit())
            .parse()
            .ok()
    };
    Some((parts.next()?.parse().ok()?, minor(parts.next()?)?))
}
