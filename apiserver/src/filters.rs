//! What every request passes before it is served, and every answer before it is sent: [`ApiServer::handle`].
//!
//! [`arrival`] is what a request says, [`authenticate`] who sends it, [`completion`] what becomes of it.

mod arrival;
mod authenticate;
mod completion;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use http::header::{HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use umbra_apimachinery::status::{Reason, Status};
use umbra_auth::request_header::strip_identity_headers;
use umbra_registry::request::RequestContext;
use umbra_registry::resource::Body;
use umbra_registry::root::{HeldBySession, Root};

pub(crate) use self::arrival::Connection;
use self::arrival::{AUDIT_ID, Arrival};
pub(crate) use self::authenticate::Identity;
pub use self::authenticate::{Authenticate, Delegated, PeerCertificates};
pub(crate) use self::completion::Held;
use self::completion::{Guards, Unanswered};
use crate::audit::event::Outcome;
use crate::inflight::Permit;
use crate::paths::refuse_dot_segments;
use crate::query::Query;
use crate::respond::failure;
use crate::service::ApiServer;
use crate::{health, routes, verbs};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
        // HTTP/2 says in the URI to whom the request was sent.
        if let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().entry(HOST).or_insert(host);
        }
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
