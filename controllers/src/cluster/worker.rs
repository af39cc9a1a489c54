//! One ManagedCluster: follows what it asks for, and cleans up when it goes.

mod connect;
mod finalizer;
mod phase;
mod report;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Api;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::ManagedCluster;
use umbra_registry::copies::retry;
use umbra_storage::Store;

use self::phase::Phase;
pub(super) use self::phase::Retrying;
use crate::cluster::ClusterControllerParts;
use crate::cluster::connection::{Problem, Wanted};
use crate::cluster::erase::{erase_everything, is_known};
use crate::cluster::events::Events;
use crate::cluster::reporter::Reporter;
use crate::lease::{Held, Lease, LeaseKey, Leases};

/// How soon it is looked again whether the holder of its lease has erased what is left of a cluster.
const ERASED: Duration = Duration::from_secs(5);

/// What a worker is to bring about.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    /// The ManagedCluster; `None` where there is none and nothing of it is to be left.
    pub(super) cluster: Option<Arc<ManagedCluster>>,
    /// The connection it asks for; `None` where Secrets have not been read yet.
    pub(super) wanted: Option<Result<Wanted, Problem>>,
}

impl PartialEq for Target {
    /// Two reads of one object are different targets: looking again costs little.
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.cluster, &other.cluster) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same && self.wanted == other.wanted
    }
}

/// What keeps a worker from going on; it tries again.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the hub's store failed")]
    Store(#[from] umbra_storage::Error),
    #[error("the ManagedCluster cannot be written")]
    Hub(#[from] kube::Error),
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The right to copy the cluster and to write its status.
struct Holding {
    held: Held,
    /// The store, to write to under the lease.
    store: Arc<dyn Store>,
}

/// One ManagedCluster.
pub(super) struct Worker {
    name: String,
    lease: Lease,
    /// `None` while another replica holds the lease.
    holding: Option<Holding>,
    parts: ClusterControllerParts,
    api: Api<ManagedCluster>,
    targets: watch::Receiver<Target>,
    idle: mpsc::Sender<String>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    reporter: Reporter,
    events: Events,
    phase: Phase,
    /// The UID of the ManagedCluster that copies are of.
    owner: Option<String>,
}

impl Worker {
    /// A worker for the cluster `name`, which says on `idle` when nothing is left of a cluster that is gone. It ends when
    /// the sender of `targets` is dropped.
    pub(super) fn new(
        name: &str,
        (parts, leases, events): (ClusterControllerParts, Leases, Events),
        targets: watch::Receiver<Target>,
        idle: mpsc::Sender<String>,
        (tracker, cancel): (TaskTracker, CancellationToken),
    ) -> Self {
        let api: Api<ManagedCluster> = Api::all(parts.client.clone());
        Self {
            name: name.to_owned(),
            lease: leases.lease(LeaseKey::cluster(name)),
            holding: None,
            reporter: Reporter::new(api.clone(), name),
            events,
            parts,
            api,
            targets,
            idle,
            tracker,
            cancel,
            phase: Phase::New,
            owner: None,
        }
    }

    /// Works until it is cancelled or no longer needed.
    pub(super) async fn run(mut self) {
        let cancel = self.cancel.clone();
        cancel.run_until_cancelled(self.run_on()).await;
        self.stop_copying().await;
    }

    async fn stop_copying(&mut self) {
        if let Phase::Connected(session) = &mut self.phase {
            session.stop_copying().await;
        }
    }

    /// Takes note of who holds the lease now.
    async fn look_at_lease(&mut self) {
        if self.holding.as_ref().is_some_and(|one| one.held.lost().is_cancelled()) {
            // The lease may go to another replica only when nothing is copied here any more.
            self.stop_copying().await;
            self.holding = None;
        }
        if self.holding.is_none() {
            self.holding = self.lease.acquire().now_or_never().map(|held| Holding {
                store: held.store(&self.parts.store),
                held,
            });
        }
    }

    async fn run_on(&mut self) {
        let mut failures = 0;
        loop {
            self.look_at_lease().await;
            let target = self.targets.borrow_and_update().clone();
            let next = match self.step(&target).await {
                Ok(next) => {
                    failures = 0;
                    next
                }
                Err(error) => {
                    failures += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(cluster = %self.name, error, "the cluster cannot be brought up to date");
                    Some(Instant::now() + retry::pause(failures))
                }
            };
            if !self.wait(next).await {
                return;
            }
        }
    }

    /// Brings the cluster closer to its target. Gives when there is more to do without a change.
    async fn step(&mut self, target: &Target) -> Result<Option<Instant>, WorkerError> {
        let Some(cluster) = &target.cluster else {
            self.leave().await?;
            if self.holding.is_none() && is_known(&*self.parts.store, &self.name).await? {
                // Should the holder not live to erase it, it is for this replica to do.
                return Ok(Some(Instant::now() + ERASED));
            }
            // Where nobody listens, everything is ending.
            let _ = self.idle.send(self.name.clone()).await;
            return Ok(None);
        };
        if cluster.metadata.deletion_timestamp.is_some() {
            self.leave().await?;
            self.set_finalizer(cluster, false).await?;
            return Ok(None);
        }
        if self.owner.is_some() && self.owner != cluster.metadata.uid {
            self.leave().await?;
        }
        self.owner.clone_from(&cluster.metadata.uid);
        if self.set_finalizer(cluster, true).await? {
            // The change arrives as the next target.
            return Ok(None);
        }
        self.reporter.observe(cluster);
        let Some(wanted) = &target.wanted else {
            return Ok(None);
        };
        self.connect(cluster, wanted).await;
        self.follow(cluster).await;
        Ok(self.report(cluster).await)
    }

    /// Waits for a change, or until `next`. `false`: there will be no more targets.
    async fn wait(&mut self, next: Option<Instant>) -> bool {
        let Self {
            name,
            targets,
            phase,
            lease,
            holding,
            ..
        } = self;
        let lease_changed = async {
            match holding {
                Some(one) => one.held.lost().cancelled().await,
                // Taken again, at once, by the next look at the lease.
                None => drop(lease.acquire().await),
            }
        };
        tokio::select! {
            changed = targets.changed() => changed.is_ok(),
            () = phase.changed(name) => true,
            () = sleep_until(next) => true,
            () = lease_changed => true,
        }
    }

    /// Leaves nothing of the cluster; what the store has of it is for the holder of the lease to erase.
    async fn leave(&mut self) -> Result<(), WorkerError> {
        self.disconnect(Phase::New).await;
        self.parts.documents.forget(&self.name);
        if let Some(tunnels) = &self.parts.tunnels {
            tunnels.forget(&self.name);
        }
        if let Some(holding) = &self.holding {
            erase_everything(&*holding.store, &self.name).await?;
        }
        self.owner = None;
        self.reporter.reset();
        Ok(())
    }
}
