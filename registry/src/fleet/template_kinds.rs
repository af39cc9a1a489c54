//! Which kinds can be templates: what the clusters of the fleet serve and what makes sense to place.

use std::collections::BTreeMap;

use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::gvk::GroupResource;

use crate::copies::catalog::Catalog;
use crate::directory::Directory;
use crate::generic::strategy::STORED_VERBS;

/// Groups without anything to place: what asks, measures, reports or registers.
const NO_TEMPLATES: [&str; 8] = [
    "authentication.k8s.io",
    "authorization.k8s.io",
    "events.k8s.io",
    "metrics.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "apiregistration.k8s.io",
    umbra_api::GROUP,
];

/// Resources that belong to a cluster itself, or that its controllers make.
const NOT_TEMPLATES: [(&str, &str); 11] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "endpoints"),
    ("", "events"),
    // Namespaces are templates, but always served, whatever the clusters do.
    ("", "namespaces"),
    ("", "nodes"),
    ("apps", "controllerrevisions"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
];

/// The subresources that templates have where the clusters' objects have them.
const SUBRESOURCES: [&str; 2] = ["status", "scale"];

/// A kind that can be a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateKind {
    /// As the fleet serves it.
    pub descriptor: ResourceDescriptor,
    /// The clusters that serve it in that version; those that are ready come first.
    pub clusters: Vec<String>,
}

/// The clusters of a fleet, by name. One that is on its way out is none of them any more.
#[must_use]
pub fn clusters_of(directory: &Directory, fleet: &str) -> Vec<String> {
    let Some(fleet) = directory.fleets.get(fleet) else {
        return Vec::new();
    };
    let spec = &fleet.spec;
    let selected = directory.select(spec.cluster_selector.as_ref(), spec.cluster_names.as_deref());
    let stays = |name: &String| directory.clusters[name].metadata.deletion_timestamp.is_none();
    selected.into_iter().filter(stays).collect()
}

/// The kinds that can be templates of a fleet: every resource in the version that the first cluster prefers.
#[must_use]
pub fn template_kinds(directory: &Directory, catalog: &Catalog, fleet: &str) -> Vec<TemplateKind> {
    let mut kinds: BTreeMap<GroupResource, TemplateKind> = BTreeMap::new();
    let mut order: Vec<GroupResource> = Vec::new();
    for cluster in clusters_of(directory, fleet) {
        let Some(entry) = catalog.clusters.get(&cluster) else {
            continue;
        };
        for descriptor in candidates(&entry.api.discovery) {
            let resource = descriptor.group_resource();
            match kinds.get_mut(&resource) {
                None => {
                    order.push(resource.clone());
                    let clusters = vec![cluster.clone()];
                    let descriptor = as_template(descriptor);
                    kinds.insert(resource, TemplateKind { descriptor, clusters });
                }
                Some(kind) if kind.descriptor.resource == descriptor.resource => kind.clusters.push(cluster.clone()),
                Some(_) => {}
            }
        }
    }
    let mut found: Vec<TemplateKind> = order.iter().filter_map(|resource| kinds.remove(resource)).collect();
    for kind in &mut found {
        kind.clusters.dedup();
        // Stable: among equals the order by name stays.
        kind.clusters.sort_by_key(|name| !is_ready(directory, name));
    }
    found
}

/// Whether requests reach the cluster and its copies are up to date.
#[must_use]
pub fn is_ready(directory: &Directory, cluster: &str) -> bool {
    let status = directory
        .clusters
        .get(cluster)
        .and_then(|cluster| cluster.status.as_ref());
    status.is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        conditions.any(|one| one.type_ == umbra_api::cluster::condition::READY && one.status == "True")
    })
}

fn candidates(discovery: &Discovery) -> impl Iterator<Item = &ResourceDescriptor> {
    discovery.resources().filter(|descriptor| {
        let (group, resource) = (
            descriptor.resource.group.as_str(),
            descriptor.resource.resource.as_str(),
        );
        // Applying needs patch; withdrawing needs delete.
        ["create", "get", "patch", "delete"]
            .iter()
            .all(|verb| descriptor.serves(verb))
            && !NO_TEMPLATES.contains(&group)
            && !NOT_TEMPLATES.contains(&(group, resource))
    })
}

fn as_template(descriptor: &ResourceDescriptor) -> ResourceDescriptor {
    let mut descriptor = descriptor.clone();
    descriptor.verbs = STORED_VERBS.map(str::to_owned).to_vec();
    descriptor
        .subresources
        .retain(|one| SUBRESOURCES.contains(&one.name.as_str()));
    descriptor
}
