//! The copies in memory: one watch cache for each resource, started when it is first asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::names::QualifiedName;
use umbra_storage::{Cache, CacheOptions, CachedObject, Entry, Indexer, Revision, SharedKeys, Snapshot, Store};

use crate::copies::envelope::Envelope;
use crate::copies::key::{CopyKey, resource_prefix};
use crate::resource::Row;

/// The field that names the object.
const NAME_FIELD: &str = "metadata.name";
/// The field that names its namespace.
const NAMESPACE_FIELD: &str = "metadata.namespace";

/// What the cache keeps of a copy beside its bytes and its index.
#[derive(Debug, Clone)]
pub struct CopyExtra {
    /// The UID.
    pub uid: Box<str>,
    /// The revision the child gave the object.
    pub child_revision: Box<str>,
    /// The cluster, and what it printed of the object.
    pub row: Arc<Row>,
    /// Where the bytes of the revision begin.
    gap: u32,
    /// How much of the object's name is its name in the child.
    child_name_length: u32,
}

impl CopyExtra {
    /// The name that the object of the copy has in its child.
    #[must_use]
    pub fn child_name(copy: &CachedObject<Self>) -> &str {
        &copy.name[..copy.extra.child_name_length as usize]
    }
}

/// Turns stored copies into cached ones.
#[derive(Debug)]
pub struct CopyIndexer {
    prefix: String,
    /// Few lists of label keys and fields occur in many copies.
    keys: SharedKeys,
}

impl CopyIndexer {
    fn new(prefix: String) -> Self {
        Self {
            prefix,
            keys: SharedKeys::default(),
        }
    }
}

impl Indexer for CopyIndexer {
    type Extra = CopyExtra;

    fn object(&self, entry: &Entry) -> Option<CachedObject<CopyExtra>> {
        let key = entry.key.strip_prefix(&self.prefix).and_then(CopyKey::parse)?;
        let envelope = match Envelope::decode(&entry.value) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(key = %entry.key, %error, "a copy cannot be read; it is left out");
                return None;
            }
        };
        let bytes = envelope.object(entry.revision.0);
        let header = envelope.header;
        let name = QualifiedName {
            name: key.name,
            cluster: key.cluster,
        }
        .to_string();
        let namespace = key.namespace.unwrap_or_default();
        let own = [(NAME_FIELD, name.as_str()), (NAMESPACE_FIELD, namespace)];
        let fields = header
            .fields
            .iter()
            .map(|(field, value)| (field.as_str(), value.as_str()));
        Some(CachedObject {
            key: Arc::clone(&entry.key),
            revision: entry.revision,
            bytes,
            namespace: namespace.into(),
            labels: self.keys.map(&header.labels),
            fields: self.keys.map(own.into_iter().chain(fields)),
            extra: CopyExtra {
                uid: header.uid.into(),
                child_revision: header.child_revision.into(),
                row: Arc::new(Row::new(key.cluster, &header.created, header.cells.json())),
                gap: u32::try_from(header.gap).ok()?,
                child_name_length: u32::try_from(key.name.len()).ok()?,
            },
            name: name.into(),
        })
    }

    fn deleted(&self, last: &CachedObject<CopyExtra>, revision: Revision) -> CachedObject<CopyExtra> {
        CachedObject {
            revision,
            bytes: with_revision(last, revision),
            ..last.clone()
        }
    }
}

fn with_revision(object: &CachedObject<CopyExtra>, revision: Revision) -> Bytes {
    let (before, rest) = object.bytes.split_at(object.extra.gap as usize);
    let after = &rest[object.revision.to_string().len()..];
    let revision = revision.to_string();
    let mut json = BytesMut::with_capacity(before.len() + revision.len() + after.len());
    json.put_slice(before);
    json.put_slice(revision.as_bytes());
    json.put_slice(after);
    json.freeze()
}

/// The copies of one resource.
pub type CopyCache = Cache<CopyIndexer>;

/// The copies of all resources.
#[derive(Debug)]
pub struct Copies {
    store: Arc<dyn Store>,
    caches: Mutex<BTreeMap<GroupResource, Arc<CopyCache>>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Copies {
    /// The copies in `store`. Caches run as tasks of `tracker` until `cancel`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, tracker: TaskTracker, cancel: CancellationToken) -> Self {
        Self {
            store,
            caches: Mutex::default(),
            tracker,
            cancel,
        }
    }

    /// The store behind the caches.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The copies of a resource; they may still be loading.
    #[must_use]
    pub fn cache(&self, resource: &GroupResource) -> Arc<CopyCache> {
        let mut caches = self.caches.lock();
        if let Some(cache) = caches.get(resource) {
            return Arc::clone(cache);
        }
        let prefix = resource_prefix(resource);
        let cache = Cache::start(
            Arc::clone(&self.store),
            prefix.clone(),
            CopyIndexer::new(prefix),
            CacheOptions::default(),
            &self.tracker,
            self.cancel.clone(),
        );
        caches.insert(resource.clone(), Arc::clone(&cache));
        cache
    }

    /// Waits until the copy under `key` is that of `child_revision` or a later one, or is gone where `child_revision` is
    /// `None`. Gives up after `patience` without an error: the write has happened, its copy is only late.
    pub async fn caught_up(
        &self,
        resource: &GroupResource,
        key: &str,
        child_revision: Option<&str>,
        patience: Duration,
    ) {
        let reached = |copy: Option<&CachedObject<CopyExtra>>| {
            is_caught_up(copy.map(|object| &*object.extra.child_revision), child_revision)
        };
        self.wait_until(resource, key, patience, reached).await;
    }

    /// Waits until `reached` says yes to the copy under `key`, at most for `patience`. Gives all copies as they are then.
    /// Cancel safe.
    pub async fn wait_until(
        &self,
        resource: &GroupResource,
        key: &str,
        patience: Duration,
        reached: impl Fn(Option<&CachedObject<CopyExtra>>) -> bool,
    ) -> Snapshot<CopyExtra> {
        let cache = self.cache(resource);
        let deadline = Instant::now() + patience;
        let mut snapshot = cache.snapshot();
        while !reached(snapshot.get(key).map(AsRef::as_ref)) {
            let next = snapshot.revision().next();
            match cache.wait_for(next, deadline).await {
                Ok(newer) => snapshot = newer,
                Err(_) => break,
            }
        }
        snapshot
    }
}

fn is_caught_up(present: Option<&str>, wanted: Option<&str>) -> bool {
    match (present, wanted) {
        (None, None) => true,
        (Some(present), Some(wanted)) => is_as_new(present, wanted),
        _ => false,
    }
}

/// Whether a revision of a child is the wanted one or a later one. Revisions are compared as numbers where they are
/// (KEP-5504), else for equality.
#[must_use]
pub fn is_as_new(present: &str, wanted: &str) -> bool {
    match (present.parse::<u64>(), wanted.parse::<u64>()) {
        (Ok(present), Ok(wanted)) => present >= wanted,
        _ => present == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copies::key::copy_key;
    use crate::copies::translate::to_view;
    use serde_json::{Value, json};

    fn entry(revision: u64) -> Entry {
        let pods = GroupResource::new("", "pods");
        let pod =
            json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "n", "resourceVersion": "5", "uid": "u"}});
        let translated = to_view(pod.to_string().as_bytes(), "east", &pods, None).unwrap();
        let key = CopyKey {
            cluster: "east",
            namespace: Some("n"),
            name: "a",
        };
        Entry {
            key: copy_key(&pods, key).into(),
            value: translated.envelope.encode(),
            create_revision: Revision(revision),
            revision: Revision(revision),
        }
    }

    #[test]
    fn copies_are_served_with_the_hubs_revision_also_when_they_go() {
        let indexer = CopyIndexer::new(resource_prefix(&GroupResource::new("", "pods")));
        let object = indexer.object(&entry(99)).unwrap();
        assert_eq!((&*object.name, &*object.namespace), ("a@east", "n"));
        assert_eq!(object.fields.get("metadata.name"), Some("a@east"));
        assert_eq!(
            (object.extra.row.cluster(), CopyExtra::child_name(&object)),
            ("east", "a")
        );
        let revision =
            |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["metadata"]["resourceVersion"].clone();
        assert_eq!(revision(&object.bytes), "99");
        let deleted = indexer.deleted(&object, Revision(1000));
        assert_eq!(revision(&deleted.bytes), "1000");
    }

    #[test]
    fn catching_up_compares_revisions_of_the_child() {
        assert!(is_caught_up(Some("10"), Some("9")) && !is_caught_up(Some("9"), Some("10")));
        assert!(is_caught_up(Some("x"), Some("x")) && !is_caught_up(Some("x"), Some("y")));
        assert!(is_caught_up(None, None) && !is_caught_up(None, Some("1")) && !is_caught_up(Some("1"), None));
    }
}
