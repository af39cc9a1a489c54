//! A hub with pods in it, a cluster root that tells what it was sent, and clients.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::ServiceExt as _;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use umbra_apimachinery::request::{RequestInfo, RootName};
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::{ColumnDefinition, ListMetadata};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::authenticate::AuthenticationError;
use umbra_auth::delegation::ReviewError;
use umbra_auth::tokens::TokenError;
use umbra_registry::request::{GetOptions, ListOptions, RequestContext};
use umbra_registry::resource::{
    Body, Event, EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest, WriteVerb,
};
use umbra_registry::root::{Api, Forward, OpenApi, PublishedDocument, Root, Roots};

use crate::respond::{empty, full};
use crate::{ApiServer, ApiServerBuilder, Authenticate, PeerCertificates};

/// Everything at once.
pub(super) struct FakeHub {
    descriptor: ResourceDescriptor,
    discovery: Arc<Discovery>,
    pub(super) pods: Mutex<Vec<Object>>,
    /// Taken by the next watch.
    pub(super) events: Mutex<Option<mpsc::Receiver<Event>>>,
    /// What was written last.
    pub(super) written: Mutex<Option<WriteRequest>>,
    /// The contexts' users, in order.
    pub(super) users: Mutex<Vec<UserInfo>>,
}

pub(super) fn pod(name: &str, padding: usize) -> Object {
    let padding = "x".repeat(padding);
    let text = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7", "labels": {"app": "web"}},
        "spec": {"padding": padding},
    });
    Object::new(Bytes::from(text.to_string()))
}

impl FakeHub {
    pub(super) fn new(pods: usize, padding: usize) -> Arc<Self> {
        let verbs = [
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ];
        let descriptor = ResourceDescriptor {
            resource: GroupVersionResource::new("", "v1", "pods"),
            kind: "Pod".to_owned(),
            singular: "pod".to_owned(),
            namespaced: true,
            short_names: vec!["po".to_owned()],
            categories: vec!["all".to_owned()],
            verbs: verbs.map(str::to_owned).to_vec(),
            subresources: [("status", &["get", "patch", "update"][..]), ("log", &["get"])]
                .map(|(name, verbs)| SubresourceDescriptor {
                    name: name.to_owned(),
                    kind: GroupVersionKind::new("", "v1", "Pod"),
                    verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
                })
                .to_vec(),
        };
        let mut discovery = Discovery::new();
        discovery.insert(descriptor.clone());
        discovery.insert(ResourceDescriptor {
            resource: GroupVersionResource::new("apps", "v1", "deployments"),
            kind: "Deployment".to_owned(),
            singular: "deployment".to_owned(),
            namespaced: true,
            verbs: vec!["list".to_owned()],
            ..ResourceDescriptor::default()
        });
        Arc::new(Self {
            descriptor,
            discovery: Arc::new(discovery),
            pods: Mutex::new((0..pods).map(|number| pod(&format!("web-{number}"), padding)).collect()),
            events: Mutex::default(),
            written: Mutex::default(),
            users: Mutex::default(),
        })
    }

    pub(super) fn server(self: &Arc<Self>) -> ApiServer {
        self.server_with(|builder| builder)
    }

    pub(super) fn server_with(
        self: &Arc<Self>,
        set_up: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder,
    ) -> ApiServer {
        let builder = ApiServer::builder(Arc::new(FakeRoots(Arc::clone(self))), Arc::new(ByHeader));
        set_up(builder).build()
    }

    /// Lets the next watch see what is sent.
    pub(super) fn next_watch(&self) -> mpsc::Sender<Event> {
        let (sender, receiver) = mpsc::channel(64);
        *self.events.lock() = Some(receiver);
        sender
    }
}

struct FakeRoots(Arc<FakeHub>);

#[async_trait]
impl Roots for FakeRoots {
    async fn root(&self, name: RootName<'_>) -> Result<Root, Status> {
        match name {
            RootName::Hub | RootName::View("all") => Ok(Root::Api(Arc::new(FakeApi(Arc::clone(&self.0))))),
            RootName::Cluster("member1") => Ok(Root::Forward(Arc::new(Echo))),
            _ => Err(Status::no_such_path()),
        }
    }

    async fn enter(&self, user: &UserInfo, name: RootName<'_>, _: &Method) -> Result<(), Status> {
        if name != RootName::Hub && user.name == "mallory" {
            return Err(Status::forbidden(&Default::default(), "", "not for mallory"));
        }
        Ok(())
    }
}

struct FakeApi(Arc<FakeHub>);

#[async_trait]
impl Api for FakeApi {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        if user.name == "mallory" || info.resource == "users" && user.name != "admin" {
            return Err(Status::forbidden(&info.group_resource(), &info.name, "no"));
        }
        Ok(())
    }

    fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.0.discovery)
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        (*resource == self.0.descriptor.resource).then(|| Arc::clone(&self.0) as Arc<dyn Resource>)
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        Arc::new(Documents)
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        (context.info.resource == "selfsubjectreviews").then(|| Ok(body.clone()))
    }

    fn version(&self) -> Bytes {
        Bytes::from_static(br#"{"gitVersion":"v1.36.0"}"#)
    }
}

struct Documents;

#[async_trait]
impl OpenApi for Documents {
    async fn index(&self, _: Instant) -> Result<Vec<(GroupVersion, String)>, Status> {
        Ok(vec![(GroupVersion::new("", "v1"), "ABC".to_owned())])
    }

    async fn v3(&self, version: &GroupVersion, _: Option<&str>, _: Instant) -> Result<PublishedDocument, Status> {
        if *version != GroupVersion::new("", "v1") {
            return Err(Status::no_such_path());
        }
        Ok(PublishedDocument {
            hash: "ABC".to_owned(),
            text: Bytes::from_static(br#"{"openapi":"3.0.0"}"#),
        })
    }

    async fn v2(&self) -> Result<Bytes, Status> {
        Ok(Bytes::from_static(br#"{"swagger":"2.0"}"#))
    }
}

#[async_trait]
impl Resource for FakeHub {
    fn descriptor(&self) -> &ResourceDescriptor {
        &self.descriptor
    }

    async fn get(
        &self,
        context: &RequestContext,
        _: Option<&str>,
        name: &str,
        _: &str,
        _: &GetOptions,
    ) -> Result<Object, Status> {
        match name {
            "panics" => panic!("as asked"),
            "hangs" => std::future::pending().await,
            "warns" => context.warnings.add("cluster c3 unreachable"),
            _ => {}
        }
        self.users.lock().push((*context.user).clone());
        if name == "missing" {
            return Err(Status::not_found(&self.descriptor.group_resource(), name));
        }
        Ok(pod(name, 0))
    }

    async fn list(&self, _: &RequestContext, _: Option<&str>, _: &ListOptions) -> Result<ObjectList, Status> {
        Ok(ObjectList {
            metadata: ListMetadata {
                resource_version: "42".to_owned(),
                ..ListMetadata::default()
            },
            items: self.pods.lock().clone(),
        })
    }

    async fn watch(&self, _: &RequestContext, _: Option<&str>, options: &ListOptions) -> Result<EventStream, Status> {
        if options.resource_version == Some(1) {
            return Err(Status::expired("too old resource version: 1 (42)"));
        }
        let mut events = self.events.lock().take().ok_or_else(|| Status::internal("no events"))?;
        Ok(futures::stream::poll_fn(move |context| events.poll_recv(context)).boxed())
    }

    async fn write(&self, _: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status> {
        let outcome = match request.verb {
            WriteVerb::Create => WriteOutcome::Created(Object::new(request.body.clone())),
            WriteVerb::Delete => {
                let resource = self.descriptor.group_resource();
                WriteOutcome::Status(Box::new(Status::success(&resource, &request.name, "u")))
            }
            WriteVerb::DeleteCollection => WriteOutcome::Collection(ObjectList::default()),
            _ => WriteOutcome::Done(pod(&request.name, 0)),
        };
        *self.written.lock() = Some(request);
        Ok(outcome)
    }

    async fn connect(&self, context: &RequestContext, request: Request<Body>) -> Result<Response<Body>, Status> {
        Echo.forward(context, request).await
    }

    fn columns(&self, _: &[Object]) -> Vec<ColumnDefinition> {
        vec![ColumnDefinition::name()]
    }

    fn cells(&self, object: &Object, _: &[ColumnDefinition], _: Timestamp) -> Vec<Value> {
        let value: Value = serde_json::from_slice(&object.json).unwrap();
        vec![value["metadata"]["name"].clone()]
    }
}

struct Echo;

#[async_trait]
impl Forward for Echo {
    async fn forward(&self, context: &RequestContext, request: Request<Body>) -> Result<Response<Body>, Status> {
        let names: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        let said = json!({"uri": request.uri().to_string(), "user": context.user.name, "headers": names});
        Ok(Response::new(full(said.to_string())))
    }
}

/// A certificate is proof enough; so is `Authorization: {name}`, but for `bad` and `unjudged`.
struct ByHeader;

#[async_trait]
impl Authenticate for ByHeader {
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        if let Some(certificate) = peer.0.first() {
            let name = format!("certificate of {} bytes", certificate.len());
            return Ok(Some(Arc::new(UserInfo::new(name, ["dev"]))));
        }
        match headers.get("authorization").map(|value| value.to_str().unwrap()) {
            None => Ok(None),
            Some("bad") => Err(TokenError::Invalid.into()),
            Some("unjudged") => {
                let nobody = ReviewError::Unreadable {
                    review: "TokenReview",
                    source: "the hub is down".into(),
                };
                Err(AuthenticationError::Unjudged(Arc::new(nobody)))
            }
            Some(name) => Ok(Some(Arc::new(UserInfo::new(name, ["dev"]).authenticated()))),
        }
    }

    fn strip(&self, headers: &mut HeaderMap) {
        headers.remove("x-proxied-user");
    }
}

/// An answer with its body read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A request of `alice`, with more headers as given.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", "alice");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_empty() {
        empty()
    } else {
        full(body.to_owned())
    };
    request.body(body).unwrap()
}

pub(super) async fn send(server: &ApiServer, request: Request<Body>) -> Answer {
    let response = server.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        code: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub(super) async fn get(server: &ApiServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(server, request("GET", path, headers, "")).await
}
