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
