//! What the agent does with one request of the hub: sends it on to its own API server with its own credential.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;
use serde_json::json;

use crate::{
    body::{Body, boxed, full},
    connection::{Child, Lane},
    error::ChildError,
    proxy::{self, ProxyOptions},
    upgrade,
};

const IMPERSONATE: &str = "impersonate-";

/// Answers a request of the hub. As whom it is made is the hub's to say: its `Impersonate-*` headers travel, and nothing
/// else that claims an identity.
pub(super) async fn answer(child: &Child, request: Request<Incoming>) -> Response<Body> {
    let impersonation = impersonation(request.headers());
    let request = request.map(boxed);
    let options = ProxyOptions::default();
    let answered = if upgrade::is_requested(request.headers()) {
        upgrade::forward(child, request, impersonation, &options).await
    } else {
        forward(child, request, impersonation, &options).await
    };
    answered.unwrap_or_else(|error| failure(&error))
}

/// All on the lane of streams: it is the hub that knows which requests are short, and gives them a deadline.
async fn forward(
    child: &Child,
    request: Request<Body>,
    impersonation: HeaderMap,
    options: &ProxyOptions,
) -> Result<Response<Body>, ChildError> {
    let outbound = proxy::outbound(request, impersonation)?;
    let response = child.send_on(Lane::Streams, outbound).await?;
    proxy::inbound(child, response, options)
}

fn impersonation(headers: &HeaderMap) -> HeaderMap {
    let is_impersonation = |name: &HeaderName| name.as_str().starts_with(IMPERSONATE);
    headers
        .iter()
        .filter(|(name, _)| is_impersonation(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What the hub, and through it the user, is told when the API server gives no answer.
fn failure(error: &ChildError) -> Response<Body> {
    let (code, reason, message) = match error {
        ChildError::Path(_) | ChildError::Request(_) | ChildError::NotUpgradable => {
            (StatusCode::BAD_REQUEST, "BadRequest", error.to_string())
        }
        ChildError::CredentialsRefused { .. } => (
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            "the cluster's API server refuses the credential of the agent (401 Unauthorized)".to_owned(),
        ),
        ChildError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "Timeout", error.to_string()),
        ChildError::Busy { .. } | ChildError::Closed { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", error.to_string())
        }
        _ => (
            StatusCode::BAD_GATEWAY,
            "BadGateway",
            format!("the agent cannot reach the cluster's API server: {error}"),
        ),
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16()});
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
