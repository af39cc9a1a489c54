//! How much is done at once, what a slow reader costs, and what is on the way.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use umbra_show::Item;

use super::*;
use crate::{
    testing::{Front, Server, Speaks},
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

/// A SOCKS 5 proxy for one connection, which it makes to `target`; gives what was asked for: user, password, name, port.
async fn socks(listener: &TcpListener, target: std::net::SocketAddr) -> (String, String, String, u16) {
    let (mut inbound, _) = listener.accept().await.expect("accepted");
    let text = async |length: u8, inbound: &mut TcpStream| {
        let mut bytes = vec![0; usize::from(length)];
        inbound.read_exact(&mut bytes).await.expect("read");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(inbound.read_u8().await.expect("read"), 5);
    let methods = inbound.read_u8().await.expect("read");
    text(methods, &mut inbound).await;
    inbound.write_all(&[5, 2]).await.expect("written");
    assert_eq!(inbound.read_u8().await.expect("read"), 1);
    let length = inbound.read_u8().await.expect("read");
    let user = text(length, &mut inbound).await;
    let length = inbound.read_u8().await.expect("read");
    let password = text(length, &mut inbound).await;
    inbound.write_all(&[1, 0]).await.expect("written");
    let mut request = [0; 4];
    inbound.read_exact(&mut request).await.expect("read");
    assert_eq!(request, [5, 1, 0, 3], "connect to a name");
    let length = inbound.read_u8().await.expect("read");
    let name = text(length, &mut inbound).await;
    let port = inbound.read_u16().await.expect("read");
    inbound
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .expect("written");
    let mut outbound = TcpStream::connect(target).await.expect("connected");
    // Ends with an error when the child leaves.
    let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
    (user, password, name, port)
}

#[tokio::test]
async fn socks_proxies_and_addresses_of_version_6_are_gone_through() {
    let item = Item::open("children.proxies");
    let server = Server::start(Speaks::default(), api).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    for scheme in ["socks5", "socks5h"] {
        let mut config = server.config();
        // Only the proxy knows the name.
        config.server = "https://child.test:6443".parse().expect("a URL");
        config.proxy_url = Some(format!("{scheme}://jane:p%40ss@{address}").parse().expect("a URL"));
        let child = Child::new(config).expect("a child");
        let asked = async {
            let response = child.send(get("/api")).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            drop(response);
            child.close().await;
        };
        let (seen, ()) = soon(async { tokio::join!(socks(&listener, server.address), asked) }).await;
        let wanted = ("jane".to_owned(), "p@ss".to_owned(), "child.test".to_owned(), 6443);
        assert_eq!(seen, wanted, "{scheme}");
    }

    let front = Front::start("[::1]:0", server.address).await;
    let mut config = server.config();
    config.server = format!("https://{}", front.address).parse().expect("a URL");
    config.tls_server_name = Some("child.test".into());
    let child = Child::new(config).expect("a child");
    soon(child.send(get("/api"))).await.expect("an answer");

    // Credentials of a proxy are in no error.
    let mut config = server.config();
    config.proxy_url = Some("socks5://jane:s3cret@127.0.0.1:1".parse().expect("a URL"));
    let error = soon(Child::new(config).expect("a child").send(get("/api")))
        .await
        .expect_err("nobody there");
    let said = format!("{error} {error:?}");
    assert_eq!(error.failure(), crate::Failure::Proxy);
    assert!(said.contains("127.0.0.1:1") && !said.contains("s3cret"), "{said}");
    item.pass("SOCKS 5 with a password and names for the proxy to resolve; an IPv6 address; no password in errors");
}
