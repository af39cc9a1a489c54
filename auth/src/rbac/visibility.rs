//! What an identity may see of one resource.

use std::collections::{BTreeMap, BTreeSet};

/// Where a verb on a resource is allowed. Minimal: what a wider grant contains is not repeated, so two values are equal
/// exactly where they allow the same, which is how a watch learns that its permissions have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visibility {
    /// Every object of the cluster.
    pub all_namespaces: bool,
    /// Every object of these namespaces.
    pub namespaces: BTreeSet<String>,
    /// Objects of these names, in whatever namespace or none: `resourceNames` of cluster role bindings. Kubernetes
    /// grants them to requests that name the object, in the path or by the field selector `metadata.name`.
    pub names: BTreeSet<String>,
    /// Objects of these names in one namespace each.
    pub namespaced_names: BTreeMap<String, BTreeSet<String>>,
}

impl Visibility {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            all_namespaces: true,
            ..Self::default()
        }
    }

    /// Whether nothing at all is allowed: the answer is 403.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.all_namespaces && self.namespaces.is_empty() && self.names.is_empty() && self.namespaced_names.is_empty()
    }

    /// Whether the verb is allowed on that object, or with an empty `name` on the collection. An empty `namespace` is a
    /// cluster-scoped object, or all namespaces.
    #[must_use]
    pub fn allows(&self, namespace: &str, name: &str) -> bool {
        self.all_namespaces
            || self.names.contains(name)
            || (!namespace.is_empty()
                && (self.namespaces.contains(namespace)
                    || self
                        .namespaced_names
                        .get(namespace)
                        .is_some_and(|names| names.contains(name))))
    }

    /// Everything of one namespace becomes visible; empty is every namespace.
    pub(super) fn add_all(&mut self, namespace: &str) {
        if namespace.is_empty() {
            *self = Self::everything();
        } else if !self.all_namespaces {
            self.namespaced_names.remove(namespace);
            self.namespaces.insert(namespace.to_owned());
        }
    }

    /// One name becomes visible in one namespace; empty is every namespace.
    pub(super) fn add_name(&mut self, namespace: &str, name: &str) {
        if self.allows(namespace, name) {
            return;
        }
        if !namespace.is_empty() {
            let names = self.namespaced_names.entry(namespace.to_owned()).or_default();
            names.insert(name.to_owned());
            return;
        }
        self.names.insert(name.to_owned());
        self.namespaced_names.retain(|_, names| {
            names.remove(name);
            !names.is_empty()
        });
    }
}
