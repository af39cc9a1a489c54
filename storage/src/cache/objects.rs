//! The objects of a cache, ordered by key and once more by each indexed field.

use std::sync::Arc;

use super::CachedObject;
use super::map::{ObjectMap, Position};

/// Objects in their orders. Clones are cheap and independent.
pub(super) struct Objects<E> {
    by_key: ObjectMap<E>,
    /// One for each of `fields`: by the value of the field, then by key. An object without the field has the empty value, as
    /// in a field selector.
    by_field: Vec<ObjectMap<E>>,
    fields: Arc<[Box<str>]>,
    /// The sizes of all objects, see [`CachedObject::size`].
    bytes: usize,
}

/// One of the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By key.
    Key,
    /// By the field of this number.
    Field(usize),
}

impl<E> Clone for Objects<E> {
    fn clone(&self) -> Self {
        Self {
            by_key: self.by_key.clone(),
            by_field: self.by_field.clone(),
            fields: Arc::clone(&self.fields),
            bytes: self.bytes,
        }
    }
}

impl<E> Objects<E> {
    /// No objects, to be indexed by `fields`.
    pub(super) fn new(fields: Arc<[Box<str>]>) -> Self {
        Self {
            by_key: ObjectMap::new(),
            by_field: fields.iter().map(|_| ObjectMap::new()).collect(),
            fields,
            bytes: 0,
        }
    }

    pub(super) fn fields(&self) -> &Arc<[Box<str>]> {
        &self.fields
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<CachedObject<E>>> {
        let place = self.by_key.seek(|other| *other.key < *key);
        self.by_key.at(place).filter(|object| *object.key == *key)
    }

    /// The number of an indexed field.
    pub(super) fn field(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|known| **known == *field)
    }

    pub(super) fn order(&self, order: Order) -> &ObjectMap<E> {
        match order {
            Order::Key => &self.by_key,
            Order::Field(number) => &self.by_field[number],
        }
    }

    /// The places between which the keys start with `prefix` and come after `start_after`; with a field, those of the
    /// objects where it has this value.
    pub(super) fn bounds(
        &self,
        field: Option<(usize, &str)>,
        prefix: &str,
        start_after: Option<&str>,
    ) -> (Order, Position, Position) {
        // A start before the prefix is no start.
        let start_after = start_after.filter(|start_after| *start_after >= prefix);
        let is_before_start = |key: &str| start_after.map_or(key < prefix, |start_after| key <= start_after);
        let is_before_end = |key: &str| key < prefix || key.starts_with(prefix);
        match field {
            None => (
                Order::Key,
                self.by_key.seek(|object| is_before_start(&object.key)),
                self.by_key.seek(|object| is_before_end(&object.key)),
            ),
            Some((number, wanted)) => {
                let map = &self.by_field[number];
                let name = &self.fields[number];
                let is_before = |object: &CachedObject<E>, among_equal: &dyn Fn(&str) -> bool| {
                    let value = object.field(name);
                    value < wanted || value == wanted && among_equal(&object.key)
                };
                (
                    Order::Field(number),
                    map.seek(|object| is_before(object, &is_before_start)),
                    map.seek(|object| is_before(object, &is_before_end)),
                )
            }
        }
    }

    /// Puts an object; answers with the one it replaces.
    pub(super) fn insert(&mut self, object: &Arc<CachedObject<E>>) -> Option<Arc<CachedObject<E>>> {
        let place = self.by_key.seek(|other| other.key < object.key);
        let previous = self.by_key.put(place, Arc::clone(object));
        self.bytes += object.size();
        if let Some(previous) = &previous {
            self.bytes -= previous.size();
        }
        for (name, map) in self.fields.iter().zip(&mut self.by_field) {
            let value = object.field(name);
            if let Some(previous) = previous.as_deref().filter(|previous| previous.field(name) != value) {
                map.take(place_of(map, name, previous), &previous.key);
            }
            map.put(place_of(map, name, object), Arc::clone(object));
        }
        previous
    }

    /// Removes an object; answers with it.
    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<CachedObject<E>>> {
        let place = self.by_key.seek(|other| *other.key < *key);
        let removed = self.by_key.take(place, key)?;
        self.bytes -= removed.size();
        for (name, map) in self.fields.iter().zip(&mut self.by_field) {
            map.take(place_of(map, name, &removed), key);
        }
        Some(removed)
    }
}

/// Where an object is or belongs in the order of a field.
fn place_of<E>(map: &ObjectMap<E>, field: &str, object: &CachedObject<E>) -> Position {
    let place = (object.field(field), &*object.key);
    map.seek(|other| (other.field(field), &*other.key) < place)
}
