//! The controllers of a simulated cluster, in process over its own store.
//!
//! Each is a queue of objects and one task that takes from it. Queues are filled by following the caches; a controller
//! then looks at the object as it is, and does what is missing: nothing depends on having seen every change. Objects of a
//! batch are looked at side by side, the same object never is. What has to be counted (the pods of an owner) comes from
//! indexes that are never behind the controller's own writes ([`follow::Mirror`]), so nothing is made twice, and no event
//! costs more than the objects of one owner.

mod daemon_set;
mod deployment;
mod endpoint_slice;
mod follow;
mod job;
mod namespace;
pub(crate) mod node;
mod pod;
mod pod_facts;
mod pod_status;
mod queue;
mod replica_set;
mod rollout;
mod stateful_set;
pub(crate) mod writes;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::generic::indexer::StoredObject;
use umbra_registry::generic::{ResourceStore, StoreApi};

use follow::{ByController, Change, Facts, Known, Mirror, View, controller_of, follow};
use pod_facts::PodFacts;
use queue::{ObjectKey, WorkQueue};

/// Objects that a controller looks at side by side, and writes that it makes side by side for one of them: enough that the
/// store can commit many together.
const AT_ONCE: usize = 64;
const WRITES_AT_ONCE: usize = 32;
/// Changes of pods that come close together are counted together.
const GATHER: Duration = Duration::from_millis(20);
/// Endpoints are gathered longer, as Kubernetes does (`--endpoint-updates-batch-period`).
const GATHER_ENDPOINTS: Duration = Duration::from_millis(200);
/// How long a controller waits before it tries again what failed; with half of it as jitter either way.
const RETRY: Duration = Duration::from_secs(1);
/// The same where somebody else changed the object meanwhile.
const RETRY_CONFLICT: Duration = Duration::from_millis(40);

/// Makes an object what it should be.
#[async_trait]
trait Reconcile: Send + Sync + 'static {
    /// Looks at one object and does what is missing; answers when to look again where no change may announce it.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status>;
}

/// A resource that controllers work on.
struct Kind {
    store: Arc<ResourceStore>,
}

impl Kind {
    fn of(api: &StoreApi, resource: &str) -> Result<Self, Status> {
        let wanted = GroupResource::parse(resource);
        let stores = api.stores();
        let mut found = stores
            .into_iter()
            .filter(|store| store.strategy().descriptor.group_resource() == wanted);
        let store = found.next().ok_or_else(|| Status::not_found(&wanted, resource))?;
        Ok(Self { store })
    }

    /// The object as the cache has it.
    fn object(&self, key: &ObjectKey) -> Option<Arc<StoredObject>> {
        let key = self.store.keys().key(key.namespace(), &key.name);
        self.store.cache().snapshot().get(&key).map(Arc::clone)
    }

    fn mirror<V: View>(&self) -> Mirror<V> {
        Mirror::new(Arc::clone(self.store.cache()))
    }
}

/// ReplicaSets are few and read whole.
struct Unread;

impl Facts for Unread {
    fn of(_object: &StoredObject) -> Self {
        Self
    }
}

/// The addresses of pods that are in use.
#[derive(Default)]
struct PodAddresses(BTreeSet<Ipv4Addr>);

fn pod_address(object: &StoredObject) -> Option<Ipv4Addr> {
    object.fields.get("status.podIP")?.parse().ok()
}

impl View for PodAddresses {
    fn insert(&mut self, object: &Arc<StoredObject>) {
        self.0.extend(pod_address(object));
    }

    fn remove(&mut self, object: &StoredObject) {
        if let Some(address) = pod_address(object) {
            self.0.remove(&address);
        }
    }
}

/// What the controllers share: the resources, and indexes of them.
struct Shared {
    pods: Kind,
    replica_sets: Kind,
    deployments: Kind,
    stateful_sets: Kind,
    daemon_sets: Kind,
    jobs: Kind,
    services: Kind,
    endpoint_slices: Kind,
    service_accounts: Kind,
    config_maps: Kind,
    namespaces: Kind,
    pods_by_controller: Mirror<ByController<PodFacts>>,
    sets_by_controller: Mirror<ByController<Unread>>,
    nodes: Mirror<node::Nodes>,
    addresses: Mirror<PodAddresses>,
    next_address: AtomicU32,
    next_node: AtomicUsize,
    certificate_authority: String,
}

/// The network of pods, 10.244.0.0/14: room for 262,142 of them. No packets go there.
const POD_NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);
const POD_NETWORK_SIZE: u32 = 1 << 18;

impl Shared {
    fn new(api: &StoreApi, certificate_authority: &str) -> Result<Self, Status> {
        let kind = |resource: &str| Kind::of(api, resource);
        let (pods, replica_sets, nodes) = (kind("pods")?, kind("replicasets.apps")?, kind("nodes")?);
        Ok(Self {
            pods_by_controller: pods.mirror(),
            sets_by_controller: replica_sets.mirror(),
            nodes: nodes.mirror(),
            addresses: pods.mirror(),
            pods,
            replica_sets,
            deployments: kind("deployments.apps")?,
            stateful_sets: kind("statefulsets.apps")?,
            daemon_sets: kind("daemonsets.apps")?,
            jobs: kind("jobs.batch")?,
            services: kind("services")?,
            endpoint_slices: kind("endpointslices.discovery.k8s.io")?,
            service_accounts: kind("serviceaccounts")?,
            config_maps: kind("configmaps")?,
            namespaces: kind("namespaces")?,
            next_address: AtomicU32::new(0),
            next_node: AtomicUsize::new(0),
            certificate_authority: certificate_authority.to_owned(),
        })
    }

    fn pods_of(&self, uid: &str) -> Vec<Arc<Known<PodFacts>>> {
        self.pods_by_controller.read(|pods| pods.owned(uid))
    }

    fn replica_sets_of(&self, uid: &str) -> Vec<Arc<Known<Unread>>> {
        self.sets_by_controller.read(|sets| sets.owned(uid))
    }

    fn node_count(&self) -> usize {
        self.nodes.read(|nodes| nodes.0.len())
    }

    fn node_address(&self, name: &str) -> Option<String> {
        self.nodes
            .read(|nodes| nodes.0.get(name).map(|node| node.address.clone()))
    }

    /// The nodes that take a pod.
    fn nodes_for(&self, pod_spec: &Value, with_cordoned: bool) -> Vec<String> {
        self.nodes.read(|nodes| {
            let fit = nodes.0.values().filter(|node| node.takes_pods || with_cordoned);
            let fit = fit.filter(|node| node.is_selected_by(&pod_spec["nodeSelector"]));
            fit.map(|node| node.name.clone()).collect()
        })
    }

    /// The node whose turn it is, of those that take the pod.
    fn choose_node(&self, pod: &Value) -> Option<String> {
        let mut fit = self.nodes_for(&pod["spec"], false);
        let turn = self.next_node.fetch_add(1, Ordering::Relaxed);
        (!fit.is_empty()).then(|| fit.swap_remove(turn % fit.len()))
    }

    /// An address that no pod has. Where all are in use, one is shared.
    fn new_pod_address(&self) -> String {
        self.addresses.read(|used| {
            let candidates = std::iter::repeat_with(|| {
                // Neither the network's own address nor its last.
                let offset = 1 + self.next_address.fetch_add(1, Ordering::Relaxed) % (POD_NETWORK_SIZE - 2);
                Ipv4Addr::from(POD_NETWORK + offset)
            });
            let most = POD_NETWORK_SIZE as usize;
            let mut candidates = candidates.take(most).peekable();
            let first = candidates.peek().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
            candidates
                .find(|address| !used.0.contains(address))
                .unwrap_or(first)
                .to_string()
        })
    }
}

/// Makes writes, several at a time; stops at the first error.
async fn all<F: Future<Output = Result<(), Status>>>(writes: Vec<F>) -> Result<(), Status> {
    futures::stream::iter(writes)
        .buffer_unordered(WRITES_AT_ONCE)
        .try_collect()
        .await
}

/// Takes objects from the queue and reconciles them, for ever.
async fn run(controller: Arc<dyn Reconcile>, queue: Arc<WorkQueue>) {
    loop {
        let keys = queue.next(AT_ONCE).await;
        let all = futures::stream::iter(keys).for_each_concurrent(AT_ONCE, |key| {
            let (controller, queue) = (&controller, &queue);
            async move {
                let again = match controller.reconcile(&key).await {
                    Ok(again) => again,
                    Err(status) => Some(retry_after(&key, &status)),
                };
                if let Some(again) = again {
                    queue.add(key, again);
                }
            }
        });
        all.await;
    }
}

fn retry_after(key: &ObjectKey, status: &Status) -> Duration {
    let jitter = 0.5 + rand::random::<f64>();
    if status.is(Reason::Conflict) || status.is(Reason::NotFound) {
        return RETRY_CONFLICT.mul_f64(jitter);
    }
    tracing::debug!(%key, error = %status.message, "a simulated controller tries again");
    RETRY.mul_f64(jitter)
}

/// The queues, by controller.
#[derive(Default)]
struct Queues {
    pods: Arc<WorkQueue>,
    replica_sets: Arc<WorkQueue>,
    deployments: Arc<WorkQueue>,
    stateful_sets: Arc<WorkQueue>,
    daemon_sets: Arc<WorkQueue>,
    jobs: Arc<WorkQueue>,
    services: Arc<WorkQueue>,
    namespaces: Arc<WorkQueue>,
}

impl Queues {
    /// Tells the controller of an object that the object changed.
    fn add_owner(&self, object: &StoredObject) {
        let Some(owner) = controller_of(object) else { return };
        let queue = match owner.kind.as_str() {
            "ReplicaSet" => &self.replica_sets,
            "Deployment" => &self.deployments,
            "StatefulSet" => &self.stateful_sets,
            "DaemonSet" => &self.daemon_sets,
            "Job" => &self.jobs,
            _ => return,
        };
        queue.add(ObjectKey::new(&object.namespace, &owner.name), GATHER);
    }
}

/// Runs the controllers of a cluster in tasks of `tracker` until `cancelled`.
///
/// # Errors
/// Where `api` lacks a kind.
pub(crate) fn start(
    api: &StoreApi,
    certificate_authority: &str,
    tracker: &TaskTracker,
    cancelled: &CancellationToken,
) -> Result<(), Status> {
    let shared = Arc::new(Shared::new(api, certificate_authority)?);
    let queues = Arc::new(Queues::default());
    let controllers: [(Arc<dyn Reconcile>, &Arc<WorkQueue>); 8] = [
        (Arc::new(pod::Pods::new(Arc::clone(&shared))), &queues.pods),
        (
            Arc::new(replica_set::ReplicaSets(Arc::clone(&shared))),
            &queues.replica_sets,
        ),
        (
            Arc::new(deployment::Deployments(Arc::clone(&shared))),
            &queues.deployments,
        ),
        (
            Arc::new(stateful_set::StatefulSets(Arc::clone(&shared))),
            &queues.stateful_sets,
        ),
        (
            Arc::new(daemon_set::DaemonSets(Arc::clone(&shared))),
            &queues.daemon_sets,
        ),
        (Arc::new(job::Jobs(Arc::clone(&shared))), &queues.jobs),
        (
            Arc::new(endpoint_slice::EndpointSlices(Arc::clone(&shared))),
            &queues.services,
        ),
        (Arc::new(namespace::Namespaces(Arc::clone(&shared))), &queues.namespaces),
    ];
    for (controller, queue) in controllers {
        let (work, cancelled) = (run(controller, Arc::clone(queue)), cancelled.clone());
        tracker.spawn(async move { cancelled.run_until_cancelled(work).await });
    }
    fill_queues(&shared, &queues, api, tracker, cancelled)
}

/// Follows the resources, and tells the controllers what concerns them.
fn fill_queues(
    shared: &Arc<Shared>,
    queues: &Arc<Queues>,
    api: &StoreApi,
    tracker: &TaskTracker,
    cancelled: &CancellationToken,
) -> Result<(), Status> {
    let own: [(&Kind, &Arc<WorkQueue>); 6] = [
        (&shared.deployments, &queues.deployments),
        (&shared.stateful_sets, &queues.stateful_sets),
        (&shared.daemon_sets, &queues.daemon_sets),
        (&shared.jobs, &queues.jobs),
        (&shared.services, &queues.services),
        (&shared.namespaces, &queues.namespaces),
    ];
    for (kind, queue) in own {
        let queue = Arc::clone(queue);
        let see = move |change: &Change<'_>| queue.add(ObjectKey::of(change.object), Duration::ZERO);
        follow(Arc::clone(kind.store.cache()), tracker, cancelled.clone(), see);
    }
    let concerned = Arc::clone(queues);
    let see_set = move |change: &Change<'_>| {
        concerned.replica_sets.add(ObjectKey::of(change.object), Duration::ZERO);
        concerned.add_owner(change.object);
    };
    follow(
        Arc::clone(shared.replica_sets.store.cache()),
        tracker,
        cancelled.clone(),
        see_set,
    );

    let selectors: Mirror<endpoint_slice::Selectors> = shared.services.mirror();
    let concerned = Arc::clone(queues);
    let see_pod = move |change: &Change<'_>| {
        concerned.pods.add(ObjectKey::of(change.object), Duration::ZERO);
        concerned.add_owner(change.object);
        for pod in [Some(change.object), change.previous].into_iter().flatten() {
            for service in selectors.read(|selectors| selectors.of_pod(pod)) {
                concerned.services.add(service, GATHER_ENDPOINTS);
            }
        }
    };
    follow(
        Arc::clone(shared.pods.store.cache()),
        tracker,
        cancelled.clone(),
        see_pod,
    );

    follow_nodes(shared, queues, api, tracker, cancelled)?;
    let accounts = Arc::clone(queues);
    let see_account = move |change: &Change<'_>| {
        if change.gone {
            accounts
                .namespaces
                .add(ObjectKey::new("", &change.object.namespace), Duration::ZERO);
        }
    };
    let cache = Arc::clone(shared.service_accounts.store.cache());
    follow(cache, tracker, cancelled.clone(), see_account);
    Ok(())
}

/// A node that comes or goes concerns all DaemonSets, and pods that wait for one.
fn follow_nodes(
    shared: &Arc<Shared>,
    queues: &Arc<Queues>,
    api: &StoreApi,
    tracker: &TaskTracker,
    cancelled: &CancellationToken,
) -> Result<(), Status> {
    let (queues, shared) = (Arc::clone(queues), Arc::clone(shared));
    let nodes = Kind::of(api, "nodes")?;
    let see = move |_: &Change<'_>| {
        for (kind, queue) in [(&shared.daemon_sets, &queues.daemon_sets), (&shared.pods, &queues.pods)] {
            for object in &kind.store.cache().snapshot() {
                let placed = object.fields.get("spec.nodeName").is_some_and(|node| !node.is_empty());
                if !placed {
                    queue.add(ObjectKey::of(object), GATHER);
                }
            }
        }
    };
    follow(Arc::clone(nodes.store.cache()), tracker, cancelled.clone(), see);
    Ok(())
}
