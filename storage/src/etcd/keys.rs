//! Where things are in etcd.
//!
//! A key of the store is the configured prefix followed by the key. Keys of the store are UTF-8, in which the byte 0xFF does
//! not occur, and this gives the backend a place for keys of its own: what follows the prefix and has a 0xFF in it. Such a
//! key comes after all keys of the store that begin as it does, so the keys under a prefix `p` are those from `p` up to, and
//! without, `p` + 0xFF: no key of the backend's own is among them, unless it belongs to a longer prefix.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::KeyValue;

use crate::{Entry, Revision};

/// What begins the last part of a key of the backend's own.
const OWN: u8 = 0xFF;

/// The keys of one store.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: Vec<u8>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.as_bytes().to_vec(),
        }
    }

    /// Where a key, or the first key under a prefix, is in etcd.
    pub(super) fn locate(&self, key: &str) -> Vec<u8> {
        [&self.prefix, key.as_bytes()].concat()
    }

    /// The first key after all keys of the store under a prefix.
    pub(super) fn end(&self, prefix: &str) -> Vec<u8> {
        self.own(prefix, "")
    }

    /// A key that no read or watch beginning at `prefix` and ending at [`Keys::end`] has in it.
    pub(super) fn own(&self, prefix: &str, purpose: &str) -> Vec<u8> {
        [&self.prefix, prefix.as_bytes(), &[OWN], purpose.as_bytes()].concat()
    }

    /// The key of the store, if it is one.
    pub(super) fn key<'key>(&self, located: &'key [u8]) -> Option<&'key str> {
        std::str::from_utf8(located.strip_prefix(&*self.prefix)?).ok()
    }

    /// The entry, if its key is one of the store's.
    pub(super) fn entry(&self, read: KeyValue) -> Option<Entry> {
        let (create_revision, revision) = (revision(read.create_revision()), revision(read.mod_revision()));
        let (key, value) = read.into_key_value();
        Some(Entry {
            key: Arc::from(self.key(&key)?),
            value: Bytes::from(value),
            create_revision,
            revision,
        })
    }
}

/// A revision of etcd, which are never negative.
pub(super) fn revision(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or_default())
}

/// A revision for etcd. What is beyond its numbers will never be reached.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_backend_come_after_those_of_the_store() {
        let keys = Keys::new("/hub");
        for prefix in ["", "/a/", "/a", "/ü"] {
            let (start, end) = (keys.locate(prefix), keys.end(prefix));
            for suffix in ["", "x", "\u{10FFFF}", "\u{10FFFF}\u{10FFFF}"] {
                let key = keys.locate(&format!("{prefix}{suffix}"));
                assert!(start <= key && key < end);
                assert_eq!(keys.key(&key), Some(format!("{prefix}{suffix}").as_str()));
            }
            let own = keys.own(prefix, "progress");
            assert!(own > end && keys.key(&own).is_none());
        }
        assert!(keys.own("/a/", "progress") < keys.end("/a"), "within a shorter prefix");
        assert_eq!(keys.key(b"/other/a"), None);
    }
}
