//! Which replica plans for a fleet, and which dispatches to which cluster: those that hold the leases.
//!
//! Every replica follows the fleet. Work that is not this replica's is not even queued: whoever comes to hold a lease looks
//! at everything that the lease is about, so nothing of what others have left undone is missed.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::child::{Access, ApplyOptions, ChildAccess, ChildFailure};
use super::controller::Inner;
use super::queue::Queue;
use super::state::RenderingKey;
use crate::lease::{Held, LeaseKey, still_held};

/// Tasks that compute and store are worked on by so many at a time.
const PLANNERS: usize = 4;
/// Objects that are dispatched to one cluster at a time: enough to hide a round trip, few enough not to be throttled by
/// priority and fairness of an API server that has other clients.
const DISPATCHERS: usize = 8;

/// What there is to dispatch to one cluster.
#[derive(Debug)]
pub(super) struct Dispatching {
    /// Closed while another replica dispatches to the cluster.
    queue: Arc<Queue<RenderingKey>>,
    cancel: CancellationToken,
}

/// The clusters, as far as this replica may write to them. A write does not begin where the lease is over.
pub(super) struct Holding(Access);

impl Holding {
    pub(super) fn new(clusters: Access) -> Self {
        Self(clusters)
    }
}

#[async_trait]
impl ChildAccess for Holding {
    async fn get(&self, cluster: &str, path: &str) -> Result<Option<Value>, ChildFailure> {
        self.0.get(cluster, path).await
    }

    async fn apply(
        &self,
        cluster: &str,
        path: &str,
        object: &Value,
        options: ApplyOptions,
    ) -> Result<Value, ChildFailure> {
        still_held().await;
        self.0.apply(cluster, path, object, options).await
    }

    async fn merge(&self, cluster: &str, path: &str, patch: &Value) -> Result<(), ChildFailure> {
        still_held().await;
        self.0.merge(cluster, path, patch).await
    }

    async fn delete(&self, cluster: &str, path: &str, uid: &str) -> Result<(), ChildFailure> {
        still_held().await;
        self.0.delete(cluster, path, uid).await
    }
}

impl Inner {
    /// Computes and stores while this replica holds the lease of the fleet.
    pub(super) async fn plan_under_lease(self: Arc<Self>) {
        let mut lease = self.leases.lease(LeaseKey::fleet(self.api.name()));
        loop {
            let held = Arc::new(lease.acquire().await);
            self.tasks.open();
            for object in self.known().all() {
                self.plan_for(object);
            }
            self.work(&held, PLANNERS, |inner| async move { inner.work_on_tasks().await })
                .await;
            self.tasks.close();
        }
    }

    /// Asks for a rendering to be dispatched, by this replica or another.
    pub(super) fn wants_dispatch(self: &Arc<Self>, cluster: &str, key: RenderingKey) {
        let mut dispatching = self.dispatching.lock();
        if let Some(known) = dispatching.get(cluster) {
            known.queue.add(key);
            return;
        }
        let started = Dispatching {
            queue: Arc::default(),
            cancel: self.cancel.child_token(),
        };
        let (queue, cancel, name) = (Arc::clone(&started.queue), started.cancel.clone(), cluster.to_owned());
        dispatching.insert(name.clone(), started);
        self.spawn(|inner| async move {
            cancel
                .run_until_cancelled(inner.dispatch_under_lease(&name, &queue))
                .await;
        });
    }

    async fn dispatch_under_lease(self: Arc<Self>, cluster: &str, queue: &Arc<Queue<RenderingKey>>) {
        let mut lease = self.leases.lease(LeaseKey::cluster(cluster));
        // Everything there is has been or will be asked for; where the lease is held from the start nothing has been left out.
        let mut at_once = lease.acquire().now_or_never();
        loop {
            let held = match at_once.take() {
                Some(held) => held,
                None => {
                    queue.close();
                    let held = lease.acquire().await;
                    queue.open();
                    self.look_at_cluster(cluster, queue);
                    held
                }
            };
            let held = Arc::new(held);
            let work = |inner: Arc<Self>| {
                let queue = Arc::clone(queue);
                async move { inner.work_on_cluster(&queue).await }
            };
            self.work(&held, DISPATCHERS, work).await;
        }
    }

    /// Asks for everything that a cluster has or is to have of the fleet. What is remembered of it is from before another
    /// replica dispatched to it.
    fn look_at_cluster(&self, cluster: &str, queue: &Queue<RenderingKey>) {
        for rendering in self.known().renderings() {
            if rendering.spec.cluster == cluster {
                let key = RenderingKey::of(&rendering);
                self.seen.lock().remove(&key);
                queue.add(key);
            }
        }
    }

    /// Lets so many work until the lease is lost, and until they have ended.
    async fn work<F>(self: &Arc<Self>, held: &Arc<Held>, workers: usize, work: impl Fn(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let end = held.lost().child_token();
        // Where this future is dropped the workers end by themselves; each keeps the lease until it has.
        let _end = end.clone().drop_guard();
        let started: Vec<_> = (0..workers)
            .map(|_| {
                let (end, held, work) = (end.clone(), Arc::clone(held), work(Arc::clone(self)));
                self.tracker.spawn(async move {
                    held.scope(end.run_until_cancelled(work)).await;
                })
            })
            .collect();
        for worker in started {
            if let Err(error) = worker.await {
                tracing::error!(fleet = self.api.name(), %error, "a worker of the fleet has failed");
            }
        }
    }

    /// Forgets a cluster that has left the hub, once nothing of the fleet is left to withdraw from it.
    pub(super) fn stop_dispatching_where_done(&self, cluster: &str) {
        let is_there = self.directory.state().clusters.contains_key(cluster);
        if is_there || self.known().renderings().iter().any(|one| one.spec.cluster == cluster) {
            return;
        }
        if let Some(done) = self.dispatching.lock().remove(cluster) {
            done.cancel.cancel();
        }
    }
}
