//! A root in memory, asked as the HTTP code asks it.

mod backend;
mod controllers;
mod freshness;
mod laws;
mod lists;
mod reviews;
mod verbs;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_storage::{CacheOptions, Embedded, Store};

use super::authorization::RbacAuthorizer;
use super::collection::StoreApi;
use super::store::ResourceStore;
use super::strategy::{Strategy, subresource};
use crate::builtin;
use crate::builtin::assembly::{Cluster, ClusterParts};
use crate::builtin::controllers::system_context;
use crate::request::{ListOptions, PatchType, RequestContext, WriteOptions};
use crate::resource::{ObjectList, Resource, WriteOutcome, WriteRequest, WriteVerb};

/// A root that ends when dropped.
struct Root {
    api: Arc<StoreApi>,
    store: Arc<dyn Store>,
    cancelled: CancellationToken,
    authorizer: Arc<RbacAuthorizer>,
}

impl Drop for Root {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

/// A custom resource with status and no schema.
fn widgets() -> Strategy {
    let version = GroupVersion::new("example.com", "v1");
    let mut strategy = Strategy::new(ResourceDescriptor {
        resource: version.resource("widgets"),
        kind: "Widget".to_owned(),
        singular: "widget".to_owned(),
        namespaced: true,
        subresources: vec![subresource("status", version.kind("Widget"))],
        ..ResourceDescriptor::default()
    });
    strategy.allow_unconditional_update = false;
    strategy
}

impl Root {
    async fn start() -> Self {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
        let cancelled = CancellationToken::new();
        let wanted = [
            "namespaces",
            "configmaps",
            "pods",
            "serviceaccounts",
            "deployments.apps",
            "replicasets.apps",
            "roles.rbac.authorization.k8s.io",
            "rolebindings.rbac.authorization.k8s.io",
            "clusterroles.rbac.authorization.k8s.io",
            "clusterrolebindings.rbac.authorization.k8s.io",
        ];
        let mut kinds = builtin::all_where(|resource| wanted.contains(&resource.to_string().as_str()));
        let documents = builtin::documents(&kinds);
        kinds.push(widgets());
        let parts = ClusterParts {
            name: "test".to_owned(),
            store: Arc::clone(&store),
            cache: CacheOptions::default(),
            admission: Vec::new(),
            tokens: None,
            version: Bytes::from_static(b"{}"),
            tracker: TaskTracker::new(),
            cancelled: cancelled.clone(),
        };
        let Cluster { api, authorizer } = Cluster::start(parts, kinds, documents, soon()).await.unwrap();
        Self {
            api,
            store,
            cancelled,
            authorizer,
        }
    }

    fn resource(&self, name: &str) -> Arc<ResourceStore> {
        let stores = self.api.stores();
        let found = stores
            .into_iter()
            .find(|store| store.strategy().descriptor.resource.resource == name);
        found.expect("the resource is installed")
    }

    async fn write(&self, resource: &str, request: WriteRequest) -> Result<WriteOutcome, Status> {
        self.resource(resource).write(&system_context("admin"), request).await
    }

    async fn create(&self, resource: &str, object: Value) -> Result<Value, Status> {
        let outcome = self.write(resource, write(WriteVerb::Create, "", &object)).await?;
        assert!(matches!(outcome, WriteOutcome::Created(_)));
        Ok(json_of(outcome))
    }

    async fn update(&self, resource: &str, object: &Value) -> Result<Value, Status> {
        let name = object["metadata"]["name"].as_str().unwrap();
        Ok(json_of(
            self.write(resource, write(WriteVerb::Update, name, object)).await?,
        ))
    }

    async fn patch(&self, resource: &str, name: &str, kind: PatchType, patch: Value) -> Result<Value, Status> {
        Ok(json_of(
            self.write(resource, write(WriteVerb::Patch(kind), name, &patch))
                .await?,
        ))
    }

    async fn delete(&self, resource: &str, name: &str, options: Value) -> Result<WriteOutcome, Status> {
        self.write(resource, write(WriteVerb::Delete, name, &options)).await
    }

    async fn get(&self, resource: &str, name: &str) -> Result<Value, Status> {
        let store = self.resource(resource);
        let namespace = store.strategy().descriptor.namespaced.then_some("default");
        let options = crate::request::GetOptions::default();
        let object = store
            .get(&system_context("admin"), namespace, name, "", &options)
            .await?;
        Ok(serde_json::from_slice(&object.json).unwrap())
    }

    async fn list(&self, resource: &str, options: &ListOptions) -> Result<ObjectList, Status> {
        let store = self.resource(resource);
        let namespace = store.strategy().descriptor.namespaced.then_some("default");
        store.list(&system_context("admin"), namespace, options).await
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A write to the namespace `default`, or to the cluster scope, which ignores the namespace.
fn write(verb: WriteVerb, name: &str, body: &Value) -> WriteRequest {
    WriteRequest {
        verb,
        namespace: Some("default".to_owned()),
        name: name.to_owned(),
        subresource: String::new(),
        body: if body.is_null() {
            Bytes::new()
        } else {
            serde_json::to_vec(body).unwrap().into()
        },
        content_type: "application/json".to_owned(),
        options: WriteOptions {
            field_manager: "test".to_owned(),
            ..WriteOptions::default()
        },
        list_options: ListOptions::default(),
        query: String::new(),
    }
}

fn json_of(outcome: WriteOutcome) -> Value {
    match outcome {
        WriteOutcome::Created(object) | WriteOutcome::Done(object) | WriteOutcome::Accepted(object) => {
            serde_json::from_slice(&object.json).unwrap()
        }
        WriteOutcome::Status(status) => serde_json::to_value(&status).unwrap(),
        WriteOutcome::Collection(list) => list.items.len().into(),
    }
}

fn names(list: &ObjectList) -> Vec<String> {
    let name = |json: &Bytes| {
        let object: Value = serde_json::from_slice(json).unwrap();
        object["metadata"]["name"].as_str().unwrap().to_owned()
    };
    list.items.iter().map(|item| name(&item.json)).collect()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        },
    }})
}

/// A context of a user in no special group.
fn context_of(user: &str) -> RequestContext {
    RequestContext {
        user: Arc::new(UserInfo::new(user, ["system:authenticated"])),
        ..system_context(user)
    }
}
