//! What a child serves about itself with absolute URLs in it.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use serde_json::Value;
use umbra_apimachinery::status::Status;
use umbra_child::{collect, full};

use crate::child_errors::unusable;
use crate::resource::Body;

/// The longest document that is rewritten, in bytes. The index of OpenAPI of a cluster with 200 groups has 40 KiB.
const LONGEST: usize = 16 << 20;

/// A document with absolute URLs in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// `/openapi/v3`: `serverRelativeURL` of each group version.
    OpenApiIndex,
    /// `/api`, `/apis` and `/apis/{group}`: `serverAddressByClientCIDRs`.
    ServerAddresses,
}

impl Document {
    /// The document at a path, where it is one to rewrite.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if *method != Method::GET {
            return None;
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts[..] {
            ["openapi", "v3"] => Some(Self::OpenApiIndex),
            ["api" | "apis"] | ["apis", _] => Some(Self::ServerAddresses),
            _ => None,
        }
    }

    /// The answer with the root's `prefix` in paths and `server` (host and prefix) in addresses. What is no JSON, or no
    /// success, stays as it is.
    pub(super) async fn rewrite(
        self,
        response: Response<Body>,
        prefix: &str,
        server: &str,
        cluster: &str,
    ) -> Result<Response<Body>, Status> {
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().unwrap_or_default().trim() == "application/json");
        if response.status() != StatusCode::OK || !is_json {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let body = collect(body, LONGEST)
            .await
            .map_err(|error| unusable(cluster, format_args!("the answer broke off: {error}")))?
            .ok_or_else(|| unusable(cluster, "the answer is too long"))?;
        let body = self.rewritten(&body, prefix, server).unwrap_or(body);
        parts.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(parts, full(body)))
    }

    /// `None` where there is nothing to change.
    fn rewritten(self, body: &[u8], prefix: &str, server: &str) -> Option<Bytes> {
        let mut document: Value = serde_json::from_slice(body).ok()?;
        match self {
            Self::OpenApiIndex => {
                for entry in document.get_mut("paths")?.as_object_mut()?.values_mut() {
                    if let Some(path) = entry["serverRelativeURL"].as_str().filter(|path| path.starts_with('/')) {
                        entry["serverRelativeURL"] = format!("{prefix}{path}").into();
                    }
                }
            }
            Self::ServerAddresses => {
                for address in document.get_mut("serverAddressByClientCIDRs")?.as_array_mut()? {
                    address["serverAddress"] = server.into();
                }
            }
        }
        Some(document.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_known_by_path() {
        let of = |path| Document::of(&Method::GET, path);
        assert_eq!(of("/openapi/v3"), Some(Document::OpenApiIndex));
        assert_eq!(of("/openapi/v3/apis/apps/v1"), None);
        assert_eq!(of("/api"), Some(Document::ServerAddresses));
        assert_eq!(of("/apis/apps/v1"), None);
        assert_eq!(Document::of(&Method::POST, "/api"), None);
    }

    #[test]
    fn addresses_carry_the_prefix() {
        let rewritten = |document: Document, body: Value| -> Option<Value> {
            let rewritten = document.rewritten(body.to_string().as_bytes(), "/root", "hub:7443/root")?;
            Some(serde_json::from_slice(&rewritten).unwrap())
        };
        let index = json!({"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=1"}}});
        assert_eq!(
            rewritten(Document::OpenApiIndex, index).unwrap(),
            json!({"paths": {"api/v1": {"serverRelativeURL": "/root/openapi/v3/api/v1?hash=1"}}})
        );
        let versions =
            json!({"serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:6443"}]});
        assert_eq!(
            rewritten(Document::ServerAddresses, versions).unwrap()["serverAddressByClientCIDRs"][0]["serverAddress"],
            "hub:7443/root"
        );
        assert_eq!(
            rewritten(Document::ServerAddresses, json!({"kind": "APIGroupDiscoveryList"})),
            None
        );
    }
}
