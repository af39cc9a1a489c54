//! Reading the discovery of another server: `APIGroupDiscoveryList` (KEP-3352, Kubernetes 1.27 on), and the
//! `APIGroupList` and `APIResourceList` documents of servers, or aggregated groups, that do not have it.

use serde::Deserialize;

use crate::discovery::{Discovery, ResourceDescriptor, SubresourceDescriptor};
use crate::gvk::{GroupVersion, GroupVersionKind};

/// What to ask for; `/api` and `/apis` each answer a list of their own.
pub const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// An answer to a discovery request on `/api` or `/apis`.
#[derive(Debug)]
pub enum DiscoveryAnswer {
    /// All resources at once, and the group versions that are listed but stale: their server does not answer. These have
    /// their place in the order, also where they are listed without resources.
    Aggregated(Discovery, Vec<GroupVersion>),
    /// Only the group versions; the resources of each have to be asked for.
    Versions(Vec<GroupVersion>),
}

impl DiscoveryAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    /// Where it is none of the three documents.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(json)?;
        Ok(match document.kind.as_str() {
            "APIGroupDiscoveryList" => {
                let mut stale = Vec::new();
                let mut discovery = Discovery::new();
                for group in document.items {
                    group.read(&mut discovery, &mut stale);
                }
                Self::Aggregated(discovery, stale)
            }
            _ => Self::Versions(
                document
                    .versions
                    .iter()
                    .map(|version| GroupVersion::new("", version))
                    .chain(document.groups.iter().flat_map(LegacyGroup::versions))
                    .collect(),
            ),
        })
    }
}

/// Adds the resources of an `APIResourceList` to `discovery`.
///
/// # Errors
/// Where `json` is no such document.
pub fn read_resource_list(json: &[u8], discovery: &mut Discovery) -> Result<(), serde_json::Error> {
    let list: LegacyResourceList = serde_json::from_slice(json)?;
    let version = GroupVersion::parse(&list.group_version);
    for resource in list.resources.iter().filter(|resource| !resource.name.contains('/')) {
        let prefix = format!("{}/", resource.name);
        let below = list
            .resources
            .iter()
            .filter_map(|one| Some((one.name.strip_prefix(&prefix)?, one)));
        discovery.insert(ResourceDescriptor {
            resource: version.resource(&resource.name),
            kind: resource.kind.clone(),
            singular: resource.singular_name.clone(),
            namespaced: resource.namespaced,
            short_names: resource.short_names.clone(),
            categories: resource.categories.clone(),
            verbs: resource.verbs.clone(),
            subresources: below
                .map(|(name, one)| SubresourceDescriptor {
                    name: name.to_owned(),
                    kind: one.kind_in(&version),
                    verbs: one.verbs.clone(),
                })
                .collect(),
        });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<GroupDiscovery>,
    #[serde(default)]
    groups: Vec<LegacyGroup>,
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct LegacyGroup {
    versions: Vec<LegacyVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyVersion {
    group_version: String,
}

impl LegacyGroup {
    fn versions(&self) -> impl Iterator<Item = GroupVersion> {
        self.versions
            .iter()
            .map(|version| GroupVersion::parse(&version.group_version))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyResourceList {
    group_version: String,
    #[serde(default)]
    resources: Vec<LegacyResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct LegacyResource {
    name: String,
    singular_name: String,
    namespaced: bool,
    kind: String,
    group: String,
    version: String,
    verbs: Vec<String>,
    short_names: Vec<String>,
    categories: Vec<String>,
}

impl LegacyResource {
    fn kind_in(&self, version: &GroupVersion) -> GroupVersionKind {
        if self.version.is_empty() {
            version.kind(&self.kind)
        } else {
            GroupVersionKind::new(&self.group, &self.version, &self.kind)
        }
    }
}

#[derive(Deserialize)]
struct GroupDiscovery {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<VersionDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct VersionDiscovery {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<ResourceDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceDiscovery {
    resource: String,
    response_kind: Option<Kind>,
    scope: String,
    singular_resource: String,
    verbs: Vec<String>,
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<SubresourceDiscovery>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SubresourceDiscovery {
    subresource: String,
    response_kind: Option<Kind>,
    verbs: Vec<String>,
}

/// Group and version are empty where they are those of the list they stand in.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

impl Kind {
    fn within(&self, version: &GroupVersion) -> GroupVersionKind {
        if self.version.is_empty() {
            version.kind(&self.kind)
        } else {
            GroupVersionKind::new(&self.group, &self.version, &self.kind)
        }
    }
}

impl GroupDiscovery {
    fn read(self, discovery: &mut Discovery, stale: &mut Vec<GroupVersion>) {
        for version in self.versions {
            let group_version = GroupVersion::new(&self.metadata.name, &version.version);
            if version.freshness == "Stale" {
                discovery.place(&group_version);
                stale.push(group_version.clone());
            }
            for resource in version.resources {
                // Without a kind it is no resource of its own, only a place for subresources to hang.
                let Some(kind) = resource.response_kind else { continue };
                discovery.insert(ResourceDescriptor {
                    resource: group_version.resource(resource.resource),
                    kind: kind.kind,
                    singular: resource.singular_resource,
                    namespaced: resource.scope == "Namespaced",
                    short_names: resource.short_names,
                    categories: resource.categories,
                    verbs: resource.verbs,
                    subresources: resource
                        .subresources
                        .into_iter()
                        .map(|one| SubresourceDescriptor {
                            name: one.subresource,
                            kind: one.response_kind.unwrap_or_default().within(&group_version),
                            verbs: one.verbs,
                        })
                        .collect(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::GroupVersionResource;

    #[test]
    fn aggregated_discovery_is_read() {
        let json = br#"{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"apps"},"versions":[
            {"version":"v1","freshness":"Current","resources":[{"resource":"deployments","scope":"Namespaced",
             "responseKind":{"group":"","version":"","kind":"Deployment"},"verbs":["get"],"shortNames":["deploy"],
             "subresources":[{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"}}]}]},
            {"version":"v2","freshness":"Stale"}]}]}"#;
        let DiscoveryAnswer::Aggregated(discovery, stale) = DiscoveryAnswer::parse(json).unwrap() else {
            panic!()
        };
        let deployments = discovery
            .resource(&GroupVersionResource::new("apps", "v1", "deployments"))
            .unwrap();
        assert!(deployments.namespaced);
        assert_eq!(
            deployments.subresource("scale").unwrap().kind,
            GroupVersionKind::new("autoscaling", "v1", "Scale")
        );
        assert_eq!(stale, [GroupVersion::new("apps", "v2")]);
        let versions = discovery.groups()[0].versions.iter();
        let resources: Vec<_> = versions
            .map(|one| (one.version.as_str(), one.resources.len()))
            .collect();
        assert_eq!(resources, [("v1", 1), ("v2", 0)]);
    }

    #[test]
    fn legacy_discovery_is_read() {
        let api = DiscoveryAnswer::parse(br#"{"kind":"APIVersions","versions":["v1"]}"#).unwrap();
        assert!(matches!(api, DiscoveryAnswer::Versions(versions) if versions == [GroupVersion::new("", "v1")]));
        let apis = br#"{"kind":"APIGroupList","groups":[{"name":"a.b","versions":[{"groupVersion":"a.b/v1"}]}]}"#;
        let apis = DiscoveryAnswer::parse(apis).unwrap();
        assert!(matches!(apis, DiscoveryAnswer::Versions(versions) if versions == [GroupVersion::new("a.b", "v1")]));
        let mut discovery = Discovery::new();
        let list = br#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
            {"name":"pods","kind":"Pod","namespaced":true,"verbs":["get"]},{"name":"pods/log","kind":"Pod","verbs":["get"]}]}"#;
        read_resource_list(list, &mut discovery).unwrap();
        let pods = discovery
            .resource(&GroupVersionResource::new("", "v1", "pods"))
            .unwrap();
        assert_eq!(pods.subresources.len(), 1);
    }
}
