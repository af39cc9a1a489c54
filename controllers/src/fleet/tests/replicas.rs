//! Several hubs over one store, each in a runtime of its own, so that one can be killed with everything it is doing.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::*;
use crate::lease::{LeaseKey, LeaseKind, Leases, Membership, Timing};

/// Faster than in production, and slow enough for a machine that is busy.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(500),
};
const NAMES: [&str; 6] = ["east", "edge", "north", "south", "west", "wild"];

struct Replica {
    runtime: Runtime,
    hub: Hub,
    leases: Leases,
    cancel: CancellationToken,
}

impl Replica {
    async fn start(store: &Arc<dyn Store>, clusters: &Arc<Clusters>, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let membership = Membership::new(Arc::clone(store), name, TIMING).unwrap();
        let leases = membership.leases();
        let cancel = CancellationToken::new();
        runtime.spawn(membership.run(cancel.clone()));
        let shared = (Arc::clone(store), Arc::clone(clusters), cancel.clone(), leases.clone());
        let (store, clusters, token, held) = shared;
        let hub = runtime.spawn(async move { Hub::share(store, clusters, token, held).await });
        let hub = hub.await.unwrap();
        Self {
            runtime,
            hub,
            leases,
            cancel,
        }
    }

    fn clusters(&self) -> usize {
        let held = self.leases.held().into_iter();
        held.filter(|key| key.kind == LeaseKind::Cluster).count()
    }

    fn plans(&self) -> bool {
        self.leases.held().contains(&LeaseKey::fleet("all"))
    }
}

async fn applied_everywhere(clusters: &Clusters, count: i64) {
    for name in NAMES {
        replicas_in(clusters, name, count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_goes_on_when_the_replica_that_plans_dies() {
    let (store, clusters) = world(&NAMES).await;
    seed(&store).await;
    let both = [
        Replica::start(&store, &clusters, "hub-0").await,
        Replica::start(&store, &clusters, "hub-1").await,
    ];
    applied_everywhere(&clusters, 7).await;
    eventually("the clusters are divided and somebody plans", async || {
        let planning = both.iter().filter(|one| one.plans()).count();
        (both.iter().all(|one| one.clusters() == NAMES.len() / 2) && planning == 1).then_some(())
    })
    .await;
    // With both alive a change reaches the clusters of both.
    let [first, second] = both;
    let change = async |replica: &Replica, count: i64| {
        let patches = json!({"spec": {"patches": [{"type": "MergePatch", "value": {"spec": {"replicas": count}}}]}});
        replica
            .hub
            .patch("overrides.umbra.dev", Some("shop"), "replicas", patches)
            .await;
    };
    change(&first, 8).await;
    applied_everywhere(&clusters, 8).await;

    let (planning, other) = if first.plans() {
        (first, second)
    } else {
        (second, first)
    };
    change(&other, 9).await;
    planning.runtime.shutdown_background();
    applied_everywhere(&clusters, 9).await;
    eventually("the other does everything", async || {
        (other.clusters() == NAMES.len() && other.plans()).then_some(())
    })
    .await;
    other.hub.condition(PLACEMENT, "Applied", "True", "Applied").await;

    // One that begins when the other ends in an orderly way finds everything in order, and withdraws.
    let last = Replica::start(&store, &clusters, "hub-2").await;
    other.cancel.cancel();
    other.hub.stop().await;
    last.hub.delete("placements.umbra.dev", Some("shop"), "web").await;
    eventually("nothing is left of the template", async || {
        let gone = NAMES.iter().all(|name| clusters.object(name, WEB).is_none());
        gone.then_some(())
    })
    .await;
    last.cancel.cancel();
    last.hub.stop().await;
    for runtime in [other.runtime, last.runtime] {
        runtime.shutdown_background();
    }
}
