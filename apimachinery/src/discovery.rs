//! Which resources a root has: the model behind `/api`, `/apis` and aggregated discovery (KEP-3352).

use serde::{Deserialize, Serialize};

use crate::gvk::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};

/// One resource of a group version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceDescriptor {
    /// Group, version and plural name.
    pub resource: GroupVersionResource,
    /// The kind of its objects, in the same group and version.
    pub kind: String,
    /// The singular name, such as `deployment`.
    pub singular: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What kubectl accepts instead of the name, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of resources, such as `all`.
    pub categories: Vec<String>,
    /// The verbs that are served.
    pub verbs: Vec<String>,
    /// What hangs below an object.
    pub subresources: Vec<SubresourceDescriptor>,
}

/// A subresource, such as `status`, `scale` or `log`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubresourceDescriptor {
    /// The last part of the path.
    pub name: String,
    /// The kind that is read and written there, such as `autoscaling/v1, Kind=Scale`.
    pub kind: GroupVersionKind,
    /// The verbs that are served.
    pub verbs: Vec<String>,
}

impl ResourceDescriptor {
    /// The kind with its group and version.
    #[must_use]
    pub fn group_version_kind(&self) -> GroupVersionKind {
        self.resource.group_version().kind(&self.kind)
    }

    /// The resource whatever the version.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// Whether `verb` is served on the resource itself.
    #[must_use]
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&SubresourceDescriptor> {
        self.subresources.iter().find(|one| one.name == name)
    }
}

/// All resources of a root, in the order in which clients should prefer groups and versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Discovery {
    groups: Vec<Group>,
}

/// A group and its versions, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The name; empty for core.
    pub name: String,
    /// Versions, the preferred one first.
    pub versions: Vec<Version>,
}

/// A version of a group and its resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version, such as `v1`.
    pub version: String,
    /// The resources, in the order in which they were added.
    pub resources: Vec<ResourceDescriptor>,
}

impl Discovery {
    /// Of no resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a resource, or replaces the one of the same group, version and name. Groups and versions keep the order in
    /// which they come first.
    pub fn insert(&mut self, descriptor: ResourceDescriptor) {
        let version = self.version_mut(&descriptor.resource.group_version());
        match version
            .resources
            .iter_mut()
            .find(|one| one.resource == descriptor.resource)
        {
            Some(existing) => *existing = descriptor,
            None => version.resources.push(descriptor),
        }
    }

    /// Gives a group version its place in the order before any of its resources is known. It stays empty where none follows.
    pub fn place(&mut self, version: &GroupVersion) {
        self.version_mut(version);
    }

    fn version_mut(&mut self, wanted: &GroupVersion) -> &mut Version {
        let group = match self.groups.iter().position(|one| one.name == wanted.group) {
            Some(index) => index,
            None => {
                self.groups.push(Group {
                    name: wanted.group.clone(),
                    versions: Vec::new(),
                });
                self.groups.len() - 1
            }
        };
        let versions = &mut self.groups[group].versions;
        let version = match versions.iter().position(|one| one.version == wanted.version) {
            Some(index) => index,
            None => {
                versions.push(Version {
                    version: wanted.version.clone(),
                    resources: Vec::new(),
                });
                versions.len() - 1
            }
        };
        &mut versions[version]
    }

    /// The groups in order.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All resources in order.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceDescriptor> {
        self.groups
            .iter()
            .flat_map(|group| &group.versions)
            .flat_map(|version| &version.resources)
    }

    /// The resources of a group version.
    #[must_use]
    pub fn version(&self, wanted: &GroupVersion) -> Option<&Version> {
        let group = self.groups.iter().find(|group| group.name == wanted.group)?;
        group.versions.iter().find(|version| version.version == wanted.version)
    }

    /// The resource of that group, version and name.
    #[must_use]
    pub fn resource(&self, wanted: &GroupVersionResource) -> Option<&ResourceDescriptor> {
        self.version(&wanted.group_version())?
            .resources
            .iter()
            .find(|one| one.resource.resource == wanted.resource)
    }

    /// The resource that holds objects of that kind.
    #[must_use]
    pub fn kind(&self, wanted: &GroupVersionKind) -> Option<&ResourceDescriptor> {
        self.version(&wanted.group_version())?
            .resources
            .iter()
            .find(|one| one.kind == wanted.kind)
    }
}
