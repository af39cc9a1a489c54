//! What the cache holds of one object.

use std::sync::Arc;

use bytes::Bytes;

use super::StringMap;
use crate::Revision;

/// An object of the cache: bytes ready to be served, and what selectors and tables need without parsing them.
#[derive(Debug, Clone)]
pub struct CachedObject<E> {
    /// The key in the store.
    pub key: Arc<str>,
    /// The revision of the store at which the object got this state.
    pub revision: Revision,
    /// The object as it is served: JSON with `resourceVersion`.
    pub bytes: Bytes,
    /// The namespace; empty for objects of the cluster scope.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
    /// The labels.
    pub labels: StringMap,
    /// The fields that field selectors may ask for, by path, such as `spec.nodeName`.
    pub fields: StringMap,
    /// What else the indexer keeps.
    pub extra: E,
}

/// What an object takes beside its bytes: the key, the names, labels and fields, the allocations around them. For a pod
/// half a kilobyte.
const OVERHEAD: usize = 512;

impl<E> CachedObject<E> {
    /// The value of a field as field selectors see it: empty where the object has none
    /// (`k8s.io/apimachinery/pkg/fields/fields.go`, `Set.Get`).
    #[must_use]
    pub fn field(&self, field: &str) -> &str {
        self.fields.get(field).unwrap_or_default()
    }

    /// How much memory the object takes, about, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}
