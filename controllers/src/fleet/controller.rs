//! Runs the work of a fleet: queues, workers, and what they share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_admission::overrides::OverrideIdentity;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::copies::cache::Copies;
use umbra_registry::copies::catalog::Catalog;
use umbra_registry::directory::Directory;
use umbra_registry::fleet::{FleetApi, TemplateKey};
use umbra_registry::generic::store::storage_status;
use umbra_registry::mirror::Mirror;

use super::child::Access;
use super::dispatch::Seen;
use super::holding::{Dispatching, Holding};
use super::queue::{Outcome, Queue};
use super::state::{FleetState, PlacementKey, RenderingKey};
use super::write::Writer;
use crate::lease::Leases;

/// How far a state may be behind the store before a task is tried again.
const FRESHNESS: Duration = Duration::from_secs(5);

/// What the controllers of a fleet work with.
pub struct Dependencies {
    /// The fleet.
    pub api: Arc<FleetApi>,
    /// The clusters and the fleets.
    pub directory: Arc<Mirror<Directory>>,
    /// What the clusters serve.
    pub catalog: Arc<Mirror<Catalog>>,
    /// What the clusters have.
    pub copies: Arc<Copies>,
    /// The clusters: `Children`.
    pub children: Access,
}

impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependencies")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// The controllers of one fleet.
#[derive(Debug)]
pub struct FleetController {
    inner: Arc<Inner>,
}

/// Something to compute and store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Task {
    /// The renderings of a template.
    Plan(TemplateKey),
    /// The status of a template.
    Template(TemplateKey),
    /// The status of a placement.
    Placement(PlacementKey),
    /// The status of an override.
    Override(OverrideIdentity),
}

pub(super) struct Inner {
    pub(super) api: Arc<FleetApi>,
    pub(super) directory: Arc<Mirror<Directory>>,
    pub(super) catalog: Arc<Mirror<Catalog>>,
    pub(super) copies: Arc<Copies>,
    /// The clusters, as far as this replica may write to them.
    pub(super) children: Arc<Holding>,
    pub(super) leases: Leases,
    pub(super) writer: Writer,
    pub(super) seen: Mutex<HashMap<RenderingKey, Seen>>,
    pub(super) tasks: Queue<Task>,
    /// One queue a cluster, so that one that hangs delays only itself.
    pub(super) dispatching: Mutex<BTreeMap<String, Dispatching>>,
    /// Resources whose copies are watched.
    pub(super) watched: Mutex<BTreeSet<GroupResource>>,
    pub(super) tracker: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("api", &self.api).finish_non_exhaustive()
    }
}

impl FleetController {
    /// The controllers of a fleet; [`FleetController::run`] sets them to work.
    #[must_use]
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            api,
            directory,
            catalog,
            copies,
            children,
        } = dependencies;
        Self {
            inner: Arc::new(Inner {
                writer: Writer::new(Arc::clone(&api)),
                api,
                directory,
                catalog,
                copies,
                children: Arc::new(Holding::new(children)),
                leases: Leases::sole(),
                seen: Mutex::default(),
                tasks: Queue::default(),
                dispatching: Mutex::default(),
                watched: Mutex::default(),
                tracker: TaskTracker::new(),
                cancel: CancellationToken::new(),
            }),
        }
    }

    /// Shares the work with the controllers of other replicas: plans while it holds the lease of the fleet, and dispatches to
    /// the clusters whose leases it holds. Without, it holds all.
    #[must_use]
    pub fn with_leases(mut self, leases: Leases) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("a controller that does not run has its parts for itself");
        inner.leases = leases;
        self
    }

    /// Works until `cancel`, and until everything under way has ended. May be stopped at any point; another controller goes
    /// on from there. Two at a time would only get in each other's way, not do wrong.
    pub async fn run(self, cancel: CancellationToken) {
        let inner = self.inner;
        // Until the lease is held.
        inner.tasks.close();
        inner.spawn(|inner| async move { inner.plan_under_lease().await });
        inner.spawn(|inner| async move { inner.follow_fleet().await });
        inner.spawn(|inner| async move { inner.follow_clusters().await });
        cancel.cancelled().await;
        inner.cancel.cancel();
        inner.tracker.close();
        inner.tracker.wait().await;
    }
}

impl Inner {
    pub(super) fn spawn<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let work = work(Arc::clone(self));
        self.tracker
            .spawn(async move { cancel.run_until_cancelled(work).await });
    }

    /// The state of the fleet, with everything that was written before.
    pub(super) async fn state(&self) -> Result<FleetState, Status> {
        let cache = self.api.cache();
        let snapshot = cache.present(cache.prefix(), Instant::now() + FRESHNESS).await;
        let snapshot = snapshot.map_err(|error| storage_status(&error))?;
        Ok(FleetState::new(snapshot, self.api.name()))
    }

    /// The state of the fleet as it is known now.
    pub(super) fn known(&self) -> FleetState {
        FleetState::new(self.api.cache().snapshot(), self.api.name())
    }

    pub(super) async fn work_on_tasks(&self) {
        loop {
            let task = self.tasks.next().await;
            let result = match &task {
                Task::Plan(key) => self.plan(key).await,
                Task::Template(key) => self.report_template(key).await,
                Task::Placement(key) => self.report_placement(key).await,
                Task::Override(identity) => self.report_override(identity).await,
            };
            self.tasks.finish(&task, outcome(&task, result));
        }
    }

    pub(super) async fn work_on_cluster(&self, queue: &Queue<RenderingKey>) {
        loop {
            let key = queue.next().await;
            let result = self.dispatch(&key).await;
            queue.finish(&key, outcome(&key, result));
        }
    }
}

fn outcome(what: &impl std::fmt::Debug, result: Result<Outcome, Status>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(status) => {
            if status.is(Reason::Conflict) || status.is(Reason::AlreadyExists) {
                tracing::debug!(
                    ?what,
                    message = status.message,
                    "somebody else was faster; trying again"
                );
            } else {
                tracing::warn!(
                    ?what,
                    message = status.message,
                    "a task of the fleet failed; trying again"
                );
            }
            Outcome::Retry
        }
    }
}
