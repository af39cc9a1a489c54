//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, the index.

use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::json;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::request::RequestContext;
use umbra_registry::resource::Body;
use umbra_registry::root::Api;

use crate::discovery::{
    aggregated, aggregated_answer, aggregated_version, core_versions, group, group_list, legacy_answer, resource_list,
};
use crate::negotiation::not_acceptable;
use crate::query::Query;
use crate::respond::{json as json_answer, text};
use crate::service::ApiServer;
use crate::{health, openapi};

/// Answers a request for a path that is no resource. The caller has been authorized.
///
/// # Errors
/// 404 where nothing is there, 405 for what is no read, 406 for representations that are not served.
pub(crate) async fn serve(
    server: &ApiServer,
    api: &dyn Api,
    context: &RequestContext,
    method: &Method,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Status> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    let path = context.info.path.trim_end_matches('/');
    if let Some(answer) = path
        .strip_prefix('/')
        .and_then(|_| health::answer(server.checks(), path, query))
    {
        return answer;
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        [] => Ok(json_answer(StatusCode::OK, index(api))),
        ["version"] => Ok(json_answer(StatusCode::OK, api.version())),
        ["metrics"] if context.prefix.is_empty() => Ok(metrics(server)),
        ["openapi", "v2"] => openapi::v2(headers, &*api.openapi()).await,
        ["openapi", "v3"] => openapi::index(headers, context, &*api.openapi()).await,
        ["openapi", "v3", ..] => {
            let document = path.trim_start_matches("/openapi/v3/");
            openapi::document(headers, query, context, document, &*api.openapi()).await
        }
        ["api" | "apis", ..] => discovery(api, context, headers, &parts),
        _ => Err(Status::no_such_path()),
    }
}

fn discovery(
    api: &dyn Api,
    context: &RequestContext,
    headers: &HeaderMap,
    parts: &[&str],
) -> Result<Response<Body>, Status> {
    if !crate::negotiation::clauses(headers)
        .iter()
        .any(|clause| clause.takes_json())
    {
        return Err(not_acceptable());
    }
    let discovery = api.discovery();
    if let [top] = parts
        && let Some(version) = aggregated_version(headers)
    {
        let document = aggregated(&discovery, *top == "api", version);
        return Ok(aggregated_answer(headers, &document, version));
    }
    let document = match parts {
        ["api"] => {
            let host = headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .unwrap_or_default();
            Some(core_versions(&discovery, &format!("{host}{}", context.prefix)))
        }
        ["apis"] => Some(group_list(&discovery)),
        ["apis", name] => group(&discovery, name),
        ["api", version] => resource_list(&discovery, &GroupVersion::new("", *version)),
        ["apis", group, version] => resource_list(&discovery, &GroupVersion::new(*group, *version)),
        _ => None,
    };
    document
        .map(|document| legacy_answer(headers, &document))
        .ok_or_else(Status::no_such_path)
}

/// `/`: which paths there are, in order.
fn index(api: &dyn Api) -> String {
    let discovery = api.discovery();
    let mut paths: Vec<String> = [
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in discovery.groups() {
        if !group.name.is_empty() {
            paths.push(format!("/apis/{}", group.name));
        }
        for version in &group.versions {
            let group_version = GroupVersion::new(&group.name, &version.version);
            paths.push(format!("/{}", group_version.path()));
        }
    }
    paths.sort();
    json!({"paths": paths}).to_string()
}

fn metrics(server: &ApiServer) -> Response<Body> {
    let mut response = text(StatusCode::OK, server.metrics().text());
    let open_metrics = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, open_metrics);
    response
}

/// 405 for a path rather than a resource.
pub(crate) fn method_not_allowed() -> Status {
    Status::failure(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}
