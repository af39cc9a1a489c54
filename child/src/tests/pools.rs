//! Connections that are shared, replaced and given up.

use super::*;
use crate::{ChildConfig, ChildError, RequestDeadline};
use http_body_util::BodyExt as _;

#[tokio::test]
async fn a_child_is_spoken_to_in_the_protocol_it_knows() {
    for (speaks, version) in [(Speaks::default(), "HTTP/2.0"), (HTTP1, "HTTP/1.1")] {
        let (server, child) = started(speaks).await;
        for _ in 0..3 {
            let seen: serde_json::Value = soon(child.get_json("/api/v1/pods?limit=1")).await.expect("JSON");
            assert_eq!(seen["version"], version);
            assert_eq!(seen["path"], "/api/v1/pods?limit=1");
        }
        assert_eq!(server.accepted(), 1, "{version}: the connection is kept");
        soon(child.close()).await;
        assert!(matches!(
            soon(child.send(get("/x"))).await,
            Err(ChildError::Closed { .. } | ChildError::Http { .. })
        ));
    }
}

#[tokio::test]
async fn a_path_of_the_server_prefixes_all_requests() {
    let server = Server::start(Speaks::default(), api).await;
    let mut config = server.config();
    config.server = format!("https://{}/k8s/clusters/c-1/", server.address)
        .parse()
        .expect("a URL");
    let child = Child::new(config).expect("a child");
    let seen: serde_json::Value = soon(child.get_json("/api?x")).await.expect("JSON");
    assert_eq!(seen["path"], "/k8s/clusters/c-1/api?x");
}

#[tokio::test]
async fn more_watches_than_a_connection_carries_and_requests_beside_them() {
    let (_server, child) = started(Speaks::default()).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let mut lines = soon(child.watch_lines("/watch")).await.expect("a watch");
        assert_eq!(soon(lines.next()).await.expect("a line").expect("a line"), "first");
        watches.push(lines);
    }
    assert_eq!(child.watch_connections(), 3);
    soon(child.get_json::<serde_json::Value>("/api"))
        .await
        .expect("not behind the watches");
    // What ends makes room on the first connection.
    watches.truncate(40);
    let mut again = soon(child.watch_lines("/watch")).await.expect("a watch");
    assert_eq!(soon(again.next()).await.expect("a line").expect("a line"), "first");
    assert_eq!(child.watch_connections(), 3);
}

#[tokio::test]
async fn the_peers_stream_limit_is_respected() {
    let (server, child) = started(Speaks {
        streams: 3,
        ..Speaks::default()
    })
    .await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let mut lines = soon(child.watch_lines("/watch")).await.expect("a watch");
        soon(lines.next()).await.expect("a line").expect("a line");
        watches.push(lines);
    }
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    for speaks in [Speaks::default(), HTTP1] {
        let (_server, child) = started(speaks).await;
        let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        let body = boxed(StreamBody::new(receiver));
        let request = Request::post("/echo").body(body).expect("a request");
        let mut sender = sender;
        sender
            .try_send(Ok(Frame::data(Bytes::from_static(b"one"))))
            .expect("room");
        let mut response = soon(child.send(request)).await.expect("a response");
        // The second chunk is written after the first has come back.
        let first = soon(response.body_mut().frame())
            .await
            .expect("a frame")
            .expect("a frame");
        assert_eq!(first.into_data().expect("data"), "one");
        sender
            .try_send(Ok(Frame::data(Bytes::from_static(b"two"))))
            .expect("room");
        drop(sender);
        let rest = soon(collect(response.into_body(), 100))
            .await
            .expect("read")
            .expect("short");
        assert_eq!(rest, "two");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_deadline() {
    let (_server, child) = started(Speaks::default()).await;
    let mut request = get("/never");
    request
        .extensions_mut()
        .insert(RequestDeadline(Duration::from_millis(50)));
    let error = soon(child.send(request)).await.expect_err("a failure");
    assert!(matches!(error, ChildError::Timeout { .. }), "{error}");
    // The connection is still good.
    soon(child.send(get("/api"))).await.expect("an answer");

    // One that accepts and says nothing at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = silent.local_addr().expect("an address");
    let child = Child::new(ChildConfig {
        insecure_skip_tls_verify: true,
        ..ChildConfig::new("silent", format!("https://{address}").parse().expect("a URL"))
    })
    .expect("a child");
    let started = tokio::time::Instant::now();
    let (one, two) = soon(async { tokio::join!(child.send(get("/a")), child.send(get("/b"))) }).await;
    for error in [one.expect_err("a failure"), two.expect_err("a failure")] {
        assert!(
            error.is_unreachable() && error.to_string().contains("no connection within 5 s"),
            "{error}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "those that wait share one failure"
    );
}

#[tokio::test]
async fn requests_that_are_given_up_leave_nothing_behind() {
    let (server, child) = started(Speaks::default()).await;
    soon(child.send(get("/api"))).await.expect("an answer");
    for _ in 0..1000 {
        // More than the lane has places: each is dropped while it waits for its response.
        let mut request = std::pin::pin!(child.send(get("/never")));
        assert!(futures::poll!(request.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    soon(child.send(get("/api"))).await.expect("an answer");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_the_child_closes_is_replaced() {
    for speaks in [Speaks::default(), HTTP1] {
        let (server, child) = started(speaks).await;
        soon(child.send(get("/api"))).await.expect("an answer");
        server.close_connections();
        // One that was being written when the end came may fail; then a new connection is dialled.
        soon(async {
            while child.send(get("/api")).await.is_err() || server.accepted() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn forgotten_connections_are_not_kept_for_the_next_request() {
    for speaks in [Speaks::default(), HTTP1] {
        let (server, child) = started(speaks).await;
        let under_way = soon(child.send(get("/api"))).await.expect("an answer");
        child.discard_connections();
        json(under_way).await;
        json(soon(child.send(get("/api"))).await.expect("an answer")).await;
        json(soon(child.send(get("/api"))).await.expect("an answer")).await;
        assert_eq!(server.accepted(), 2);
    }
}
