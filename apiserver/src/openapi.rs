//! `/openapi/v3` and `/openapi/v2` (`k8s.io/kube-openapi/pkg/handler3`).
//!
//! Every `serverRelativeURL` carries the prefix of the root: clients take it as it is, and without the prefix
//! `kubectl explain` would silently ask the hub.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, HeaderValue, LOCATION, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, json};
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Status;
use umbra_registry::request::RequestContext;
use umbra_registry::resource::Body;
use umbra_registry::root::{OpenApi, PublishedDocument};

use crate::compression::{self, gzip};
use crate::discovery::{tagged, tagged_with};
use crate::negotiation::{clauses, not_acceptable, takes_gzip};
use crate::query::Query;
use crate::respond::{JSON, empty};

/// `/openapi/v3`: which documents there are.
///
/// # Errors
/// What the documents' source says.
pub(crate) async fn index(
    headers: &HeaderMap,
    context: &RequestContext,
    documents: &dyn OpenApi,
) -> Result<Response<Body>, Status> {
    let mut paths = Map::new();
    for (version, hash) in documents.index(context.deadline_of_children()).await? {
        let path = version.path();
        let url = document_url(&context.prefix, &path, &hash);
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    let body = Bytes::from(json!({"paths": paths}).to_string());
    Ok(tagged(headers, body, JSON))
}

/// Where a document is. Without a hash there is no saying whether it is still the same, and nobody keeps it.
fn document_url(prefix: &str, path: &str, hash: &str) -> String {
    let query = if hash.is_empty() {
        String::new()
    } else {
        format!("?hash={hash}")
    };
    format!("{prefix}/openapi/v3/{path}{query}")
}

/// `/openapi/v3/{path}`: one document. Under its own hash it never changes and is cached for good; who asks for another hash
/// than that of the document there is, is sent to that one.
///
/// # Errors
/// 404 where there is none, 406 where only a binary form is accepted.
pub(crate) async fn document(
    headers: &HeaderMap,
    query: &Query,
    context: &RequestContext,
    path: &str,
    documents: &dyn OpenApi,
) -> Result<Response<Body>, Status> {
    if !accepts_json(headers) {
        return Err(not_acceptable());
    }
    let version = parse_path(path).ok_or_else(Status::no_such_path)?;
    let asked = query.get("hash").filter(|asked| !asked.is_empty());
    let PublishedDocument { hash, text } = documents.v3(&version, asked, context.deadline_of_children()).await?;
    if asked.is_some_and(|asked| asked != hash) {
        return redirect(&document_url(&context.prefix, path, &hash));
    }
    let response = if hash.is_empty() {
        tagged(headers, text, JSON)
    } else {
        tagged_with(headers, &hash, text, JSON)
    };
    let mut response = compressed(headers, response);
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    if asked.is_some() {
        // A year is what HTTP means by for good (RFC 9111 §5.2.2.1 leaves the number open; kube-openapi takes a year).
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(CACHE_CONTROL, forever);
    }
    Ok(response)
}

/// `/openapi/v2`, as JSON.
///
/// # Errors
/// 404 where there is none, 406 where only protobuf is accepted; clients then use v3.
pub(crate) async fn v2(headers: &HeaderMap, documents: &dyn OpenApi) -> Result<Response<Body>, Status> {
    if !accepts_json(headers) {
        return Err(not_acceptable());
    }
    let body = documents.v2().await?;
    Ok(compressed(headers, tagged(headers, body, JSON)))
}

fn accepts_json(headers: &HeaderMap) -> bool {
    clauses(headers).iter().any(|clause| clause.takes_json())
}

fn redirect(url: &str) -> Result<Response<Body>, Status> {
    let location = HeaderValue::from_str(url).map_err(Status::internal)?;
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn compressed(headers: &HeaderMap, response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    let size = response.body().size_hint().exact().unwrap_or(0);
    if size <= compression::THRESHOLD as u64 || !takes_gzip(headers) {
        return response;
    }
    let mut response = response.map(gzip);
    let coding = HeaderValue::from_static("gzip");
    response.headers_mut().insert(CONTENT_ENCODING, coding);
    response
        .headers_mut()
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

fn parse_path(path: &str) -> Option<GroupVersion> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => Some(GroupVersion::new("", version)),
        ["apis", group, version] => Some(GroupVersion::new(group, version)),
        _ => None,
    }
}
