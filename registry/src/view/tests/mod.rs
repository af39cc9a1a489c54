//! Views over a real store in memory and scripted children on loopback. Copies are written as the copy controller writes
//! them.

mod connections;
mod delete;
mod hub_rbac;
mod live;
mod openapi;
mod patches;
mod reads;
mod scripted_hub;
mod shape;
mod tenants;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionKind, GroupVersionResource};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::ColumnDefinition;
use umbra_apimachinery::user::UserInfo;
use umbra_child::Children;
use umbra_storage::{Embedded, Precondition, Revision, Store};

use self::scripted_hub::ScriptedHub;
use super::{HubPermissions, ViewApi, ViewServices};
use crate::child_documents::ChildDocuments;
use crate::copies::cache::Copies;
use crate::copies::catalog::{CATALOG, ClusterApi, api_key, columns_key};
use crate::copies::key::{CopyKey, copy_key};
use crate::copies::policy::RBAC_COPIES;
use crate::copies::translate::to_view;
use crate::directory::HUB_KINDS;
use crate::mirror::Mirror;
use crate::request::{GetOptions, ListOptions, RequestContext, Warnings, WriteOptions};
use crate::resource::{Event, EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest, WriteVerb};
use crate::root::Api as _;
use crate::scripted_child;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Three clusters, of which east and west have an admin called `ann`; pods, deployments and RBAC are copied, secrets are
/// not.
struct Fixture {
    store: Arc<Embedded>,
    services: Arc<ViewServices>,
    children: Children,
    hub: Arc<ScriptedHub>,
    _stop: DropGuard,
}

fn descriptor(group: &str, resource: &str, kind: &str, namespaced: bool) -> ResourceDescriptor {
    let verbs = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    let subresource = |name: &str, kind: GroupVersionKind| SubresourceDescriptor {
        name: name.to_owned(),
        kind,
        verbs: vec!["get".to_owned(), "update".to_owned(), "create".to_owned()],
    };
    ResourceDescriptor {
        resource: GroupVersionResource::new(group, "v1", resource),
        kind: kind.to_owned(),
        namespaced,
        verbs: verbs.map(str::to_owned).to_vec(),
        subresources: vec![
            subresource("scale", GroupVersionKind::new("autoscaling", "v1", "Scale")),
            subresource("log", GroupVersionKind::new("", "v1", "Pod")),
        ],
        ..ResourceDescriptor::default()
    }
}

fn cluster_api() -> ClusterApi {
    let mut discovery = Discovery::new();
    for (group, resource, kind, namespaced) in [
        ("", "pods", "Pod", true),
        ("", "secrets", "Secret", true),
        ("", "nodes", "Node", false),
        ("apps", "deployments", "Deployment", true),
    ] {
        discovery.insert(descriptor(group, resource, kind, namespaced));
    }
    let copied = ["pods", "nodes", "deployments.apps"];
    ClusterApi {
        discovery: Arc::new(discovery),
        copied: copied.into_iter().map(GroupResource::parse).collect(),
    }
}

fn pod_columns() -> Vec<ColumnDefinition> {
    vec![
        ColumnDefinition::name(),
        ColumnDefinition::string("Ready", ""),
        ColumnDefinition::age(),
    ]
}

impl Fixture {
    async fn new() -> Self {
        let store = Arc::new(Embedded::in_memory());
        put_json(
            &store,
            &format!("{HUB_KINDS}views/all"),
            &json!({
                "apiVersion": "umbra.dev/v1alpha1", "kind": "View", "metadata": {"name": "all"}, "spec": {},
            }),
        )
        .await;
        for cluster in ["east", "west"] {
            register(&store, cluster, json!({})).await;
            grant(&store, cluster, "ann", "", &["*"], &["*"], &[]).await;
        }
        let cancel = CancellationToken::new();
        let tracker = TaskTracker::new();
        let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let directory = Mirror::load(Arc::clone(&shared), HUB_KINDS).await.unwrap();
        let catalog = Mirror::load(Arc::clone(&shared), CATALOG).await.unwrap();
        let policies = Mirror::load(Arc::clone(&shared), RBAC_COPIES).await.unwrap();
        tracker.spawn(Arc::clone(&directory).follow(cancel.clone()));
        tracker.spawn(Arc::clone(&catalog).follow(cancel.clone()));
        tracker.spawn(Arc::clone(&policies).follow(cancel.clone()));
        let copies = Arc::new(Copies::new(shared, tracker, cancel.clone()));
        let children = scripted_child::children();
        let documents = Arc::new(ChildDocuments::new(children.clone()));
        Self {
            store,
            services: ViewServices::new(directory, catalog, policies, copies, children.clone(), documents),
            children,
            hub: ScriptedHub::new(true),
            _stop: cancel.drop_guard(),
        }
    }

    fn api(&self) -> ViewApi {
        let hub: Arc<dyn HubPermissions> = Arc::clone(&self.hub) as _;
        ViewApi::new("all", &self.services, &hub).unwrap()
    }

    fn resource(&self, name: &str) -> Arc<dyn Resource> {
        let resource = GroupResource::parse(name).with_version("v1");
        self.api().resource(&resource).unwrap()
    }

    /// Writes the copy of an object that a child has at `revision`.
    async fn copy(&self, resource: &str, cluster: &str, object: Value) -> Revision {
        let resource = GroupResource::parse(resource);
        let name = object["metadata"]["name"].clone();
        let columns = pod_columns();
        let row = (&columns[..], vec![name, json!("1/1"), json!("3s")]);
        let translated = to_view(object.to_string().as_bytes(), cluster, &resource, Some(row)).unwrap();
        let namespace = Some(translated.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let name = &translated.name;
        let key = copy_key(
            &resource,
            CopyKey {
                cluster,
                namespace,
                name,
            },
        );
        put(&self.store, &key, translated.envelope.encode()).await
    }

    /// Removes the copy of an object.
    async fn remove_copy(&self, resource: &str, cluster: &str, namespace: &str, name: &str) {
        let namespace = Some(namespace);
        let key = copy_key(
            &GroupResource::parse(resource),
            CopyKey {
                cluster,
                namespace,
                name,
            },
        );
        self.store.delete(&key, Precondition::None).await.unwrap();
    }

    /// web-1 in the shop of both clusters, web-2 in the bank of east, db in the shop of west.
    async fn with_pods(self) -> Self {
        for (cluster, namespace, name) in [
            ("east", "shop", "web-1"),
            ("west", "shop", "web-1"),
            ("east", "bank", "web-2"),
            ("west", "shop", "db"),
        ] {
            self.copy("pods", cluster, pod(namespace, name, "7")).await;
        }
        self
    }
}

fn pod(namespace: &str, name: &str, revision: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": revision, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": name}},
        "spec": {"nodeName": "n1"}})
}

async fn put(store: &Embedded, key: &str, value: Bytes) -> Revision {
    store.put(key, value, Precondition::None).await.unwrap()
}

async fn put_json(store: &Embedded, key: &str, value: &Value) {
    put(store, key, value.to_string().into()).await;
}

/// Registers a cluster that serves what all serve.
async fn register(store: &Embedded, cluster: &str, spec: Value) {
    put_cluster(store, cluster, spec, json!({})).await;
    put(
        store,
        &api_key(cluster),
        serde_json::to_vec(&cluster_api()).unwrap().into(),
    )
    .await;
    let columns = serde_json::to_vec(&pod_columns()).unwrap();
    put(
        store,
        &columns_key(cluster, &GroupResource::parse("pods")),
        columns.into(),
    )
    .await;
}

async fn put_cluster(store: &Embedded, cluster: &str, spec: Value, status: Value) {
    let object = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": cluster},
        "spec": spec, "status": status});
    put_json(store, &format!("{HUB_KINDS}managedclusters/{cluster}"), &object).await;
}

/// Lets a user do something in a cluster: everywhere, or in one namespace.
async fn grant(
    store: &Embedded,
    cluster: &str,
    user: &str,
    namespace: &str,
    resources: &[&str],
    verbs: &[&str],
    names: &[&str],
) {
    let kinds = if namespace.is_empty() {
        [
            ("clusterroles", "ClusterRole"),
            ("clusterrolebindings", "ClusterRoleBinding"),
        ]
    } else {
        [("roles", "Role"), ("rolebindings", "RoleBinding")]
    };
    let [(roles, role), (bindings, binding)] = kinds;
    let name = format!("{user}-{}", resources.join("-").replace(['*', '/'], "x"));
    let metadata = json!({"name": name, "namespace": namespace, "resourceVersion": "1"});
    let rules = json!([{"apiGroups": ["*"], "resources": resources, "verbs": verbs, "resourceNames": names}]);
    let objects = [
        (roles, json!({"kind": role, "metadata": metadata, "rules": rules})),
        (
            bindings,
            json!({"kind": binding, "metadata": metadata,
                "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
                "roleRef": {"kind": role, "apiGroup": RBAC, "name": name}}),
        ),
    ];
    for (resource, object) in objects {
        let resource = GroupResource::new(RBAC, resource);
        let translated = to_view(object.to_string().as_bytes(), cluster, &resource, None).unwrap();
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        let name = &translated.name;
        let key = copy_key(
            &resource,
            CopyKey {
                cluster,
                namespace,
                name,
            },
        );
        put(store, &key, translated.envelope.encode()).await;
    }
}

fn context(user: &str, method: &str, path: &str) -> RequestContext {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    RequestContext {
        user: Arc::new(UserInfo::new(user, ["system:authenticated"])),
        info: Arc::new(RequestInfo::parse(method, path, query)),
        prefix: "/root".into(),
        deadline: Instant::now() + Duration::from_secs(20),
        warnings: Warnings::default(),
        user_agent: "test/1".into(),
    }
}

/// A reader; only the user counts.
fn reader(user: &str) -> RequestContext {
    context(user, "GET", "/api/v1/pods")
}

fn labelled(selector: &str) -> ListOptions {
    ListOptions {
        label_selector: selector.to_owned(),
        ..ListOptions::default()
    }
}

fn with_fields(selector: &str) -> ListOptions {
    ListOptions {
        field_selector: selector.to_owned(),
        ..ListOptions::default()
    }
}

async fn list(
    fixture: &Fixture,
    user: &str,
    namespace: Option<&str>,
    options: &ListOptions,
) -> Result<Vec<String>, Status> {
    let list = fixture.resource("pods").list(&reader(user), namespace, options).await?;
    Ok(names(&list))
}

fn names(list: &ObjectList) -> Vec<String> {
    list.items.iter().map(name).collect()
}

fn parsed(object: &Object) -> Value {
    serde_json::from_slice(&object.json).unwrap()
}

/// Namespace and name.
fn name(object: &Object) -> String {
    let object = parsed(object);
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

fn revision(object: &Object) -> String {
    parsed(object)["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn get(fixture: &Fixture, user: &str, namespace: &str, name: &str) -> Result<Object, Status> {
    let pods = fixture.resource("pods");
    pods.get(&reader(user), Some(namespace), name, "", &GetOptions::default())
        .await
}

async fn next(events: &mut EventStream) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(20), events.next())
        .await
        .expect("an event in time")
}
