//! How much is done at once, and what a slow reader costs.

mod proxies;
mod time;

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use umbra_show::Item;

use super::*;
use crate::{
    body::{Body, boxed},
    testing::{Server, Speaks},
    tests::{get, soon, text},
};

async fn api(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/never" => std::future::pending().await,
        _ => text(StatusCode::OK, "ok"),
    }
}

#[tokio::test]
async fn what_is_above_a_limit_waits_and_the_queue_is_bounded() {
    let item = Item::open("children.limits");
    let (server, other) = (
        Server::start(Speaks::default(), api).await,
        Server::start(Speaks::default(), api).await,
    );
    let limits = Limits {
        requests: 2,
        upgrades: 1,
        ..Limits::default()
    };
    let child = Child::new(ChildConfig {
        limits,
        ..server.config()
    })
    .expect("a child");
    let mut held: Vec<_> = (0..4).map(|_| Box::pin(child.send(get("/never")))).collect();
    for request in &mut held {
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    // Two are under way, two wait: one more is told at once.
    let error = soon(child.send(get("/api"))).await.expect_err("no room");
    assert!(matches!(error, ChildError::Busy { limit: 2, .. }), "{error}");
    // Neither other lanes nor other children are concerned.
    soon(child.send_watch(get("/api"))).await.expect("an answer");
    let other = Child::new(other.config()).expect("a child");
    soon(other.send(get("/api"))).await.expect("an answer");
    // A place that becomes free goes to who waits.
    let mut waiting = Box::pin(child.send(get("/api")));
    held.truncate(2);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    held.clear();
    soon(waiting).await.expect("an answer");
    // Another limit counts from now on.
    child.set_limits(Limits { requests: 1, ..limits });
    let mut first = Box::pin(child.send(get("/never")));
    let mut second = Box::pin(child.send(get("/never")));
    assert!(futures::poll!(first.as_mut()).is_pending() && futures::poll!(second.as_mut()).is_pending());
    let error = soon(child.send(get("/api"))).await.expect_err("no room");
    assert!(matches!(error, ChildError::Busy { limit: 1, .. }), "{error}");
    item.pass("2 under way, 2 waiting, the next refused at once; another lane and another child served");
}

/// Bytes that a stream sends, in MiB: `STREAM_MIB`, 64 by default.
fn stream_length() -> u64 {
    let given = std::env::var("STREAM_MIB").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(64_u64) << 20
}

#[tokio::test]
async fn a_reader_that_stalls_holds_its_own_stream_alone() {
    const CHUNK: usize = 64 << 10;
    /// The window of the stream, what hyper's server buffers (400 KiB), and what both kernels take of a socket.
    const AHEAD: u64 = 16 << 20;
    let item = Item::open("children.backpressure");
    let (produced, length) = (Arc::new(AtomicU64::new(0)), stream_length());
    let counter = Arc::clone(&produced);
    let server = Server::start(Speaks::default(), move |request: Request<Incoming>| {
        let counter = Arc::clone(&counter);
        async move {
            if request.uri().path() != "/log" {
                return text(StatusCode::OK, "ok");
            }
            let chunk = Bytes::from(vec![b'x'; CHUNK]);
            let chunks = length / CHUNK as u64;
            let frames = futures::stream::iter(0..chunks).map(move |_| {
                counter.fetch_add(CHUNK as u64, Ordering::SeqCst);
                Ok::<_, Infallible>(Frame::data(chunk.clone()))
            });
            Response::new(boxed(StreamBody::new(frames)))
        }
    })
    .await;
    let child = Child::new(server.config()).expect("a child");
    let mut response = soon(child.send_on(Lane::Streams, get("/log")))
        .await
        .expect("an answer");
    let (mut read, mut most) = (0_u64, 0_u64);
    // Nobody reads the log meanwhile.
    for _ in 0..200 {
        soon(child.send(get("/api"))).await.expect("an answer");
    }
    while let Some(frame) = soon(response.body_mut().frame()).await {
        let data = frame.expect("a frame").into_data().expect("data");
        most = most.max(produced.load(Ordering::SeqCst) - read);
        read += data.len() as u64;
    }
    assert_eq!(read, length);
    assert!(most <= AHEAD, "{most} bytes ahead of the reader");
    item.pass(&format!(
        "{} MiB sent, at most {} KiB ahead of its reader",
        length >> 20,
        most >> 10
    ));
}
