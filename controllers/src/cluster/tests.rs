//! A hub in memory and a simulated cluster on loopback.

mod credentials;
mod replicas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_api::root::{Fleet, View};
use umbra_apimachinery::request::RootName;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_apiserver::ApiServer;
use umbra_auth::authenticate::Authenticators;
use umbra_child::{Children, ProbeConfig};
use umbra_registry::builtin;
use umbra_registry::builtin::assembly::{Cluster, ClusterParts};
use umbra_registry::child_documents::ChildDocuments;
use umbra_registry::directory::HUB_KINDS;
use umbra_registry::generic::definition;
use umbra_registry::mirror::Mirror;
use umbra_registry::root::{Root, Roots};
use umbra_simulator::{Data, Options, SimulatedCluster, workloads};
use umbra_storage::{CacheOptions, Embedded, Precondition, RangeRequest, Store};

use super::{ClusterController, ClusterControllerParts, FINALIZER, LocalCredentials, ensure_defaults};
use crate::lease::Leases;

/// How long anything may take. Far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The hub root alone.
struct HubRoot(Cluster);

#[async_trait]
impl Roots for HubRoot {
    async fn root(&self, _: RootName<'_>) -> Result<Root, Status> {
        Ok(Root::Api(Arc::clone(&self.0.api) as _))
    }

    async fn enter(&self, _: &UserInfo, _: RootName<'_>, _: &Method) -> Result<(), Status> {
        Ok(())
    }
}

/// A hub with the controller.
struct Hub {
    store: Arc<dyn Store>,
    client: Client,
    children: Children,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Hub {
    async fn start(store: Arc<dyn Store>) -> Self {
        Self::share(store, Leases::sole()).await
    }

    /// One of several hubs over one store.
    async fn share(store: Arc<dyn Store>, leases: Leases) -> Self {
        Self::with(store, leases, LocalCredentials::Refused).await
    }

    async fn with(store: Arc<dyn Store>, leases: Leases, local: LocalCredentials) -> Self {
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let client = Client::new(serve(&store, &tracker, &cancel).await, "default");
        ensure_defaults(&client).await.unwrap();
        let probe = ProbeConfig {
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            failures: 2,
            ..ProbeConfig::default()
        };
        let children = Children::new(probe);
        let directory = Mirror::load(Arc::clone(&store), HUB_KINDS).await.unwrap();
        tracker.spawn(Arc::clone(&directory).follow(cancel.clone()));
        let controller = ClusterController::new(ClusterControllerParts {
            store: Arc::clone(&store),
            directory,
            children: children.clone(),
            tunnels: None,
            documents: Arc::new(ChildDocuments::new(children.clone())),
            sync: umbra_api::cluster::Sync::default(),
            client: client.clone(),
        });
        let controller = controller.with_leases(leases).with_local_credentials(local);
        tracker.spawn(controller.run(cancel.clone()));
        Self {
            store,
            client,
            children,
            tracker,
            cancel,
        }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.children.close().await;
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn clusters(&self) -> Api<ManagedCluster> {
        Api::all(self.client.clone())
    }

    async fn create_secret(&self, cluster: &SimulatedCluster) {
        let kubeconfig = ByteString(cluster.kubeconfig().to_yaml().into_bytes());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some("east-kubeconfig".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("kubeconfig".to_owned(), kubeconfig)])),
            ..Secret::default()
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn create_cluster(&self) {
        let cluster: ManagedCluster = serde_json::from_value(json!({
            "apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": "east"},
            "spec": {"connection": {"credentialsSecretRef": {"name": "east-kubeconfig"}}},
        }))
        .unwrap();
        self.clusters().create(&PostParams::default(), &cluster).await.unwrap();
    }

    /// Waits until the condition has that status and reason; gives the cluster.
    async fn condition(&self, kind: &str, status: &str, reason: &str) -> ManagedCluster {
        eventually(&format!("{kind}={status} ({reason})"), async || {
            let cluster = self.clusters().get("east").await.unwrap();
            let conditions = &cluster.status.as_ref()?.conditions;
            let condition = conditions.iter().find(|one| one.type_ == kind)?;
            (condition.status == status && condition.reason == reason).then_some(cluster)
        })
        .await
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let range = self.store.range(RangeRequest::prefix(prefix)).await.unwrap();
        range.entries.iter().map(|entry| entry.key.to_string()).collect()
    }

    async fn nothing_is_left(&self) {
        eventually("nothing is left", async || {
            let copies = self.keys("/umbra/copies/").await;
            let catalog = self.keys("/umbra/catalog/").await;
            (copies.is_empty() && catalog.is_empty()).then_some(())
        })
        .await;
    }
}

async fn serve(
    store: &Arc<dyn Store>,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> umbra_apiserver::InProcess {
    let (umbra, documents) = definition::strategies(&umbra_api::hub_definitions()).unwrap();
    let kinds = builtin::hub();
    let documents = builtin::documents(&kinds).into_iter().chain(documents);
    let parts = ClusterParts {
        name: "hub".to_owned(),
        store: Arc::clone(store),
        cache: CacheOptions::default(),
        admission: Vec::new(),
        tokens: None,
        version: Bytes::from_static(b"{}"),
        tracker: tracker.clone(),
        cancelled: cancel.clone(),
    };
    let kinds = kinds.into_iter().chain(umbra);
    let hub = Cluster::start(parts, kinds, documents, Instant::now() + PATIENCE)
        .await
        .unwrap();
    let server = ApiServer::builder(Arc::new(HubRoot(hub)), Arc::new(Authenticators::new(Vec::new()))).build();
    server.in_process(UserInfo::new("system:umbra:controllers", [MASTERS]))
}

/// Waits until there is an answer.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn simulated(hub: &Hub, data: Data) -> SimulatedCluster {
    simulate(data, &hub.tracker, hub.cancel.child_token()).await
}

async fn simulate(data: Data, tracker: &TaskTracker, cancel: CancellationToken) -> SimulatedCluster {
    let options = Options {
        data,
        ..Options::new("east")
    };
    let cluster = SimulatedCluster::start(options, tracker, cancel).await.unwrap();
    cluster.create_missing(&workloads::objects("east")).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_becomes_ready_and_leaves_nothing_behind() {
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let child = simulated(&hub, Data::InMemory).await;
    hub.create_cluster().await;
    let waiting = hub.condition(condition::REACHABLE, "False", "NoCredentials").await;
    assert_eq!(waiting.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
    // A Secret that comes later is taken up.
    hub.create_secret(&child).await;
    let ready = hub.condition(condition::READY, "True", "Ready").await;
    let status = ready.status.unwrap();
    assert_eq!((status.uid.as_str(), status.nodes), (child.uid(), Some(3)));
    assert_eq!(status.properties["kubernetesVersion"], status.version);
    assert!(status.last_probe_time.is_some());
    assert!(
        status
            .conditions
            .iter()
            .all(|one| one.observed_generation == ready.metadata.generation)
    );
    assert!(hub.children.get("east").is_some());
    let pods = hub.keys("/umbra/copies/core/pods/east/").await.len();
    assert!(pods > 0);
    eventually("pods are counted", async || {
        let status = hub.clusters().get("east").await.unwrap().status?;
        let counted = status
            .resources
            .iter()
            .find(|one| one.resource == "pods" && one.group.is_empty())?;
        (counted.copies as usize == hub.keys("/umbra/copies/core/pods/east/").await.len()).then_some(())
    })
    .await;

    hub.clusters().delete("east", &DeleteParams::default()).await.unwrap();
    eventually("the ManagedCluster is gone", async || {
        hub.clusters().get_opt("east").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(hub.children.get("east").is_none());
    hub.nothing_is_left().await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_cluster_keeps_its_copies_and_comes_back() {
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let folder = tempfile::tempdir().unwrap();
    let data = Data::Path(folder.path().join("east"));
    let child = simulated(&hub, data.clone()).await;
    hub.create_secret(&child).await;
    hub.create_cluster().await;
    hub.condition(condition::READY, "True", "Ready").await;

    child.shut_down().await;
    let gone = hub.condition(condition::REACHABLE, "False", "ConnectionRefused").await;
    let conditions = gone.status.unwrap().conditions;
    let ready = conditions.iter().find(|one| one.type_ == condition::READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "ConnectionRefused")
    );
    assert!(ready.message.contains("no answer since"), "{}", ready.message);
    assert!(!hub.keys("/umbra/copies/core/pods/east/").await.is_empty());

    simulated(&hub, data).await;
    hub.condition(condition::READY, "True", "Ready").await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_neither_copied_nor_passed_on_to() {
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let child = simulated(&hub, Data::InMemory).await;
    hub.create_cluster().await;
    hub.condition(condition::REACHABLE, "False", "NoCredentials").await;
    let joined = json!({"status": {"uid": "another"}});
    hub.clusters()
        .patch_status("east", &PatchParams::default(), &Patch::Merge(joined))
        .await
        .unwrap();
    hub.create_secret(&child).await;
    let refused = hub.condition(condition::REACHABLE, "False", "WrongCluster").await;
    let status = refused.status.unwrap();
    assert_eq!(status.uid, "another");
    let message = &status.conditions[0].message;
    assert!(
        message.contains(child.uid()) && message.contains("another"),
        "{message}"
    );
    assert!(hub.children.get("east").is_none());
    hub.nothing_is_left().await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_clusters_that_are_gone_are_erased_at_the_start() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    for key in ["/umbra/catalog/ghost/api", "/umbra/copies/core/pods/ghost/shop/web"] {
        store.put(key, "{}".into(), Precondition::None).await.unwrap();
    }
    let hub = Hub::start(store).await;
    hub.nothing_is_left().await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_has_its_namespace_its_view_and_its_fleet() {
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    // A second start changes nothing.
    ensure_defaults(&hub.client).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(hub.client.clone());
    let views: Api<View> = Api::all(hub.client.clone());
    let fleets: Api<Fleet> = Api::all(hub.client.clone());
    assert!(namespaces.get_opt(SYSTEM_NAMESPACE).await.unwrap().is_some());
    assert!(views.get_opt("all").await.unwrap().is_some() && fleets.get_opt("all").await.unwrap().is_some());
    hub.stop().await;
}
