//! The cluster root before a scripted child.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use umbra_apimachinery::user::UserInfo;
use umbra_storage::{Embedded, Precondition, Store};

use super::*;
use crate::directory::HUB_KINDS;
use crate::request::Warnings;
use crate::scripted_child::{self, Asked, ScriptedChild};

async fn directory(spec: Value, status: Value) -> Arc<Mirror<Directory>> {
    let store = Embedded::in_memory();
    let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": "east"},
        "spec": spec, "status": status});
    let key = format!("{HUB_KINDS}managedclusters/east");
    store
        .put(&key, cluster.to_string().into(), Precondition::None)
        .await
        .unwrap();
    Mirror::load(Arc::new(store), HUB_KINDS).await.unwrap()
}

async fn send(root: &ClusterRoot, method: Method, path: &str) -> Result<(u16, Bytes), Status> {
    send_and_warn(root, method, path, &Warnings::default()).await
}

async fn send_and_warn(
    root: &ClusterRoot,
    method: Method,
    path: &str,
    warnings: &Warnings,
) -> Result<(u16, Bytes), Status> {
    let request = Request::builder().method(&method).uri(path).header("host", "hub:7443");
    let request = request
        .header("authorization", "Bearer secret")
        .header("accept-encoding", "gzip");
    let request = request.body(umbra_child::empty()).unwrap();
    let context = RequestContext {
        user: Arc::new(UserInfo::new("tina", ["system:authenticated"])),
        info: Arc::new(RequestInfo::parse(
            method.as_str(),
            request.uri().path(),
            request.uri().query().unwrap_or(""),
        )),
        prefix: "/root".into(),
        deadline: Instant::now() + Duration::from_secs(20),
        warnings: warnings.clone(),
        user_agent: "test/1".into(),
    };
    let response = root.forward(&context, request).await?;
    let code = response.status().as_u16();
    Ok((code, response.into_body().collect().await.unwrap().to_bytes()))
}

fn serve(asked: &Asked) -> http::Response<Bytes> {
    match asked.path.as_str() {
        "/openapi/v3" => scripted_child::json(
            200,
            &json!({"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=A"}}}),
        ),
        _ => scripted_child::json(200, &json!({"serverRelativeURL": "/as/it/is"})),
    }
}

#[tokio::test]
async fn requests_travel_as_the_caller_and_documents_carry_the_prefix() {
    let children = scripted_child::children();
    let east = ScriptedChild::start(&children, "east", serve).await;
    let root = ClusterRoot::new("east", directory(json!({}), json!({})).await, children).unwrap();
    let (_, index) = send(&root, Method::GET, "/openapi/v3").await.unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(
        index["paths"]["api/v1"]["serverRelativeURL"],
        "/root/openapi/v3/api/v1?hash=A"
    );
    let (code, body) = send(&root, Method::PUT, "/api/v1/namespaces/a/pods/b?dryRun=All")
        .await
        .unwrap();
    assert_eq!((code, &body[..]), (200, &br#"{"serverRelativeURL":"/as/it/is"}"#[..]));
    let asked = east.asked();
    assert!(!asked[0].headers.contains_key("accept-encoding"));
    assert_eq!(asked[1].line(), "PUT /api/v1/namespaces/a/pods/b?dryRun=All");
    assert_eq!(asked[1].user(), "tina");
    assert!(!asked[1].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_read_only_cluster_answers_reads_and_questions() {
    let children = scripted_child::children();
    let _east = ScriptedChild::start(&children, "east", serve).await;
    let root = ClusterRoot::new(
        "east",
        directory(json!({"access": "ReadOnly"}), json!({})).await,
        children,
    )
    .unwrap();
    for (method, path, allowed) in [
        (Method::GET, "/api/v1/pods", true),
        (Method::GET, "/api/v1/namespaces/a/pods/b/log", true),
        (Method::GET, "/api/v1/namespaces/a/pods/b/exec", false),
        (Method::GET, "/api/v1/namespaces/a/services/b/proxy/x", false),
        (Method::GET, "/api/v1/namespaces/a/services/b/%70roxy/x", false),
        (Method::GET, "/api/v1/namespaces/a/pods/b//exec/", false),
        (Method::HEAD, "/api/v1/namespaces/a/pods/b/attach", false),
        (Method::GET, "/api/v1/proxy/namespaces/a/pods/b", false),
        (Method::GET, "/apis/x.io/v1/%70roxy/pods/b/log", false),
        (Method::GET, "/api/v1/watch/namespaces/a/pods", true),
        (Method::GET, "/api/v1/watch/namespaces/a/pods/b/exec", false),
        (Method::POST, "/api/v1/watch/namespaces/a/pods", false),
        (Method::POST, "/api/v1/namespaces/a/serviceaccounts/b/token", false),
        (Method::POST, "/api/v1/namespaces/a/pods?dryRun=All", false),
        (
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            true,
        ),
        (Method::POST, "/api/v1/namespaces/a/pods", false),
        (Method::DELETE, "/api/v1/namespaces/a/pods/b", false),
        (Method::PATCH, "/api/v1/namespaces/a/pods/b", false),
    ] {
        let answer = send(&root, method.clone(), path).await;
        match answer {
            Ok((200, _)) => assert!(allowed, "{method} {path}"),
            Err(status) => assert_eq!((status.code, allowed), (403, false), "{method} {path}"),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_not_known_to_read_is_not_upgraded() {
    let runs = |path: &str, headers: &[(&'static str, &'static str)]| {
        let pairs = headers.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        });
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        may_run(&pairs.collect(), &RequestInfo::parse("GET", path, query))
    };
    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let console = "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/b/console";
    assert!(runs(console, &upgrade) && !runs(console, &[]));
    assert!(!runs("/api/v1/pods?watch=1", &upgrade));
    assert!(!runs("/api/v1/namespaces/a/pods/b/log?follow=1", &upgrade));
    assert!(!runs("/api/v1/watch/pods", &upgrade));
    assert!(runs(
        "/apis/subresources.kubevirt.io/v1/watch/virtualmachineinstances/b/console",
        &upgrade
    ));
    assert!(runs("/api/v1/namespaces/a/pods/b", &upgrade));
}

#[tokio::test]
async fn clusters_that_are_not_there_say_so() {
    let children = scripted_child::children();
    let status = json!({"conditions": [{"type": "Reachable", "status": "False", "reason": "ProbeFailed",
        "message": "connection refused", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let known = directory(json!({}), status).await;
    let unknown = ClusterRoot::new("west", Arc::clone(&known), children.clone());
    assert_eq!(unknown.unwrap_err().code, 404);
    let root = ClusterRoot::new("east", known, children.clone()).unwrap();
    let down = send(&root, Method::GET, "/api").await.unwrap_err();
    assert_eq!(down.code, 503);
    assert_eq!(
        down.message,
        "cluster \"east\" is unreachable since 2026-01-01T00:00:00Z: connection refused; check that it runs and that the hub \
         can reach it"
    );
    // What a client reads of a failed discovery is the warning alone.
    let warnings = Warnings::default();
    let pods = send_and_warn(&root, Method::GET, "/api/v1/pods", &warnings).await;
    assert!(pods.is_err() && warnings.take().is_empty());
    let discovery = send_and_warn(&root, Method::GET, "/api", &warnings).await;
    assert!(discovery.is_err());
    assert_eq!(warnings.take(), [down.message]);
    let fresh = ClusterRoot::new("east", directory(json!({}), json!({})).await, children).unwrap();
    assert_eq!(send(&fresh, Method::GET, "/api").await.unwrap_err().code, 503);
}
