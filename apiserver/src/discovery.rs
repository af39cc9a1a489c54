//! Discovery: `/api`, `/apis` and below, one by one (legacy) and all at once (aggregated, KEP-3352).
//!
//! Documents carry an ETag, so that clients and kube-aggregator ask again for the price of a 304. An empty document is
//! never served with a body of no bytes, which aggregators take for poison.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use umbra_apimachinery::discovery::{Discovery, Group, ResourceDescriptor, SubresourceDescriptor, Version};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_registry::resource::Body;

use crate::negotiation::clauses;
use crate::respond::{JSON, empty, full, with_type};

/// `/api`.
pub(crate) fn core_versions(discovery: &Discovery, server_address: &str) -> Value {
    let core = discovery.groups().iter().find(|group| group.name.is_empty());
    let versions: Vec<&str> = core.map_or_else(Vec::new, |group| {
        group.versions.iter().map(|version| version.version.as_str()).collect()
    });
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`.
pub(crate) fn group_list(discovery: &Discovery) -> Value {
    let groups: Vec<Value> = named_groups(discovery).map(group_body).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`; `None` where there is no such group.
pub(crate) fn group(discovery: &Discovery, name: &str) -> Option<Value> {
    let found = named_groups(discovery).find(|group| group.name == name)?;
    let mut body = group_body(found);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    Some(body)
}

fn named_groups(discovery: &Discovery) -> impl Iterator<Item = &Group> {
    discovery.groups().iter().filter(|group| !group.name.is_empty())
}

fn group_body(group: &Group) -> Value {
    let version = |one: &Version| {
        let group_version = GroupVersion::new(&group.name, &one.version);
        json!({"groupVersion": group_version.to_string(), "version": one.version})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

/// `/api/{version}` and `/apis/{group}/{version}`; `None` where there is no such version.
pub(crate) fn resource_list(discovery: &Discovery, wanted: &GroupVersion) -> Option<Value> {
    let version = discovery.version(wanted)?;
    let mut resources = Vec::new();
    for descriptor in &version.resources {
        resources.push(legacy_resource(descriptor));
        let subresources = descriptor.subresources.iter();
        resources.extend(subresources.map(|one| legacy_subresource(descriptor, one)));
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": wanted.to_string(),
        "resources": resources,
    }))
}

fn legacy_resource(descriptor: &ResourceDescriptor) -> Value {
    let mut body = json!({
        "name": descriptor.resource.resource,
        "singularName": descriptor.singular,
        "namespaced": descriptor.namespaced,
        "kind": descriptor.kind,
        "verbs": descriptor.verbs,
    });
    if !descriptor.short_names.is_empty() {
        body["shortNames"] = json!(descriptor.short_names);
    }
    if !descriptor.categories.is_empty() {
        body["categories"] = json!(descriptor.categories);
    }
    body
}

fn legacy_subresource(descriptor: &ResourceDescriptor, subresource: &SubresourceDescriptor) -> Value {
    let mut body = json!({
        "name": format!("{}/{}", descriptor.resource.resource, subresource.name),
        "singularName": "",
        "namespaced": descriptor.namespaced,
        "kind": subresource.kind.kind,
        "verbs": subresource.verbs,
    });
    let kind = &subresource.kind;
    if kind.group_version() != descriptor.resource.group_version() {
        body["group"] = json!(kind.group);
        body["version"] = json!(kind.version);
    }
    body
}

/// Which aggregated document a client asks for: the version of `apidiscovery.k8s.io`; `None` for a legacy document.
pub(crate) fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    for clause in clauses(headers).iter().filter(|clause| clause.takes_json()) {
        match (clause.parameter("g"), clause.parameter("as"), clause.parameter("v")) {
            ("apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2") => return Some("v2"),
            ("apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2beta1") => return Some("v2beta1"),
            ("", "", "") => return None,
            _ => {}
        }
    }
    None
}

/// The aggregated document of `/api` (`core`) or `/apis`.
pub(crate) fn aggregated(discovery: &Discovery, core: bool, version: &str) -> Value {
    let groups = discovery.groups().iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(aggregated_group).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &Group) -> Value {
    let version = |one: &Version| {
        let resources: Vec<Value> = one.resources.iter().map(aggregated_resource).collect();
        json!({"version": one.version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group.name, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(descriptor: &ResourceDescriptor) -> Value {
    let mut body = json!({
        "resource": descriptor.resource.resource,
        "responseKind": kind_body(&descriptor.group_version_kind()),
        "scope": if descriptor.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": descriptor.singular,
        "verbs": descriptor.verbs,
    });
    if !descriptor.short_names.is_empty() {
        body["shortNames"] = json!(descriptor.short_names);
    }
    if !descriptor.categories.is_empty() {
        body["categories"] = json!(descriptor.categories);
    }
    if !descriptor.subresources.is_empty() {
        let subresource = |one: &SubresourceDescriptor| json!({"subresource": one.name, "responseKind": kind_body(&one.kind), "verbs": one.verbs});
        body["subresources"] = descriptor.subresources.iter().map(subresource).collect();
    }
    body
}

fn kind_body(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// Answers with an aggregated document, whose content type names it.
pub(crate) fn aggregated_answer(headers: &HeaderMap, document: &Value, version: &str) -> Response<Body> {
    let content_type = if version == "v2" {
        HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    } else {
        HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
    };
    let mut response = tagged(headers, text_of(document), content_type);
    let vary = HeaderValue::from_static("Accept");
    response.headers_mut().append(VARY, vary);
    response
}

/// Answers with a legacy document.
pub(crate) fn legacy_answer(headers: &HeaderMap, document: &Value) -> Response<Body> {
    let mut response = tagged(headers, text_of(document), JSON);
    let vary = HeaderValue::from_static("Accept");
    response.headers_mut().append(VARY, vary);
    response
}

fn text_of(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

/// Answers 200 with an ETag made of the content, or 304 where the client has it already.
pub(crate) fn tagged(headers: &HeaderMap, body: Bytes, content_type: HeaderValue) -> Response<Body> {
    let hash = digest(&SHA256, &body);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    tagged_with(headers, &hash, body, content_type)
}

/// As [`tagged`], with a hash that is known already.
pub(crate) fn tagged_with(headers: &HeaderMap, hash: &str, body: Bytes, content_type: HeaderValue) -> Response<Body> {
    let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) else {
        return with_type(StatusCode::OK, content_type, full(body));
    };
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        with_type(StatusCode::OK, content_type, full(body))
    };
    response.headers_mut().insert(ETAG, tag);
    let public = HeaderValue::from_static("public");
    response.headers_mut().insert(CACHE_CONTROL, public);
    response
}
