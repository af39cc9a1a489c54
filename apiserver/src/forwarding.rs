//! What must not reach a root: the sender's own credentials, and paths that climb out.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode_str;
use umbra_apimachinery::status::Status;
use umbra_auth::impersonate;

/// How a WebSocket client hands over a token, among the protocols it speaks
/// (`k8s.io/apiserver/pkg/authentication/request/websocket`).
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Removes what proves the sender's identity to this server and must not travel on.
pub(crate) fn remove_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(COOKIE);
    impersonate::remove_headers(headers);
    let remote: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in remote {
        headers.remove(name);
    }
    remove_bearer_protocol(headers);
}

fn remove_bearer_protocol(headers: &mut HeaderMap) {
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if !offered.iter().any(|one| one.starts_with(BEARER_PROTOCOL)) {
        return;
    }
    let kept: Vec<&str> = offered
        .into_iter()
        .filter(|one| !one.starts_with(BEARER_PROTOCOL))
        .collect();
    let kept = HeaderValue::from_str(&kept.join(", ")).ok();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

/// A path that climbs could leave the root that it was let into.
pub(crate) fn refuse_dot_segments(path: &str) -> Result<(), Status> {
    let climbs = path.split('/').any(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        // A decoded slash may hide further segments.
        decoded.split('/').any(|part| part == "." || part == "..")
    });
    if climbs {
        return Err(Status::bad_request(
            "the request path has \".\" or \"..\" segments; send it normalised",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_travel() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "cookie",
            "x-remote-user",
            "x-remote-extra-a",
            "impersonate-user",
        ] {
            headers.insert(name, "secret".parse().unwrap());
        }
        let offered = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0";
        headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        headers.insert("accept", "application/json".parse().unwrap());
        remove_credentials(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "v4.channel.k8s.io");
    }

    #[test]
    fn climbing_paths_are_refused() {
        for path in ["/a/../b", "/a/%2e%2e/b", "/a/%2E./b", "/a%2f..%2fb", "/./a"] {
            assert!(refuse_dot_segments(path).is_err(), "{path}");
        }
        for path in ["/a/b", "/api/v1/namespaces/a/pods/w.x..y", "/"] {
            assert!(refuse_dot_segments(path).is_ok(), "{path}");
        }
    }
}
