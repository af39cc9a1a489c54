//! Following what is stored: telling controllers what changed, and keeping indexes of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::metadata::OwnerReference;
use umbra_registry::generic::indexer::{Lifecycle, StoredIndexer, StoredObject};
use umbra_storage::cache::{EventKind, WatchFrom};
use umbra_storage::{Cache, CacheEvent, CacheWatch};

/// Changes that may wait for one follower: a burst of a thousand pods changing ten times. A follower that falls behind
/// starts over with everything.
const BUFFER: usize = 10_000;

/// How long a cache may take to show what it tells watchers of: it does so right afterwards.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A change of an object, or the object as it is at the start.
pub(crate) struct Change<'a> {
    pub(crate) object: &'a StoredObject,
    pub(crate) previous: Option<&'a StoredObject>,
    pub(crate) gone: bool,
}

/// Tells `see` of every object in `cache` and of every change, in a task of `tracker`, until `cancelled`.
pub(crate) fn follow(
    cache: Arc<Cache<StoredIndexer>>,
    tracker: &TaskTracker,
    cancelled: CancellationToken,
    see: impl Fn(&Change<'_>) + Send + Sync + 'static,
) {
    let following = async move {
        loop {
            follow_until_error(&cache, &see).await;
            tokio::time::sleep(Duration::from_millis(100).mul_f64(rand::random())).await;
        }
    };
    tracker.spawn(async move { cancelled.run_until_cancelled(following).await });
}

async fn follow_until_error(cache: &Arc<Cache<StoredIndexer>>, see: &(impl Fn(&Change<'_>) + Sync)) {
    let Ok((snapshot, mut watch)) = cache.snapshot_and_watch(cache.prefix(), WatchFrom::Now, BUFFER) else {
        return;
    };
    for object in &snapshot {
        see(&Change {
            object,
            previous: None,
            gone: false,
        });
    }
    while let Some(Ok(event)) = watch.next().await {
        // Watchers are told before readers see the change. A controller that looked too early would find what was there
        // before, and nothing would make it look again.
        if cache.wait_for(event.revision, Instant::now() + CATCH_UP).await.is_err() {
            return;
        }
        see(&Change {
            object: &event.object,
            previous: event.previous.as_deref(),
            gone: event.kind == EventKind::Delete,
        });
    }
}

/// An index of objects.
pub(crate) trait View: Default {
    fn insert(&mut self, object: &Arc<StoredObject>);
    fn remove(&mut self, object: &StoredObject);
}

/// A [`View`] that is never behind the cache it is made from: it takes in what is new when it is read. So whoever has
/// written an object, which waits for the cache, finds it in the view.
pub(crate) struct Mirror<V> {
    cache: Arc<Cache<StoredIndexer>>,
    state: Mutex<State<V>>,
}

struct State<V> {
    view: V,
    watch: Option<CacheWatch<StoredIndexer>>,
}

impl<V: View> Mirror<V> {
    pub(crate) fn new(cache: Arc<Cache<StoredIndexer>>) -> Self {
        let state = State {
            view: V::default(),
            watch: None,
        };
        Self {
            cache,
            state: Mutex::new(state),
        }
    }

    /// Reads the view.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&V) -> R) -> R {
        let mut state = self.state.lock();
        state.refresh(&self.cache);
        read(&state.view)
    }
}

impl<V: View> State<V> {
    fn refresh(&mut self, cache: &Arc<Cache<StoredIndexer>>) {
        while let Some(watch) = &mut self.watch {
            // A task that has used up its turn would otherwise be told that nothing is there.
            match tokio::task::unconstrained(watch.next()).now_or_never() {
                None => return,
                Some(Some(Ok(event))) => apply(&mut self.view, &event),
                Some(_) => self.watch = None,
            }
        }
        // A cache that has been stopped changes no more, so the view stays as it is.
        let Ok((snapshot, watch)) = cache.snapshot_and_watch(cache.prefix(), WatchFrom::Now, BUFFER) else {
            return;
        };
        self.view = V::default();
        for object in &snapshot {
            self.view.insert(object);
        }
        self.watch = Some(watch);
    }
}

fn apply<V: View>(view: &mut V, event: &CacheEvent<Lifecycle>) {
    if let Some(previous) = &event.previous {
        view.remove(previous);
    }
    match event.kind {
        EventKind::Put => view.insert(&event.object),
        EventKind::Delete => view.remove(&event.object),
    }
}

/// The reference to the controller of an object.
pub(crate) fn controller_of(object: &StoredObject) -> Option<&OwnerReference> {
    object.extra.owners.iter().find(|owner| owner.controller == Some(true))
}

/// What an index keeps of an object beside the object.
pub(crate) trait Facts: Send + Sync {
    fn of(object: &StoredObject) -> Self;
}

/// An object and what is known of it.
#[derive(Debug)]
pub(crate) struct Known<F> {
    pub(crate) object: Arc<StoredObject>,
    pub(crate) facts: F,
}

/// Objects by the UID of their controller.
pub(crate) struct ByController<F>(HashMap<Box<str>, Owned<F>>);

/// The objects of one owner by their keys.
type Owned<F> = BTreeMap<Arc<str>, Arc<Known<F>>>;

impl<F> Default for ByController<F> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<F> ByController<F> {
    /// The objects that the owner of that UID controls, by key.
    pub(crate) fn owned(&self, uid: &str) -> Vec<Arc<Known<F>>> {
        let owned = self.0.get(uid);
        owned.into_iter().flat_map(BTreeMap::values).map(Arc::clone).collect()
    }
}

impl<F: Facts> View for ByController<F> {
    fn insert(&mut self, object: &Arc<StoredObject>) {
        if let Some(owner) = controller_of(object) {
            let known = Known {
                facts: F::of(object),
                object: Arc::clone(object),
            };
            let owned = self.0.entry(owner.uid.as_str().into()).or_default();
            owned.insert(Arc::clone(&object.key), Arc::new(known));
        }
    }

    fn remove(&mut self, object: &StoredObject) {
        let Some(owner) = controller_of(object) else { return };
        if let Some(owned) = self.0.get_mut(owner.uid.as_str()) {
            owned.remove(&object.key);
            if owned.is_empty() {
                self.0.remove(owner.uid.as_str());
            }
        }
    }
}
