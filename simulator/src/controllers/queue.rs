//! A queue of objects to look at: each at most once, each at its time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_registry::generic::indexer::StoredObject;

/// Which object of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of(object: &StoredObject) -> Self {
        Self::new(&object.namespace, &object.name)
    }

    pub(crate) fn of_value(object: &serde_json::Value) -> Self {
        Self::new(object.namespace(), object.name())
    }

    /// The namespace as the generic store takes it.
    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(&*self.namespace).filter(|namespace| !namespace.is_empty())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Objects and when to look at them. It holds every object at most once, so it is bounded by the objects there are. One
/// task takes from it.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: HashMap<ObjectKey, Instant>,
    order: BTreeSet<(Instant, ObjectKey)>,
}

impl WorkQueue {
    /// Looks at an object after a while, or earlier where that is asked for already.
    pub(crate) fn add(&self, key: ObjectKey, after: Duration) {
        let at = Instant::now() + after;
        let mut state = self.state.lock();
        if let Some(earlier) = state.due.get(&key).copied() {
            if earlier <= at {
                return;
            }
            state.order.remove(&(earlier, key.clone()));
        }
        state.due.insert(key.clone(), at);
        state.order.insert((at, key));
        let is_first = state.order.first().is_some_and(|(first, _)| *first == at);
        drop(state);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Up to `most` objects whose time has come; waits for the first. Cancel safe: what is answered is taken, and nothing
    /// else is.
    pub(crate) async fn next(&self, most: usize) -> Vec<ObjectKey> {
        loop {
            let (taken, first) = self.take(most);
            if !taken.is_empty() {
                return taken;
            }
            let woken = self.wake.notified();
            match first {
                // Woken or due; the loop looks.
                Some(at) => drop(timeout_at(at, woken).await),
                None => woken.await,
            }
        }
    }

    fn take(&self, most: usize) -> (Vec<ObjectKey>, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((at, _)) = state.order.first()
            && *at <= now
            && let Some((_, key)) = state.order.pop_first()
        {
            state.due.remove(&key);
            taken.push(key);
        }
        (taken, state.order.first().map(|(at, _)| *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("n", name)
    }

    #[tokio::test(start_paused = true)]
    async fn each_object_comes_once_and_at_its_earliest_time() {
        let queue = WorkQueue::default();
        let begun = Instant::now();
        queue.add(key("late"), Duration::from_secs(5));
        queue.add(key("now"), Duration::ZERO);
        queue.add(key("now"), Duration::ZERO);
        queue.add(key("sooner"), Duration::from_secs(9));
        queue.add(key("sooner"), Duration::from_secs(1));
        queue.add(key("sooner"), Duration::from_secs(3));
        assert_eq!(queue.next(9).await, [key("now")]);
        assert_eq!(queue.next(9).await, [key("sooner")]);
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert_eq!(queue.next(9).await, [key("late")]);
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_taker_is_woken() {
        let queue = WorkQueue::default();
        let adding = async {
            tokio::task::yield_now().await;
            queue.add(key("a"), Duration::ZERO);
        };
        let (taken, ()) = tokio::join!(queue.next(1), adding);
        assert_eq!(taken, [key("a")]);
    }
}
