//! Copies one cluster: finds out what it serves, and runs one [`ResourceCopy`] for each resource that is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::Sync;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::gvk::GroupResource;
use umbra_registry::copies::catalog::{ClusterApi, api_key};
use umbra_registry::copies::key::cluster_prefix;
use umbra_registry::copies::retry;
use umbra_storage::{Precondition, Store};

use crate::copy::discover::discover;
use crate::copy::erase::erase_prefix;
use crate::copy::position::{Positions, SAVE_INTERVAL, positions_key};
use crate::copy::resource::{ResourceCopy, ResourceState};
use crate::copy::selection::copied_resources;
use crate::copy::source::{Source, SourceError};

/// How often a cluster is asked what it serves. New custom resources do not wait for it: a change of a
/// CustomResourceDefinition or an APIService asks at once.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(60);
/// Definitions change in bursts; one discovery after this long serves the burst.
const DISCOVERY_DELAY: Duration = Duration::from_millis(200);
/// How long the last positions may take to be written at the end.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// How the copies of a cluster stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterState {
    /// Whether discovery has succeeded since the start.
    pub discovered: bool,
    /// Why discovery failed last, where it did.
    pub message: String,
    /// Each copied resource.
    pub resources: BTreeMap<GroupResource, ResourceState>,
}

impl ClusterState {
    /// Whether all copies are up to date. Resources that the hub may not read do not count: waiting will not help.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.discovered && self.resources.values().all(|state| state.synced || state.refused)
    }
}

/// Copies one cluster.
pub struct ClusterCopy {
    cluster: Arc<str>,
    sync: Sync,
    source: Arc<dyn Source>,
    store: Arc<dyn Store>,
    positions: Arc<Positions>,
    state: watch::Sender<ClusterState>,
    definitions_changed: Arc<Notify>,
}

struct Running {
    resource: ResourceDescriptor,
    cancel: CancellationToken,
    state: watch::Receiver<ResourceState>,
}

impl ClusterCopy {
    /// Copies what `sync` selects from `source` into `store`, as cluster `name`; the receiver follows how it goes.
    #[must_use]
    pub fn new(
        name: &str,
        sync: Sync,
        source: Arc<dyn Source>,
        store: Arc<dyn Store>,
    ) -> (Self, watch::Receiver<ClusterState>) {
        let (state, receiver) = watch::channel(ClusterState::default());
        let definitions_changed = Arc::default();
        (
            Self {
                cluster: name.into(),
                sync,
                source,
                positions: Arc::new(Positions::new(name, Arc::clone(&store))),
                store,
                state,
                definitions_changed,
            },
            receiver,
        )
    }

    /// Copies until `cancel`, then waits for its tasks.
    pub async fn run(self, cancel: CancellationToken) {
        let tracker = TaskTracker::new();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.run_on(&tracker, &cancel) => {}
            () = self.save_positions() => {}
        }
        tracker.close();
        tracker.wait().await;
        // Whoever goes on has less to look at again; nothing is lost without.
        let _ = tokio::time::timeout(LAST_SAVE, self.positions.save()).await;
    }

    async fn save_positions(&self) {
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            if let Err(error) = self.positions.save().await {
                tracing::debug!(cluster = %self.cluster, %error, "how far the cluster has been copied is not written");
            }
        }
    }

    async fn run_on(&self, tracker: &TaskTracker, cancel: &CancellationToken) {
        let mut running: BTreeMap<GroupResource, Running> = BTreeMap::new();
        if let Err(error) = self.positions.load().await {
            tracing::debug!(cluster = %self.cluster, %error, "how far the cluster has been copied cannot be read; listing");
        }
        let mut failures = 0;
        loop {
            match self.discover_and_store().await {
                Ok(discovery) => {
                    failures = 0;
                    self.reconcile(&discovery, &mut running, tracker, cancel).await;
                    self.state.send_modify(|state| {
                        state.discovered = true;
                        state.message.clear();
                    });
                }
                Err(error) => {
                    failures += 1;
                    self.state.send_modify(|state| state.message = error.to_string());
                }
            }
            let pause = if failures == 0 {
                DISCOVERY_INTERVAL
            } else {
                retry::pause(failures)
            };
            self.follow_states(&running, pause).await;
        }
    }

    /// Publishes the states of the resources until it is time for the next discovery.
    async fn follow_states(&self, running: &BTreeMap<GroupResource, Running>, pause: Duration) {
        let pause = tokio::time::sleep(pause);
        tokio::pin!(pause);
        let mut receivers: BTreeMap<_, _> = running.iter().map(|(name, one)| (name, one.state.clone())).collect();
        loop {
            // Marked as seen in the moment of reading: what changes from here on wakes.
            let resources: BTreeMap<_, _> = receivers
                .iter_mut()
                .map(|(name, state)| ((*name).clone(), state.borrow_and_update().clone()))
                .collect();
            self.state.send_if_modified(|state| {
                let changed = state.resources != resources;
                state.resources = resources;
                changed
            });
            tokio::select! {
                () = &mut pause => return,
                () = self.definitions_changed.notified() => {
                    tokio::time::sleep(DISCOVERY_DELAY).await;
                    return;
                }
                () = any_changed(receivers.values_mut()) => {}
            }
        }
    }

    /// What the cluster serves, as it is in the catalog from now on.
    async fn discover_and_store(&self) -> Result<Arc<Discovery>, SourceError> {
        let discovered = discover(&*self.source).await?;
        let key = api_key(&self.cluster);
        let failed = |error: umbra_storage::Error| SourceError::Unreachable(format!("the hub's store failed: {error}"));
        let present = self.store.get(&key).await.map_err(failed)?.entry;
        let previous = present.as_ref().map(|entry| self.read(&entry.value));
        let discovery = Arc::new(discovered.keep_stale(&previous.unwrap_or_default().discovery));
        let copied: BTreeSet<_> = copied_resources(&discovery, &self.sync)
            .iter()
            .map(|one| one.group_resource())
            .collect();
        let api = ClusterApi {
            discovery: Arc::clone(&discovery),
            copied,
        };
        let value = serde_json::to_vec(&api).expect("discovery is plain data");
        if present.is_none_or(|entry| entry.value != value) {
            self.store
                .put(&key, value.into(), Precondition::None)
                .await
                .map_err(failed)?;
        }
        Ok(discovery)
    }

    /// What the catalog has. A value that cannot be read is as good as none and written anew.
    fn read(&self, value: &[u8]) -> ClusterApi {
        serde_json::from_slice(value).unwrap_or_else(|error| {
            tracing::warn!(cluster = %self.cluster, %error, "what the cluster served before cannot be read");
            ClusterApi::default()
        })
    }

    /// Starts what is new, restarts what is served in another version now, and stops and erases what is no longer
    /// served or no longer selected.
    async fn reconcile(
        &self,
        discovery: &Discovery,
        running: &mut BTreeMap<GroupResource, Running>,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let wanted = self.wanted(discovery);
        let superfluous: Vec<_> = running
            .iter()
            .filter(|(name, one)| {
                wanted
                    .get(*name)
                    .is_none_or(|wanted| wanted.resource != one.resource.resource)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in superfluous {
            if let Some(stopped) = running.remove(&name) {
                stopped.cancel.cancel();
            }
            if !wanted.contains_key(&name) {
                let prefix = cluster_prefix(&name, &self.cluster);
                let forgotten = self.positions.forget(&name).await;
                if let Err(error) = match forgotten {
                    Ok(()) => erase_prefix(&*self.store, &prefix).await,
                    failed => failed,
                } {
                    tracing::warn!(cluster = %self.cluster, resource = %name, %error, "copies are not erased");
                }
            }
        }
        for (name, resource) in wanted {
            running
                .entry(name)
                .or_insert_with(|| self.start(resource, tracker, cancel));
        }
    }

    fn wanted(&self, discovery: &Discovery) -> BTreeMap<GroupResource, ResourceDescriptor> {
        copied_resources(discovery, &self.sync)
            .into_iter()
            .map(|one| (one.group_resource(), one.clone()))
            .collect()
    }

    fn start(&self, resource: ResourceDescriptor, tracker: &TaskTracker, cancel: &CancellationToken) -> Running {
        let (sender, state) = watch::channel(ResourceState::default());
        let cancel = cancel.child_token();
        let defines = matches!(
            (resource.resource.group.as_str(), resource.resource.resource.as_str()),
            ("apiextensions.k8s.io", "customresourcedefinitions") | ("apiregistration.k8s.io", "apiservices")
        );
        let copy = ResourceCopy {
            cluster: Arc::clone(&self.cluster),
            resource: resource.clone(),
            source: Arc::clone(&self.source),
            store: Arc::clone(&self.store),
            positions: Arc::clone(&self.positions),
            state: sender,
            written: defines.then(|| Arc::clone(&self.definitions_changed)),
        };
        tracker.spawn(copy.run(cancel.clone()));
        Running {
            resource,
            cancel,
            state,
        }
    }
}

/// Waits until one of the states changes; for ever where there is none, or all whose sender is gone.
async fn any_changed(receivers: impl Iterator<Item = &mut watch::Receiver<ResourceState>>) {
    let changes: Vec<_> = receivers
        .map(|receiver| {
            Box::pin(async move {
                if receiver.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        })
        .collect();
    if changes.is_empty() {
        std::future::pending::<()>().await;
    }
    futures::future::select_all(changes).await;
}

impl std::fmt::Debug for ClusterCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCopy")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Removes all copies of a cluster and what the catalog knows of it.
///
/// # Errors
/// Those of the store; what is left can be erased by trying again.
pub async fn erase_cluster(
    store: &dyn Store,
    cluster: &str,
    copied: impl IntoIterator<Item = GroupResource>,
) -> Result<(), umbra_storage::Error> {
    match store.delete(&positions_key(cluster), Precondition::None).await {
        Ok(_) | Err(umbra_storage::Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    for resource in copied {
        erase_prefix(store, &cluster_prefix(&resource, cluster)).await?;
    }
    erase_prefix(store, &umbra_registry::copies::catalog::catalog_prefix(cluster)).await
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
