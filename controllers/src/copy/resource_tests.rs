//! The copying of one resource against a scripted child and a real store in memory.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::{Reason, Status};
use umbra_storage::{Embedded, Revision};

use super::*;

/// Answers lists from a script, and watches from channels that the test feeds.
#[derive(Default)]
struct Script {
    lists: Mutex<VecDeque<Result<Value, u16>>>,
    watches: Mutex<VecDeque<mpsc::Receiver<Value>>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Source for Script {
    async fn get(&self, path: &str, _accept: &str) -> Result<Bytes, SourceError> {
        self.asked.lock().push(path.to_owned());
        match self.lists.lock().pop_front() {
            Some(Ok(list)) => Ok(list.to_string().into()),
            Some(Err(code)) => Err(SourceError::Status(Box::new(Status {
                code,
                ..Status::failure(Reason::InternalError, "no")
            }))),
            None => Err(SourceError::Unreachable("the script has ended".to_owned())),
        }
    }

    async fn watch(
        &self,
        path: &str,
        _accept: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError> {
        self.asked.lock().push(path.to_owned());
        let Some(receiver) = self.watches.lock().pop_front() else {
            return Ok(futures::stream::pending().boxed());
        };
        let events = futures::stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((Ok(Bytes::from(event.to_string())), receiver))
        });
        Ok(events.boxed())
    }
}

fn pod(name: &str, revision: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": revision, "uid": name}})
}

fn list(revision: &str, next: &str, pods: &[Value]) -> Value {
    let rows: Vec<_> = pods
        .iter()
        .map(|pod| json!({"cells": [pod["metadata"]["name"]], "object": pod}))
        .collect();
    json!({"kind": "Table", "metadata": {"resourceVersion": revision, "continue": next}, "rows": rows,
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name"}]})
}

fn event(kind: &str, pod: &Value) -> Value {
    json!({"type": kind, "object": {"kind": "Table", "rows": [{"cells": [pod["metadata"]["name"]], "object": pod}]}})
}

struct Fixture {
    script: Arc<Script>,
    store: Arc<Embedded>,
    state: watch::Receiver<ResourceState>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Fixture {
    fn start(script: Script, store: Arc<Embedded>) -> Self {
        let positions = Positions::new("east", Arc::clone(&store) as Arc<dyn Store>);
        Self::start_at(script, store, Arc::new(positions))
    }

    /// As one who goes on from where somebody else has stopped.
    fn start_at(script: Script, store: Arc<Embedded>, positions: Arc<Positions>) -> Self {
        let script = Arc::new(script);
        let (sender, state) = watch::channel(ResourceState::default());
        let resource = ResourceDescriptor {
            resource: GroupVersionResource::new("", "v1", "pods"),
            kind: "Pod".into(),
            namespaced: true,
            ..ResourceDescriptor::default()
        };
        let copy = ResourceCopy {
            cluster: "east".into(),
            resource,
            source: Arc::clone(&script) as Arc<dyn Source>,
            store: Arc::clone(&store) as Arc<dyn Store>,
            positions,
            state: sender,
            written: None,
        };
        let cancel = CancellationToken::new();
        let task = tokio_util::task::TaskTracker::new().spawn(copy.run(cancel.clone()));
        Self {
            script,
            store,
            state,
            cancel,
            task,
        }
    }

    async fn synced(&mut self) {
        self.state.wait_for(|state| state.synced).await.unwrap();
    }

    /// Waits until the names and the child's revisions of all copies are these.
    async fn copies_are(&self, wanted: &[(&str, &str)]) {
        let mut events = self.store.watch("/umbra/copies/", Revision::INITIAL).await.unwrap();
        let mut copies = std::collections::BTreeMap::new();
        while copies
            .iter()
            .map(|(name, revision): (&String, &String)| (name.as_str(), revision.as_str()))
            .ne(wanted.iter().copied())
        {
            match events.next().await.unwrap().unwrap() {
                umbra_storage::WatchEvent::Put { entry, .. } => {
                    let name = entry.key.rsplit('/').next().unwrap().to_owned();
                    copies.insert(name, Envelope::decode(&entry.value).unwrap().header.child_revision);
                }
                umbra_storage::WatchEvent::Delete { key, .. } => {
                    copies.remove(key.rsplit('/').next().unwrap());
                }
                umbra_storage::WatchEvent::Progress { .. } => {}
            }
        }
    }

    async fn stop(self) -> Arc<Embedded> {
        self.cancel.cancel();
        self.task.await.unwrap();
        self.store
    }
}

#[tokio::test]
async fn pages_are_copied_and_then_events() {
    let store = Arc::new(Embedded::in_memory());
    let (events, receiver) = mpsc::channel(8);
    let script = Script {
        lists: Mutex::new(
            [
                Ok(list("10", "next", &[pod("a", "1")])),
                Ok(list("10", "", &[pod("b", "2")])),
            ]
            .into(),
        ),
        watches: Mutex::new([receiver].into()),
        ..Script::default()
    };
    let mut fixture = Fixture::start(script, store);
    fixture.synced().await;
    fixture.copies_are(&[("a", "1"), ("b", "2")]).await;
    events.send(event("MODIFIED", &pod("a", "11"))).await.unwrap();
    events.send(event("DELETED", &pod("b", "12"))).await.unwrap();
    events.send(event("ADDED", &pod("c", "13"))).await.unwrap();
    fixture.copies_are(&[("a", "11"), ("c", "13")]).await;
    assert!(
        fixture
            .script
            .asked
            .lock()
            .iter()
            .any(|path| path.contains("watch=true") && path.contains("resourceVersion=10&"))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_child_that_comes_back_causes_events_for_what_changed_alone() {
    let store = Arc::new(Embedded::in_memory());
    let script = |pods: &[Value]| Script {
        lists: Mutex::new([Ok(list("10", "", pods))].into()),
        ..Script::default()
    };
    let mut first = Fixture::start(script(&[pod("a", "1"), pod("b", "2"), pod("c", "3")]), store);
    first.synced().await;
    let store = first.stop().await;
    let before = store.current_revision().await.unwrap();
    let mut second = Fixture::start(script(&[pod("a", "1"), pod("b", "9")]), store);
    second.synced().await;
    second.copies_are(&[("a", "1"), ("b", "9")]).await;
    let store = second.stop().await;
    let after = store.current_revision().await.unwrap();
    assert_eq!(after.0 - before.0, 2, "one copy changed and one went");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_keeps_its_copies() {
    let store = Arc::new(Embedded::in_memory());
    let (events, receiver) = mpsc::channel(8);
    let script = Script {
        lists: Mutex::new(
            [
                Ok(list("10", "", &[pod("a", "1")])),
                // After the 410 below: the first page of the list comes, the second does not.
                Ok(list("20", "next", &[])),
                Err(500),
                Ok(list("30", "", &[pod("a", "21")])),
            ]
            .into(),
        ),
        watches: Mutex::new([receiver].into()),
        ..Script::default()
    };
    let mut fixture = Fixture::start(script, store);
    fixture.synced().await;
    let gone = serde_json::to_value(Status::expired("too old")).unwrap();
    events.send(json!({"type": "ERROR", "object": gone})).await.unwrap();
    fixture.copies_are(&[("a", "21")]).await;
    let store = fixture.stop().await;
    let history = store.current_revision().await.unwrap();
    // The columns, the first state, the second: the outage in between has written nothing.
    assert_eq!(history.0 - Revision::INITIAL.0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_begun_anew_and_is_no_failure() {
    let store = Arc::new(Embedded::in_memory());
    let (_silent, first) = mpsc::channel(1);
    let (events, second) = mpsc::channel(1);
    let script = Script {
        lists: Mutex::new([Ok(list("10", "", &[pod("a", "1")]))].into()),
        watches: Mutex::new([first, second].into()),
        ..Script::default()
    };
    let mut fixture = Fixture::start(script, store);
    fixture.synced().await;
    let mut state = fixture.state.clone();
    state.mark_unchanged();
    // Taken only by the second watch, which begins when the first has been silent for long enough.
    events.send(event("MODIFIED", &pod("a", "11"))).await.unwrap();
    fixture.copies_are(&[("a", "11")]).await;
    assert!(!state.has_changed().unwrap(), "the resource was synced all the time");
    let watches = fixture
        .script
        .asked
        .lock()
        .iter()
        .filter(|path| path.contains("watch=true"))
        .count();
    assert_eq!(watches, 2);
    fixture.stop().await;
}

/// The resource versions of the pods, and "gone", in the order in which watchers of the store saw them, by name.
async fn history(store: &Embedded, after: Revision) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut seen: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let until = store.current_revision().await.unwrap();
    let mut events = store.watch("/umbra/", after).await.unwrap();
    let mut at = after;
    while at < until {
        let event = events.next().await.unwrap().unwrap();
        at = event.revision();
        let name = |key: &str| {
            key.strip_prefix("/umbra/copies/core/pods/east/shop/")
                .map(str::to_owned)
        };
        match event {
            umbra_storage::WatchEvent::Put { entry, .. } => {
                if let Some(name) = name(&entry.key) {
                    let revision = Envelope::decode(&entry.value).unwrap().header.child_revision;
                    seen.entry(name).or_default().push(revision);
                }
            }
            umbra_storage::WatchEvent::Delete { key, .. } => {
                if let Some(name) = name(&key) {
                    seen.entry(name).or_default().push("gone".to_owned());
                }
            }
            umbra_storage::WatchEvent::Progress { .. } => {}
        }
    }
    seen
}

/// Somebody copied up to 14 and said only that 10 was reached. The child tells everything since 10.
fn since_ten() -> Vec<Value> {
    vec![
        event("MODIFIED", &pod("a", "11")),
        event("ADDED", &pod("short", "12")),
        event("DELETED", &pod("short", "13")),
        event("ADDED", &pod("b", "14")),
        event("MODIFIED", &pod("a", "15")),
        event("ADDED", &pod("c", "16")),
    ]
}

async fn stopped_at_fourteen() -> (Arc<Embedded>, Arc<Positions>) {
    let store = Arc::new(Embedded::in_memory());
    let script = Script {
        lists: Mutex::new([Ok(list("14", "", &[pod("a", "11"), pod("b", "14")]))].into()),
        ..Script::default()
    };
    let mut first = Fixture::start(script, store);
    first.synced().await;
    let store = first.stop().await;
    let positions = Positions::new("east", Arc::clone(&store) as Arc<dyn Store>);
    positions.set(&GroupResource::new("", "pods"), "v1", "10");
    (store, Arc::new(positions))
}

#[tokio::test]
async fn who_goes_on_repeats_nothing_and_lists_nothing() {
    let (store, positions) = stopped_at_fourteen().await;
    let before = store.current_revision().await.unwrap();
    let (events, receiver) = mpsc::channel(16);
    let script = Script {
        lists: Mutex::new([Ok(list("16", "next", &[pod("a", "15")]))].into()),
        watches: Mutex::new([receiver].into()),
        ..Script::default()
    };
    let mut second = Fixture::start_at(script, store, Arc::clone(&positions));
    second.synced().await;
    for event in since_ten() {
        events.send(event).await.unwrap();
    }
    second.copies_are(&[("a", "15"), ("b", "14"), ("c", "16")]).await;
    let reached = async {
        let pods = GroupResource::new("", "pods");
        while positions.get(&pods).unwrap().resource_version < 16 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
    let asked = second.script.asked.lock().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].contains("limit=1") && !asked[0].contains("limit=1&") && asked[1].contains("resourceVersion=10&"));
    let store = second.stop().await;
    let seen = history(&store, before).await;
    let expected = [("a", vec!["15".to_owned()]), ("c", vec!["16".to_owned()])];
    assert_eq!(seen, expected.map(|(name, seen)| (name.to_owned(), seen)).into());
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_the_child_no_longer_knows_is_listed_anew() {
    let (store, positions) = stopped_at_fourteen().await;
    let before = store.current_revision().await.unwrap();
    let (events, receiver) = mpsc::channel(1);
    let script = Script {
        lists: Mutex::new(
            [
                Ok(list("20", "next", &[pod("a", "15")])),
                Ok(list("20", "", &[pod("a", "15"), pod("c", "16")])),
            ]
            .into(),
        ),
        watches: Mutex::new([receiver].into()),
        ..Script::default()
    };
    let gone = serde_json::to_value(Status::expired("too old")).unwrap();
    events.send(json!({"type": "ERROR", "object": gone})).await.unwrap();
    let second = Fixture::start_at(script, store, positions);
    second.copies_are(&[("a", "15"), ("c", "16")]).await;
    let store = second.stop().await;
    let seen = history(&store, before).await;
    let expected = [("a", vec!["15"]), ("b", vec!["gone"]), ("c", vec!["16"])];
    let expected = expected.map(|(name, seen)| (name.to_owned(), seen.into_iter().map(str::to_owned).collect()));
    assert_eq!(seen, expected.into());
}

#[tokio::test]
async fn a_child_that_was_set_back_is_listed() {
    let (store, positions) = stopped_at_fourteen().await;
    let script = Script {
        lists: Mutex::new(
            [
                Ok(list("9", "next", &[pod("a", "8")])),
                Ok(list("9", "", &[pod("a", "8")])),
            ]
            .into(),
        ),
        ..Script::default()
    };
    let mut second = Fixture::start_at(script, store, positions);
    second.synced().await;
    second.copies_are(&[("a", "8")]).await;
    second.stop().await;
}
