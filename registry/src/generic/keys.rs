//! Where objects are stored: `/umbra/{root}/{group}/{resource}[/{namespace}]/{name}`.

use umbra_apimachinery::gvk::GroupResource;

/// The keys of one resource of one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    namespaced: bool,
}

impl Keys {
    /// The keys of `resource` below `root`, such as `hub`, `fleets/all` or `simulated/east`. The core group is `core`.
    #[must_use]
    pub fn new(root: &str, resource: &GroupResource, namespaced: bool) -> Self {
        let group = if resource.group.is_empty() {
            "core"
        } else {
            &resource.group
        };
        Self {
            prefix: format!("/umbra/{root}/{group}/{}/", resource.resource),
            namespaced,
        }
    }

    /// What all keys start with; ends with a slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the objects are in namespaces.
    #[must_use]
    pub fn is_namespaced(&self) -> bool {
        self.namespaced
    }

    /// What the keys of a namespace start with, or all keys.
    #[must_use]
    pub fn scope(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{}{namespace}/", self.prefix),
            None => self.prefix.clone(),
        }
    }

    /// The key of an object.
    #[must_use]
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}{name}", self.scope(namespace))
    }

    /// Namespace and name of the object under a key; the namespace is empty for cluster-scoped resources.
    #[must_use]
    pub fn parse<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        if self.namespaced {
            rest.split_once('/')
        } else {
            Some(("", rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let pods = Keys::new("simulated/east", &GroupResource::new("", "pods"), true);
        assert_eq!(
            pods.key(Some("shop"), "web"),
            "/umbra/simulated/east/core/pods/shop/web"
        );
        assert_eq!(pods.scope(None), "/umbra/simulated/east/core/pods/");
        assert_eq!(pods.parse(&pods.key(Some("shop"), "web")), Some(("shop", "web")));
        let views = Keys::new("hub", &GroupResource::new("umbra.dev", "views"), false);
        assert_eq!(views.key(None, "all"), "/umbra/hub/umbra.dev/views/all");
        assert_eq!(views.parse("/umbra/hub/umbra.dev/views/all"), Some(("", "all")));
        assert_eq!(views.parse("/umbra/hub/umbra.dev/fleets/all"), None);
    }
}
