//! Runs one worker for each ManagedCluster, and tells it what to bring about.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_registry::directory::Directory;

use crate::cluster::ClusterControllerParts;
use crate::cluster::connection::{LocalCredentials, Wanted};
use crate::cluster::erase::known_clusters;
use crate::cluster::events::Events;
use crate::cluster::kubeconfigs::{self, Kubeconfigs};
use crate::cluster::roots;
use crate::cluster::worker::{Target, Worker};
use crate::lease::Leases;

/// Workers that say at once that nothing is left to do; more wait.
const IDLE: usize = 64;

/// Connects and copies the clusters of the hub.
pub struct ClusterController {
    parts: ClusterControllerParts,
    /// Whose Secrets hold the credentials.
    credentials: kube::Client,
    local: LocalCredentials,
    leases: Leases,
}

impl std::fmt::Debug for ClusterController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterController").finish_non_exhaustive()
    }
}

/// The workers, each with its target.
struct Workers {
    parts: ClusterControllerParts,
    leases: Leases,
    local: LocalCredentials,
    events: Events,
    targets: BTreeMap<String, watch::Sender<Target>>,
    idle: mpsc::Sender<String>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl ClusterController {
    /// A controller of the clusters in `parts.directory`.
    #[must_use]
    pub fn new(parts: ClusterControllerParts) -> Self {
        Self {
            credentials: parts.client.clone(),
            local: LocalCredentials::default(),
            parts,
            leases: Leases::sole(),
        }
    }

    /// Takes credentials from the Secrets of another cluster than the one that has the ManagedClusters, and writes Events there:
    /// behind a kube-apiserver both are that one's.
    #[must_use]
    pub fn with_credentials(mut self, credentials: kube::Client) -> Self {
        self.credentials = credentials;
        self
    }

    /// Lets kubeconfigs of Secrets run programs and read files, or not. Without, they may not.
    #[must_use]
    pub fn with_local_credentials(mut self, local: LocalCredentials) -> Self {
        self.local = local;
        self
    }

    /// Shares the clusters with the controllers of other replicas. Without, all are this one's.
    #[must_use]
    pub fn with_leases(mut self, leases: Leases) -> Self {
        self.leases = leases;
        self
    }

    /// Runs until `cancel`, then waits until everything it started has ended. Clusters stay connected:
    /// [`umbra_child::Children::close`] ends that.
    pub async fn run(self, cancel: CancellationToken) {
        let tracker = TaskTracker::new();
        let (sender, mut secrets) = watch::channel(None);
        let (events, recording) = Events::new(self.credentials.clone(), cancel.clone());
        tracker.spawn(recording);
        tracker.spawn(kubeconfigs::follow(self.credentials, sender, cancel.clone()));
        tracker.spawn(roots::follow(
            self.parts.client.clone(),
            Arc::clone(&self.parts.directory),
            self.leases.clone(),
            cancel.clone(),
        ));
        let (idle, mut idlers) = mpsc::channel(IDLE);
        let mut directory = self.parts.directory.subscribe();
        let mut workers = Workers {
            parts: self.parts,
            leases: self.leases,
            local: self.local,
            events,
            targets: BTreeMap::new(),
            idle,
            tracker: tracker.clone(),
            cancel: cancel.clone(),
        };
        workers.erase_orphans().await;
        loop {
            directory.mark_unchanged();
            let kubeconfigs = secrets.borrow_and_update().clone();
            let state = workers.parts.directory.state();
            workers.assign(&state, kubeconfigs.as_ref());
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = directory.changed() => if changed.is_err() { break },
                // The sender ends with `cancel` alone.
                _ = secrets.changed() => {}
                Some(name) = idlers.recv() => workers.dismiss(&name),
            }
        }
        cancel.cancelled().await;
        workers.targets.clear();
        tracker.close();
        tracker.wait().await;
    }
}

impl Workers {
    /// Copies of clusters that are not there any more, because somebody took their finalizer away, are erased.
    async fn erase_orphans(&mut self) {
        let state = self.parts.directory.state();
        match known_clusters(&*self.parts.store).await {
            Ok(known) => {
                for name in known.iter().filter(|name| !state.clusters.contains_key(*name)) {
                    tracing::info!(cluster = %name, "erasing the copies of a cluster that is gone");
                    self.set(name, Target::default());
                }
            }
            Err(error) => tracing::warn!(%error, "the copies of clusters that are gone are not erased"),
        }
    }

    /// Tells every worker what there is to bring about now.
    fn assign(&mut self, directory: &Directory, kubeconfigs: Option<&Kubeconfigs>) {
        for (name, cluster) in &directory.clusters {
            let target = Target {
                cluster: Some(Arc::clone(cluster)),
                wanted: kubeconfigs.map(|kubeconfigs| Wanted::of(cluster, kubeconfigs, self.local)),
            };
            self.set(name, target);
        }
        for (_, targets) in self
            .targets
            .iter()
            .filter(|(name, _)| !directory.clusters.contains_key(*name))
        {
            targets.send_if_modified(|target| {
                let changed = target.cluster.is_some();
                *target = Target::default();
                changed
            });
        }
    }

    fn set(&mut self, name: &str, target: Target) {
        if let Some(targets) = self.targets.get(name) {
            targets.send_if_modified(|present| {
                let changed = *present != target;
                *present = target;
                changed
            });
            return;
        }
        let (sender, receiver) = watch::channel(target);
        let tasks = (self.tracker.clone(), self.cancel.clone());
        let parts = (self.parts.clone(), self.leases.clone(), self.events.clone());
        let worker = Worker::new(name, parts, receiver, self.idle.clone(), tasks);
        self.tracker.spawn(worker.run());
        self.targets.insert(name.to_owned(), sender);
    }

    /// Ends a worker that has nothing left to do, unless there is a cluster of that name again.
    fn dismiss(&mut self, name: &str) {
        if self
            .targets
            .get(name)
            .is_some_and(|targets| targets.borrow().cluster.is_none())
        {
            self.targets.remove(name);
        }
    }
}
