//! Watch streams.

use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use umbra_apimachinery::status::Status;
use umbra_registry::resource::{Body, Event};

use super::fake::{FakeHub, get, pod, request};
use crate::{ApiServer, Limits};

const WATCH: &str = "/api/v1/pods?watch=1&resourceVersion=5&allowWatchBookmarks=true";

async fn begin(server: &ApiServer, path: &str, headers: &[(&str, &str)]) -> Body {
    let response = server.clone().oneshot(request("GET", path, headers, "")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    response.into_body()
}

/// The events of the next frame; empty at the end.
async fn events(body: &mut Body) -> Vec<Value> {
    let Some(frame) = body.frame().await else {
        return Vec::new();
    };
    let data = frame.unwrap().into_data().unwrap();
    let text = std::str::from_utf8(&data).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn events_are_lines_and_come_at_once() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let server = hub.server();
    let mut body = begin(&server, WATCH, &[]).await;
    assert!(body.frame().now_or_never().is_none());
    sender.send(Event::Added(pod("a", 0))).await.unwrap();
    let first = events(&mut body).await;
    assert_eq!(
        (&first[0]["type"], &first[0]["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("a"))
    );
    for event in [
        Event::Modified(pod("a", 0)),
        Event::Deleted(pod("a", 0)),
        Event::Bookmark {
            revision: 9,
            initial_events_end: true,
        },
        Event::Bookmark {
            revision: 10,
            initial_events_end: false,
        },
    ] {
        sender.send(event).await.unwrap();
    }
    let rest = events(&mut body).await;
    let types: Vec<&str> = rest.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["MODIFIED", "DELETED", "BOOKMARK", "BOOKMARK"]);
    assert_eq!(
        rest[2]["object"],
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "9", "creationTimestamp": null,
            "annotations": {"k8s.io/initial-events-end": "true"}}})
    );
    assert!(rest[3]["object"]["metadata"].get("annotations").is_none());
    drop(sender);
    assert!(events(&mut body).await.is_empty());
    drop(body);
    assert_eq!(server.watchdog().count(), 0);
}

#[tokio::test]
async fn columns_come_once() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let table = (
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    );
    let mut body = begin(&hub.server(), &format!("{WATCH}&includeObject=None"), &[table]).await;
    for event in [
        Event::Added(pod("a", 0)),
        Event::Added(pod("b", 0)),
        Event::Bookmark {
            revision: 9,
            initial_events_end: true,
        },
    ] {
        sender.send(event).await.unwrap();
    }
    let events = events(&mut body).await;
    assert_eq!(events[0]["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(events[0]["object"]["rows"][0], json!({"cells": ["a"], "object": null}));
    assert_eq!(events[1]["object"]["columnDefinitions"], json!(null));
    assert_eq!(events[1]["object"]["rows"][0]["cells"], json!(["b"]));
    let end = &events[2]["object"];
    assert_eq!(
        (&end["kind"], &end["metadata"]["resourceVersion"]),
        (&json!("Table"), &json!("9"))
    );
    let annotations = &end["rows"][0]["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn metadata_watches() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let metadata = (
        "accept",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
    );
    let mut body = begin(&hub.server(), WATCH, &[metadata]).await;
    sender.send(Event::Added(pod("a", 0))).await.unwrap();
    sender
        .send(Event::Bookmark {
            revision: 9,
            initial_events_end: false,
        })
        .await
        .unwrap();
    let events = events(&mut body).await;
    assert_eq!(events[0]["object"]["kind"], "PartialObjectMetadata");
    assert!(events[0]["object"].get("spec").is_none());
    assert_eq!(events[1]["object"]["metadata"]["resourceVersion"], "9");
}

#[tokio::test]
async fn errors_end_a_watch_or_keep_it_from_beginning() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let server = hub.server();
    let mut body = begin(&server, WATCH, &[]).await;
    sender
        .send(Event::Error(Box::new(Status::expired("too old"))))
        .await
        .unwrap();
    sender.send(Event::Added(pod("late", 0))).await.unwrap();
    let last = events(&mut body).await;
    assert_eq!(
        (last.len(), &last[0]["type"], &last[0]["object"]["code"]),
        (1, &json!("ERROR"), &json!(410))
    );
    assert!(events(&mut body).await.is_empty());
    assert!(sender.is_closed());
    let answer = get(&server, "/api/v1/pods?watch=1&resourceVersion=1", &[]).await;
    assert_eq!(
        (answer.code.as_u16(), &answer.json()["reason"]),
        (410, &json!("Expired"))
    );
}

#[tokio::test(start_paused = true)]
async fn watches_end_in_time_and_with_the_server() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let _sender = hub.next_watch();
    let started = tokio::time::Instant::now();
    let mut body = begin(&server, &format!("{WATCH}&timeoutSeconds=5"), &[]).await;
    assert!(events(&mut body).await.is_empty());
    assert_eq!(started.elapsed().as_secs(), 5);

    let _sender = hub.next_watch();
    let started = tokio::time::Instant::now();
    let mut body = begin(&server, WATCH, &[]).await;
    assert!(events(&mut body).await.is_empty());
    assert!((1800..3600).contains(&started.elapsed().as_secs()));

    let _sender = hub.next_watch();
    let mut body = begin(&server, WATCH, &[]).await;
    server.end_watches();
    let started = tokio::time::Instant::now();
    assert!(events(&mut body).await.is_empty());
    assert_eq!(started.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_time_of_its_own_ends_by_that_of_the_server() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let limits = Limits {
        watch_timeout: std::time::Duration::from_secs(100),
        ..Limits::default()
    };
    let server = hub.server_with(|builder| builder.limits(limits));
    let started = tokio::time::Instant::now();
    let mut body = begin(&server, WATCH, &[]).await;
    assert!(events(&mut body).await.is_empty());
    let lasted = started.elapsed().as_secs();
    assert!((100..=200).contains(&lasted), "{lasted}");
    drop(sender);
}
