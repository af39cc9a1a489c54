//! What a view serves: the union of what its clusters serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use umbra_api::root::ViewAuthorization;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_child::Identity;

use crate::copies::catalog::ClusterApi;

/// The selected clusters by name.
pub(super) type Clusters = BTreeMap<String, Member>;

/// A selected cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    /// What it serves, where that is known.
    pub(super) api: Option<Arc<ClusterApi>>,
    /// How callers are named there.
    pub(super) identity: Identity,
}

/// What a view serves.
#[derive(Debug)]
pub(super) struct Shape {
    /// Who decides who sees what.
    pub(super) authorization: ViewAuthorization,
    pub(super) clusters: Clusters,
    pub(super) discovery: Arc<Discovery>,
    served: HashMap<GroupVersionResource, Arc<Served>>,
}

/// A resource of a view.
#[derive(Debug)]
pub(super) struct Served {
    /// All verbs and subresources of any cluster; `watch` only where there are copies.
    pub(super) descriptor: ResourceDescriptor,
    /// The clusters that serve it, and whether it is copied there in this version.
    pub(super) clusters: BTreeMap<String, Source>,
}

/// Where the objects of a resource of one cluster come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The copies.
    Copies,
    /// The child.
    Live,
    /// The child; copies are there, but in another version.
    OtherVersion,
}

impl Served {
    /// The clusters whose copies are served.
    pub(super) fn copied(&self) -> impl Iterator<Item = &String> {
        self.of(|source| source == Source::Copies)
    }

    /// The clusters that are asked.
    pub(super) fn live(&self) -> impl Iterator<Item = &String> {
        self.of(|source| source != Source::Copies)
    }

    /// Whether there are copies of any cluster.
    pub(super) fn has_copies(&self) -> bool {
        self.copied().next().is_some()
    }

    fn of(&self, wanted: impl Fn(Source) -> bool) -> impl Iterator<Item = &String> {
        self.clusters
            .iter()
            .filter(move |(_, source)| wanted(**source))
            .map(|(cluster, _)| cluster)
    }
}

impl Shape {
    /// The union of these clusters, in the order of their names.
    pub(super) fn new(clusters: Clusters, authorization: ViewAuthorization) -> Self {
        let mut order = Vec::new();
        let mut served: HashMap<GroupVersionResource, Served> = HashMap::new();
        for (cluster, member) in &clusters {
            let Some(api) = &member.api else { continue };
            let mut preferred = BTreeSet::new();
            for resource in api.discovery.resources() {
                let source = source(api, resource, &mut preferred);
                match served.get_mut(&resource.resource) {
                    Some(known) => known.join(cluster, resource, source),
                    None => {
                        order.push(resource.resource.clone());
                        let one = Served {
                            descriptor: resource.clone(),
                            clusters: [(cluster.clone(), source)].into(),
                        };
                        served.insert(resource.resource.clone(), one);
                    }
                }
            }
        }
        let mut discovery = Discovery::new();
        for resource in order {
            let Some(one) = served.get_mut(&resource) else { continue };
            if !one.has_copies() {
                one.descriptor.verbs.retain(|verb| verb != "watch");
            }
            discovery.insert(one.descriptor.clone());
        }
        Self {
            authorization,
            clusters,
            discovery: Arc::new(discovery),
            served: served.into_iter().map(|(name, one)| (name, Arc::new(one))).collect(),
        }
    }

    /// Whether this is the shape of exactly these clusters.
    pub(super) fn is_of(&self, clusters: &Clusters) -> bool {
        let same = |one: &Member, other: &Member| {
            let same_api = match (&one.api, &other.api) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            same_api && one.identity == other.identity
        };
        self.clusters.len() == clusters.len()
            && self
                .clusters
                .iter()
                .zip(clusters)
                .all(|((name, member), (other_name, other))| name == other_name && same(member, other))
    }

    /// The resource of that group, version and name.
    pub(super) fn served(&self, resource: &GroupVersionResource) -> Option<&Arc<Served>> {
        self.served.get(resource)
    }

    /// The names of the clusters, for messages.
    pub(super) fn cluster_names(&self) -> String {
        let names: Vec<&str> = self.clusters.keys().map(String::as_str).collect();
        if names.is_empty() {
            "(none)".to_owned()
        } else {
            names.join(", ")
        }
    }
}

impl Served {
    fn join(&mut self, cluster: &str, resource: &ResourceDescriptor, source: Source) {
        if resource.kind != self.descriptor.kind || resource.namespaced != self.descriptor.namespaced {
            tracing::warn!(
                cluster,
                resource = %resource.resource,
                "the cluster has another kind under the name of a resource of its peers; it is left out of the view"
            );
            return;
        }
        self.clusters.insert(cluster.to_owned(), source);
        add_verbs(&mut self.descriptor.verbs, &resource.verbs);
        for subresource in &resource.subresources {
            let known = &mut self.descriptor.subresources;
            match known.iter_mut().find(|one| one.name == subresource.name) {
                Some(one) => add_verbs(&mut one.verbs, &subresource.verbs),
                None => known.push(subresource.clone()),
            }
        }
    }
}

fn add_verbs(verbs: &mut Vec<String>, more: &[String]) {
    for verb in more {
        if !verbs.contains(verb) {
            verbs.push(verb.clone());
        }
    }
}

/// What is copied is the first version that can be listed and watched.
fn source(api: &ClusterApi, resource: &ResourceDescriptor, preferred: &mut BTreeSet<GroupResource>) -> Source {
    let name = resource.group_resource();
    if !api.copied.contains(&name) {
        return Source::Live;
    }
    let copyable = resource.serves("list") && resource.serves("watch");
    if copyable && preferred.insert(name) {
        Source::Copies
    } else {
        Source::OtherVersion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, version: &str, name: &str, verbs: &[&str]) -> ResourceDescriptor {
        ResourceDescriptor {
            resource: GroupVersionResource::new(group, version, name),
            kind: name.to_owned(),
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            ..ResourceDescriptor::default()
        }
    }

    fn member(resources: &[ResourceDescriptor], copied: &[&str]) -> Member {
        let mut discovery = Discovery::new();
        for resource in resources {
            discovery.insert(resource.clone());
        }
        let api = ClusterApi {
            discovery: Arc::new(discovery),
            copied: copied.iter().map(|name| GroupResource::parse(name)).collect(),
        };
        Member {
            api: Some(Arc::new(api)),
            identity: Identity::default(),
        }
    }

    #[test]
    fn a_view_serves_the_union_and_watches_what_is_copied() {
        let all = ["get", "list", "watch"];
        let east = member(
            &[
                resource("", "v1", "pods", &all),
                resource("", "v1", "secrets", &all),
                resource("autoscaling", "v2", "hpas", &all),
                resource("autoscaling", "v1", "hpas", &all),
            ],
            &["pods", "hpas.autoscaling"],
        );
        let west = member(
            &[
                resource("", "v1", "pods", &["get", "list", "watch", "delete"]),
                resource("x.io", "v1", "things", &all),
            ],
            &["things.x.io"],
        );
        let clusters: Clusters = [
            ("east".to_owned(), east),
            ("new".to_owned(), Member::default()),
            ("west".to_owned(), west),
        ]
        .into();
        let shape = Shape::new(clusters.clone(), ViewAuthorization::default());
        assert!(shape.is_of(&clusters));
        let names: Vec<String> = shape
            .discovery
            .resources()
            .map(|one| one.resource.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "v1, Resource=pods",
                "v1, Resource=secrets",
                "autoscaling/v2, Resource=hpas",
                "autoscaling/v1, Resource=hpas",
                "x.io/v1, Resource=things"
            ]
        );
        let served = |group: &str, version: &str, name: &str| {
            Arc::clone(shape.served(&GroupVersionResource::new(group, version, name)).unwrap())
        };
        let pods = served("", "v1", "pods");
        assert_eq!(pods.copied().collect::<Vec<_>>(), ["east"]);
        assert_eq!(pods.live().collect::<Vec<_>>(), ["west"]);
        assert!(pods.descriptor.serves("watch") && pods.descriptor.serves("delete"));
        assert!(!served("", "v1", "secrets").descriptor.serves("watch"));
        assert_eq!(served("autoscaling", "v2", "hpas").clusters["east"], Source::Copies);
        assert_eq!(
            served("autoscaling", "v1", "hpas").clusters["east"],
            Source::OtherVersion
        );
        let mut renamed = clusters.clone();
        renamed.get_mut("new").unwrap().identity.user_prefix = "corp:".to_owned();
        assert!(!shape.is_of(&renamed));
        let mut fewer = clusters;
        fewer.remove("new");
        assert!(!shape.is_of(&fewer));
    }
}
