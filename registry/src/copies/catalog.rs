//! What is known of each cluster beside its objects: which resources it serves, which of them are copied, and how it
//! prints them.
//!
//! The copy controller writes the catalog into the store, so that views can serve the last known copies of a cluster
//! that cannot be reached when the hub starts. Readers share an immutable [`CatalogSnapshot`].
//!
//! Keys: `/umbra/catalog/{cluster}/api` and `/umbra/catalog/{cluster}/columns/{group}/{resource}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::table::ColumnDefinition;
use umbra_storage::{Error, RangeRequest, Revision, Store, WatchEvent};

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

/// What is known of all clusters at one moment.
#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
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

/// The catalog as this process sees it.
#[derive(Debug)]
pub struct Catalog {
    snapshot: ArcSwap<CatalogSnapshot>,
    changed: watch::Sender<u64>,
}

impl Catalog {
    /// Reads the catalog from `store`. [`Catalog::follow`] keeps it up to date from the revision that comes with it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(store: &dyn Store) -> Result<(Arc<Self>, Revision), Error> {
        let (snapshot, revision) = read(store).await?;
        let catalog = Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            changed: watch::Sender::new(0),
        };
        Ok((Arc::new(catalog), revision))
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.snapshot.load_full()
    }

    /// Changes whenever the snapshot does.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Follows the store until `cancel`. After an error of the watch the whole catalog is read again.
    pub async fn follow(&self, store: Arc<dyn Store>, after: Revision, cancel: CancellationToken) {
        let mut after = Some(after);
        while !cancel.is_cancelled() {
            let follow = self.follow_once(&store, after.take());
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = follow => result,
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the catalog of clusters is read again");
                let pause = crate::copies::retry::pause(1);
                tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(pause) => {} }
            }
        }
    }

    async fn follow_once(&self, store: &Arc<dyn Store>, after: Option<Revision>) -> Result<(), Error> {
        let after = match after {
            Some(after) => after,
            None => {
                let (snapshot, revision) = read(&**store).await?;
                self.publish(snapshot);
                revision
            }
        };
        let mut events = store.watch(CATALOG, after).await?;
        while let Some(event) = events.next().await {
            let mut snapshot = CatalogSnapshot::clone(&self.snapshot.load());
            match event? {
                WatchEvent::Put { entry, .. } => snapshot.put(&entry.key, &entry.value),
                WatchEvent::Delete { key, .. } => snapshot.remove(&key),
                WatchEvent::Progress { .. } => continue,
            }
            self.publish(snapshot);
        }
        Ok(())
    }

    fn publish(&self, snapshot: CatalogSnapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_modify(|count| *count += 1);
    }
}

async fn read(store: &dyn Store) -> Result<(CatalogSnapshot, Revision), Error> {
    let response = store.range(RangeRequest::prefix(CATALOG)).await?;
    let mut snapshot = CatalogSnapshot::default();
    for entry in &response.entries {
        snapshot.put(&entry.key, &entry.value);
    }
    Ok((snapshot, response.revision))
}

impl CatalogSnapshot {
    /// A value that cannot be read is as good as none: the copy controller writes it anew at its next discovery.
    fn put(&mut self, key: &str, value: &Bytes) {
        let Some((cluster, place)) = split(key) else { return };
        match place {
            Place::Api => match serde_json::from_slice(value) {
                Ok(api) => self.clusters.entry(cluster.to_owned()).or_default().api = Arc::new(api),
                Err(error) => tracing::warn!(%error, key, "the catalog has a value that cannot be read"),
            },
            Place::Columns(resource) => match serde_json::from_slice::<Vec<ColumnDefinition>>(value) {
                Ok(columns) => {
                    let entry = self.clusters.entry(cluster.to_owned()).or_default();
                    entry.columns.insert(resource, columns.into());
                }
                Err(error) => tracing::warn!(%error, key, "the catalog has a value that cannot be read"),
            },
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
    let (cluster, rest) = key.strip_prefix(CATALOG)?.split_once('/')?;
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

    #[test]
    fn a_snapshot_follows_puts_and_deletes() {
        let pods = GroupResource::new("", "pods");
        let mut snapshot = CatalogSnapshot::default();
        let api = ClusterApi {
            copied: [pods.clone()].into(),
            ..ClusterApi::default()
        };
        snapshot.put(&api_key("east"), &serde_json::to_vec(&api).unwrap().into());
        let columns = vec![ColumnDefinition::name()];
        snapshot.put(
            &columns_key("east", &pods),
            &serde_json::to_vec(&columns).unwrap().into(),
        );
        snapshot.put(&columns_key("west", &pods), &Bytes::from_static(b"nonsense"));
        assert_eq!(snapshot.clusters.keys().collect::<Vec<_>>(), ["east"]);
        assert_eq!(*snapshot.clusters["east"].api, api);
        assert_eq!(snapshot.clusters["east"].columns[&pods][..], columns);
        snapshot.remove(&api_key("east"));
        assert_eq!(snapshot.clusters.len(), 1);
        snapshot.remove(&columns_key("east", &pods));
        assert!(snapshot.clusters.is_empty());
    }
}
