//! What a request path and method mean: [`RootPath`] splits off the root, [`RequestInfo`] reads the rest.
//!
//! The grammar is that of `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`
//! (`RequestInfoFactory.NewRequestInfo`): `/{api|apis/{group}}/{version}[/namespaces/{namespace}]/{resource}[/{name}
//! [/{subresource}…]]`; everything else is a non-resource path.
//!
//! Deviation: the deprecated `/watch/` and `/proxy/` path prefixes are read as resource names are, so they end in 404.

use percent_encoding::percent_decode_str;

use crate::gvk::{GroupResource, GroupVersion, GroupVersionResource};

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
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for non-resource paths the
    /// lower-case method.
    pub verb: String,
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
        info.read_resource(rest);
        info.verb = info.resource_verb(method, query).to_owned();
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
        self.subresource = next();
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
            _ if collection && watch_is_asked(query) => "watch",
            _ if collection => "list",
            _ => "get",
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

/// `watch=true`, `watch=1` or a bare `watch`, as Go's `strconv.ParseBool` conversion of query parameters reads it.
fn watch_is_asked(query: &str) -> bool {
    query.split('&').any(|pair| match pair.split_once('=') {
        Some(("watch", value)) => !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"),
        Some(_) => false,
        None => pair == "watch",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_split_off() {
        let path = "/apis/umbra.dev/v1alpha1/views/all/proxy/api/v1/pods";
        let split = RootPath::split(path);
        assert_eq!(split.root, RootName::View("all"));
        assert_eq!(split.prefix, "/apis/umbra.dev/v1alpha1/views/all/proxy");
        assert_eq!(split.path, "/api/v1/pods");
        assert_eq!(split.root.prefix(), split.prefix);
        assert_eq!(RootPath::split("/apis/umbra.dev/v1alpha1/fleets/a/proxy").path, "/");
    }

    #[test]
    fn paths_that_only_look_like_roots_are_the_hubs() {
        for path in [
            "/api/v1/pods",
            "/apis/umbra.dev/v1alpha1/views/all",
            "/apis/umbra.dev/v1alpha1/views/all/proxyless/api",
            "/apis/umbra.dev/v1alpha1/views//proxy/api",
            "/apis/umbra.dev/v1alpha1/placements/all/proxy/api",
        ] {
            assert_eq!(
                RootPath::split(path),
                RootPath {
                    root: RootName::Hub,
                    prefix: "",
                    path
                }
            );
        }
    }

    #[test]
    fn resource_paths() {
        let cases: &[(&str, &str, &str, [&str; 7])] = &[
            ("GET", "/api/v1/pods", "", ["list", "", "v1", "", "pods", "", ""]),
            (
                "GET",
                "/api/v1/pods",
                "watch=1",
                ["watch", "", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/pods",
                "watch=false",
                ["list", "", "v1", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                "",
                ["get", "", "v1", "a", "namespaces", "a", ""],
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "",
                ["update", "", "v1", "a", "namespaces", "a", "finalize"],
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "",
                ["deletecollection", "", "v1", "a", "pods", "", ""],
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/w%40c/scale",
                "",
                ["patch", "apps", "v1", "a", "deployments", "w@c", "scale"],
            ),
        ];
        for (method, path, query, want) in cases {
            let info = RequestInfo::parse(method, path, query);
            let got = [
                info.verb.as_str(),
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.name,
                &info.subresource,
            ];
            assert_eq!(&got, want, "{method} {path}?{query}");
            assert!(info.is_resource_request);
        }
        assert!(!RequestInfo::parse("GET", "/apis/apps/v1", "").is_resource_request);
        assert_eq!(RequestInfo::parse("GET", "/version", "").verb, "get");
    }
}
