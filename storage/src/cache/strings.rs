//! Labels and fields of objects, made small.
//!
//! An object has about fifteen of them, and most of their text is keys that thousands of other objects have too: all pods of
//! all Deployments of a chart have the same label keys, all pods the same fields. So the keys of a map are a list of their own,
//! which maps may share ([`SharedKeys`]); what a map has for itself are its values, in one allocation for their text and one
//! for where they end.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Lists of keys that are remembered at most, about 200 bytes each: 1 MB. The labels of a cluster with a thousand charts
/// have fewer; where there are more, maps share less.
const REMEMBERED: usize = 4_096;

/// A list of strings that never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Strings {
    text: Box<str>,
    /// Where each of them ends in `text`.
    ends: Box<[u32]>,
}

/// A list that grows.
#[derive(Default)]
struct Builder {
    text: String,
    ends: Vec<u32>,
}

impl Builder {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        let end = u32::try_from(self.text.len()).expect("the labels of an object are shorter than 4 GiB");
        self.ends.push(end);
    }

    fn finish(self) -> Strings {
        Strings {
            text: self.text.into_boxed_str(),
            ends: self.ends.into_boxed_slice(),
        }
    }
}

impl Strings {
    fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.text[start..end])
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = *end as usize;
            let text = &self.text[start..end];
            start = end;
            text
        })
    }
}

/// A map of strings to strings that never changes: two allocations for its values, and a scan to look up, which for the
/// dozen labels of an object beats hashing. Its keys may be shared with other maps. A map without entries allocates nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StringMap {
    /// `None` in a map without entries.
    keys: Option<Arc<Strings>>,
    /// One for each key, in the same order.
    values: Strings,
}

impl StringMap {
    fn new(keys: Arc<Strings>, values: Strings) -> Self {
        Self {
            keys: (!keys.ends.is_empty()).then_some(keys),
            values,
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let index = self.keys.as_ref()?.iter().position(|other| other == key)?;
        self.values.get(index)
    }

    /// The pairs, in the order they were given in.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.keys.iter().flat_map(|keys| keys.iter());
        keys.zip(self.values.iter())
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_none()
    }
}

/// Keys and values apart.
fn split<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> (Strings, Strings) {
    let (mut keys, mut values) = (Builder::default(), Builder::default());
    for (key, value) in pairs {
        keys.push(key.as_ref());
        values.push(value.as_ref());
    }
    (keys.finish(), values.finish())
}

/// A map whose keys are its own.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for StringMap {
    fn from_iter<P: IntoIterator<Item = (K, V)>>(pairs: P) -> Self {
        let (keys, values) = split(pairs);
        Self::new(Arc::new(keys), values)
    }
}

impl fmt::Debug for StringMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// Makes maps that share their keys with others that have the same keys in the same order. It remembers a bounded number of
/// lists of keys and begins anew when there are more: lists that maps use live as long as those maps, the others go.
#[derive(Debug, Default)]
pub struct SharedKeys {
    known: Mutex<HashSet<Arc<Strings>>>,
}

impl SharedKeys {
    /// A map of `pairs`.
    pub fn map<K: AsRef<str>, V: AsRef<str>>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> StringMap {
        let (keys, values) = split(pairs);
        StringMap::new(self.share(keys), values)
    }

    fn share(&self, keys: Strings) -> Arc<Strings> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(&keys) {
            return Arc::clone(known);
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let keys = Arc::new(keys);
        known.insert(Arc::clone(&keys));
        keys
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
        let empty: StringMap = std::iter::empty::<(&str, &str)>().collect();
        assert_eq!((empty.len(), empty.get("")), (0, None));
        assert_eq!(empty, StringMap::default());
    }

    #[test]
    fn maps_share_the_keys_that_they_have_in_common() {
        let shared = SharedKeys::default();
        let (web, cart) = (
            shared.map([("app", "web"), ("tier", "front")]),
            shared.map([("app", "cart"), ("tier", "back")]),
        );
        assert!(Arc::ptr_eq(web.keys.as_ref().unwrap(), cart.keys.as_ref().unwrap()));
        assert_eq!((web.get("app"), cart.get("tier")), (Some("web"), Some("back")));
        // The same text, cut elsewhere.
        let other = shared.map([("appt", "web"), ("ier", "front")]);
        assert_eq!((other.get("appt"), other.get("app")), (Some("web"), None));
        assert_eq!(web, [("app", "web"), ("tier", "front")].into_iter().collect());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let shared = SharedKeys::default();
        let first = shared.map([("0", "")]);
        for number in 0..2 * REMEMBERED {
            shared.map([(number.to_string(), "")]);
            assert!(shared.known.lock().len() <= REMEMBERED);
        }
        assert_eq!(first.get("0"), Some(""));
    }
}
