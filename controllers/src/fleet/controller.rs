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
use super::queue::{Outcome, Queue};
use super::state::{FleetState, PlacementKey, RenderingKey};
use super::write::Writer;

/// Tasks that compute and store are worked on by so many at a time.
const PLANNERS: usize = 4;
/// Objects that are dispatched to one cluster at a time: enough to hide a round trip, few enough not to be throttled by
/// priority and fairness of an API server that has other clients.
const DISPATCHERS: usize = 8;
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
    pub(super) children: Access,
    pub(super) writer: Writer,
    pub(super) seen: Mutex<HashMap<RenderingKey, Seen>>,
    pub(super) tasks: Queue<Task>,
    /// One queue a cluster, so that one that hangs delays only itself.
    dispatch: Mutex<BTreeMap<String, Arc<Queue<RenderingKey>>>>,
    /// Resources whose copies are watched.
    pub(super) watched: Mutex<BTreeSet<GroupResource>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
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
                children,
                seen: Mutex::default(),
                tasks: Queue::default(),
                dispatch: Mutex::default(),
                watched: Mutex::default(),
                tracker: TaskTracker::new(),
                cancel: CancellationToken::new(),
            }),
        }
    }

    /// Works until `cancel`, and until everything under way has ended. May be stopped at any point; another controller goes
    /// on from there. Two at a time would only get in each other's way, not do wrong.
    pub async fn run(self, cancel: CancellationToken) {
        let inner = self.inner;
        for _ in 0..PLANNERS {
            inner.spawn(|inner| async move { inner.work_on_tasks().await });
        }
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

    async fn work_on_tasks(&self) {
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

    async fn work_on_cluster(&self, queue: &Queue<RenderingKey>) {
        loop {
            let key = queue.next().await;
            let result = self.dispatch(&key).await;
            queue.finish(&key, outcome(&key, result));
        }
    }

    /// Asks for a rendering to be dispatched.
    pub(super) fn wants_dispatch(self: &Arc<Self>, cluster: &str, key: RenderingKey) {
        let mut queues = self.dispatch.lock();
        let queue = match queues.get(cluster) {
            Some(queue) => queue,
            None => {
                let queue: Arc<Queue<RenderingKey>> = Arc::default();
                for _ in 0..DISPATCHERS {
                    let queue = Arc::clone(&queue);
                    self.spawn(|inner| async move { inner.work_on_cluster(&queue).await });
                }
                queues.entry(cluster.to_owned()).or_insert(queue)
            }
        };
        queue.add(key);
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
