//! Whether one rule allows one request (`pkg/apis/rbac/v1/evaluation_helpers.go`).

use super::types::PolicyRule;

/// What a request wants to do (`k8s.io/apiserver/pkg/authorization/authorizer.Attributes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes<'a> {
    /// The verb, in lower case: `get`, `list`, `impersonate`, or the HTTP method of a path.
    pub verb: &'a str,
    /// The API group; empty for core.
    pub group: &'a str,
    /// The resource, without its subresource.
    pub resource: &'a str,
    /// The subresource; empty for none.
    pub subresource: &'a str,
    /// The namespace; empty for cluster-scoped objects and for all namespaces.
    pub namespace: &'a str,
    /// The object's name; empty for collections.
    pub name: &'a str,
    /// The path of a request that is about no resource.
    pub path: &'a str,
    /// Whether the request is about a resource; otherwise only `verb` and `path` count.
    pub is_resource_request: bool,
}

impl<'a> Attributes<'a> {
    /// A request about a resource, which may be written with its subresource as `pods/log`; `namespace` and `name` may
    /// be empty.
    #[must_use]
    pub fn resource(verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            path: "",
            is_resource_request: true,
        }
    }

    /// A request about a path.
    #[must_use]
    pub fn path(verb: &'a str, path: &'a str) -> Self {
        Self {
            verb,
            path,
            ..Self::default()
        }
    }
}

impl PolicyRule {
    /// Whether this rule alone allows the request.
    #[must_use]
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !attributes.is_resource_request {
            return self.matches_verb(attributes.verb) && self.matches_path(attributes.path);
        }
        self.matches_kind_of_request(attributes) && self.matches_name(attributes.name)
    }

    /// Whether verb, group and resource match, whatever the name.
    pub(super) fn matches_kind_of_request(&self, attributes: &Attributes<'_>) -> bool {
        self.matches_verb(attributes.verb)
            && self.matches_group(attributes.group)
            && self.matches_resource(attributes.resource, attributes.subresource)
    }

    fn matches_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == "*" || one == verb)
    }

    fn matches_group(&self, group: &str) -> bool {
        self.api_groups.iter().any(|one| one == "*" || one == group)
    }

    fn matches_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|one| match one.as_str() {
            "*" => true,
            one if subresource.is_empty() => one == resource,
            one => one
                .split_once('/')
                .is_some_and(|(parent, sub)| sub == subresource && (parent == "*" || parent == resource)),
        })
    }

    fn matches_name(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|one| one == name)
    }

    fn matches_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|one| path_covers(one, path))
    }
}

/// Whether a rule's path is the other, or ends in `*` and is its beginning. All trailing stars count as one.
pub(super) fn path_covers(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}
