//! A cluster that is connected: its copies, its health, and who it says it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::{CopiedResource, Sync};
use umbra_apimachinery::gvk::GroupResource;
use umbra_child::{Child, Expiry, Failure, Health};
use umbra_registry::copies::key::cluster_prefix;
use umbra_storage::{RangeRequest, Store};

use crate::cluster::connection::{Problem, Wanted};
use crate::cluster::facts::{self, Facts};
use crate::cluster::worker::Retrying;
use crate::copy::{ChildSource, ClusterCopy, ClusterState};

/// How often a cluster is asked again who it is, what version it has, and how many nodes.
const REFRESH: Duration = Duration::from_secs(60);
/// How soon again, where it was to say who it is and could not.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked which of several endpoints is in use: as often as they are probed.
const LOOK: Duration = Duration::from_secs(10);
/// How often copies are counted while they are not up to date, and else.
const COUNT_SOON: Duration = Duration::from_secs(2);
const COUNT: Duration = Duration::from_secs(60);

/// What is not waited for to pass: the cluster is not to be used.
const LEFT_FOR: [&str; 3] = [facts::IDENTITY_UNKNOWN, facts::VERSION_UNSUPPORTED, "WrongCluster"];

/// A cluster that is connected.
pub(super) struct Session {
    pub(super) wanted: Wanted,
    pub(super) child: Child,
    pub(super) facts: Facts,
    health: watch::Receiver<Health>,
    sync: Sync,
    copying: Option<Copying>,
    /// It was unreachable, and has not said since who it is.
    unverified: bool,
    /// Why it has not.
    problem: Option<Problem>,
    /// When the hub's credential ends, where it says so.
    pub(super) expiry: Option<Expiry>,
    /// Another credential for the same connection, which does not work yet; the present one is used until it does.
    pub(super) renewal: Option<Retrying>,
    refresh_at: Instant,
    counts: BTreeMap<GroupResource, i64>,
    counted: Option<Instant>,
    /// Whether the copies were complete when they were counted.
    counted_complete: bool,
}

fn count_period(state: &ClusterState) -> Duration {
    if state.synced() { COUNT } else { COUNT_SOON }
}

/// A copy that runs.
struct Copying {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    state: watch::Receiver<ClusterState>,
}

/// What starts copies.
pub(super) struct Copier<'a> {
    /// As the holder of the cluster's lease writes to it.
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) tracker: &'a TaskTracker,
    /// Ends copies that nobody has stopped.
    pub(super) cancel: &'a CancellationToken,
}

impl Session {
    /// A session with a child that has just said who it is.
    pub(super) fn new(wanted: Wanted, child: Child, facts: Facts, sync: Sync) -> Self {
        Self {
            wanted,
            health: child.health(),
            child,
            facts,
            sync,
            copying: None,
            unverified: false,
            problem: None,
            expiry: None,
            renewal: None,
            refresh_at: Instant::now() + jittered(REFRESH),
            counts: BTreeMap::new(),
            counted: None,
            counted_complete: false,
        }
    }

    /// Acts on what has changed. Without a `copier`, copying is another replica's.
    ///
    /// # Errors
    /// Where the cluster turns out to be another one, or no longer says which it is: it is not to be used any more.
    pub(super) async fn step(&mut self, uid: &str, sync: &Sync, copier: Option<Copier<'_>>) -> Result<(), Problem> {
        // Another replica may have been the first to see the cluster.
        check_identity(uid, &self.facts)?;
        let health = self.health.borrow_and_update().clone();
        self.expiry = self.child.credentials().expiry();
        if let Health::Unreachable { failure, reason, .. } = &health {
            if *failure == Failure::WrongCluster {
                return Err(Problem::new(failure.reason(), &**reason));
            }
            self.unverified = true;
            self.problem = None;
            self.refresh_at = Instant::now();
            self.stop_copying().await;
            return Ok(());
        }
        if Instant::now() >= self.refresh_at {
            self.refresh(uid).await?;
        }
        if self.sync != *sync {
            self.sync = sync.clone();
            self.stop_copying().await;
        }
        if self.unverified {
            return Ok(());
        }
        let Some(copier) = copier else {
            self.stop_copying().await;
            return Ok(());
        };
        let copying = self
            .copying
            .get_or_insert_with(|| start(&self.child, self.sync.clone(), &copier));
        let state = copying.state.borrow_and_update().clone();
        self.count(&state, &**copier.store).await;
        Ok(())
    }

    async fn refresh(&mut self, uid: &str) -> Result<(), Problem> {
        match facts::read(&self.child).await {
            Ok(facts) => {
                check_identity(uid, &facts)?;
                self.facts = facts;
                (self.unverified, self.problem) = (false, None);
                self.refresh_at = Instant::now() + jittered(REFRESH);
            }
            Err(problem) if LEFT_FOR.contains(&problem.reason) => return Err(problem),
            // Probes judge whether it can be reached. Only a cluster that has been away has to answer here as well.
            Err(problem) => {
                self.problem = self.unverified.then_some(problem);
                self.refresh_at = Instant::now() + jittered(RETRY);
            }
        }
        Ok(())
    }

    /// Counts the copies where that is due.
    async fn count(&mut self, state: &ClusterState, store: &dyn Store) {
        // A count from before the copies were complete is not the one to show for a minute.
        let completed = state.synced() && !self.counted_complete;
        if !completed
            && self
                .counted
                .is_some_and(|counted| counted + count_period(state) > Instant::now())
        {
            return;
        }
        self.counted_complete = state.synced();
        let cluster = Arc::clone(self.child.name());
        self.counts.retain(|resource, _| state.resources.contains_key(resource));
        for resource in state.resources.keys() {
            let request = RangeRequest::prefix(cluster_prefix(resource, &cluster))
                .limit(1)
                .counting();
            if let Ok(response) = store.range(request).await {
                let copies = response.entries.len() as u64 + response.remaining.unwrap_or_default();
                self.counts
                    .insert(resource.clone(), i64::try_from(copies).unwrap_or(i64::MAX));
            }
        }
        self.counted = Some(Instant::now());
    }

    /// How the cluster can be reached.
    pub(super) fn health(&self) -> Result<Health, &Problem> {
        match &self.problem {
            Some(problem) => Err(problem),
            None => Ok(self.health.borrow().clone()),
        }
    }

    /// How the copies stand; `None` where nothing is copied.
    pub(super) fn copies(&self) -> Option<(ClusterState, Vec<CopiedResource>)> {
        let state = self.copying.as_ref()?.state.borrow().clone();
        let resources = state.resources.iter().map(|(resource, one)| CopiedResource {
            group: resource.group.clone(),
            resource: resource.resource.clone(),
            copies: self.counts.get(resource).copied().unwrap_or_default(),
            message: one.message.clone(),
        });
        let resources = resources.collect();
        Some((state, resources))
    }

    /// When there is something to do without a change.
    pub(super) fn due(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref().map(|one| one.at);
        if matches!(*self.health.borrow(), Health::Unreachable { .. }) {
            return renewal;
        }
        let copying = self.copying.as_ref().zip(self.counted);
        let count = copying.map(|(copying, counted)| counted + count_period(&copying.state.borrow()));
        let look = self.child.endpoint().map(|_| Instant::now() + LOOK);
        [count, renewal, look, Some(self.refresh_at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Waits until the health or the state of the copies changes. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        let health = async {
            if self.health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let copies = async {
            let changed = match &mut self.copying {
                Some(copying) => copying.state.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = health => {}
            () = copies => {}
        }
    }

    /// Stops copying, and waits until it has stopped.
    pub(super) async fn stop_copying(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.cancel.cancel();
            if let Err(error) = copying.task.await {
                tracing::error!(cluster = %self.child.name(), %error, "copying has failed");
            }
        }
    }
}

fn start(child: &Child, sync: Sync, copier: &Copier<'_>) -> Copying {
    let source = Arc::new(ChildSource(child.clone()));
    let (copy, state) = ClusterCopy::new(child.name(), sync, source, Arc::clone(copier.store));
    let cancel = copier.cancel.child_token();
    let task = copier.tracker.spawn(copy.run(cancel.clone()));
    Copying { cancel, task, state }
}

/// Refuses a cluster that is another one than was seen first under this name.
///
/// # Errors
/// The reason and the message of the condition `Reachable`.
pub(super) fn check_identity(recorded: &str, facts: &Facts) -> Result<(), Problem> {
    if recorded.is_empty() || recorded == facts.uid {
        return Ok(());
    }
    Err(facts::wrong_cluster(recorded, &facts.uid))
}

/// A tenth more or less, so that clusters that were joined together are not asked together.
fn jittered(period: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0_u8) >> 11;
    period.mul_f64(0.9 + 0.2 * random as f64 / (1_u64 << 53) as f64)
}
