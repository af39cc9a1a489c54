//! Identities, permissions, limits, errors, health, metrics.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt as _;
use umbra_registry::resource::Body;
use umbra_show::Item;

use super::fake::{FakeHub, get, request, send};
use crate::audit::{AuditLog, Destination, Rotation};
use crate::watchdog::STALL;
use crate::{ApiServer, Check, Checks, Limits};

const POD: &str = "/api/v1/namespaces/shop/pods/a";

#[tokio::test]
async fn who_is_not_known_is_refused() {
    let server = FakeHub::new(0, 0).server();
    let anonymous = || http::Request::builder().body(crate::respond::empty()).unwrap();
    let at = |path: &str| {
        let mut request = anonymous();
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    for (path, want) in [
        ("/readyz", 200),
        ("/livez", 200),
        ("/version", 200),
        (POD, 401),
        ("/api", 401),
        ("/metrics", 401),
    ] {
        assert_eq!(send(&server, at(path)).await.code, want, "{path}");
    }
    let bad = get(&server, POD, &[("authorization", "bad")]).await;
    assert_eq!(
        (bad.code.as_u16(), &bad.json()["message"]),
        (401, &json!("Unauthorized"))
    );
    let unjudged = get(&server, POD, &[("authorization", "unjudged")]).await;
    assert_eq!(
        (unjudged.code.as_u16(), &unjudged.json()["reason"]),
        (500, &json!("InternalError"))
    );
    let mallory = get(&server, POD, &[("authorization", "mallory")]).await;
    assert_eq!(
        (mallory.code.as_u16(), &mallory.json()["reason"]),
        (403, &json!("Forbidden"))
    );
    let missing_view = "/apis/umbra.dev/v1alpha1/views/none/proxy/api";
    assert_eq!(
        get(&server, missing_view, &[("authorization", "mallory")]).await.code,
        403
    );
    assert_eq!(get(&server, missing_view, &[]).await.code, 404);
}

#[tokio::test]
async fn impersonation_needs_permission_and_does_not_travel() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let wish = [("impersonate-user", "bob"), ("authorization", "alice")];
    assert_eq!(get(&server, POD, &wish).await.code, 403);
    let wish = [("impersonate-user", "bob"), ("authorization", "admin")];
    assert_eq!(get(&server, POD, &wish).await.code, 200);
    assert_eq!(hub.users.lock()[0].name, "bob");
    let half = [("impersonate-group", "ops"), ("authorization", "admin")];
    assert_eq!(get(&server, POD, &half).await.code, 400);

    let path = "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy/api/v1/pods?limit=5";
    let said = get(
        &server,
        path,
        &[
            wish[0],
            wish[1],
            ("x-remote-user", "eve"),
            ("x-proxied-user", "eve"),
            ("accept", "*/*"),
        ],
    )
    .await
    .json();
    assert_eq!(
        (&said["uri"], &said["user"]),
        (&json!("/api/v1/pods?limit=5"), &json!("bob"))
    );
    assert_eq!(said["headers"], json!(["accept", "audit-id"]));
}

#[tokio::test]
async fn connections_are_sent_on_as_they_look_below_the_root() {
    let server = FakeHub::new(0, 0).server();
    let below = "/api/v1/namespaces/shop/pods/web-1%40east/log?tailLines=1";
    for root in ["", "/apis/umbra.dev/v1alpha1/views/all/proxy"] {
        let said = get(&server, &format!("{root}{below}"), &[("authorization", "bob")]).await;
        assert_eq!(said.json()["uri"], json!(below));
    }
}

#[tokio::test]
async fn paths_that_climb_are_refused() {
    let server = FakeHub::new(0, 0).server();
    let path = "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy/../../../api";
    assert_eq!(get(&server, path, &[]).await.code, 400);
}

#[tokio::test]
async fn failures_are_statuses() {
    let server = FakeHub::new(0, 0).server();
    let missing = get(&server, "/api/v1/namespaces/shop/pods/missing", &[]).await;
    assert_eq!(
        (missing.code.as_u16(), &missing.json()["message"]),
        (404, &json!("pods \"missing\" not found"))
    );
    let nothing = get(&server, "/api/v1/chairs", &[]).await;
    let message = json!("the server could not find the requested resource");
    assert_eq!((nothing.code.as_u16(), &nothing.json()["message"]), (404, &message));
    for path in [
        "/api/v1/namespaces/shop/pods/a/none",
        "/api/v1/pods/a",
        "/nowhere",
        "/openapi/v4",
    ] {
        assert_eq!(get(&server, path, &[]).await.code, 404, "{path}");
    }
    let panicked = get(&server, "/api/v1/namespaces/shop/pods/panics", &[]).await;
    assert_eq!(
        (panicked.code.as_u16(), &panicked.json()["reason"]),
        (500, &json!("InternalError"))
    );
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(get(&server, POD, &protobuf).await.code, 406);
    assert_eq!(send(&server, request("POST", POD, &[], "{}")).await.code, 405);
    assert_eq!(send(&server, request("POST", "/version", &[], "{}")).await.code, 405);
    let delete = send(
        &server,
        request("DELETE", "/api/v1/namespaces/shop/pods/a/status", &[], ""),
    )
    .await;
    assert_eq!(
        delete.json()["message"],
        "delete is not supported on resources of kind \"pods\""
    );
}

#[tokio::test(start_paused = true)]
async fn requests_have_deadlines() {
    let server = FakeHub::new(0, 0).server();
    let started = tokio::time::Instant::now();
    let hanging = get(&server, "/api/v1/namespaces/shop/pods/hangs?timeout=5s", &[]).await;
    assert_eq!(
        (hanging.code.as_u16(), &hanging.json()["reason"]),
        (504, &json!("Timeout"))
    );
    assert_eq!(started.elapsed().as_secs(), 5);
    get(&server, "/api/v1/namespaces/shop/pods/hangs?timeout=1h", &[]).await;
    assert_eq!(started.elapsed().as_secs(), 65);
    let limits = Limits {
        request_timeout: std::time::Duration::from_secs(7),
        ..Limits::default()
    };
    let brief = FakeHub::new(0, 0).server_with(|builder| builder.limits(limits));
    get(&brief, "/api/v1/namespaces/shop/pods/hangs", &[]).await;
    assert_eq!(started.elapsed().as_secs(), 72);
    assert_eq!(
        get(&server, "/api/v1/namespaces/shop/pods/a?timeout=soon", &[])
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn answers_say_what_they_are_about() {
    let server = FakeHub::new(0, 0).server();
    let answer = get(&server, "/api/v1/namespaces/shop/pods/warns", &[("audit-id", "abc")]).await;
    assert_eq!(answer.headers["warning"], "299 - \"cluster c3 unreachable\"");
    assert_eq!(answer.headers["audit-id"], "abc");
    assert_eq!(answer.headers["cache-control"], "no-cache, private");
    assert_eq!(get(&server, POD, &[]).await.headers["audit-id"].len(), 36);
}

#[tokio::test]
async fn health_names_what_fails() {
    let hub = FakeHub::new(0, 0);
    let checks = Checks {
        live: Vec::new(),
        ready: vec![Check::new("store", || Err("no leader".to_owned()))],
    };
    let server = hub.server_with(|builder| builder.checks(checks));
    let ready = get(&server, "/readyz", &[]).await;
    assert_eq!(ready.code, 500);
    assert!(
        ready.text().contains("[-]store failed: reason withheld\n"),
        "{}",
        ready.text()
    );
    assert_eq!(get(&server, "/readyz?exclude=store", &[]).await.code, 200);
    assert!(get(&server, "/readyz/store", &[]).await.text().contains("no leader"));
    assert!(
        get(&server, "/livez?verbose", &[])
            .await
            .text()
            .ends_with("livez check passed\n")
    );
    let server = hub.server();
    assert_eq!(get(&server, "/readyz", &[]).await.text(), "ok");
    server.fail_readiness();
    assert!(get(&server, "/readyz", &[]).await.text().contains("[-]shutdown failed"));
    assert_eq!(get(&server, "/livez", &[]).await.code, 200);
}

#[tokio::test]
async fn too_many_are_sent_away_until_one_is_done() {
    use tower::ServiceExt as _;
    let server: ApiServer = FakeHub::new(0, 0).server_with(|builder| builder.in_flight(1, 1));
    let held = server.clone().oneshot(request("GET", POD, &[], "")).await.unwrap();
    let refused = get(&server, POD, &[]).await;
    assert_eq!(
        (refused.code.as_u16(), refused.headers["retry-after"].to_str().unwrap()),
        (429, "1")
    );
    drop(held);
    assert_eq!(get(&server, POD, &[]).await.code, 200);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_gives_its_place_back() {
    let item = Item::open("children.attacks.unread");
    let server: ApiServer = FakeHub::new(0, 0).server_with(|builder| builder.in_flight(1, 1));
    let read = async |held: http::Response<Body>| held.into_body().collect().await;
    let held = server.clone().oneshot(request("GET", POD, &[], "")).await.unwrap();
    let (soon, late) = (Instant::now() + STALL / 2, Instant::now() + STALL * 2);
    assert_eq!(server.unread().sweep(soon), 0);
    assert_eq!(get(&server, POD, &[]).await.code, 429);
    assert_eq!(server.unread().sweep(late), 1);
    assert!(read(held).await.is_err(), "it does not look whole");
    let answered = server.clone().oneshot(request("GET", POD, &[], "")).await.unwrap();
    assert!(read(answered).await.is_ok());
    assert_eq!(server.unread().count(), 0);
    item.pass("429 until it is given up, then served");
}

#[tokio::test]
async fn who_was_asked_is_known_over_http2_too() {
    let server = FakeHub::new(0, 0).server();
    let uri = "https://hub:7443/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy/api";
    let headers = &get(&server, uri, &[]).await.json()["headers"];
    assert!(headers.as_array().unwrap().contains(&json!("host")), "{headers}");
}

#[tokio::test]
async fn requests_are_counted() {
    let server = FakeHub::new(0, 0).server();
    get(&server, POD, &[]).await;
    let text = get(&server, "/metrics", &[]).await.text().to_owned();
    let line = r#"umbra_apiserver_requests_total{root="hub",verb="get",group="",resource="pods",code="200"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains(r#"umbra_apiserver_current_requests{request_kind="read"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn watches_of_old_count_as_watches_and_are_served_by_children_alone() {
    let server = FakeHub::new(1, 0).server();
    let child = "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy/api/v1/watch/namespaces/shop/pods";
    assert_eq!(get(&server, child, &[]).await.code, 200);
    for path in [
        "/api/v1/watch/namespaces/shop/pods",
        "/api/v1/proxy/namespaces/shop/pods/a",
        "/api/v1/watch",
    ] {
        assert_eq!(get(&server, path, &[]).await.code, 404, "{path}");
    }
    let text = get(&server, "/metrics", &[]).await.text().to_owned();
    let line = r#"umbra_apiserver_requests_total{root="cluster",verb="watch",group="",resource="pods",code="200"} 1"#;
    assert!(text.contains(line), "{text}");
    let line = r#"umbra_apiserver_proxied_requests_total{cluster="member1",verb="watch",code="200"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn a_request_whose_client_goes_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let rotation = Rotation {
        max_size: u64::MAX,
        max_backups: 0,
        max_age: Duration::ZERO,
    };
    let (log, writer) = AuditLog::open(Destination::File(path.clone(), rotation)).unwrap();
    let server = FakeHub::new(1, 0).server_with(|builder| builder.audit(Some(log.clone())));
    let hanging = server
        .clone()
        .oneshot(request("GET", "/api/v1/namespaces/shop/pods/hangs", &[], ""));
    let mut hanging = Box::pin(hanging);
    assert!(futures::poll!(&mut hanging).is_pending());
    drop(hanging);
    assert_eq!(get(&server, POD, &[]).await.code, 200);
    log.end();
    writer.run().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                &event["stage"],
                &event["objectRef"]["name"],
                &event["responseStatus"]["code"],
            )
        })
        .collect();
    let complete = json!("ResponseComplete");
    assert_eq!(
        told,
        [
            (&complete, &json!("hangs"), &json!(499)),
            (&complete, &json!("a"), &json!(200))
        ]
    );
}
