//! What is known of a request when it arrives.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Version};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::request::{RequestInfo, RootName, RootPath};
use umbra_apimachinery::user::UserInfo;
use umbra_registry::request::Warnings;
use umbra_registry::resource::Body;

use crate::audit;
use crate::audit::event::Subject;
use crate::verbs;

pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Cuts it.
    pub(crate) abort: CancellationToken,
    /// Its other end.
    pub(crate) peer: SocketAddr,
}

impl Connection {
    /// What cuts the connection of a request, where that request is all that it carries.
    pub(crate) fn alone(request: &Request<Body>) -> Option<CancellationToken> {
        if request.version() >= Version::HTTP_2 {
            return None;
        }
        request.extensions().get::<Self>().map(|one| one.abort.clone())
    }
}

/// What is known of a request when it arrives.
pub(super) struct Arrival {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) raw_query: String,
    pub(super) info: Arc<RequestInfo>,
    pub(super) long_running: bool,
    pub(super) started: Instant,
    pub(super) audit_id: HeaderValue,
    pub(super) user_agent: Arc<str>,
    pub(super) received: Timestamp,
    pub(super) source_ips: Vec<String>,
    /// Cuts the connection, where it carries nothing else.
    pub(super) connection: Option<CancellationToken>,
    /// Who was authenticated.
    pub(super) authenticated: OnceLock<Arc<UserInfo>>,
    /// Who counts: the same, or whom that user acts as.
    pub(super) user: OnceLock<Arc<UserInfo>>,
    /// Set where the root is there, so that its name is not one that the client has made up.
    pub(super) entered: OnceLock<()>,
    pub(super) warnings: Warnings,
}

impl Arrival {
    pub(super) fn new(request: &Request<Body>) -> Self {
        let path = request.uri().path().to_owned();
        let raw_query = request.uri().query().unwrap_or_default().to_owned();
        let below = RootPath::split(&path).path;
        let info = RequestInfo::parse(request.method().as_str(), below, &raw_query);
        // Kubernetes' own rule (`BasicLongRunningRequestCheck`), which is why roots hang below `proxy` subresources.
        let long_running = info.is_resource_request
            && (matches!(info.verb.as_str(), "watch" | "proxy") || verbs::is_connection(&info.subresource));
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
            connection: Connection::alone(request),
            authenticated: OnceLock::new(),
            user: OnceLock::new(),
            entered: OnceLock::new(),
            warnings: Warnings::default(),
            path,
            raw_query,
        }
    }

    pub(super) fn root(&self) -> RootPath<'_> {
        RootPath::split(&self.path)
    }

    pub(super) fn root_kind(&self) -> &'static str {
        match self.root().root {
            RootName::Hub => "hub",
            RootName::Cluster(_) => "cluster",
            RootName::View(_) => "view",
            RootName::Fleet(_) => "fleet",
        }
    }

    pub(super) fn request_kind(&self) -> &'static str {
        match self.info.verb.as_str() {
            "watch" => "watch",
            _ if self.long_running => "connection",
            "get" | "list" | "head" | "options" => "read",
            _ => "write",
        }
    }

    /// What the audit log says of it, as far as it is known.
    pub(super) fn subject(&self) -> Subject {
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
    pub(super) fn is_public(&self) -> bool {
        self.root().root == RootName::Hub && self.info.path.trim_end_matches('/') == "/version"
    }
}

/// Ids of others are taken over (`WithAuditID`), where they are short and nothing but text.
fn is_audit_id(id: &HeaderValue) -> bool {
    id.len() <= 64 && id.to_str().is_ok_and(|text| !text.trim().is_empty())
}

fn new_audit_id() -> HeaderValue {
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is a header value")
}
