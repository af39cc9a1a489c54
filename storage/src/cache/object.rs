//! What the cache holds of one object.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

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

/// A map of strings to strings that never changes: one allocation for all text, and a scan to look up, which for the
/// dozen labels of an object beats hashing. A map without entries allocates nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StringMap {
    /// Keys and values, alternating.
    text: Box<str>,
    /// Where each of them ends in `text`.
    ends: Box<[u32]>,
}

impl StringMap {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// The pairs, in the order they were given in.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |ends| {
            let (key_end, value_end) = (ends[0] as usize, ends[1] as usize);
            let pair = (&self.text[start..key_end], &self.text[key_end..value_end]);
            start = value_end;
            pair
        })
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for StringMap {
    fn from_iter<P: IntoIterator<Item = (K, V)>>(pairs: P) -> Self {
        let mut text = String::new();
        let mut ends = Vec::new();
        for (key, value) in pairs {
            for part in [key.as_ref(), value.as_ref()] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).expect("the labels of an object are shorter than 4 GiB"));
            }
        }
        Self {
            text: text.into_boxed_str(),
            ends: ends.into_boxed_slice(),
        }
    }
}

impl fmt::Debug for StringMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_map_holds_its_pairs() {
        let map: StringMap = [("app", "web"), ("", ""), ("tier", "ü")].into_iter().collect();
        assert_eq!(
            map.iter().collect::<Vec<_>>(),
            [("app", "web"), ("", ""), ("tier", "ü")]
        );
        assert_eq!(
            (map.get("tier"), map.get("ap"), map.get("")),
            (Some("ü"), None, Some(""))
        );
        assert_eq!((map.len(), StringMap::default().is_empty()), (3, true));
    }
}
