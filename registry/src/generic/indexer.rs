//! What the cache keeps of stored objects, and how lists and watches select among them.

use serde_json::Value;
use umbra_apimachinery::metadata::{OwnerReference, PartialObject};
use umbra_storage::{CachedObject, Entry, Indexer, Revision, StringMap};

use super::codec;
use super::keys::Keys;
use super::read::{Scope, Selection};
use super::strategy::SelectableField;
use crate::resource::Object;

/// What the cache keeps of an object for garbage collection, beside its bytes and its index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// The UID.
    pub uid: Box<str>,
    /// Who the object depends on.
    pub owners: Vec<OwnerReference>,
    /// Who has to agree before the object goes.
    pub finalizers: Vec<String>,
    /// Whether deletion was asked for.
    pub deleting: bool,
}

/// An object in the cache of a [`super::ResourceStore`].
pub type StoredObject = CachedObject<Lifecycle>;

/// Fields by which the cache finds objects without looking at the others, where they are selectable: what kubelets and
/// schedulers ask of pods (`NodeNameTriggerFunc` of `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`), and what `kubectl
/// describe` asks of events.
const INDEXED_FIELDS: [&str; 2] = ["spec.nodeName", "involvedObject.name"];

/// Indexes what [`codec::encode`] wrote.
#[derive(Debug, Clone)]
pub struct StoredIndexer {
    keys: Keys,
    selectable_fields: Vec<SelectableField>,
}

impl StoredIndexer {
    /// Indexes the objects under `keys` by labels and these fields.
    #[must_use]
    pub fn new(keys: Keys, selectable_fields: Vec<SelectableField>) -> Self {
        Self {
            keys,
            selectable_fields,
        }
    }

    fn index(&self, entry: &Entry) -> Result<StoredObject, codec::CodecError> {
        let (namespace, name) = self.keys.parse(&entry.key).ok_or(codec::CodecError::NoMarker)?;
        let bytes = codec::present(&entry.value, entry.revision.0)?;
        let partial = PartialObject::parse(&bytes).map_err(codec::CodecError::Json)?;
        let metadata = partial.metadata;
        let labels: StringMap = metadata.labels.iter().collect();
        let extra = Lifecycle {
            uid: metadata.uid.into(),
            owners: metadata.owner_references,
            finalizers: metadata.finalizers,
            deleting: metadata.deletion_timestamp.is_some(),
        };
        let fields = if self.selectable_fields.is_empty() {
            StringMap::default()
        } else {
            let object: Value = serde_json::from_slice(&bytes).map_err(codec::CodecError::Json)?;
            let fields = self.selectable_fields.iter();
            fields
                .map(|field| (field.field.as_str(), field.value(&object)))
                .collect()
        };
        Ok(CachedObject {
            key: entry.key.clone(),
            revision: entry.revision,
            namespace: namespace.into(),
            name: name.into(),
            labels,
            fields,
            bytes,
            extra,
        })
    }
}

impl Indexer for StoredIndexer {
    type Extra = Lifecycle;

    fn object(&self, entry: &Entry) -> Option<StoredObject> {
        self.index(entry)
            .map_err(|error| tracing::error!(key = %entry.key, %error, "a stored object is damaged and is not served"))
            .ok()
    }

    fn deleted(&self, last: &StoredObject, revision: Revision) -> StoredObject {
        CachedObject {
            revision,
            bytes: codec::present(&last.bytes, revision.0).unwrap_or_else(|_| last.bytes.clone()),
            ..last.clone()
        }
    }

    fn indexed_fields(&self) -> Vec<String> {
        let is_selectable = |field: &&str| self.selectable_fields.iter().any(|one| one.field == *field);
        INDEXED_FIELDS
            .into_iter()
            .filter(is_selectable)
            .map(str::to_owned)
            .collect()
    }
}

/// The stored objects of a namespace, or of all, that a selection selects.
#[derive(Debug, Clone)]
pub struct StoredScope {
    base: String,
    prefix: String,
    selection: Selection,
}

impl StoredScope {
    /// The objects of `namespace`, or all. What the selection says of namespace and name narrows the keys that are looked at.
    #[must_use]
    pub fn new(keys: &Keys, namespace: Option<&str>, selection: Selection) -> Self {
        let namespace = namespace.or_else(|| selection.fields.requires_exact_match("metadata.namespace"));
        let name = selection.fields.requires_exact_match("metadata.name");
        let prefix = match name {
            // Longer names begin with it as well; the selection leaves them out.
            Some(name) if namespace.is_some() || !keys.is_namespaced() => keys.key(namespace, name),
            _ => keys.scope(namespace),
        };
        Self {
            base: keys.prefix().to_owned(),
            prefix,
            selection,
        }
    }
}

impl Scope<Lifecycle> for StoredScope {
    fn base(&self) -> &str {
        &self.base
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn selects(&self, object: &StoredObject) -> bool {
        self.selection.selects(object)
    }

    fn selects_everything(&self) -> bool {
        self.selection.is_everything()
    }

    fn selects_whole_prefix(&self) -> bool {
        self.selection.is_everything()
    }

    fn indexed_field(&self) -> Option<(&str, &str)> {
        let value = |field| Some((field, self.selection.fields.requires_exact_match(field)?));
        INDEXED_FIELDS.into_iter().find_map(value)
    }

    fn object(&self, object: &StoredObject) -> Object {
        Object::new(object.bytes.clone())
    }
}
