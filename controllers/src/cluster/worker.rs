//! One ManagedCluster: follows what it asks for, and cleans up when it goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::{CopiedResource, ManagedCluster, ManagedClusterStatus};
use umbra_child::tunnel::Tunnels;
use umbra_child::{Child, ChildConfig, Health};
use umbra_registry::copies::retry;
use umbra_storage::Store;

use crate::cluster::connection::{Problem, Wanted};
use crate::cluster::erase::{erase_everything, is_known};
use crate::cluster::events::Events;
use crate::cluster::facts::{self, Facts};
use crate::cluster::reporter::Reporter;
use crate::cluster::session::{Copier, Session, check_identity};
use crate::cluster::status::{self, Finding, Link, Observation};
use crate::cluster::{ClusterControllerParts, FIELD_MANAGER, FINALIZER};
use crate::copy::everywhere;
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

/// How far the connection has come.
enum Phase {
    /// Nothing has been tried.
    New,
    /// What the hub was told cannot be tried.
    Refused(Problem),
    /// It has been tried in vain, and will be again.
    Retrying(Box<Retrying>),
    Connected(Box<Session>),
}

/// A connection that has been tried in vain.
pub(super) struct Retrying {
    pub(super) wanted: Wanted,
    pub(super) problem: Problem,
    attempt: u32,
    pub(super) at: Instant,
    /// The clusters with a tunnel here, where the hub serves tunnels.
    tunnels: Option<watch::Receiver<BTreeSet<Arc<str>>>>,
}

impl Retrying {
    /// Waits until an agent of the cluster connects, which is the time to try.
    async fn agent_connects(&mut self, name: &str) {
        let Some(tunnels) = &mut self.tunnels else {
            return std::future::pending().await;
        };
        while tunnels.changed().await.is_ok() {
            if tunnels.borrow_and_update().contains(name) {
                self.at = Instant::now();
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Phase {
    /// Waits for a change of what is connected.
    async fn changed(&mut self, name: &str) {
        match self {
            Self::Connected(session) => session.changed().await,
            Self::Retrying(retrying) => retrying.agent_connects(name).await,
            _ => std::future::pending().await,
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Cancels a child when dropped, so that a worker that is cancelled leaves no connection.
struct Temporary(Child);

impl Drop for Temporary {
    fn drop(&mut self) {
        self.0.cancel();
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

    /// Sees to it that the connection is the one that is wanted, as far as it can be.
    async fn connect(&mut self, cluster: &ManagedCluster, wanted: &Result<Wanted, Problem>) {
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(problem) => return self.disconnect(Phase::Refused(problem.clone())).await,
        };
        let last = match &mut self.phase {
            Phase::Connected(session) if session.wanted == *wanted => {
                session.renewal = None;
                return;
            }
            Phase::Connected(session) => session.renewal.as_ref(),
            Phase::Retrying(last) => Some(&**last),
            Phase::New | Phase::Refused(_) => None,
        };
        let attempt = match last.filter(|last| last.wanted == *wanted) {
            Some(last) if last.at > Instant::now() => return,
            Some(last) => last.attempt.saturating_add(1),
            None => 1,
        };
        let config = wanted.config(cluster, self.parts.tunnels.as_ref());
        let rotates = config.as_ref().is_ok_and(|config| self.rotates(wanted, config));
        let connected = match config {
            Ok(config) => self.try_connect(config).await,
            Err(problem) => Err(problem),
        };
        match connected {
            Ok((child, facts)) => {
                if let Phase::Connected(session) = &mut self.phase {
                    session.stop_copying().await;
                }
                let session = Session::new(
                    wanted.clone(),
                    child,
                    facts,
                    everywhere(&self.parts.sync, &cluster.spec.sync),
                );
                self.phase = Phase::Connected(Box::new(session));
            }
            Err(problem) => self.keep_or_retry((wanted.clone(), rotates), problem, attempt).await,
        }
    }

    /// Whether what is wanted differs from the present connection by its credential alone. Another server, proxy or authority is
    /// none: who names one no longer wants the one before, and does not have it kept by mistake.
    fn rotates(&self, wanted: &Wanted, config: &ChildConfig) -> bool {
        match &self.phase {
            Phase::Connected(session) => {
                session.wanted.same_connection(wanted) && session.child.config().same_endpoints(config)
            }
            _ => false,
        }
    }

    /// A credential that does not work yet does not end a connection that works with the one before.
    async fn keep_or_retry(&mut self, (wanted, rotates): (Wanted, bool), problem: Problem, attempt: u32) {
        match &mut self.phase {
            Phase::Connected(session) if rotates && problem.is_of_credential() => {
                session.renewal = Some(Retrying {
                    at: Instant::now() + retry::pause(attempt),
                    wanted,
                    problem,
                    attempt,
                    tunnels: None,
                });
            }
            _ => self.retry(wanted, problem, attempt).await,
        }
    }

    async fn try_connect(&self, config: ChildConfig) -> Result<(Child, Facts), Problem> {
        let recorded = self.reporter.current().uid.clone();
        // Not one of the children yet: nothing may be passed on to it before it has said who it is. Its connections ask.
        let asked = ChildConfig {
            cluster_uid: (!recorded.is_empty()).then(|| recorded.clone()),
            ..config.clone()
        };
        let stranger = Temporary(Child::new(asked).map_err(|error| facts::problem(&error))?);
        let facts = match stranger.0.prepare().await {
            Ok(()) => facts::read(&stranger.0).await,
            Err(error) => Err(facts::problem(&error)),
        };
        stranger.0.close().await;
        let facts = facts?;
        check_identity(&recorded, &facts)?;
        let config = ChildConfig {
            cluster_uid: Some(facts.uid.clone()),
            ..config
        };
        let child = self
            .parts
            .children
            .insert(config)
            .await
            .map_err(|error| facts::problem(&error))?;
        Ok((child, facts))
    }

    /// Follows a cluster that is connected.
    async fn follow(&mut self, cluster: &ManagedCluster) {
        let Phase::Connected(session) = &mut self.phase else {
            return;
        };
        let copier = self.holding.as_ref().map(|one| Copier {
            store: &one.store,
            tracker: &self.tracker,
            cancel: one.held.lost(),
        });
        let uid = match self.reporter.current().uid.as_str() {
            "" => session.facts.uid.clone(),
            recorded => recorded.to_owned(),
        };
        if let Err(problem) = session
            .step(&uid, &everywhere(&self.parts.sync, &cluster.spec.sync), copier)
            .await
        {
            let wanted = session.wanted.clone();
            self.retry(wanted, problem, 1).await;
        }
    }

    async fn retry(&mut self, wanted: Wanted, problem: Problem, attempt: u32) {
        let at = Instant::now() + retry::pause(attempt);
        let retrying = Retrying {
            wanted,
            problem,
            attempt,
            at,
            tunnels: self.parts.tunnels.as_ref().map(Tunnels::subscribe),
        };
        self.disconnect(Phase::Retrying(Box::new(retrying))).await;
    }

    /// Stops copying and passing on; copies stay as they are.
    async fn disconnect(&mut self, phase: Phase) {
        if let Phase::Connected(session) = &mut self.phase {
            session.stop_copying().await;
        }
        self.parts.children.remove(&self.name).await;
        self.phase = phase;
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

    /// Writes the status, where it is time to and this replica's to do. Gives when there is more to do.
    async fn report(&mut self, cluster: &ManagedCluster) -> Option<Instant> {
        let (wanted, due) = match &self.phase {
            Phase::New => return None,
            Phase::Refused(problem) => (self.not_connected(cluster, problem), None),
            Phase::Retrying(last) => (self.not_connected(cluster, &last.problem), Some(last.at)),
            Phase::Connected(session) => (self.connected(cluster, session), session.due()),
        };
        let again = match &self.holding {
            Some(_) => {
                let before = self.reporter.current().clone();
                let again = self.reporter.publish(wanted).await;
                self.events.changed(cluster, &before, self.reporter.current());
                again
            }
            None => None,
        };
        [due, again].into_iter().flatten().min()
    }

    fn not_connected(&self, cluster: &ManagedCluster, problem: &Problem) -> ManagedClusterStatus {
        self.status(
            cluster,
            status::not_connected(problem),
            status::not_copying(),
            (None, None, None),
        )
    }

    fn connected(&self, cluster: &ManagedCluster, session: &Session) -> ManagedClusterStatus {
        let reachable = match (session.health(), &session.renewal) {
            (Ok(Health::Reachable | Health::Unknown), Some(renewal)) => status::keeping_credential(&renewal.problem),
            (Ok(health), Some(renewal)) => status::neither_credential(&health, &renewal.problem),
            (Ok(health), None) => status::connected(&health),
            (Err(problem), _) => status::not_connected(problem),
        };
        let link = Link {
            expiry: session.expiry,
            endpoint: session.child.endpoint().map(|one| one.to_string()).unwrap_or_default(),
        };
        let (synced, resources) = match session.copies() {
            Some((state, resources)) => (status::copying(&state), state.discovered.then_some(resources)),
            None => (status::not_copying(), None),
        };
        self.status(
            cluster,
            reachable,
            synced,
            (Some(&session.facts), Some(link), resources),
        )
    }

    fn status(
        &self,
        cluster: &ManagedCluster,
        reachable: Finding,
        synced: Finding,
        (facts, link, resources): (Option<&Facts>, Option<Link>, Option<Vec<CopiedResource>>),
    ) -> ManagedClusterStatus {
        let generation = cluster.metadata.generation;
        let observation = Observation {
            generation,
            reachable,
            synced,
            facts,
            link,
            resources,
        };
        status::next(self.reporter.current(), observation, Timestamp::now())
    }

    /// Puts the finalizer on or takes it off, where that is this replica's to do; whether that changed anything.
    async fn set_finalizer(&self, cluster: &ManagedCluster, wanted: bool) -> Result<bool, WorkerError> {
        if self.holding.is_none() {
            return Ok(false);
        }
        let Some(patch) = finalizer_patch(cluster, wanted) else {
            return Ok(false);
        };
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await {
            // Somebody else was faster; the next target says how it is now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
            patched => Ok(patched.map(|_| true)?),
        }
    }
}

/// The patch that puts the finalizer on or takes it off; `None` where it is as it should be. The list is replaced, so it
/// must be the one that was read.
fn finalizer_patch(cluster: &ManagedCluster, wanted: bool) -> Option<Value> {
    let mut finalizers = cluster.metadata.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|one| one != FINALIZER);
    if (finalizers.len() != before) == wanted {
        return None;
    }
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let version = &cluster.metadata.resource_version;
    Some(json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}}))
}
