//! What every request passes before it is served, and every answer before it is sent: [`ApiServer::handle`].

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::request::{RequestInfo, RootName, RootPath};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::authenticate::{AuthenticationError, Authenticators, Credentials, RequestAuthenticator};
use umbra_auth::delegation::{DelegatedAuthenticator, TokenReviews};
use umbra_auth::impersonate;
use umbra_auth::request_header::strip_identity_headers;
use umbra_auth::trust::ClientTrust;
use umbra_registry::request::{RequestContext, Warnings};
use umbra_registry::resource::Body;
use umbra_registry::root::{HeldBySession, Root};

use crate::audit::event::{Outcome, Subject};
use crate::audit::{self, AuditLog, Pending};
use crate::inflight::Permit;
use crate::metrics::{Finished, InFlightGuard};
use crate::paths::refuse_dot_segments;
use crate::query::Query;
use crate::respond::{add_warnings, empty, failure};
use crate::service::ApiServer;
use crate::{health, routes, verbs};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// What is written down as the status of a request whose client went: no server sends it, and nginx made it known.
const CLIENT_GONE: u16 = 499;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The certificates that a connection's client presented, its own first; not verified beyond that it holds the key. A
/// request extension that only the listener sets.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Cuts it.
    pub(crate) abort: CancellationToken,
    /// Its other end.
    pub(crate) peer: SocketAddr,
}

/// Who sends a request from within this process. Nothing outside of this crate can make one.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) Arc<UserInfo>);

/// Finds out who sends a request.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// The sender; `None` is somebody who presents no credentials. Cancel safe.
    ///
    /// # Errors
    /// Where credentials are presented and prove nothing (401), or nobody could judge them (500). The text goes to the log.
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError>;

    /// Removes headers by which front proxies name users, where they have other names than usual. Called for every request
    /// once it is authenticated; the usual ones are removed after that anyway.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

#[async_trait]
impl Authenticate for Authenticators {
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        let credentials = Credentials {
            peer_certificates: &peer.0,
            headers,
        };
        Ok(Self::authenticate(self, &credentials, UnixTime::now())?.map(Arc::new))
    }
}

/// What an aggregated server knows of its clients: whom it trusts, and whom it asks about tokens.
#[derive(Debug)]
pub struct Delegated {
    authenticator: DelegatedAuthenticator,
    trust: ClientTrust,
}

impl Delegated {
    /// Believes front proxies and client certificates as `trust` says, and `tokens` about bearer tokens.
    #[must_use]
    pub fn new(trust: ClientTrust, tokens: Option<Arc<TokenReviews>>) -> Self {
        Self {
            authenticator: DelegatedAuthenticator::new(trust.authenticators(), tokens),
            trust,
        }
    }

    /// Asks `first` before all others.
    #[must_use]
    pub fn preceded_by(mut self, first: Arc<dyn RequestAuthenticator>) -> Self {
        self.authenticator = self.authenticator.preceded_by(first);
        self
    }
}

#[async_trait]
impl Authenticate for Delegated {
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        let credentials = Credentials {
            peer_certificates: &peer.0,
            headers,
        };
        self.authenticator.authenticate(&credentials, UnixTime::now()).await
    }

    fn strip(&self, headers: &mut HeaderMap) {
        self.trust.strip(headers);
    }
}

/// What is known of a request when it arrives.
struct Arrival {
    method: Method,
    path: String,
    raw_query: String,
    info: Arc<RequestInfo>,
    long_running: bool,
    started: Instant,
    audit_id: HeaderValue,
    user_agent: Arc<str>,
    received: Timestamp,
    source_ips: Vec<String>,
    /// Who was authenticated.
    authenticated: OnceLock<Arc<UserInfo>>,
    /// Who counts: the same, or whom that user acts as.
    user: OnceLock<Arc<UserInfo>>,
    /// Set where the root is there, so that its name is not one that the client has made up.
    entered: OnceLock<()>,
    warnings: Warnings,
}

impl Arrival {
    fn new(request: &Request<Body>) -> Self {
        let path = request.uri().path().to_owned();
        let raw_query = request.uri().query().unwrap_or_default().to_owned();
        let below = RootPath::split(&path).path;
        let info = RequestInfo::parse(request.method().as_str(), below, &raw_query);
        // Kubernetes' own rule (`BasicLongRunningRequestCheck`), which is why roots hang below `proxy` subresources.
        let long_running =
            info.is_resource_request && (info.verb == "watch" || verbs::is_connection(&info.subresource));
        let given = request.headers().get(AUDIT_ID).filter(|id| is_audit_id(id)).cloned();
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        Self {
            method: request.method().clone(),
            info: Arc::new(info),
            long_running,
            started: Instant::now(),
            audit_id: given.unwrap_or_else(new_audit_id),
            user_agent: agent.unwrap_or_default().into(),
            received: Timestamp::now(),
            source_ips: audit::source_ips(
                request.headers(),
                request
                    .extensions()
                    .get::<Connection>()
                    .map(|connection| connection.peer),
            ),
            authenticated: OnceLock::new(),
            user: OnceLock::new(),
            entered: OnceLock::new(),
            warnings: Warnings::default(),
            path,
            raw_query,
        }
    }

    fn root(&self) -> RootPath<'_> {
        RootPath::split(&self.path)
    }

    fn root_kind(&self) -> &'static str {
        match self.root().root {
            RootName::Hub => "hub",
            RootName::Cluster(_) => "cluster",
            RootName::View(_) => "view",
            RootName::Fleet(_) => "fleet",
        }
    }

    fn request_kind(&self) -> &'static str {
        match self.info.verb.as_str() {
            "watch" => "watch",
            _ if self.long_running => "connection",
            "get" | "list" | "head" | "options" => "read",
            _ => "write",
        }
    }

    /// What the audit log says of it, as far as it is known.
    fn subject(&self) -> Subject {
        let (user, counts) = (self.authenticated.get(), self.user.get());
        let acts_as_other = matches!((user, counts), (Some(user), Some(counts)) if !Arc::ptr_eq(user, counts));
        Subject {
            audit_id: self.audit_id.to_str().unwrap_or_default().to_owned(),
            path: self.path.clone(),
            raw_query: self.raw_query.clone(),
            info: Arc::clone(&self.info),
            user: user.cloned(),
            impersonated: counts.filter(|_| acts_as_other).cloned(),
            source_ips: self.source_ips.clone(),
            user_agent: Arc::clone(&self.user_agent),
            received: self.received,
        }
    }

    /// `/version` tells everyone what it tells anyone.
    fn is_public(&self) -> bool {
        self.root().root == RootName::Hub && self.info.path.trim_end_matches('/') == "/version"
    }
}

/// Writes down a request whose client goes before its answer has begun, which ends the request where it is: it may have been
/// done all the same.
struct Unanswered<'a> {
    /// `None` where nothing is to be written, or the answer does it.
    log: Option<&'a AuditLog>,
    arrival: &'a Arrival,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            let outcome = Outcome {
                code: CLIENT_GONE,
                reason: String::new(),
                message: "the client went before the answer began; what it asked for may have been done".to_owned(),
            };
            // Written as it is dropped.
            drop(log.answered(self.arrival.subject(), outcome, false, false));
        }
    }
}

/// Ids of others are taken over (`WithAuditID`), where they are short and nothing but text.
fn is_audit_id(id: &HeaderValue) -> bool {
    id.len() <= 64 && id.to_str().is_ok_and(|text| !text.trim().is_empty())
}

fn new_audit_id() -> HeaderValue {
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is a header value")
}

impl ApiServer {
    /// Serves one request. Cancel safe as far as the root is: dropping the future drops the request.
    pub(crate) async fn handle(self, mut request: Request<Body>) -> Response<Body> {
        let arrival = Arrival::new(&request);
        let counted = self.metrics().begin(arrival.request_kind());
        let mut permit = None;
        // Filled when the answer begins, and dropped when both the answer and the session it opens have ended.
        let pending = Arc::new(OnceLock::new());
        if self.audit().is_some() && request.headers().contains_key(UPGRADE) {
            request
                .extensions_mut()
                .insert(HeldBySession(Arc::clone(&pending) as _));
        }
        let mut unanswered = Unanswered {
            log: self.audit().filter(|_| !health::is_open(&arrival.path)),
            arrival: &arrival,
        };
        let served = AssertUnwindSafe(self.filtered(&arrival, &mut permit, request));
        let (response, failed, panicked) = match served.catch_unwind().await {
            Ok(Ok(response)) => (response, None, false),
            Ok(Err(status)) => (failure(&status), Some(status), false),
            Err(_) => {
                tracing::error!(method = %arrival.method, path = arrival.path, "a request handler panicked");
                let status = Status::internal("this request caused a panic, which was logged; please report it");
                (failure(&status), Some(status), true)
            }
        };
        if let Some(log) = unanswered.log.take() {
            let (reason, message) = failed.map_or_else(Default::default, |status| (status.reason, status.message));
            let outcome = Outcome {
                code: response.status().as_u16(),
                reason,
                message,
            };
            pending.get_or_init(|| log.answered(arrival.subject(), outcome, arrival.long_running, panicked));
        }
        let guards = Guards {
            counted,
            permit,
            pending,
        };
        drop(unanswered);
        self.finish(&arrival, response, guards)
    }

    /// The filters, in their order. What stands in front costs least.
    async fn filtered(
        &self,
        arrival: &Arrival,
        permit: &mut Option<Permit>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        refuse_dot_segments(&arrival.path)?;
        let query = Query::parse(&arrival.raw_query);
        if health::is_open(&arrival.path)
            && let Some(answer) = health::answer(self.checks(), &arrival.path, &query)
        {
            return answer;
        }
        let limit = self.limits().request_timeout;
        let deadline = arrival.started + query.timeout()?.map_or(limit, |asked| asked.min(limit));

        let user = self.authenticated(arrival, &mut request).await?;
        let user = arrival.authenticated.get_or_init(|| user);
        let user = self.impersonated(Arc::clone(user), request.headers()).await?;
        let user = arrival.user.get_or_init(|| user);
        if arrival.long_running
            && let Some(log) = self.audit()
        {
            log.received(arrival.subject());
        }
        self.authenticate().strip(request.headers_mut());
        strip_identity_headers(request.headers_mut());

        if !arrival.long_running {
            *permit = self.in_flight().admit(&arrival.info.verb, user)?;
        }
        let root = arrival.root();
        self.roots().enter(user, root.root, &arrival.method).await?;

        let context = RequestContext {
            user: Arc::clone(user),
            info: Arc::clone(&arrival.info),
            prefix: root.prefix.into(),
            deadline,
            warnings: arrival.warnings.clone(),
            user_agent: Arc::clone(&arrival.user_agent),
        };
        let served = self.serve(arrival, &context, request, &query);
        if arrival.long_running {
            // Until they begin, these are bounded by what serves them; afterwards they last as long as they want.
            return served.await;
        }
        tokio::time::timeout_at(deadline, served)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    /// Authorizes and serves a request in the root that it has entered.
    async fn serve(
        &self,
        arrival: &Arrival,
        context: &RequestContext,
        mut request: Request<Body>,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        let root = arrival.root();
        // What is sent on, whole or as a connection, is sent on as it looks below the root.
        *request.uri_mut() = uri_below(root.path, &arrival.raw_query)?;
        // Under which the other side writes it down, too.
        request.headers_mut().insert(AUDIT_ID, arrival.audit_id.clone());
        let peer = request
            .extensions()
            .get::<Connection>()
            .map(|connection| connection.peer);
        if let Some(peer) = peer.and_then(|peer| HeaderValue::from_str(&peer.ip().to_canonical().to_string()).ok()) {
            request.headers_mut().append(FORWARDED_FOR, peer);
        }
        let entered = self.roots().root(root.root).await?;
        arrival.entered.get_or_init(|| ());
        match entered {
            Root::Forward(forward) => forward.forward(context, request).await,
            Root::Api(api) => {
                if !arrival.is_public() {
                    api.authorize(&context.user, &context.info).await?;
                }
                if context.info.is_resource_request {
                    verbs::serve(self, &*api, context, request, query).await
                } else {
                    let (parts, _) = request.into_parts();
                    routes::serve(self, &*api, context, &parts.method, &parts.headers, query).await
                }
            }
        }
    }

    async fn authenticated(&self, arrival: &Arrival, request: &mut Request<Body>) -> Result<Arc<UserInfo>, Status> {
        if let Some(Identity(user)) = request.extensions_mut().remove() {
            return Ok(user);
        }
        let peer = request
            .extensions_mut()
            .remove::<PeerCertificates>()
            .unwrap_or_default();
        match self.authenticate().authenticate(&peer, request.headers()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) if arrival.is_public() => Ok(Arc::new(UserInfo::anonymous())),
            Ok(None) => Err(Status::failure(Reason::Unauthorized, "Unauthorized")),
            Err(error) => {
                tracing::info!(path = arrival.path, %error, "a request was not authenticated");
                Err(error.status())
            }
        }
    }

    /// Lets the sender act as somebody else, where the hub allows it to impersonate all that it asks for.
    async fn impersonated(&self, user: Arc<UserInfo>, headers: &HeaderMap) -> Result<Arc<UserInfo>, Status> {
        let wanted = impersonate::parse(headers).map_err(|error| Status::bad_request(error.to_string()))?;
        let Some(wanted) = wanted else { return Ok(user) };
        let Root::Api(hub) = self.roots().root(RootName::Hub).await? else {
            return Err(Status::failure(
                Reason::Forbidden,
                "the hub decides on no impersonation",
            ));
        };
        for check in &wanted.checks {
            let attributes = check.attributes();
            let info = RequestInfo {
                is_resource_request: true,
                verb: attributes.verb.to_owned(),
                group: attributes.group.to_owned(),
                resource: attributes.resource.to_owned(),
                subresource: attributes.subresource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                ..RequestInfo::default()
            };
            hub.authorize(&user, &info).await?;
        }
        Ok(Arc::new(wanted.user))
    }

    /// Puts on what every answer carries, and writes down what became of the request.
    fn finish(&self, arrival: &Arrival, mut response: Response<Body>, guards: Guards) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, arrival.audit_id.clone());
        let private = HeaderValue::from_static("no-cache, private");
        headers.entry(CACHE_CONTROL).or_insert(private);
        add_warnings(headers, &arrival.warnings.take());
        let code = response.status().as_u16();
        let duration = arrival.started.elapsed();
        let finished = Finished {
            root: arrival.root_kind(),
            verb: known_verb(&arrival.info.verb),
            group: &arrival.info.group,
            resource: &arrival.info.resource,
            cluster: match arrival.root().root {
                RootName::Cluster(name) if arrival.entered.get().is_some() => Some(name),
                _ => None,
            },
            code,
            duration,
        };
        self.metrics().finished(&finished, arrival.long_running);
        log(arrival, code, duration);
        if arrival.method == Method::HEAD {
            return response.map(|_| empty());
        }
        response.map(|body| Guarded { body, _guards: guards }.boxed_unsync())
    }
}

/// Methods are chosen by clients; labels are not.
fn known_verb(verb: &str) -> &str {
    match verb {
        "get" | "list" | "watch" | "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put"
        | "head" | "options" => verb,
        _ => "other",
    }
}

fn log(arrival: &Arrival, code: u16, duration: Duration) {
    let user = arrival.user.get().map_or("", |user| user.name.as_str());
    let (method, path) = (&arrival.method, arrival.path.as_str());
    let root = arrival.root_kind();
    let milliseconds = duration.as_secs_f64() * 1e3;
    let audit = arrival.audit_id.to_str().unwrap_or_default();
    if code >= 500 {
        tracing::warn!(%method, path, root, user, code, milliseconds, audit, "request failed");
    } else {
        tracing::debug!(%method, path, root, user, code, milliseconds, audit, "request");
    }
}

fn uri_below(path: &str, query: &str) -> Result<Uri, Status> {
    let text = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let path_and_query = PathAndQuery::try_from(text).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(Uri::from(path_and_query))
}

/// 504 for a request that took too long.
pub(crate) fn timed_out() -> Status {
    let message = "Timeout: request did not complete within the allotted timeout";
    Status::failure(Reason::Timeout, message)
}

/// What is held until the answer is sent.
struct Guards {
    #[expect(dead_code, reason = "counts as long as it lives")]
    counted: InFlightGuard,
    #[expect(dead_code, reason = "admits the next request when it goes")]
    permit: Option<Permit>,
    #[expect(dead_code, reason = "is written into the audit log when it goes")]
    pending: Arc<OnceLock<Pending>>,
}

struct Guarded {
    body: Body,
    _guards: Guards,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
