//! Watches: beginnings, transitions, bookmarks.

use futures::StreamExt as _;
use serde_json::{Value, json};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_storage::Revision;

use super::{Root, config_map};
use crate::builtin::controllers::system_context;
use crate::request::{ListOptions, PatchType, ResourceVersionMatch};
use crate::resource::{Event, EventStream, Object, Resource};

async fn watch(root: &Root, options: ListOptions) -> Result<EventStream, umbra_apimachinery::status::Status> {
    let store = root.resource("configmaps");
    store.watch(&system_context("admin"), Some("default"), &options).await
}

/// An event as text: `ADDED a`, `BOOKMARK`, `END` for the bookmark after the initial events.
async fn next(events: &mut EventStream) -> String {
    let text = |what: &str, object: Object| {
        let object: Value = serde_json::from_slice(&object.json).unwrap();
        format!("{what} {}", object.name())
    };
    let event = tokio::time::timeout_at(super::soon(), events.next())
        .await
        .expect("an event comes soon");
    match event {
        None => "NOTHING".to_owned(),
        Some(Event::Added(object)) => text("ADDED", object),
        Some(Event::Modified(object)) => text("MODIFIED", object),
        Some(Event::Deleted(object)) => text("DELETED", object),
        Some(Event::Bookmark {
            initial_events_end: true,
            ..
        }) => "END".to_owned(),
        Some(Event::Bookmark { .. }) => "BOOKMARK".to_owned(),
        Some(Event::Error(status)) => format!("ERROR {}", status.code),
    }
}

#[tokio::test]
async fn a_watch_without_revision_begins_with_what_is_there() {
    let root = Root::start().await;
    root.create("configmaps", config_map("a")).await.unwrap();
    let mut events = watch(&root, ListOptions::default()).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED a");
    root.create("configmaps", config_map("b")).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED b");
    root.patch("configmaps", "b", PatchType::Merge, json!({"data": {"x": "y"}}))
        .await
        .unwrap();
    assert_eq!(next(&mut events).await, "MODIFIED b");
    root.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(next(&mut events).await, "DELETED a");
}

#[tokio::test]
async fn streaming_lists_end_with_one_bookmark() {
    let root = Root::start().await;
    root.create("configmaps", config_map("a")).await.unwrap();
    let options = ListOptions {
        send_initial_events: Some(true),
        resource_version_match: Some(ResourceVersionMatch::NotOlderThan),
        allow_watch_bookmarks: true,
        ..ListOptions::default()
    };
    let mut events = watch(&root, options).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED a");
    assert_eq!(next(&mut events).await, "END");
    root.create("configmaps", config_map("b")).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED b");
}

#[tokio::test]
async fn a_watch_resumes_after_a_revision() {
    let root = Root::start().await;
    let created = root.create("configmaps", config_map("a")).await.unwrap();
    let from: u64 = created.resource_version().parse().unwrap();
    root.create("configmaps", config_map("b")).await.unwrap();
    root.delete("configmaps", "a", Value::Null).await.unwrap();
    let after = |revision| ListOptions {
        resource_version: Some(revision),
        ..ListOptions::default()
    };
    let mut events = watch(&root, after(from)).await.unwrap();
    assert_eq!(next(&mut events).await, "ADDED b");
    let deleted = tokio::time::timeout_at(super::soon(), events.next())
        .await
        .unwrap()
        .unwrap();
    let Event::Deleted(object) = deleted else {
        panic!("{deleted:?}")
    };
    let object: Value = serde_json::from_slice(&object.json).unwrap();
    let Revision(now) = root.store.current_revision().await.unwrap();
    assert_eq!(
        object.resource_version(),
        now.to_string(),
        "a deletion carries its own revision"
    );
    assert_eq!(watch(&root, after(now + 100)).await.err().unwrap().code, 504);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let root = Root::start().await;
    let options = ListOptions {
        label_selector: "l=x".to_owned(),
        ..ListOptions::default()
    };
    let mut events = watch(&root, options).await.unwrap();
    root.create("configmaps", config_map("a")).await.unwrap();
    for (label, _) in [("x", 0), ("x", 1), ("y", 2), ("x", 3)] {
        let patch = json!({"metadata": {"labels": {"l": label}}, "data": {"n": uuid::Uuid::new_v4().to_string()}});
        root.patch("configmaps", "a", PatchType::Merge, patch).await.unwrap();
    }
    root.delete("configmaps", "a", Value::Null).await.unwrap();
    for want in ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"] {
        assert_eq!(next(&mut events).await, want);
    }
}

#[tokio::test]
async fn a_watch_ends_in_time_after_a_last_bookmark() {
    let root = Root::start().await;
    let options = ListOptions {
        allow_watch_bookmarks: true,
        timeout_seconds: Some(3),
        ..ListOptions::default()
    };
    let mut events = watch(&root, options).await.unwrap();
    // A change elsewhere moves the revision that the bookmark tells.
    let account = json!({"kind": "ServiceAccount", "metadata": {"name": "s"}});
    root.create("serviceaccounts", account).await.unwrap();
    assert_eq!(next(&mut events).await, "BOOKMARK");
    assert_eq!(next(&mut events).await, "NOTHING");
}
