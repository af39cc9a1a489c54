//! A state of the cache that does not change.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::CachedObject;
use super::map::{ObjectMap, Position};
use crate::Revision;

/// All objects of a cache as of one revision, ordered by key. Cheap to clone.
pub struct Snapshot<E> {
    revision: Revision,
    objects: ObjectMap<E>,
}

/// A place in a snapshot on the way to the end of a range, for readers that cannot hold a borrow, such as the body of a
/// response. It means something for the snapshot that it was made by only.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    position: Position,
    remaining: usize,
}

/// The objects of a range.
#[derive(Debug)]
pub struct Iter<'a, E> {
    snapshot: &'a Snapshot<E>,
    cursor: Cursor,
}

impl<E> Snapshot<E> {
    pub(super) fn empty() -> Self {
        Self {
            revision: Revision(0),
            objects: ObjectMap::new(),
        }
    }

    pub(super) fn new(revision: Revision, objects: ObjectMap<E>) -> Self {
        Self { revision, objects }
    }

    pub(super) fn objects(&self) -> &ObjectMap<E> {
        &self.objects
    }

    /// The revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<CachedObject<E>>> {
        self.objects.get(key)
    }

    /// All objects.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, E> {
        self.range("", None)
    }

    /// The objects whose keys start with `prefix` and come after `start_after`. The iterator knows its length, which is
    /// what a list says in `remainingItemCount`.
    #[must_use]
    pub fn range(&self, prefix: &str, start_after: Option<&str>) -> Iter<'_, E> {
        Iter {
            snapshot: self,
            cursor: self.seek(prefix, start_after),
        }
    }

    /// As [`range`](Snapshot::range), for [`next`](Snapshot::next).
    #[must_use]
    pub fn seek(&self, prefix: &str, start_after: Option<&str>) -> Cursor {
        let start_after = start_after.filter(|start_after| *start_after >= prefix);
        let position = match start_after {
            Some(start_after) => self.objects.seek(|key| key <= start_after),
            None => self.objects.seek(|key| key < prefix),
        };
        let end = self.objects.seek(|key| key < prefix || key.starts_with(prefix));
        // `start_after` may lie behind the whole prefix.
        let remaining = self.objects.distance(position, end);
        Cursor { position, remaining }
    }

    /// The object at the cursor, which moves on; `None` at the end of the range.
    pub fn next(&self, cursor: &mut Cursor) -> Option<&Arc<CachedObject<E>>> {
        if cursor.remaining == 0 {
            return None;
        }
        let object = self.objects.at(cursor.position)?;
        cursor.position = self.objects.advance(cursor.position);
        cursor.remaining -= 1;
        Some(object)
    }
}

impl Cursor {
    /// How many objects the range has left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }
}

impl<E> Iter<'_, E> {
    /// The place that the iterator has come to.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }
}

impl<'a, E> Iterator for Iter<'a, E> {
    type Item = &'a Arc<CachedObject<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.snapshot.next(&mut self.cursor)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.cursor.remaining, Some(self.cursor.remaining))
    }
}

impl<E> ExactSizeIterator for Iter<'_, E> {}
impl<E> FusedIterator for Iter<'_, E> {}

impl<'a, E> IntoIterator for &'a Snapshot<E> {
    type Item = &'a Arc<CachedObject<E>>;
    type IntoIter = Iter<'a, E>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E> Clone for Snapshot<E> {
    fn clone(&self) -> Self {
        Self {
            revision: self.revision,
            objects: self.objects.clone(),
        }
    }
}

impl<E> fmt::Debug for Snapshot<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("len", &self.len())
            .finish()
    }
}
