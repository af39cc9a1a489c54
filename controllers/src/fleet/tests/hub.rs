//! A hub with one fleet, over a store in memory and scripted clusters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::{GroupResource, GroupVersion, GroupVersionKind};
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::Status;
use umbra_openapi::builtin;
use umbra_registry::copies::cache::Copies;
use umbra_registry::copies::catalog::{CATALOG, ClusterApi, api_key};
use umbra_registry::directory::HUB_KINDS;
use umbra_registry::fleet::{Documents, FleetApi, FleetDependencies};
use umbra_registry::mirror::Mirror;
use umbra_storage::{Embedded, Precondition, Store};

use super::clusters::Clusters;
use crate::fleet::controller::{Dependencies, FleetController};
use crate::fleet::write::{Place, Writer};
use crate::lease::Leases;

/// How long anything may take. Far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kubernetes' own schemas.
struct BuiltinDocuments;

#[async_trait]
impl Documents for BuiltinDocuments {
    async fn index(&self, _cluster: &str) -> Result<Vec<(GroupVersion, String)>, Status> {
        Ok(Vec::new())
    }

    async fn document(&self, _cluster: &str, _version: &GroupVersion) -> Result<Bytes, Status> {
        Err(Status::no_such_path())
    }

    async fn type_schema(&self, _cluster: &str, kind: &GroupVersionKind) -> Result<Option<TypeSchema>, Status> {
        Ok(builtin::type_schema(kind))
    }
}

/// A running hub.
pub(super) struct Hub {
    pub(super) api: Arc<FleetApi>,
    pub(super) store: Arc<dyn Store>,
    writer: Writer,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// A store that knows clusters of these names and the fleet `all`, and the clusters.
pub(super) async fn world(names: &[&str]) -> (Arc<dyn Store>, Arc<Clusters>) {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let fleet = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "all"}, "spec": {}});
    put(store.as_ref(), &format!("{HUB_KINDS}fleets/all"), &fleet).await;
    for name in names {
        put_cluster(store.as_ref(), name, json!({"region": "eu"})).await;
        let kinds = ["namespaces", "configmaps", "deployments"];
        let mut discovery = Discovery::new();
        for descriptor in builtin::resources()
            .iter()
            .filter(|one| kinds.contains(&one.resource.resource.as_str()))
        {
            discovery.insert(descriptor.clone());
        }
        let api = ClusterApi {
            copied: discovery.resources().map(|one| one.group_resource()).collect(),
            discovery: Arc::new(discovery),
        };
        put(store.as_ref(), &api_key(name), &serde_json::to_value(api).unwrap()).await;
    }
    let clusters = Clusters::new(Arc::clone(&store));
    (store, clusters)
}

pub(super) async fn put_cluster(store: &dyn Store, name: &str, labels: Value) {
    put_cluster_with(store, json!({"name": name, "labels": labels})).await;
}

/// One with this metadata.
pub(super) async fn put_cluster_with(store: &dyn Store, metadata: Value) {
    let name = metadata["name"].as_str().unwrap().to_owned();
    let cluster = json!({
        "apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
        "metadata": metadata,
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    put(store, &format!("{HUB_KINDS}managedclusters/{name}"), &cluster).await;
}

async fn put(store: &dyn Store, key: &str, value: &Value) {
    store
        .put(key, value.to_string().into(), Precondition::None)
        .await
        .unwrap();
}

impl Hub {
    /// Starts a hub over what is stored.
    pub(super) async fn start(store: Arc<dyn Store>, clusters: Arc<Clusters>, cancel: CancellationToken) -> Self {
        Self::share(store, clusters, cancel, Leases::sole()).await
    }

    /// Starts one of several hubs over what is stored.
    pub(super) async fn share(
        store: Arc<dyn Store>,
        clusters: Arc<Clusters>,
        cancel: CancellationToken,
        leases: Leases,
    ) -> Self {
        Self::with(store, Some((clusters, leases)), cancel).await
    }

    /// Starts a hub that only serves.
    pub(super) async fn without_controllers(store: Arc<dyn Store>) -> Self {
        Self::with(store, None, CancellationToken::new()).await
    }

    async fn with(store: Arc<dyn Store>, clusters: Option<(Arc<Clusters>, Leases)>, cancel: CancellationToken) -> Self {
        let store = match &clusters {
            Some((_, leases)) => leases.fenced(store),
            None => store,
        };
        let tracker = TaskTracker::new();
        let directory = Mirror::load(Arc::clone(&store), HUB_KINDS).await.unwrap();
        let catalog = Mirror::load(Arc::clone(&store), CATALOG).await.unwrap();
        tracker.spawn(Arc::clone(&directory).follow(cancel.clone()));
        tracker.spawn(Arc::clone(&catalog).follow(cancel.clone()));
        let copies = Arc::new(Copies::new(Arc::clone(&store), tracker.clone(), cancel.clone()));
        let api = FleetApi::new(FleetDependencies {
            fleet: "all".to_owned(),
            store: Arc::clone(&store),
            directory: Arc::clone(&directory),
            catalog: Arc::clone(&catalog),
            documents: Arc::new(BuiltinDocuments),
            version: Bytes::new(),
            tracker: tracker.clone(),
            cancelled: cancel.clone(),
        })
        .await
        .unwrap();
        if let Some((children, leases)) = clusters {
            let controller = FleetController::new(Dependencies {
                api: Arc::clone(&api),
                directory,
                catalog,
                copies,
                children,
            });
            tracker.spawn(controller.with_leases(leases).run(cancel.clone()));
        }
        Self {
            writer: Writer::new(Arc::clone(&api)),
            api,
            store,
            tracker,
            cancel,
        }
    }

    pub(super) async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    pub(super) async fn create(&self, object: Value) {
        self.try_create(object).await.unwrap();
    }

    pub(super) async fn try_create(&self, object: Value) -> Result<(), Status> {
        let (resource, namespace, name) = place_of(&object);
        let place = Place {
            resource: &resource,
            namespace: namespace.as_deref(),
            name: &name,
        };
        self.writer.create(place, &object).await
    }

    pub(super) async fn delete(&self, resource: &str, namespace: Option<&str>, name: &str) {
        let object = self.get(resource, namespace, name).await.unwrap();
        let resource = GroupResource::parse(resource);
        let place = Place {
            resource: &resource,
            namespace,
            name,
        };
        self.writer
            .delete(place, object["metadata"]["uid"].as_str().unwrap())
            .await
            .unwrap();
    }

    pub(super) async fn patch(&self, resource: &str, namespace: Option<&str>, name: &str, patch: Value) {
        let resource = GroupResource::parse(resource);
        let place = Place {
            resource: &resource,
            namespace,
            name,
        };
        self.writer.patch(place, &patch).await.unwrap();
    }

    pub(super) async fn get(&self, resource: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        let resource = GroupResource::parse(resource);
        let place = Place {
            resource: &resource,
            namespace,
            name,
        };
        self.writer.get(place).await.unwrap()
    }

    /// Waits until a condition of an object has that status and reason; answers with its message.
    pub(super) async fn condition(
        &self,
        (resource, namespace, name): (&str, Option<&str>, &str),
        kind: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let wanted = format!("{resource} {name}: {kind}={status} ({reason})");
        eventually(&wanted, async || {
            let object = self.get(resource, namespace, name).await?;
            let conditions = object["status"]["conditions"].as_array()?;
            let condition = conditions.iter().find(|one| one["type"] == kind)?;
            (condition["status"] == status && condition["reason"] == reason)
                .then(|| condition["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }
}

fn place_of(object: &Value) -> (GroupResource, Option<String>, String) {
    let group = GroupVersion::parse(object["apiVersion"].as_str().unwrap()).group;
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().map(str::to_owned);
    (
        GroupResource::new(group, plural),
        namespace,
        metadata["name"].as_str().unwrap().to_owned(),
    )
}

/// Waits until there is an answer.
pub(super) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
