//! Keys of copies: `/umbra/copies/{group}/{resource}/{cluster}/{namespace}/{name}`.
//!
//! The core group is `core`. Cluster-scoped objects have `-` for a namespace, which cannot be the name of one.

use umbra_apimachinery::gvk::GroupResource;

/// Where all copies are.
pub const COPIES: &str = "/umbra/copies/";

/// The segment that stands for the core group.
const CORE: &str = "core";
/// The segment that stands for no namespace.
const NO_NAMESPACE: &str = "-";

/// The parts of a copy's key below its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyKey<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<&'a str>,
    /// The name in the child.
    pub name: &'a str,
}

/// Where all copies of a resource are.
#[must_use]
pub fn resource_prefix(resource: &GroupResource) -> String {
    let group = if resource.group.is_empty() {
        CORE
    } else {
        &resource.group
    };
    format!("{COPIES}{group}/{}/", resource.resource)
}

/// Where all copies of a resource of one cluster are.
#[must_use]
pub fn cluster_prefix(resource: &GroupResource, cluster: &str) -> String {
    format!("{}{cluster}/", resource_prefix(resource))
}

/// The key of a copy.
#[must_use]
pub fn copy_key(resource: &GroupResource, key: CopyKey<'_>) -> String {
    let namespace = key.namespace.unwrap_or(NO_NAMESPACE);
    format!("{}{}/{namespace}/{}", resource_prefix(resource), key.cluster, key.name)
}

impl<'a> CopyKey<'a> {
    /// Reads what follows a resource's prefix.
    #[must_use]
    pub fn parse(below_prefix: &'a str) -> Option<Self> {
        let mut parts = below_prefix.splitn(3, '/');
        let (cluster, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let namespace = (namespace != NO_NAMESPACE).then_some(namespace);
        (!cluster.is_empty() && !name.is_empty()).then_some(Self {
            cluster,
            namespace,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let pods = GroupResource::new("", "pods");
        for key in [
            CopyKey {
                cluster: "east",
                namespace: Some("shop"),
                name: "web-1",
            },
            CopyKey {
                cluster: "east",
                namespace: None,
                name: "system:node",
            },
        ] {
            let text = copy_key(&pods, key);
            assert_eq!(
                text.strip_prefix(&resource_prefix(&pods)).and_then(CopyKey::parse),
                Some(key)
            );
        }
        assert_eq!(resource_prefix(&pods), "/umbra/copies/core/pods/");
        assert_eq!(CopyKey::parse("east/shop"), None);
    }
}
