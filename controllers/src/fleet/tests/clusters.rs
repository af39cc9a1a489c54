//! Clusters that do what they are told and remember it, and whose objects are copied at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::patch::merge;
use umbra_registry::copies::key::{CopyKey, copy_key};
use umbra_registry::copies::translate::to_view;
use umbra_storage::{Precondition, Store};

use super::life::Life;
use crate::fleet::child::{ApplyOptions, ChildAccess, ChildFailure};

type Key = (String, String);

/// Scripted clusters.
#[derive(Debug)]
pub(super) struct Clusters {
    objects: Mutex<BTreeMap<Key, Value>>,
    revision: AtomicU64,
    /// Clusters that do not answer.
    pub(super) down: Mutex<Vec<String>>,
    /// How many objects were put, by whomever.
    pub(super) writes: AtomicU64,
    /// Where copies go.
    store: Arc<dyn Store>,
    pub(super) life: Mutex<Option<Arc<Life>>>,
}

impl Clusters {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            revision: AtomicU64::new(100),
            down: Mutex::default(),
            writes: AtomicU64::default(),
            store,
            life: Mutex::default(),
        })
    }

    pub(super) fn object(&self, cluster: &str, path: &str) -> Option<Value> {
        self.objects.lock().get(&(cluster.to_owned(), path.to_owned())).cloned()
    }

    pub(super) fn paths(&self, cluster: &str) -> Vec<String> {
        let objects = self.objects.lock();
        objects
            .keys()
            .filter(|(one, _)| one == cluster)
            .map(|(_, path)| path.clone())
            .collect()
    }

    /// What every cluster has, without what differs from run to run.
    pub(super) fn summary(&self) -> BTreeMap<Key, Value> {
        let mut objects = self.objects.lock().clone();
        for object in objects.values_mut() {
            let metadata = object.metadata_mut();
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove("umbra.dev/rendering-uid");
            }
        }
        objects
    }

    /// Somebody in the cluster writes an object.
    pub(super) async fn put(&self, cluster: &str, path: &str, mut object: Value) -> Value {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed);
        object.set_metadata("resourceVersion", revision.to_string());
        if object.uid().is_empty() {
            object.set_metadata("uid", format!("uid-{revision}"));
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.objects
            .lock()
            .insert((cluster.to_owned(), path.to_owned()), object.clone());
        let (resource, key) = copied(cluster, path, &object);
        let translated = to_view(object.to_string().as_bytes(), cluster, &resource, None).unwrap();
        self.store
            .put(&key, translated.envelope.encode(), Precondition::None)
            .await
            .unwrap();
        object
    }

    /// Somebody in the cluster removes an object.
    pub(super) async fn remove(&self, cluster: &str, path: &str) -> Option<Value> {
        let removed = self.objects.lock().remove(&(cluster.to_owned(), path.to_owned()))?;
        let (_, key) = copied(cluster, path, &removed);
        self.store.delete(&key, Precondition::None).await.unwrap();
        Some(removed)
    }

    fn answers(&self, cluster: &str) -> Result<(), ChildFailure> {
        if self.down.lock().iter().any(|one| one == cluster) {
            return Err(ChildFailure::Unreachable {
                message: format!("cluster {cluster}: unreachable since yesterday: no route to host"),
            });
        }
        Ok(())
    }

    async fn wrote(&self) {
        let life = self.life.lock().clone();
        if let Some(life) = life {
            life.step().await;
        }
    }
}

/// The resource of an object at a path, and the key of its copy.
fn copied(cluster: &str, path: &str, object: &Value) -> (GroupResource, String) {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match parts[..] {
        ["api", _, ref rest @ ..] => ("", rest.to_vec()),
        ["apis", group, _, ref rest @ ..] => (group, rest.to_vec()),
        _ => panic!("{path} is no object's"),
    };
    let (namespace, resource) = match rest[..] {
        ["namespaces", namespace, resource, _] => (Some(namespace), resource),
        [resource, _] => (None, resource),
        _ => panic!("{path} is no object's"),
    };
    let resource = GroupResource::new(group, resource);
    let name = object.name();
    let key = copy_key(
        &resource,
        CopyKey {
            cluster,
            namespace,
            name,
        },
    );
    (resource, key)
}

fn refused(code: u16, reason: &str) -> ChildFailure {
    ChildFailure::Refused {
        code,
        reason: reason.to_owned(),
        message: format!("the cluster refuses: {reason}"),
    }
}

#[async_trait]
impl ChildAccess for Clusters {
    async fn get(&self, cluster: &str, path: &str) -> Result<Option<Value>, ChildFailure> {
        self.answers(cluster)?;
        Ok(self.object(cluster, path))
    }

    async fn apply(
        &self,
        cluster: &str,
        path: &str,
        object: &Value,
        options: ApplyOptions,
    ) -> Result<Value, ChildFailure> {
        self.answers(cluster)?;
        let live = self.object(cluster, path);
        let wanted = object.uid();
        if !wanted.is_empty() && live.as_ref().is_none_or(|live| live.uid() != wanted) {
            return Err(refused(409, "Conflict"));
        }
        if live.is_some() && !options.force {
            return Err(refused(409, "Conflict"));
        }
        if live.is_none() && !object.namespace().is_empty() {
            let namespace = format!("/api/v1/namespaces/{}", object.namespace());
            if self.object(cluster, &namespace).is_none() {
                return Err(refused(404, "NotFound"));
            }
        }
        let mut applied = live.unwrap_or_else(|| json!({}));
        merge::apply(&mut applied, object);
        if options.dry_run {
            return Ok(applied);
        }
        let applied = self.put(cluster, path, applied).await;
        self.wrote().await;
        Ok(applied)
    }

    async fn merge(&self, cluster: &str, path: &str, patch: &Value) -> Result<(), ChildFailure> {
        self.answers(cluster)?;
        let mut live = self.object(cluster, path).ok_or_else(|| refused(404, "NotFound"))?;
        merge::apply(&mut live, patch);
        self.put(cluster, path, live).await;
        self.wrote().await;
        Ok(())
    }

    async fn delete(&self, cluster: &str, path: &str, uid: &str) -> Result<(), ChildFailure> {
        self.answers(cluster)?;
        let live = self.object(cluster, path).ok_or_else(|| refused(404, "NotFound"))?;
        if live.uid() != uid {
            return Err(refused(409, "Conflict"));
        }
        self.remove(cluster, path).await;
        self.wrote().await;
        Ok(())
    }
}
