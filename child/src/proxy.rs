//! A user's request, sent on to a child as that user.
//!
//! What travels: method, path and query byte for byte, end-to-end headers, body and trailers in both directions, as they
//! arrive. What does not: connection headers (RFC 9110 §7.6.1), the caller's own credentials and everything that claims an
//! identity; neither do they in trailers. Redirects are returned, not followed, with the root's prefix in their `Location`.
//! Cookies travel in neither direction: they would be the hub's, and one child could read or set those of another. The same
//! goes for whatever else a browser keeps for a whole origin.
//!
//! `TRACE` and `CONNECT` do not travel. The answer to the first repeats what it was asked with, the hub's own credential
//! among it; the second is for whoever is asked to forward bytes.
//!
//! A request with a [`RequestDeadline`] is a short one and goes with its like; all others may last, and go with the streams.
//! A short one's answer is sent on once its body has begun ([`begun`]).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, LOCATION, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE,
    },
    uri::PathAndQuery,
};
use tokio::time::Instant;
use umbra_apimachinery::user::UserInfo;

use crate::{
    body::{Body, Unbegun, begun, stripping_trailers},
    connection::{Child, Lane, RequestDeadline, Requester},
    error::ChildError,
    identity::{self, impersonation_headers},
    path, upgrade,
};

/// What speaks for a whole origin, beside cookies: its storage, its certificates, where faults are reported to, and which paths
/// a program from a child may serve in a browser.
const OF_ORIGINS: [&str; 7] = [
    "clear-site-data",
    "expect-ct",
    "nel",
    "public-key-pins",
    "report-to",
    "service-worker-allowed",
    "set-cookie2",
];

/// How a request is sent on.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// The prefix of the root that the request came through, without a trailing slash; put into `Location`.
    pub prefix: String,
}

/// Sends `request`, whose path begins at the child's own root, to `child` as `user`, and returns the response as it comes.
/// A [`RequestDeadline`] in the request's extensions bounds the wait for the response headers and the first piece of the body.
///
/// # Errors
///
/// When the request cannot be sent, the user cannot be impersonated, or there is no response. A child that refuses the
/// hub's own credentials is [`ChildError::CredentialsRefused`], not a 401: the caller has nothing to do with it.
pub async fn forward(
    child: &Child,
    mut request: Request<Body>,
    user: &UserInfo,
    options: &ProxyOptions,
) -> Result<Response<Body>, ChildError> {
    let impersonation = impersonation_headers(user, &child.identity())?;
    let after = request.extensions().get::<RequestDeadline>().map(|deadline| deadline.0);
    let upgrades = upgrade::is_requested(request.headers());
    if upgrades || after.is_none() {
        request.extensions_mut().insert(Requester(user.name.as_str().into()));
    }
    if upgrades {
        return upgrade::forward(child, request, impersonation, options).await;
    }
    let until = after.map(|after| Instant::now() + after);
    let lane = if after.is_some() { Lane::Requests } else { Lane::Streams };
    let outbound = outbound(request, impersonation)?;
    let response = child.send_on(lane, outbound).await?;
    let (parts, body) = inbound(child, response, options)?.into_parts();
    let cluster = || child.name().clone();
    let body = begun(body, until).await.map_err(|unbegun| match unbegun {
        Unbegun::Broken(source) => ChildError::Body {
            cluster: cluster(),
            source,
        },
        Unbegun::Late => ChildError::Timeout {
            cluster: cluster(),
            after: after.unwrap_or_default(),
        },
    })?;
    Ok(Response::from_parts(parts, body))
}

/// The request as the child gets it.
pub(crate) fn outbound(request: Request<Body>, impersonation: HeaderMap) -> Result<Request<Body>, ChildError> {
    let (mut parts, body) = request.into_parts();
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        return Err(ChildError::Method { method: parts.method });
    }
    let path = path::normalise(parts.uri.path())?;
    if path != parts.uri.path() {
        let whole = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        parts.uri = Uri::from(PathAndQuery::try_from(whole).map_err(http::Error::from)?);
    }
    strip_connection_headers(&mut parts.headers);
    strip_callers_headers(&mut parts.headers);
    parts.headers.extend(impersonation);
    let mut outbound = Request::new(stripping_trailers(body, |trailers| {
        strip_connection_headers(trailers);
        strip_callers_headers(trailers);
    }));
    *outbound.method_mut() = parts.method;
    *outbound.uri_mut() = parts.uri;
    *outbound.headers_mut() = parts.headers;
    if let Some(deadline) = parts.extensions.get::<RequestDeadline>() {
        outbound.extensions_mut().insert(*deadline);
    }
    if let Some(requester) = parts.extensions.remove::<Requester>() {
        outbound.extensions_mut().insert(requester);
    }
    Ok(outbound)
}

/// The response as the caller gets it.
pub(crate) fn inbound(
    child: &Child,
    mut response: Response<Body>,
    options: &ProxyOptions,
) -> Result<Response<Body>, ChildError> {
    if response.status() == StatusCode::UNAUTHORIZED {
        return Err(ChildError::CredentialsRefused {
            cluster: child.name().clone(),
        });
    }
    // Those that say something on the way are gone by now, and 101 is for who has asked for it.
    if response.status().is_informational() {
        return Err(ChildError::Protocol {
            cluster: child.name().clone(),
            message: "it changes the protocol, or never ends",
        });
    }
    let headers = response.headers_mut();
    // Where both are said, the length is wrong, and nobody behind must go by it (RFC 9112 §6.3). Of requests hyper has removed it.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_childs_headers(headers);
    if let Some(location) = headers.get(LOCATION) {
        let rewritten = location
            .to_str()
            .ok()
            .and_then(|location| rewrite_location(location, child.authority(), child.base_path(), &options.prefix))
            .and_then(|rewritten| HeaderValue::from_str(&rewritten).ok());
        if let Some(rewritten) = rewritten {
            headers.insert(LOCATION, rewritten);
        }
    }
    Ok(response.map(|body| stripping_trailers(body, strip_childs_headers)))
}

/// Removes what concerns one connection alone, and what a browser would keep for the whole hub.
fn strip_childs_headers(headers: &mut HeaderMap) {
    strip_connection_headers(headers);
    for name in [SET_COOKIE, ALT_SVC, STRICT_TRANSPORT_SECURITY] {
        headers.remove(name);
    }
    for name in OF_ORIGINS {
        headers.remove(name);
    }
}

/// A location below the child's API, as one below the root; `None` when it is somewhere else, or relative.
fn rewrite_location(location: &str, authority: &str, base: &str, prefix: &str) -> Option<String> {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.strip_prefix(authority).filter(|path| path.starts_with('/'))?,
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return None,
    };
    let below = path
        .strip_prefix(base)
        .filter(|below| below.is_empty() || below.starts_with(['/', '?']))?;
    Some(format!("{prefix}{below}"))
}

/// Removes what concerns one connection alone: RFC 9110 §7.6.1 and what `Connection` names. `TE: trailers` stays, the one
/// form that concerns the message.
pub(crate) fn strip_connection_headers(headers: &mut HeaderMap) {
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    headers.remove("http2-settings");
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes credentials, claims of identity, and what the connection to the child sets itself.
pub(crate) fn strip_callers_headers(headers: &mut HeaderMap) {
    // `Expect` has been answered by then; whoever reads the body says 100 Continue.
    for name in [AUTHORIZATION, COOKIE, HOST, EXPECT] {
        headers.remove(name);
    }
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| identity::claims_identity(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    upgrade::strip_bearer_protocol(headers);
}

/// The elements of a header that is a list.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod wire;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn connection_headers_are_stripped() {
        let mut all = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        strip_connection_headers(&mut all);
        assert_eq!(names(&all), ["accept", "te", "trailer"]);
        assert_eq!(all[TE], "trailers");
    }

    #[test]
    fn credentials_and_claims_are_stripped() {
        let mut all = headers(&[
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-remote-user", "admin"),
            ("x-remote-extra-scopes", "x"),
            ("impersonate-user", "admin"),
            ("impersonate-extra-a", "x"),
            ("impersonate_user", "admin"),
            ("x_remote_group", "system:masters"),
            ("x-remote_user", "admin"),
            ("x-remotely", "kept"),
            ("host", "hub"),
            (
                "sec-websocket-protocol",
                "base64url.bearer.authorization.k8s.io.dDBrZW4, v5.channel.k8s.io",
            ),
            ("audit-id", "1"),
            ("traceparent", "x"),
            ("accept-encoding", "gzip"),
        ]);
        strip_callers_headers(&mut all);
        assert_eq!(
            names(&all),
            [
                "accept-encoding",
                "audit-id",
                "sec-websocket-protocol",
                "traceparent",
                "x-remotely"
            ]
        );
        assert_eq!(all["sec-websocket-protocol"], "v5.channel.k8s.io");
    }

    #[test]
    fn locations_stay_below_the_root() {
        let rewrite = |location| rewrite_location(location, "child:6443", "/base", "/root/proxy");
        assert_eq!(rewrite("/base/api/v1").as_deref(), Some("/root/proxy/api/v1"));
        assert_eq!(
            rewrite("https://child:6443/base/x?y").as_deref(),
            Some("/root/proxy/x?y")
        );
        assert_eq!(rewrite("/based/api"), None);
        assert_eq!(rewrite("https://child:64430/base"), None);
        assert_eq!(rewrite("//elsewhere/base"), None);
        assert_eq!(rewrite("relative"), None);
    }

    #[test]
    fn the_query_is_sent_as_it_is() {
        let request = Request::get("/api//v1/pods?labelSelector=a%2Fb%3Dc&x=%zz")
            .body(crate::empty())
            .expect("a request");
        let sent = outbound(request, HeaderMap::new()).expect("sent");
        assert_eq!(sent.uri(), "/api/v1/pods?labelSelector=a%2Fb%3Dc&x=%zz");
        let request = Request::get("/api/v1/%2e%2e/x")
            .body(crate::empty())
            .expect("a request");
        assert!(matches!(outbound(request, HeaderMap::new()), Err(ChildError::Path(_))));
    }
}
