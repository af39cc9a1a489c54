//! Tokens in requests: the `Authorization` header of RFC 6750, and, for WebSocket clients that cannot set headers, a
//! subprotocol (`k8s.io/apiserver/pkg/authentication/request/{bearertoken,websocket}`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

use super::{TokenAuthenticator, TokenError};
use crate::authenticate::{AuthenticationError, Credentials, RequestAuthenticator};

/// What the subprotocol that carries a token starts with.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Authenticates requests by their bearer token.
#[derive(Debug)]
pub struct BearerAuthenticator {
    authenticators: Vec<Arc<dyn TokenAuthenticator>>,
}

impl BearerAuthenticator {
    /// Asks these authenticators in order.
    #[must_use]
    pub fn new(authenticators: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self { authenticators }
    }
}

impl RequestAuthenticator for BearerAuthenticator {
    /// A token that no authenticator knows is an error, not an absence: whoever sends one does not want to be anonymous.
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(token) = bearer_token(credentials.headers)? else {
            return Ok(None);
        };
        let mut first_error = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate_token(&token, now) {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(TokenError::Invalid).into())
    }
}

/// The bearer token of a request: of the `Authorization` header, or of a WebSocket handshake's subprotocols. Another
/// scheme is no token.
///
/// # Errors
/// [`TokenError::Protocol`] where the subprotocols carry a broken token, several, or nothing beside it.
pub fn bearer_token(headers: &HeaderMap) -> Result<Option<String>, TokenError> {
    if let Some(token) = authorization_token(headers) {
        return Ok(Some(token));
    }
    if is_websocket(headers) {
        return protocol_token(headers);
    }
    Ok(None)
}

/// Removes the subprotocol that carries a token and keeps the others in order: the server answers with one of those, and
/// nothing that is forwarded carries the caller's token.
pub fn remove_bearer_protocol(headers: &mut HeaderMap) {
    if !protocols(headers).any(|protocol| protocol.starts_with(PROTOCOL_PREFIX)) {
        return;
    }
    let kept: Vec<&str> = protocols(headers)
        .filter(|protocol| !protocol.starts_with(PROTOCOL_PREFIX))
        .collect();
    let kept = HeaderValue::from_str(&kept.join(", "))
        .ok()
        .filter(|kept| !kept.is_empty());
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

fn authorization_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, rest) = value.split_once(' ')?;
    let token = rest.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn protocol_token(headers: &HeaderMap) -> Result<Option<String>, TokenError> {
    let mut token = None;
    let mut others = false;
    for protocol in protocols(headers) {
        let Some(encoded) = protocol.strip_prefix(PROTOCOL_PREFIX) else {
            others = true;
            continue;
        };
        if token.is_some() {
            return Err(TokenError::Protocol(
                "multiple base64.bearer.authorization tokens specified",
            ));
        }
        let decoded = URL_SAFE_NO_PAD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or(TokenError::Protocol(
                "invalid base64.bearer.authorization token encoding",
            ))?;
        token = Some(decoded);
    }
    match token.filter(|token| !token.is_empty()) {
        Some(_) if !others => Err(TokenError::Protocol("missing additional subprotocol")),
        token => Ok(token),
    }
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    let mut connection = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
        && connection.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const HANDSHAKE: [(&str, &str); 2] = [("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")];

    #[test]
    fn the_authorization_header() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc rest", Some("abc")),
            ("  Bearer abc  ", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            let found = bearer_token(&headers(&[("authorization", value)])).unwrap();
            assert_eq!(found.as_deref(), expected, "{value:?}");
        }
    }

    #[test]
    fn the_subprotocol_of_a_websocket() {
        let protocol = format!("{PROTOCOL_PREFIX}{}", URL_SAFE_NO_PAD.encode("abc"));
        let offered = format!("v5.channel.k8s.io, {protocol}");
        let mut handshake = headers(&HANDSHAKE);
        handshake.append("sec-websocket-protocol", offered.parse().unwrap());
        handshake.append("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
        assert_eq!(bearer_token(&handshake).unwrap().as_deref(), Some("abc"));
        remove_bearer_protocol(&mut handshake);
        assert_eq!(
            handshake["sec-websocket-protocol"],
            "v5.channel.k8s.io, v4.channel.k8s.io"
        );
        assert_eq!(bearer_token(&handshake).unwrap(), None);
    }

    #[test]
    fn broken_subprotocols() {
        let token = format!("{PROTOCOL_PREFIX}{}", URL_SAFE_NO_PAD.encode("abc"));
        for wrong in [
            token.clone(),
            format!("v4.channel.k8s.io, {token}, {token}"),
            format!("v4.channel.k8s.io, {PROTOCOL_PREFIX}!"),
        ] {
            let mut handshake = headers(&HANDSHAKE);
            handshake.append("sec-websocket-protocol", wrong.parse().unwrap());
            assert!(
                matches!(bearer_token(&handshake), Err(TokenError::Protocol(_))),
                "{wrong}"
            );
        }
        let plain = headers(&[("sec-websocket-protocol", token.as_str())]);
        assert_eq!(bearer_token(&plain).unwrap(), None, "only of a handshake");
    }
}
