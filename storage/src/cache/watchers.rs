//! Who gets an event.
//!
//! Watchers are found by what they watch, so that an event costs nothing for those it cannot concern
//! (`indexedWatchers` of `k8s.io/apiserver/pkg/storage/cacher/cacher.go`): by scope, which is looked up once for each length
//! that a scope has, and within a scope by the value of an indexed field, for those that want one value only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::CacheEvent;
use super::feed::End;
use crate::bounded::{Refused, Sender};

type Queue<E> = Sender<Arc<CacheEvent<E>>, End>;
type Queues<E> = BTreeMap<u64, Queue<E>>;
type ByValue<E> = HashMap<Box<str>, Queues<E>>;

/// The watchers of a cache.
pub(super) struct Watchers<E> {
    /// By the length of the scope, then by scope.
    scopes: BTreeMap<usize, HashMap<Box<str>, Audience<E>>>,
    len: usize,
    next_id: u64,
}

/// The watchers of one scope.
struct Audience<E> {
    /// Those that want every event.
    all: Queues<E>,
    /// Those that want the objects with a value of a field: by field, then by value. Few fields are indexed.
    by_field: Vec<(Box<str>, ByValue<E>)>,
}

/// What a watcher watches, and which it is.
#[derive(Debug)]
pub(super) struct Place {
    scope: Box<str>,
    field: Option<(Box<str>, Box<str>)>,
    id: u64,
}

impl<E> Default for Audience<E> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            by_field: Vec::new(),
        }
    }
}

impl<E> Watchers<E> {
    pub(super) fn new() -> Self {
        Self {
            scopes: BTreeMap::new(),
            len: 0,
            next_id: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a watcher of the keys under `scope`, or only of the objects among them where a field has a value.
    pub(super) fn add(&mut self, scope: &str, field: Option<(&str, &str)>, queue: Queue<E>) -> Place {
        let id = self.next_id;
        self.next_id += 1;
        self.len += 1;
        let audience = self.scopes.entry(scope.len()).or_default();
        let audience = audience.entry(scope.into()).or_default();
        audience.queues(field).insert(id, queue);
        Place {
            scope: scope.into(),
            field: field.map(|(field, value)| (field.into(), value.into())),
            id,
        }
    }

    /// Removes a watcher, if it is still there.
    pub(super) fn remove(&mut self, place: &Place) {
        let Some(scopes) = self.scopes.get_mut(&place.scope.len()) else {
            return;
        };
        let Some(audience) = scopes.get_mut(&place.scope) else {
            return;
        };
        let field = place.field.as_ref().map(|(field, value)| (&**field, &**value));
        if audience.queues(field).remove(&place.id).is_some() {
            self.len -= 1;
        }
        audience.forget_empty(field);
        if audience.is_empty() {
            scopes.remove(&place.scope);
        }
        if scopes.is_empty() {
            self.scopes.remove(&place.scope.len());
        }
    }

    /// Hands an event to everybody it may concern. Those whose queue is full are ended and removed: answers with how many.
    pub(super) fn publish(&mut self, event: &Arc<CacheEvent<E>>) -> usize {
        let key = &event.object.key;
        let mut slow = 0;
        for (length, scopes) in &mut self.scopes {
            // Scopes end where characters end; what is cut elsewhere is no scope.
            let Some(scope) = key.get(..*length) else { continue };
            let Some(audience) = scopes.get_mut(scope) else {
                continue;
            };
            slow += hand(&mut audience.all, event);
            for (field, values) in &mut audience.by_field {
                let now = event.object.field(field);
                let before = event.previous.as_deref().map(|previous| previous.field(field));
                for value in [Some(now), before.filter(|before| *before != now)]
                    .into_iter()
                    .flatten()
                {
                    slow += values.get_mut(value).map_or(0, |queues| hand(queues, event));
                }
            }
        }
        self.len -= slow;
        slow
    }

    /// Ends and removes all.
    pub(super) fn end(&mut self, reason: &End) {
        self.len = 0;
        for scopes in std::mem::take(&mut self.scopes).into_values() {
            for audience in scopes.into_values() {
                let by_value = audience
                    .by_field
                    .into_iter()
                    .flat_map(|(_, values)| values.into_values());
                for queue in std::iter::once(audience.all)
                    .chain(by_value)
                    .flat_map(BTreeMap::into_values)
                {
                    queue.end(reason.clone());
                }
            }
        }
    }
}

impl<E> Audience<E> {
    fn queues(&mut self, field: Option<(&str, &str)>) -> &mut Queues<E> {
        let Some((field, value)) = field else {
            return &mut self.all;
        };
        let number = match self.by_field.iter().position(|(known, _)| **known == *field) {
            Some(number) => number,
            None => {
                self.by_field.push((field.into(), HashMap::new()));
                self.by_field.len() - 1
            }
        };
        self.by_field[number].1.entry(value.into()).or_default()
    }

    fn forget_empty(&mut self, field: Option<(&str, &str)>) {
        let Some((field, value)) = field else { return };
        self.by_field.retain_mut(|(known, values)| {
            if **known == *field && values.get(value).is_some_and(BTreeMap::is_empty) {
                values.remove(value);
            }
            !values.is_empty()
        });
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_field.is_empty()
    }
}

/// Queues an event for each; answers with how many had no room.
fn hand<E>(queues: &mut Queues<E>, event: &Arc<CacheEvent<E>>) -> usize {
    let before = queues.len();
    queues.retain(|_, queue| match queue.push(Arc::clone(event)) {
        Ok(()) => true,
        Err(Refused) => {
            queue.end(crate::Error::SlowWatcher {
                capacity: queue.capacity(),
            });
            false
        }
    });
    before - queues.len()
}
