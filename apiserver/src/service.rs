//! The server as a value: a [`tower::Service`] of HTTP requests, for a listener and for clients in the same process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::user::UserInfo;
use umbra_registry::resource::{Body, EventStream};
use umbra_registry::root::Roots;

use crate::audit::AuditLog;
use crate::filters::{Authenticate, Held, Identity};
use crate::health::{Check, Checks};
use crate::inflight::InFlight;
use crate::metrics::Metrics;
use crate::watchdog::Watchdog;

/// Reads and writes in flight, as kube-apiserver has them by default (`--max-requests-inflight`,
/// `--max-mutating-requests-inflight`).
const DEFAULT_READS: usize = 400;
const DEFAULT_WRITES: usize = 200;

/// What one request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// When a short request has to be answered (`--request-timeout` of kube-apiserver). Default 60 s.
    pub request_timeout: Duration,
    /// How long a watch lasts that does not say how long it wants to, up to twice this, so that those that began together do
    /// not end together (`--min-request-timeout`). Default 30 min.
    pub watch_timeout: Duration,
    /// Bytes of a body that is read here; what is sent on to a child is the child's to limit (`MaxRequestBodyBytes`).
    /// Default 3 MiB.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            watch_timeout: Duration::from_secs(1800),
            body_bytes: 3 * 1024 * 1024,
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// All roots behind one HTTP service. Clones are cheap and share everything.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    roots: Arc<dyn Roots>,
    authenticate: Arc<dyn Authenticate>,
    checks: Checks,
    metrics: Metrics,
    audit: Option<AuditLog>,
    in_flight: InFlight,
    limits: Limits,
    watchdog: Arc<Watchdog<EventStream>>,
    unread: Arc<Watchdog<Held>>,
    draining: Arc<AtomicBool>,
    watches_end: CancellationToken,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("checks", &self.inner.checks)
            .finish_non_exhaustive()
    }
}

/// Sets an [`ApiServer`] up.
pub struct ApiServerBuilder {
    roots: Arc<dyn Roots>,
    authenticate: Arc<dyn Authenticate>,
    checks: Checks,
    metrics: Metrics,
    audit: Option<AuditLog>,
    reads: usize,
    writes: usize,
    limits: Limits,
}

impl std::fmt::Debug for ApiServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServerBuilder")
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl ApiServerBuilder {
    /// What decides on `/livez` and `/readyz`; without it, only shutting down does.
    #[must_use]
    pub fn checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }

    /// Where requests are counted; by default in a registry of their own.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where every request is written down; by default nowhere. The log's own figures go into the metrics.
    #[must_use]
    pub fn audit(mut self, log: Option<AuditLog>) -> Self {
        self.audit = log;
        self
    }

    /// How many short reads and writes are served at a time; 400 and 200 by default.
    #[must_use]
    pub fn in_flight(mut self, reads: usize, writes: usize) -> Self {
        (self.reads, self.writes) = (reads, writes);
        self
    }

    /// What one request may take.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The server.
    #[must_use]
    pub fn build(mut self) -> ApiServer {
        if let Some(log) = &self.audit {
            log.register(&mut self.metrics.registry().lock());
        }
        let draining = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&draining);
        self.checks.ready.push(Check::new("shutdown", move || {
            if seen.load(Ordering::Relaxed) {
                Err("process is shutting down".to_owned())
            } else {
                Ok(())
            }
        }));
        ApiServer {
            inner: Arc::new(Inner {
                roots: self.roots,
                authenticate: self.authenticate,
                checks: self.checks,
                metrics: self.metrics,
                audit: self.audit,
                in_flight: InFlight::new(self.reads, self.writes),
                limits: self.limits,
                watchdog: Arc::default(),
                unread: Arc::default(),
                draining,
                watches_end: CancellationToken::new(),
            }),
        }
    }
}

impl ApiServer {
    /// A server of these roots for those whom `authenticate` knows.
    #[must_use]
    pub fn builder(roots: Arc<dyn Roots>, authenticate: Arc<dyn Authenticate>) -> ApiServerBuilder {
        ApiServerBuilder {
            roots,
            authenticate,
            checks: Checks::default(),
            metrics: Metrics::default(),
            audit: None,
            reads: DEFAULT_READS,
            writes: DEFAULT_WRITES,
            limits: Limits::default(),
        }
    }

    /// The same server for a client in this process, which is `user` without further proof. The result goes into
    /// `kube::Client::new`. Authorization applies as for everyone.
    #[must_use]
    pub fn in_process(&self, user: UserInfo) -> InProcess {
        InProcess {
            server: self.clone(),
            user: Arc::new(user),
            prefix: Arc::from(""),
        }
    }

    /// Makes `/readyz` fail, so that no more requests are sent here. Everything is still served.
    pub fn fail_readiness(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Ends all watches cleanly, and those that come later as soon as they begin.
    pub fn end_watches(&self) {
        self.inner.watches_end.cancel();
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn roots(&self) -> &dyn Roots {
        &*self.inner.roots
    }

    pub(crate) fn authenticate(&self) -> &dyn Authenticate {
        &*self.inner.authenticate
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.inner.checks
    }

    pub(crate) fn audit(&self) -> Option<&AuditLog> {
        self.inner.audit.as_ref()
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.inner.in_flight
    }

    pub(crate) fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Looks after watches.
    pub(crate) fn watchdog(&self) -> &Arc<Watchdog<EventStream>> {
        &self.inner.watchdog
    }

    /// Looks after the answers of short requests.
    pub(crate) fn unread(&self) -> &Arc<Watchdog<Held>> {
        &self.inner.unread
    }

    pub(crate) fn watches_end(&self) -> &CancellationToken {
        &self.inner.watches_end
    }
}

impl<B> tower::Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        self.clone().handle(request).map(Ok).boxed()
    }
}

/// An [`ApiServer`] for a client in the same process.
#[derive(Debug, Clone)]
pub struct InProcess {
    server: ApiServer,
    user: Arc<UserInfo>,
    prefix: Arc<str>,
}

impl InProcess {
    /// The same client, whose paths are below a root's prefix (`RootName::prefix`).
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.prefix = Arc::from(prefix.trim_end_matches('/'));
        self
    }

    fn uri(&self, uri: &Uri) -> Option<Uri> {
        let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        format!("{}{path_and_query}", self.prefix).parse().ok()
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !self.prefix.is_empty()
            && let Some(uri) = self.uri(request.uri())
        {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(Identity(Arc::clone(&self.user)));
        tower::Service::call(&mut self.server, request)
    }
}
