//! What is known of each cluster beside its objects: which resources it serves, which of them are copied, and how it
//! prints them.
//!
//! The copy controller writes the catalog into the store, so that views can serve the last known copies of a cluster
//! that cannot be reached when the hub starts. Readers mirror it.
//!
//! Keys: `/umbra/catalog/{cluster}/api` and `/umbra/catalog/{cluster}/columns/{group}/{resource}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::table::ColumnDefinition;
use umbra_storage::Revision;

use crate::mirror::MirrorState;

/// Where the catalog is.
pub const CATALOG: &str = "/umbra/catalog/";

/// What a cluster serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterApi {
    /// All its resources.
    pub discovery: Arc<Discovery>,
    /// The resources that are copied.
    pub copied: BTreeSet<GroupResource>,
}

/// What is known of a cluster.
#[derive(Debug, Clone, Default)]
pub struct CatalogEntry {
    /// What the cluster serves.
    pub api: Arc<ClusterApi>,
    /// The columns under which its copies are printed.
    pub columns: BTreeMap<GroupResource, Arc<[ColumnDefinition]>>,
}

/// What is known of all clusters.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By name of the cluster.
    pub clusters: BTreeMap<String, CatalogEntry>,
}

/// The key of a cluster's [`ClusterApi`].
#[must_use]
pub fn api_key(cluster: &str) -> String {
    format!("{CATALOG}{cluster}/api")
}

/// The key of the columns of a resource of a cluster.
#[must_use]
pub fn columns_key(cluster: &str, resource: &GroupResource) -> String {
    format!("{CATALOG}{cluster}/columns/{}/{}", resource.group, resource.resource)
}

/// Where everything about a cluster is.
#[must_use]
pub fn catalog_prefix(cluster: &str) -> String {
    format!("{CATALOG}{cluster}/")
}

impl MirrorState for Catalog {
    /// A value that cannot be read is as good as none: the copy controller writes it anew at its next discovery.
    fn put(&mut self, key: &str, value: &Bytes, _revision: Revision) {
        let Some((cluster, place)) = split(key) else { return };
        let read = match place {
            Place::Api => serde_json::from_slice(value).map(|api| {
                self.clusters.entry(cluster.to_owned()).or_default().api = Arc::new(api);
            }),
            Place::Columns(resource) => serde_json::from_slice::<Vec<ColumnDefinition>>(value).map(|columns| {
                let entry = self.clusters.entry(cluster.to_owned()).or_default();
                entry.columns.insert(resource, columns.into());
            }),
        };
        if let Err(error) = read {
            tracing::warn!(%error, key, "the catalog has a value that cannot be read");
        }
    }

    fn remove(&mut self, key: &str) {
        let Some((cluster, place)) = split(key) else { return };
        let Some(entry) = self.clusters.get_mut(cluster) else {
            return;
        };
        match place {
            Place::Api => entry.api = Arc::default(),
            Place::Columns(resource) => {
                entry.columns.remove(&resource);
            }
        }
        if entry.columns.is_empty() && *entry.api == ClusterApi::default() {
            self.clusters.remove(cluster);
        }
    }
}

enum Place {
    Api,
    Columns(GroupResource),
}

fn split(key: &str) -> Option<(&str, Place)> {
    let (cluster, rest) = key.split_once('/')?;
    let place = match rest {
        "api" => Place::Api,
        _ => {
            let (group, resource) = rest.strip_prefix("columns/")?.split_once('/')?;
            Place::Columns(GroupResource::new(group, resource))
        }
    };
    Some((cluster, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(catalog: &mut Catalog, key: &str, value: &impl Serialize) {
        let below = key.strip_prefix(CATALOG).unwrap();
        catalog.put(below, &serde_json::to_vec(value).unwrap().into(), Revision(1));
    }

    #[test]
    fn the_catalog_follows_puts_and_deletes() {
        let pods = GroupResource::new("", "pods");
        let mut catalog = Catalog::default();
        let api = ClusterApi {
            copied: [pods.clone()].into(),
            ..ClusterApi::default()
        };
        put(&mut catalog, &api_key("east"), &api);
        let columns = vec![ColumnDefinition::name()];
        put(&mut catalog, &columns_key("east", &pods), &columns);
        put(&mut catalog, &columns_key("west", &pods), &"nonsense");
        assert_eq!(catalog.clusters.keys().collect::<Vec<_>>(), ["east"]);
        assert_eq!(*catalog.clusters["east"].api, api);
        assert_eq!(catalog.clusters["east"].columns[&pods][..], columns);
        catalog.remove("east/api");
        assert_eq!(catalog.clusters.len(), 1);
        catalog.remove("east/columns//pods");
        assert!(catalog.clusters.is_empty());
    }
}
