//! How the objects of a fleet are named and marked.

use std::fmt;

use umbra_api::SYSTEM_NAMESPACE;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::names::QualifiedName;

/// The label, in a child, of what a fleet placed there: the fleet's name.
pub const FLEET_LABEL: &str = "umbra.dev/fleet";
/// The annotation, in a child, that names the rendering: `{namespace}/{name}`.
pub const RENDERING_ANNOTATION: &str = "umbra.dev/rendering";
/// The annotation, in a child, with the UID of the rendering. It is what tells this hub's objects from those of another
/// hub with a fleet of the same name, and it is there from the first write on, so that a hub that stops before it has
/// recorded the object's own UID still knows the object.
pub const RENDERING_UID_ANNOTATION: &str = "umbra.dev/rendering-uid";
/// The finalizer of renderings: their objects are withdrawn first.
pub const WITHDRAW_FINALIZER: &str = "umbra.dev/withdraw";

/// Where everything of a fleet is stored.
#[must_use]
pub fn fleet_prefix(fleet: &str) -> String {
    format!("/umbra/{}/", fleet_root(fleet))
}

/// The fleet's name in keys.
#[must_use]
pub fn fleet_root(fleet: &str) -> String {
    format!("fleets/{fleet}")
}

/// Which template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateKey {
    /// The resource.
    pub resource: GroupResource,
    /// The namespace; `None` for cluster-scoped templates.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl fmt::Display for TemplateKey {
    /// For messages: `deployments.apps shop/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.resource)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl TemplateKey {
    /// The key of a namespace.
    #[must_use]
    pub fn namespace(name: &str) -> Self {
        Self {
            resource: GroupResource::new("", "namespaces"),
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// Whether this is a namespace.
    #[must_use]
    pub fn is_namespace(&self) -> bool {
        self.resource.group.is_empty() && self.resource.resource == "namespaces"
    }

    /// The namespace that the template's renderings are in: its own; that of a namespace is itself, and that of anything
    /// else without a namespace is [`SYSTEM_NAMESPACE`].
    #[must_use]
    pub fn rendering_namespace(&self) -> &str {
        match &self.namespace {
            Some(namespace) => namespace,
            None if self.is_namespace() => &self.name,
            None => SYSTEM_NAMESPACE,
        }
    }

    /// What the names of the template's renderings start with, up to and with the `@`.
    #[must_use]
    pub fn rendering_prefix(&self) -> String {
        format!("{}.{}@", self.name, self.resource)
    }

    /// Where the template is stored, below the fleet's prefix.
    #[must_use]
    pub fn path(&self) -> String {
        let group = if self.resource.group.is_empty() {
            "core"
        } else {
            &self.resource.group
        };
        let resource = &self.resource.resource;
        match &self.namespace {
            Some(namespace) => format!("{group}/{resource}/{namespace}/{}", self.name),
            None => format!("{group}/{resource}/{}", self.name),
        }
    }

    /// Reads what follows the fleet's prefix in a key.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let (group, resource, namespace, name) = match parts[..] {
            [group, resource, name] => (group, resource, None, name),
            [group, resource, namespace, name] => (group, resource, Some(namespace.to_owned()), name),
            _ => return None,
        };
        let group = if group == "core" { "" } else { group };
        Some(Self {
            resource: GroupResource::new(group, resource),
            namespace,
            name: name.to_owned(),
        })
    }
}

/// The name of a template's rendering for a cluster: `{name}.{resource}.{group}@{cluster}`.
#[must_use]
pub fn rendering_name(template: &TemplateKey, cluster: &str) -> String {
    let name = format!("{}.{}", template.name, template.resource);
    QualifiedName { name: &name, cluster }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let web = TemplateKey {
            resource: GroupResource::new("apps", "deployments"),
            namespace: Some("shop".to_owned()),
            name: "web".to_owned(),
        };
        let shop = TemplateKey::namespace("shop");
        let role = TemplateKey {
            resource: GroupResource::new("rbac.authorization.k8s.io", "clusterroles"),
            namespace: None,
            name: "system:viewer".to_owned(),
        };
        for (key, path, rendering, namespace) in [
            (&web, "apps/deployments/shop/web", "web.deployments.apps@east", "shop"),
            (&shop, "core/namespaces/shop", "shop.namespaces@east", "shop"),
            (
                &role,
                "rbac.authorization.k8s.io/clusterroles/system:viewer",
                "system:viewer.clusterroles.rbac.authorization.k8s.io@east",
                "umbra-system",
            ),
        ] {
            assert_eq!(key.path(), path);
            assert_eq!(TemplateKey::parse(path).as_ref(), Some(key));
            assert_eq!(rendering_name(key, "east"), rendering);
            assert!(rendering.starts_with(&key.rendering_prefix()));
            assert_eq!(key.rendering_namespace(), namespace);
        }
        assert_eq!(TemplateKey::parse("apps/deployments"), None);
    }
}
