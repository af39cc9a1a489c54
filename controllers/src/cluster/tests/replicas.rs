//! Several hubs over one store, each in a runtime of its own, so that one can be killed with everything it is doing.

use futures::StreamExt;
use serde_json::Value;
use tokio::runtime::Runtime;
use umbra_child::kubeconfig::Kubeconfig;
use umbra_child::{Child, ChildConfig};
use umbra_registry::copies::envelope::Envelope;
use umbra_storage::{Revision, WatchEvent};

use super::*;
use crate::lease::{LeaseKey, Membership, Timing};

const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const COPIES: &str = "/umbra/copies/core/configmaps/east/shop/";
/// Changes of the cluster between two events of the test.
const CHANGES: usize = 40;
/// Faster than in production, and slow enough for a machine that is busy.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(500),
};

struct Replica {
    runtime: Runtime,
    hub: Hub,
    leases: Leases,
}

impl Replica {
    async fn start(store: &Arc<dyn Store>, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let membership = Membership::new(Arc::clone(store), name, TIMING).unwrap();
        let (store, leases) = (Arc::clone(store), membership.leases());
        let shared = leases.clone();
        let hub = runtime.spawn(async move {
            let hub = Hub::share(store, shared).await;
            hub.tracker.spawn(membership.run(hub.cancel.clone()));
            hub
        });
        let hub = hub.await.unwrap();
        Self { runtime, hub, leases }
    }

    fn copies(&self) -> bool {
        self.leases.held().contains(&LeaseKey::cluster("east"))
    }

    /// Nothing of it runs any more.
    fn kill(self) {
        self.runtime.shutdown_background();
    }

    async fn stop(self) {
        self.hub.stop().await;
        self.runtime.shutdown_background();
    }
}

/// Makes, changes and deletes config maps.
async fn change(child: &Child, round: &str) {
    for number in 0..CHANGES {
        let name = format!("{round}-{}", number / 4);
        let path = format!("{CONFIG_MAPS}/{name}");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"number": number.to_string()}});
        let (method, path) = match number % 4 {
            0 => (Method::POST, CONFIG_MAPS),
            // Every third stays.
            3 if number % 12 != 3 => (Method::DELETE, path.as_str()),
            _ => (Method::PUT, path.as_str()),
        };
        child
            .request_json(method, path, "application/json", body.to_string())
            .await
            .unwrap();
    }
}

/// Waits until the copies are the objects of the cluster, in their last state.
async fn copies_are_right(store: &Arc<dyn Store>, child: &Child) {
    let list: Value = child.get_json(CONFIG_MAPS).await.unwrap();
    let wanted: BTreeMap<String, String> = list["items"].as_array().unwrap().iter().map(identify).collect();
    eventually("the copies are the objects of the cluster", async || {
        let found = store.range(RangeRequest::prefix(COPIES)).await.unwrap().entries;
        let copies: BTreeMap<String, String> = found
            .iter()
            .map(|entry| {
                let name = entry.key.strip_prefix(COPIES).unwrap().to_owned();
                (name, Envelope::decode(&entry.value).unwrap().header.child_revision)
            })
            .collect();
        (copies == wanted).then_some(())
    })
    .await;
}

fn identify(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    (text("name"), text("resourceVersion"))
}

/// No state of an object was written twice, and none after a later one. Gives how many there were.
async fn nothing_came_twice(store: &Arc<dyn Store>) -> usize {
    let until = store.current_revision().await.unwrap();
    let mut events = store.watch("/umbra/", Revision::INITIAL).await.unwrap();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let (mut at, mut states) = (Revision::INITIAL, 0);
    while at < until {
        let event = events.next().await.unwrap().unwrap();
        at = event.revision();
        let WatchEvent::Put { entry, .. } = event else { continue };
        if let Some(name) = entry.key.strip_prefix(COPIES) {
            let revision: u64 = Envelope::decode(&entry.value)
                .unwrap()
                .header
                .child_revision
                .parse()
                .unwrap();
            let before = last.insert(name.to_owned(), revision);
            assert!(
                before.is_none_or(|before| before < revision),
                "{name}: {before:?}, then {revision}"
            );
            states += 1;
        }
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_dies_amid_changes_and_nothing_is_lost_or_doubled() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let cluster = simulate(Data::InMemory, &tracker, cancel.clone()).await;
    let kubeconfig = Kubeconfig::parse(&cluster.kubeconfig().to_yaml(), "the cluster").unwrap();
    let child = Child::new(ChildConfig::from_kubeconfig("east", &kubeconfig, None).unwrap()).unwrap();
    let mut replicas = vec![
        Replica::start(&store, "hub-0").await,
        Replica::start(&store, "hub-1").await,
    ];
    replicas[0].hub.create_secret(&cluster).await;
    replicas[0].hub.create_cluster().await;
    replicas[0].hub.condition(condition::READY, "True", "Ready").await;
    eventually("every replica is connected", async || {
        replicas
            .iter()
            .all(|one| one.hub.children.get("east").is_some())
            .then_some(())
    })
    .await;
    change(&child, "first").await;
    copies_are_right(&store, &child).await;

    let holder = replicas.iter().position(Replica::copies).unwrap();
    let (killed, survivor) = (replicas.remove(holder), replicas.remove(0));
    let kill = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        killed.kill();
    };
    tokio::join!(change(&child, "second"), kill);
    eventually("the other replica copies", async || survivor.copies().then_some(())).await;
    copies_are_right(&store, &child).await;
    survivor.hub.condition(condition::READY, "True", "Ready").await;

    // An orderly end: the next one goes on where this one stopped.
    let next = Replica::start(&store, "hub-2").await;
    eventually("the new replica is connected", async || {
        next.hub.children.get("east").map(drop)
    })
    .await;
    tokio::join!(change(&child, "third"), survivor.stop());
    eventually("the new replica copies", async || next.copies().then_some(())).await;
    copies_are_right(&store, &child).await;
    assert!(nothing_came_twice(&store).await > CHANGES);
    let views: Api<View> = Api::all(next.hub.client.clone());
    eventually("the view says how many clusters it has", async || {
        let status = views.get("all").await.unwrap().status?;
        (status.clusters == Some(1)).then_some(())
    })
    .await;

    next.hub
        .clusters()
        .delete("east", &DeleteParams::default())
        .await
        .unwrap();
    next.hub.nothing_is_left().await;
    next.stop().await;
    child.close().await;
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
}
