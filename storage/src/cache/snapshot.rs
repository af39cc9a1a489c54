//! A state of the cache that does not change.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::CachedObject;
use super::map::Position;
use super::objects::{Objects, Order};
use crate::Revision;

/// All objects of a cache as of one revision, ordered by key. Cheap to clone.
pub struct Snapshot<E> {
    revision: Revision,
    /// The revision since which nothing has changed: this is the state at every revision from here on to `revision`.
    changed: Revision,
    /// How many bytes of objects had been replaced or deleted when the cache was in this state, since it began.
    replaced: u64,
    objects: Objects<E>,
}

/// A place in a snapshot on the way to the end of a range, for readers that cannot hold a borrow, such as the body of a
/// response. It means something for the snapshot that it was made by only.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    order: Order,
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
    /// A state that has been read at a revision.
    pub(super) fn new(revision: Revision, objects: Objects<E>) -> Self {
        Self {
            revision,
            changed: revision,
            replaced: 0,
            objects,
        }
    }

    /// The state that follows this one at `revision`. `changed` is the revision of the last change of `objects`, if there
    /// was one, and `replaced` how many bytes the changes have replaced or deleted.
    pub(super) fn next_state(
        &self,
        revision: Revision,
        objects: Objects<E>,
        changed: Option<Revision>,
        replaced: u64,
    ) -> Self {
        Self {
            revision,
            changed: changed.unwrap_or(self.changed),
            replaced: self.replaced + replaced,
            objects,
        }
    }

    pub(super) fn objects(&self) -> &Objects<E> {
        &self.objects
    }

    pub(super) fn changed(&self) -> Revision {
        self.changed
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// This state as that of `revision`, if nothing has changed between.
    pub(super) fn as_of(&self, revision: Revision) -> Option<Self> {
        (self.changed <= revision && revision <= self.revision).then(|| Self {
            revision,
            ..self.clone()
        })
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

    /// How much memory the objects take, about, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.objects.bytes()
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
    /// what a list says in `remainingItemCount`. Finding the range takes logarithmic time.
    #[must_use]
    pub fn range(&self, prefix: &str, start_after: Option<&str>) -> Iter<'_, E> {
        Iter {
            snapshot: self,
            cursor: self.seek(prefix, start_after),
        }
    }

    /// As [`range`](Snapshot::range), of the objects whose `field` is `value`, where the field is one that the cache
    /// [indexes](super::Indexer::indexed_fields). `None` where it is not.
    #[must_use]
    pub fn range_of_field(
        &self,
        field: &str,
        value: &str,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Option<Iter<'_, E>> {
        let field = self.objects.field(field)?;
        Some(Iter {
            snapshot: self,
            cursor: self.cursor(Some((field, value)), prefix, start_after),
        })
    }

    /// As [`range`](Snapshot::range), for [`next`](Snapshot::next).
    #[must_use]
    pub fn seek(&self, prefix: &str, start_after: Option<&str>) -> Cursor {
        self.cursor(None, prefix, start_after)
    }

    fn cursor(&self, field: Option<(usize, &str)>, prefix: &str, start_after: Option<&str>) -> Cursor {
        let (order, position, end) = self.objects.bounds(field, prefix, start_after);
        // `start_after` may lie behind the whole prefix.
        let remaining = self.objects.order(order).distance(position, end);
        Cursor {
            order,
            position,
            remaining,
        }
    }

    /// The object at the cursor, which moves on; `None` at the end of the range.
    pub fn next(&self, cursor: &mut Cursor) -> Option<&Arc<CachedObject<E>>> {
        if cursor.remaining == 0 {
            return None;
        }
        let map = self.objects.order(cursor.order);
        let object = map.at(cursor.position)?;
        cursor.position = map.advance(cursor.position);
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
            changed: self.changed,
            replaced: self.replaced,
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
