//! The contract of a root.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionResource};
use umbra_apimachinery::request::{RequestInfo, RootName};
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::Attributes;
pub use umbra_child::upgrade::HeldBySession;

use crate::request::RequestContext;
use crate::resource::{Body, Resource};

/// How a root serves: by its own verbs, or by passing requests on.
#[derive(Clone)]
pub enum Root {
    /// Verbs on resources.
    Api(Arc<dyn Api>),
    /// Whole requests.
    Forward(Arc<dyn Forward>),
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Api(_) => "Root::Api",
            Self::Forward(_) => "Root::Forward",
        })
    }
}

/// What one has to be allowed on the hub to enter the root of an object: `proxy`, a subresource of it.
pub(crate) fn entrance<'a>(resource: &'a str, name: &'a str, verb: &'a str) -> Attributes<'a> {
    Attributes {
        verb,
        group: umbra_api::GROUP,
        resource,
        subresource: "proxy",
        namespace: "",
        name,
        path: "",
        is_resource_request: true,
    }
}

/// All roots of this process.
#[async_trait]
pub trait Roots: Send + Sync {
    /// The root of that name.
    ///
    /// # Errors
    /// 404 where there is no such cluster, view or fleet; 503 where it cannot serve yet.
    async fn root(&self, name: RootName<'_>) -> Result<Root, Status>;

    /// Whether `user` may send a request of `method` into the root of that name: `proxy` on the hub's object, with the
    /// verb Kubernetes gives to the method. Everyone may enter the hub, whose resources are checked one by one.
    ///
    /// # Errors
    /// 403, and nothing that tells whether the root exists.
    async fn enter(&self, user: &UserInfo, name: RootName<'_>, method: &http::Method) -> Result<(), Status>;
}

/// A root that serves verbs on resources.
#[async_trait]
pub trait Api: Send + Sync {
    /// Whether `user` may do what `info` says. Also called for non-resource paths.
    ///
    /// # Errors
    /// 403 with the reason.
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status>;

    /// Which resources there are now. Cheap: called for every discovery request.
    fn discovery(&self) -> Arc<Discovery>;

    /// The resource of that group, version and name; `None` where nothing serves it.
    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>>;

    /// The OpenAPI documents.
    fn openapi(&self) -> Arc<dyn OpenApi>;

    /// Resources that are virtual: reviews (`subjectaccessreviews`, `selfsubjectaccessreviews`, …) that are created and
    /// answered but never stored. `None` where `info` is not such a request.
    async fn review(&self, _context: &RequestContext, _body: &Bytes) -> Option<Result<Bytes, Status>> {
        None
    }

    /// The body of `GET /version`.
    fn version(&self) -> Bytes;
}

/// A v3 document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedDocument {
    /// Changes whenever the text does; empty where nothing is known of it.
    pub hash: String,
    /// JSON, with paths below the root.
    pub text: Bytes,
}

/// The OpenAPI documents of a root.
#[async_trait]
pub trait OpenApi: Send + Sync {
    /// Which group versions have a v3 document, each with a hash that changes whenever the document does; empty where nothing
    /// is known of it. What is not known by `deadline` is left out.
    async fn index(&self, deadline: Instant) -> Result<Vec<(GroupVersion, String)>, Status>;

    /// The v3 document of a group version, and the hash of exactly that document: the one that `hash` names, where that is
    /// to be had, otherwise another one.
    ///
    /// # Errors
    /// 404 where there is none, 5xx where it is not to be had by `deadline`.
    async fn v3(
        &self,
        version: &GroupVersion,
        hash: Option<&str>,
        deadline: Instant,
    ) -> Result<PublishedDocument, Status>;

    /// The v2 document of the whole root as JSON.
    ///
    /// # Errors
    /// 404 where the root has none; clients fall back to v3.
    async fn v2(&self) -> Result<Bytes, Status>;
}

/// A root that passes whole requests on.
#[async_trait]
pub trait Forward: Send + Sync {
    /// Answers a request whose path is already the one below the root. Its `hyper::upgrade::OnUpgrade` extension is
    /// still there, so that connections can be spliced.
    ///
    /// # Errors
    /// What keeps the request from being passed on; what the other side answers is no error.
    async fn forward(
        &self,
        context: &RequestContext,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status>;
}
