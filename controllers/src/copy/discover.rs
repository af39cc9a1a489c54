//! Asks a child which resources it serves.
//!
//! A group version whose server does not answer is listed all the same: as `Stale`, and without resources where the
//! kube-apiserver has not seen any since it started (`kube-aggregator/pkg/apiserver/handler_discovery.go`,
//! `syncAPIService`). Nobody says that they are gone, so what was known of them stays ([`Discovered::keep_stale`]): a view
//! that took them for gone would tell its watchers of an outage as deletions. They go when the child lists the group
//! version no more, or answers for it without them.
//!
//! Names come from the child and go into the keys of copies. What cannot be one segment of a key is left out
//! ([`is_well_named`]): the objects of a resource called `pods/west` would be among the pods of the cluster `west`.

use std::collections::BTreeSet;

use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::discovery_list::{ACCEPT, DiscoveryAnswer, read_resource_list};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionResource};
use umbra_apimachinery::names::{is_dns1123_label, is_dns1123_subdomain, is_path_segment};

use crate::copy::source::{Source, SourceError};

/// What a child serves.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Its resources. Stale group versions have their place in the order, also where nothing is said of their resources.
    pub(crate) discovery: Discovery,
    /// Group versions that are listed but whose server (an aggregated one) does not answer.
    pub(crate) stale: BTreeSet<GroupVersion>,
}

impl Discovered {
    /// What the child serves, as far as it says so, and what `previous` knows of the stale group versions of which it says
    /// nothing. They stay where the child lists them, because the first version of a resource is the one that is copied.
    pub(crate) fn keep_stale(&self, previous: &Discovery) -> Discovery {
        let mut kept = Discovery::new();
        for group in self.discovery.groups() {
            for version in &group.versions {
                let name = GroupVersion::new(&group.name, &version.version);
                let unknown = version.resources.is_empty() && self.stale.contains(&name);
                let known = if unknown {
                    previous.version(&name)
                } else {
                    Some(version)
                };
                for resource in known.into_iter().flat_map(|version| &version.resources) {
                    if is_well_named(&resource.resource) {
                        kept.insert(with_good_subresources(resource));
                    } else {
                        tracing::debug!(resource = ?resource.resource, "the cluster has a resource with an impossible name");
                    }
                }
            }
        }
        kept
    }
}

/// Asks `/api` and `/apis`; where the child has no aggregated discovery, each group version.
///
/// # Errors
/// Where `/api` or `/apis` is not answered. A single group version that fails is stale.
pub(crate) async fn discover(source: &dyn Source) -> Result<Discovered, SourceError> {
    let mut found = Discovered::default();
    for path in ["/api", "/apis"] {
        let body = source.get(path, ACCEPT).await?;
        let answer = DiscoveryAnswer::parse(&body).map_err(|error| SourceError::Malformed {
            path: path.to_owned(),
            source: error,
        })?;
        match answer {
            DiscoveryAnswer::Aggregated(discovery, stale) => found.add(&discovery, stale),
            DiscoveryAnswer::Versions(versions) => {
                for version in versions {
                    found.discovery.place(&version);
                    let path = format!("/{}", version.path());
                    let read = source.get(&path, "application/json").await.and_then(|body| {
                        read_resource_list(&body, &mut found.discovery)
                            .map_err(|source| SourceError::Malformed { path, source })
                    });
                    if let Err(error) = read {
                        tracing::warn!(%version, %error, "a group version of the cluster does not answer");
                        found.stale.insert(version);
                    }
                }
            }
        }
    }
    Ok(found)
}

impl Discovered {
    fn add(&mut self, discovery: &Discovery, stale: Vec<GroupVersion>) {
        for group in discovery.groups() {
            for version in &group.versions {
                self.discovery.place(&GroupVersion::new(&group.name, &version.version));
                for resource in &version.resources {
                    self.discovery.insert(resource.clone());
                }
            }
        }
        self.stale.extend(stale);
    }
}

/// Whether groups are domains and versions labels, as for APIServices; `core` is no group but stands for none in keys. Names of
/// resources are free beside what a path needs: metrics have names of all sorts.
fn is_well_named(resource: &GroupVersionResource) -> bool {
    let group = &resource.group;
    (group.is_empty() || (is_dns1123_subdomain(group) && group != "core"))
        && is_dns1123_label(&resource.version)
        && is_path_segment(&resource.resource)
}

fn with_good_subresources(resource: &ResourceDescriptor) -> ResourceDescriptor {
    let mut resource = resource.clone();
    resource.subresources.retain(|one| is_path_segment(&one.name));
    resource
}
