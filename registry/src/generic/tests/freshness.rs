//! Lists and watches of a store whose progress does not come, that lags, or that is down.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use umbra_apimachinery::metadata::ObjectAccess as _;
use umbra_apimachinery::status::Status;
use umbra_storage::{Cache, CacheOptions, Precondition, Revision, Store};

use super::backend::Backend;
use super::{names, soon};
use crate::generic::codec;
use crate::generic::indexer::{StoredIndexer, StoredScope};
use crate::generic::keys::Keys;
use crate::generic::read::{self, Selection};
use crate::generic::strategy::SelectableField;
use crate::generic::watch;
use crate::request::{ListOptions, ResourceVersionMatch};
use crate::resource::{Event, EventStream, ObjectList};

/// Pods of one namespace in a store, and their cache.
struct Pods {
    backend: Arc<Backend>,
    cache: Arc<Cache<StoredIndexer>>,
    keys: Keys,
    _guard: DropGuard,
}

impl Pods {
    async fn start(backend: Arc<Backend>, existing: &[&str]) -> Self {
        let pods = Self::start_unready(backend, existing).await;
        pods.cache.ready(soon()).await.unwrap();
        pods
    }

    async fn start_unready(backend: Arc<Backend>, existing: &[&str]) -> Self {
        let keys = Keys::new("test", &umbra_apimachinery::gvk::GroupResource::new("", "pods"), true);
        for name in existing {
            put(&backend, &keys, name, "").await;
        }
        let cancelled = CancellationToken::new();
        let node = SelectableField::new("spec.nodeName");
        let mut options = CacheOptions::default();
        options.max_events = 10;
        let cache = Cache::start(
            Arc::clone(&backend) as Arc<dyn Store>,
            keys.prefix(),
            StoredIndexer::new(keys.clone(), vec![node]),
            options,
            &TaskTracker::new(),
            cancelled.clone(),
        );
        Self {
            backend,
            cache,
            keys,
            _guard: cancelled.drop_guard(),
        }
    }

    async fn put(&self, name: &str) -> Revision {
        put(&self.backend, &self.keys, name, "").await
    }

    async fn put_on(&self, name: &str, node: &str) -> Revision {
        put(&self.backend, &self.keys, name, node).await
    }

    /// Something happens that the cache does not see.
    async fn elsewhere(&self) -> Revision {
        self.backend
            .put("/elsewhere", "x".into(), Precondition::None)
            .await
            .unwrap()
    }

    fn scope(&self, options: &ListOptions) -> StoredScope {
        StoredScope::new(&self.keys, Some("n"), Selection::parse(options, |_| true).unwrap())
    }

    async fn list(&self, options: ListOptions) -> Result<ObjectList, Status> {
        let scope = self.scope(&options);
        read::list(self.backend.as_ref(), &self.cache, &scope, &options, soon()).await
    }

    async fn watch(&self, options: ListOptions) -> Result<EventStream, Status> {
        let scope = self.scope(&options);
        watch::watch(self.backend.as_ref(), &self.cache, scope, &options, soon()).await
    }
}

async fn put(backend: &Backend, keys: &Keys, name: &str, node: &str) -> Revision {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "spec": {"nodeName": node},
    });
    let key = keys.key(Some("n"), name);
    backend
        .put(&key, codec::encode(&pod), Precondition::None)
        .await
        .unwrap()
}

fn options() -> ListOptions {
    ListOptions::default()
}

fn after(revision: Revision) -> ListOptions {
    ListOptions {
        resource_version: Some(revision.0),
        ..options()
    }
}

fn streaming() -> ListOptions {
    ListOptions {
        send_initial_events: Some(true),
        resource_version_match: Some(ResourceVersionMatch::NotOlderThan),
        allow_watch_bookmarks: true,
        ..options()
    }
}

fn revision(list: &ObjectList) -> Revision {
    list.metadata.resource_version.parse().unwrap()
}

/// `ADDED a`, or `END 7` for the bookmark that ends the initial events at that revision.
async fn next(events: &mut EventStream) -> String {
    let event = tokio::time::timeout_at(soon(), events.next())
        .await
        .expect("an event comes soon");
    let (what, object) = match event.expect("the watch goes on") {
        Event::Added(object) => ("ADDED", object),
        Event::Modified(object) => ("MODIFIED", object),
        Event::Deleted(object) => ("DELETED", object),
        Event::Bookmark {
            revision,
            initial_events_end,
        } => {
            return if initial_events_end {
                format!("END {revision}")
            } else {
                format!("BOOKMARK {revision}")
            };
        }
        Event::Error(status) => return format!("ERROR {}", status.code),
    };
    let object: Value = serde_json::from_slice(&object.json).unwrap();
    format!("{what} {}", object.name())
}

#[tokio::test]
async fn without_trusted_progress_a_consistent_list_is_read_from_the_store() {
    let pods = Pods::start(Backend::without_progress(false), &["a", "b", "c"]).await;
    let now = pods.elsewhere().await;
    let list = pods.list(options()).await.unwrap();
    assert_eq!(
        (names(&list), revision(&list)),
        (vec!["a".into(), "b".into(), "c".into()], now)
    );
    let seen = pods.cache.revision();
    assert!(seen < now, "the cache cannot know");
    let any = pods
        .list(ListOptions {
            resource_version: Some(0),
            ..options()
        })
        .await
        .unwrap();
    assert_eq!(revision(&any), seen, "what may be of any age comes from the cache");
    let newer = pods.list(after(now)).await.unwrap();
    assert_eq!((names(&newer).len(), revision(&newer)), (3, now));
    let to_come = pods.list(after(Revision(now.0 + 1))).await.unwrap_err();
    assert_eq!((to_come.code, to_come.details.unwrap().retry_after_seconds), (504, 1));
}

#[tokio::test]
async fn without_trusted_progress_lists_come_in_pages_of_one_state() {
    let pods = Pods::start(Backend::without_progress(false), &["a", "b", "c", "d", "e"]).await;
    let now = pods.elsewhere().await;
    let page = |token: &str| ListOptions {
        limit: 2,
        continue_token: token.to_owned(),
        ..options()
    };
    let first = pods.list(page("")).await.unwrap();
    assert_eq!(
        (names(&first), first.metadata.remaining_item_count),
        (vec!["a".into(), "b".into()], Some(3))
    );
    pods.put("bb").await;
    let second = pods.list(page(&first.metadata.continue_token)).await.unwrap();
    assert_eq!((names(&second), revision(&second)), (vec!["c".into(), "d".into()], now));
    let third = pods.list(page(&second.metadata.continue_token)).await.unwrap();
    assert_eq!(
        (names(&third), third.metadata.continue_token.as_str()),
        (vec!["e".into()], "")
    );
    let selected = ListOptions {
        limit: 1,
        field_selector: "metadata.name!=a".to_owned(),
        ..options()
    };
    let selected = pods.list(selected).await.unwrap();
    assert_eq!(
        (names(&selected), selected.metadata.remaining_item_count),
        (vec!["b".into()], None)
    );
    assert!(!selected.metadata.continue_token.is_empty());
}

#[tokio::test]
async fn without_trusted_progress_a_watch_goes_on_from_a_list() {
    let pods = Pods::start(Backend::without_progress(false), &["a"]).await;
    pods.elsewhere().await;
    let list = pods.list(options()).await.unwrap();
    assert!(revision(&list) > pods.cache.revision());
    let mut events = pods.watch(after(revision(&list))).await.unwrap();
    pods.put("b").await;
    assert_eq!(next(&mut events).await, "ADDED b");
    let to_come = pods.watch(after(Revision(1_000))).await.err().unwrap();
    assert_eq!(to_come.code, 504);
}

#[tokio::test]
async fn without_trusted_progress_a_streaming_list_ends_with_its_bookmark() {
    let pods = Pods::start(Backend::without_progress(false), &["a"]).await;
    pods.backend.hold(true);
    // The cache does not see these yet; the list has to have them, and the watch must not bring them again.
    pods.put("b").await;
    let now = pods.elsewhere().await;
    let mut events = pods.watch(streaming()).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED a");
    assert_eq!(next(&mut events).await, "ADDED b");
    assert_eq!(next(&mut events).await, format!("END {now}"));
    pods.put("c").await;
    pods.put("b").await;
    pods.backend.hold(false);
    assert_eq!(next(&mut events).await, "ADDED c");
    assert_eq!(next(&mut events).await, "MODIFIED b");
    let mut plain = pods.watch(options()).await.unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(
            next(&mut plain).await,
            format!("ADDED {name}"),
            "a watch without revision begins likewise"
        );
    }
}

#[tokio::test]
async fn a_store_whose_progress_does_not_come_in_time_is_read() {
    let backend = Backend::without_progress(true);
    // Without progress a cache is filled only where nothing else has happened.
    let pods = Pods::start(backend, &["a"]).await;
    pods.backend.hold(true);
    let now = pods.put("b").await;
    // Each waits for the progress.
    let (list, events) = tokio::join!(pods.list(options()), pods.watch(streaming()));
    let (list, mut events) = (list.unwrap(), events.unwrap());
    assert_eq!((names(&list), revision(&list)), (vec!["a".into(), "b".into()], now));
    for expected in ["ADDED a".to_owned(), "ADDED b".to_owned(), format!("END {now}")] {
        assert_eq!(next(&mut events).await, expected);
    }
    pods.backend.hold(false);
    pods.put("c").await;
    assert_eq!(next(&mut events).await, "ADDED c");
}

#[tokio::test]
async fn what_the_cache_has_is_served_while_the_store_is_down() {
    let pods = Pods::start(Backend::without_progress(true), &["a", "b"]).await;
    let seen = pods.cache.revision();
    let first = pods.list(ListOptions { limit: 1, ..options() }).await.unwrap();
    pods.backend.down.store(true, Ordering::Release);
    let any = pods
        .list(ListOptions {
            resource_version: Some(0),
            ..options()
        })
        .await
        .unwrap();
    assert_eq!(names(&any).len(), 2);
    let token = first.metadata.continue_token;
    let second = pods
        .list(ListOptions {
            continue_token: token,
            ..options()
        })
        .await
        .unwrap();
    assert_eq!(names(&second), ["b"]);
    assert!(pods.watch(after(seen)).await.is_ok());
    let key = pods.keys.key(Some("n"), "a");
    assert!(read::get(&pods.cache, &key, seen.0, soon()).await.unwrap().is_some());
    for status in [
        pods.list(options()).await.unwrap_err(),
        pods.watch(options()).await.err().unwrap(),
    ] {
        assert_eq!((status.code, status.details.unwrap().retry_after_seconds), (503, 1));
    }
}

#[tokio::test]
async fn a_cache_that_is_not_filled_answers_429_where_the_store_does_not_do() {
    let backend = Backend::without_progress(true);
    // The cache loads a state that lies some changes back, and does not get what followed.
    backend.hold(true);
    let pods = Pods::start_unready(backend, &["a", "b"]).await;
    let first = pods.list(ListOptions { limit: 1, ..options() }).await.unwrap();
    assert_eq!(names(&first), ["a"], "a page costs the store no more than a page");
    let key = pods.keys.key(Some("n"), "a");
    assert!(read::get(&pods.cache, &key, 0, soon()).await.unwrap().is_some());
    assert!(!pods.cache.is_ready());
    let (list, watch) = tokio::join!(pods.list(options()), pods.watch(options()));
    for status in [list.err().unwrap(), watch.err().unwrap()] {
        assert_eq!(status.code, 429);
        assert!(status.details.unwrap().retry_after_seconds > 0);
    }
}

#[tokio::test]
async fn pods_of_a_node_are_found_by_their_index() {
    let pods = Pods::start(Backend::without_progress(false), &["a"]).await;
    pods.put_on("b", "x").await;
    pods.put_on("c", "y").await;
    let last = pods.put_on("d", "x").await;
    pods.cache.wait_for(last, soon()).await.unwrap();
    let of_x = || ListOptions {
        field_selector: "spec.nodeName=x".to_owned(),
        resource_version: Some(0),
        ..options()
    };
    assert_eq!(names(&pods.list(of_x()).await.unwrap()), ["b", "d"]);
    let first = pods.list(ListOptions { limit: 1, ..of_x() }).await.unwrap();
    let rest = ListOptions {
        continue_token: first.metadata.continue_token,
        resource_version: None,
        ..of_x()
    };
    assert_eq!(names(&pods.list(rest).await.unwrap()), ["d"]);
    let mut events = pods.watch(of_x()).await.unwrap();
    for name in ["b", "d"] {
        assert_eq!(next(&mut events).await, format!("ADDED {name}"));
    }
    pods.put_on("e", "y").await;
    pods.put_on("c", "x").await;
    pods.put_on("b", "y").await;
    assert_eq!(next(&mut events).await, "ADDED c");
    assert_eq!(next(&mut events).await, "DELETED b");
    let named = ListOptions {
        field_selector: "metadata.name=a".to_owned(),
        ..options()
    };
    pods.put("aa").await;
    assert_eq!(names(&pods.list(named).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_watch_from_before_the_window_gets_everything() {
    let pods = Pods::start(Backend::without_progress(true), &["a"]).await;
    let start = pods.cache.revision();
    let names: Vec<String> = (0..30).map(|number| format!("p{number:02}")).collect();
    let mut last = start;
    for name in &names {
        last = pods.put(name).await;
    }
    pods.cache.wait_for(last, soon()).await.unwrap();
    let mut events = pods.watch(after(start)).await.unwrap();
    pods.put("z").await;
    for name in names.iter().map(String::as_str).chain(["z"]) {
        assert_eq!(next(&mut events).await, format!("ADDED {name}"));
    }
    pods.backend.compact(last).await.unwrap();
    let expired = match pods.watch(after(start)).await {
        Ok(mut events) => next(&mut events).await,
        Err(status) => format!("ERROR {}", status.code),
    };
    assert_eq!(expired, "ERROR 410");
}
