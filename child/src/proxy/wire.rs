//! What of proxying only shows on a wire: a client's bytes, a hub, and a child that speaks either protocol.

mod attacks;

use std::{
    convert::Infallible,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use umbra_show::Item;

use super::*;
use crate::{
    body::{empty, full},
    boxed,
    testing::{Server, Speaks},
    transport::{Connector as _, DirectConnector, Io, Protocol},
    upgrade::HeldBySession,
};

const HTTP1: Speaks = Speaks {
    alpn: &[b"http/1.1"],
    streams: 100,
};
/// `hello` as gzip makes it, more or less: nobody here looks into it.
const COMPRESSED: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0";

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("in time")
}

async fn api(mut request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/echo" => {
            let encodings = request.headers().get("accept-encoding").cloned();
            let mut response = Response::new(boxed(request.into_body()));
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("x-sum"));
            if let Some(encodings) = encodings {
                response.headers_mut().insert("x-encodings", encodings);
            }
            response
        }
        "/compressed" => {
            let mut response = Response::new(full(COMPRESSED));
            let headers = response.headers_mut();
            headers.insert("content-encoding", HeaderValue::from_static("gzip"));
            headers.insert("warning", HeaderValue::from_static("299 - \"careful\""));
            headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
            headers.insert("connection", HeaderValue::from_static("x-mine"));
            headers.insert("x-mine", HeaderValue::from_static("1"));
            response
        }
        "/breaks" => {
            // More than is on the way at once, so that the answer has begun when it breaks.
            let begin = (0..64).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 64 << 10]))));
            let first = futures::stream::iter(begin);
            let broken = futures::stream::once(async { Err(std::io::Error::other("broken")) });
            Response::new(boxed(StreamBody::new(first.chain(broken))))
        }
        "/breaks-at-once" => {
            // What is in front of the turn is sent.
            let broken = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err::<Frame<Bytes>, _>(std::io::Error::other("broken"))
            });
            Response::new(boxed(StreamBody::new(Box::pin(broken))))
        }
        "/breaks-later" => {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"begin")))]);
            let broken = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("broken"))
            });
            Response::new(boxed(StreamBody::new(first.chain(Box::pin(broken)))))
        }
        "/unasked" => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        }
        "/of-the-origin" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
            trailers.insert("x-sum", HeaderValue::from_static("1"));
            let frames = [
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
                Ok(Frame::trailers(trailers)),
            ];
            let mut response = Response::new(boxed(StreamBody::new(futures::stream::iter(frames))));
            for (name, value) in [
                ("set-cookie", "a=b"),
                ("clear-site-data", "*"),
                ("service-worker-allowed", "/"),
                ("trailer", "set-cookie, x-sum"),
                ("content-security-policy", "sandbox"),
            ] {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }
        "/length" => {
            let said = request.headers().get("content-length").cloned();
            let read = request.into_body().collect().await;
            let read = read.map_or("broken".into(), |read| read.to_bytes());
            Response::new(full(format!("said {said:?}, read {read:?}")))
        }
        "/names" => {
            let mut names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
            let read = request.into_body().collect().await.expect("read");
            let trailers = read.trailers().into_iter().flat_map(HeaderMap::keys);
            names.extend(trailers.map(|name| format!("{name} behind the body")));
            Response::new(full(names.join("\n")))
        }
        "/exec" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio_util::task::TaskTracker::new().spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
                stream.write_all(b"hello").await.expect("written");
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.expect("read to the end");
            });
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            response
        }
        _ => {
            let mut response = Response::new(full("nothing here"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

/// What sessions of the hub hold, while they are open.
type Sessions = Arc<Mutex<Vec<Weak<()>>>>;

/// A hub that sends everything to one child, as jane.
async fn hub(child: Child) -> (Server, Sessions) {
    let sessions = Sessions::default();
    let seen = Arc::clone(&sessions);
    let server = Server::start(HTTP1, move |mut request: Request<Incoming>| {
        let (child, seen) = (child.clone(), Arc::clone(&seen));
        async move {
            let held = Arc::new(());
            seen.lock().push(Arc::downgrade(&held));
            request.extensions_mut().insert(HeldBySession(held));
            if request.uri().query() != Some("lasts") {
                request
                    .extensions_mut()
                    .insert(RequestDeadline(Duration::from_secs(20)));
            }
            let jane = UserInfo::new("jane", ["dev"]);
            match forward(&child, request.map(boxed), &jane, &ProxyOptions::default()).await {
                Ok(response) => response,
                Err(error) => {
                    let mut response = Response::new(full(error.to_string()));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response
                }
            }
        }
    })
    .await;
    (server, sessions)
}

async fn connect(hub: &Server) -> Box<dyn Io> {
    let connector = DirectConnector::new(&hub.config()).expect("a connector");
    soon(connector.connect(Protocol::Http1, None))
        .await
        .expect("a connection")
        .io
}

/// Reads until `end` has been read, or the connection has ended.
async fn read_until(io: &mut Box<dyn Io>, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        // An end that is no clean one is one all the same.
        if soon(io.read_buf(&mut read)).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn a_client_sees_what_it_would_see_of_the_child() {
    let item = Item::open("children.proxying");
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let child = Child::new(server.config()).expect("a child");
        let (hub, _) = hub(child.clone()).await;
        let mut io = connect(&hub).await;

        // Uploads in chunks come back while they are sent, with what follows them.
        io.write_all(
            b"POST /echo HTTP/1.1\r\nHost: hub\r\nTE: trailers\r\nTrailer: x-sum\r\nAccept-Encoding: gzip\r\n\
              Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        )
        .await
        .expect("written");
        let begun = read_until(&mut io, "first\r\n").await;
        assert!(begun.starts_with("HTTP/1.1 200 OK\r\n"), "{begun}");
        assert!(begun.contains("x-encodings: gzip\r\n"), "{begun}");
        io.write_all(b"6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n")
            .await
            .expect("written");
        let rest = read_until(&mut io, "0\r\nx-sum: 11\r\n\r\n").await;
        assert!(rest.contains("second"), "{rest}");
        assert!(
            rest.ends_with("0\r\nx-sum: 11\r\n\r\n"),
            "the trailers are passed on: {rest}"
        );

        // A body that the client holds back until it is asked for.
        io.write_all(b"PUT /echo HTTP/1.1\r\nHost: hub\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await
            .expect("written");
        let asked = read_until(&mut io, "\r\n\r\n").await;
        assert!(asked.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{asked}");
        io.write_all(b"body").await.expect("written");
        let answer = read_until(&mut io, "body").await;
        assert!((asked + &answer).contains("HTTP/1.1 200 OK\r\n"), "{answer}");
        drop(io);

        let request = Request::get("/compressed").body(empty()).expect("a request");
        let jane = UserInfo::new("jane", ["dev"]);
        let compressed = soon(forward(&child, request, &jane, &ProxyOptions::default()))
            .await
            .expect("an answer");
        assert_eq!(compressed.headers()["content-encoding"], "gzip");
        assert_eq!(compressed.headers()["warning"], "299 - \"careful\"");
        for name in ["keep-alive", "connection"] {
            assert!(!compressed.headers().contains_key(name), "{name}");
        }
        let body = soon(crate::collect(compressed.into_body(), 100))
            .await
            .expect("read")
            .expect("short");
        assert_eq!(body, COMPRESSED);
        soon(child.close()).await;
    }
    item.pass("chunks, trailers, 100-continue, gzip, warnings: as from the child, over HTTP/2 and HTTP/1.1");
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_look_whole() {
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let child = Child::new(server.config()).expect("a child");
        let (hub, _) = hub(child).await;
        let mut io = connect(&hub).await;
        io.write_all(b"GET /breaks HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
            .await
            .expect("written");
        let mut answer = Vec::new();
        let _ = soon(io.read_to_end(&mut answer)).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{} bytes look like all", answer.len());
    }
}

/// Sends the bytes of a request and reads what comes until the connection ends.
async fn answered(hub: &Server, request: &str) -> String {
    let mut io = connect(hub).await;
    io.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    // An end that is no clean one is one all the same.
    let _ = soon(io.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_before_it_begins_and_broken_after() {
    let item = Item::open("children.proxying.reset");
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let (hub, _) = hub(Child::new(server.config()).expect("a child")).await;
        for _ in 0..20 {
            let answer = answered(&hub, &get("/breaks-at-once")).await;
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
            assert!(answer.contains("cluster "), "it names the cluster: {answer}");
        }
    }
    // A reset of HTTP/2 may overtake what is in front of it.
    let server = Server::start(HTTP1, api).await;
    let (hub, _) = hub(Child::new(server.config()).expect("a child")).await;
    for path in ["/breaks-later", "/breaks-later?lasts"] {
        let answer = answered(&hub, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.ends_with("begin\r\n"), "{answer:?}");
    }
    item.pass("reset before the body: 502; later: the answer is cut; over HTTP/2 and HTTP/1.1");
}

#[tokio::test]
async fn what_a_session_holds_is_held_as_long_as_it_lasts() {
    let server = Server::start(Speaks::default(), api).await;
    let (hub, sessions) = hub(Child::new(server.config()).expect("a child")).await;
    let mut io = connect(&hub).await;
    io.write_all(b"POST /exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        .await
        .expect("written");
    let answer = read_until(&mut io, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let held = sessions.lock()[0].clone();
    assert!(held.upgrade().is_some(), "the session is open");
    io.shutdown().await.expect("ended");
    soon(async {
        while held.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn paths_that_climb_are_not_sent() {
    let server = Server::start(Speaks::default(), |request: Request<Incoming>| async move {
        Response::new(boxed(StreamBody::new(futures::stream::iter([Ok::<_, Infallible>(
            Frame::data(Bytes::from(request.uri().path().to_owned())),
        )]))))
    })
    .await;
    let child = Child::new(server.config()).expect("a child");
    let jane = UserInfo::new("jane", ["dev"]);
    for (path, sent) in [
        ("//elsewhere.example/api", Some("/elsewhere.example/api")),
        ("/api/v1//pods", Some("/api/v1/pods")),
        ("/api/v1/pods%3Fwatch=1", Some("/api/v1/pods%3Fwatch=1")),
        ("/api/v1/../../x", None),
        ("/api/v1/%2e%2E/x", None),
        ("/api/v1/namespaces/a/pods/b/proxy/..;/x", None),
    ] {
        let request = Request::get(path).body(empty()).expect("a request");
        let answer = soon(forward(&child, request, &jane, &ProxyOptions::default())).await;
        match (answer, sent) {
            (Ok(answer), Some(sent)) => {
                let body = soon(crate::collect(answer.into_body(), 100)).await.expect("read");
                assert_eq!(body.expect("short"), sent);
            }
            (Err(ChildError::Path(_)), None) => {}
            (answer, _) => panic!("{path}: {answer:?}"),
        }
    }
}
