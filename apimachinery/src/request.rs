//! What a request path and method mean: [`RootPath`] splits off the root, [`RequestInfo`] reads the rest.
//!
//! The grammar is that of `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`
//! (`RequestInfoFactory.NewRequestInfo`): `/{api|apis/{group}}/{version}[/namespaces/{namespace}]/{resource}[/{name}
//! [/{subresource}…]]`; everything else is a non-resource path. The deprecated prefixes `watch` and `proxy` before the resource
//! are verbs.
//!
//! Deviations: repeated slashes count as one, as they are sent on to children; and the name that a field selector asks for is
//! apart ([`RequestInfo::selected_name`]), because the path has none.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::gvk::{GroupResource, GroupVersion, GroupVersionResource};
use crate::names::is_path_segment;
use crate::selector::FieldSelector;

/// Where the roots of children, views and fleets hang below the hub.
const ROOTS_PREFIX: &str = "/apis/umbra.dev/v1alpha1/";

/// A root and the path below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPath<'a> {
    /// Which root the request enters.
    pub root: RootName<'a>,
    /// The root's URL prefix without a trailing slash; empty for the hub.
    pub prefix: &'a str,
    /// The path below the prefix, starting with a slash.
    pub path: &'a str,
}

/// The name of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RootName<'a> {
    /// Umbra's own kinds.
    Hub,
    /// One child's whole API, live.
    Cluster(&'a str),
    /// The copies of many children.
    View(&'a str),
    /// Templates.
    Fleet(&'a str),
}

impl RootName<'_> {
    /// The root's URL prefix, without a trailing slash.
    #[must_use]
    pub fn prefix(&self) -> String {
        let (resource, name) = match self {
            Self::Hub => return String::new(),
            Self::Cluster(name) => ("managedclusters", name),
            Self::View(name) => ("views", name),
            Self::Fleet(name) => ("fleets", name),
        };
        format!("{ROOTS_PREFIX}{resource}/{name}/proxy")
    }
}

impl<'a> RootPath<'a> {
    /// Splits a request path. What is not below a `proxy` subresource is the hub's.
    #[must_use]
    pub fn split(path: &'a str) -> Self {
        Self::split_inner(path).unwrap_or(Self {
            root: RootName::Hub,
            prefix: "",
            path,
        })
    }

    fn split_inner(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(ROOTS_PREFIX)?;
        let (resource, rest) = rest.split_once('/')?;
        let (name, rest) = rest.split_once('/')?;
        let below = rest
            .strip_prefix("proxy")
            .filter(|below| below.is_empty() || below.starts_with('/'))?;
        let root = match resource {
            _ if name.is_empty() => return None,
            "managedclusters" => RootName::Cluster(name),
            "views" => RootName::View(name),
            "fleets" => RootName::Fleet(name),
            _ => return None,
        };
        let prefix = &path[..path.len() - below.len()];
        Some(Self {
            root,
            prefix,
            path: if below.is_empty() { "/" } else { below },
        })
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// Whether the path names a resource.
    pub is_resource_request: bool,
    /// The path below the root, as sent.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, and `proxy` of old; empty for
    /// methods that have none. For non-resource paths the lower-case method.
    pub verb: String,
    /// Whether the verb is one of the deprecated path prefixes: `/api/v1/watch/pods`.
    pub verb_is_in_path: bool,
    /// The API group; empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace; empty where the path has none. For `namespaces/{name}` it is the name, as in Kubernetes.
    pub namespace: String,
    /// The resource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The object's name; empty for collections.
    pub name: String,
    /// The one name that the field selector of a list or a watch leaves (`metadata.name=x`); empty for all. Permissions for
    /// names count for such requests.
    pub selected_name: String,
    /// What follows the subresource, joined by slashes; for `proxy` subresources and the like.
    pub rest: String,
}

/// Path segments after a namespace name that are subresources of the namespace and not resources in it
/// (`namespaceSubresources` in requestinfo.go).
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, path below the root and query of a request.
    #[must_use]
    pub fn parse(method: &str, path: &str, query: &str) -> Self {
        let mut info = Self {
            path: path.to_owned(),
            verb: method.to_ascii_lowercase(),
            ..Self::default()
        };
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts[..] {
            ["api", version, ref rest @ ..] if !rest.is_empty() => {
                info.version = version.to_owned();
                rest
            }
            ["apis", group, version, ref rest @ ..] if !rest.is_empty() => {
                info.group = group.to_owned();
                info.version = version.to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource_request = true;
        let rest = match *rest {
            // kube-apiserver calls a request malformed that says no more than this; it is for nothing then.
            ["watch" | "proxy"] => return info,
            [verb @ ("watch" | "proxy"), ref rest @ ..] => {
                verb.clone_into(&mut info.verb);
                info.verb_is_in_path = true;
                rest
            }
            _ => rest,
        };
        info.read_resource(rest);
        if !info.verb_is_in_path {
            info.verb = info.resource_verb(method, query).to_owned();
        }
        if !info.verb_is_in_path && matches!(info.verb.as_str(), "list" | "watch") {
            info.selected_name = selected_name(query);
        }
        info
    }

    fn read_resource(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_owned();
                match rest {
                    [first, ..] if !NAMESPACE_SUBRESOURCES.contains(first) => rest,
                    _ => parts,
                }
            }
            _ => parts,
        };
        let mut parts = parts.iter();
        let mut next = || parts.next().map(|part| (*part).to_owned()).unwrap_or_default();
        self.resource = next();
        self.name = next();
        // What is behind a name in `/proxy/` of old belongs to the program there.
        if !(self.verb_is_in_path && self.verb == "proxy") {
            self.subresource = next();
        }
        self.rest = parts.copied().collect::<Vec<_>>().join("/");
    }

    fn resource_verb(&self, method: &str, query: &str) -> &'static str {
        let collection = self.name.is_empty();
        match method {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if collection => "deletecollection",
            "DELETE" => "delete",
            "GET" | "HEAD" if collection && watch_is_asked(query) => "watch",
            "GET" | "HEAD" if collection => "list",
            "GET" | "HEAD" => "get",
            _ => "",
        }
    }

    /// The resource in its group and version.
    #[must_use]
    pub fn group_version_resource(&self) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, &self.version, &self.resource)
    }

    /// The resource in its group.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    /// The group and version.
    #[must_use]
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }

    /// The namespace where the path names one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty() && self.resource != "namespaces").then_some(self.namespace.as_str())
    }
}

/// Whether `watch` is in the query and neither `0` nor `false`, as Kubernetes reads booleans there
/// (`runtime.Convert_Slice_string_To_bool`): `watch=` and `watch=no` are a yes.
fn watch_is_asked(query: &str) -> bool {
    first_value(query, "watch").is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// The name that a field selector asks for, where it can be one.
fn selected_name(query: &str) -> String {
    let selector = first_value(query, "fieldSelector").unwrap_or_default();
    let parsed = selector.parse::<FieldSelector>().ok();
    let name = parsed
        .as_ref()
        .and_then(|fields| fields.requires_exact_match("metadata.name"));
    name.filter(|name| is_path_segment(name)).unwrap_or_default().to_owned()
}

fn first_value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    parameters(query).find_map(|(key, value)| (key == name).then_some(value))
}

/// The parameters of a query, as Go reads them (`net/url.ParseQuery`): pairs with a semicolon or a broken escape are left out.
/// Everybody has to read queries by this one function: who may do something depends on it, and what is done.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter_map(|(key, value)| Some((decoded(key)?, decoded(value)?)))
}

/// `None` for a broken escape.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let is_whole = |at: usize| is_digit(bytes.get(at + 1)) && is_digit(bytes.get(at + 2));
    if !(0..bytes.len()).all(|at| bytes[at] != b'%' || is_whole(at)) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
