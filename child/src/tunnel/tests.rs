//! A hub and agents over pipes in memory; behind the agents a real server with TLS.
#![expect(clippy::disallowed_methods, reason = "what a test spawns ends with its runtime")]

use std::{future::pending, io, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
};
use umbra_apimachinery::user::UserInfo;

use super::{
    TooManyTunnels, Tunnels,
    agent::{self, Ending, Tunnel},
    mux,
};
use crate::{
    Authorization, Body, Child, ChildConfig, CredentialsConfig, Io, Secret, collect, full,
    proxy::{ProxyOptions, forward},
    testing::{Server, Speaks},
};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("in time")
}

/// Tells who asks, and speaks another protocol where it is asked to.
async fn api(mut request: Request<Incoming>) -> Response<Body> {
    if request.headers().contains_key(header::UPGRADE) {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut read, &mut write).await.expect("echoed");
            write.shutdown().await.expect("ended");
        });
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert(header::CONNECTION, "Upgrade".parse().expect("a header"));
        response
            .headers_mut()
            .insert(header::UPGRADE, "SPDY/3.1".parse().expect("a header"));
        return response;
    }
    if request.uri().path() == "/never" {
        pending::<()>().await;
    }
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let said = format!(
        "{} {} {} {}",
        text("authorization"),
        text("impersonate-user"),
        text("x-remote-user"),
        text("cookie")
    );
    Response::new(full(said))
}

/// The agent's own handle on its API server.
fn own(server: &Server) -> Child {
    let mut config = server.config();
    config.credentials = CredentialsConfig {
        certificate: None,
        authorization: Authorization::Token(Secret::new("agent")),
    };
    Child::new(config).expect("a child")
}

fn held(tunnels: &Tunnels, io: DuplexStream) {
    let slot = tunnels.reserve("c1", "a").expect("room");
    tunnels.hold(slot, async { Ok(Box::new(io) as Box<dyn Io>) }, pending());
}

/// An agent whose tunnel `tunnels` holds.
async fn connect(tunnels: &Tunnels, own: &Child, ending: &Ending) -> JoinHandle<io::Result<()>> {
    let (hub_side, agent_side) = duplex(64 << 10);
    held(tunnels, hub_side);
    let tunnel = Tunnel {
        io: Box::new(agent_side),
        extensions: http::Extensions::new(),
    };
    let (own, ending) = (own.clone(), ending.clone());
    let served = tokio::spawn(async move { agent::serve(tunnel, &own, &ending).await });
    let mut changes = tunnels.subscribe();
    soon(changes.wait_for(|held| held.contains("c1"))).await.expect("held");
    served
}

/// The hub's handle on the cluster.
fn tunnelled(tunnels: &Tunnels) -> Child {
    let mut config = ChildConfig::new("c1", "https://c1.tunnel".parse().expect("a URL"));
    config.connector = Some(tunnels.connector("c1"));
    Child::new(config).expect("a child")
}

async fn said(child: &Child, headers: &[(&'static str, &'static str)]) -> String {
    let mut request = Request::get("/api").body(crate::empty()).expect("a request");
    let extra: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect();
    request.headers_mut().extend(extra);
    let user = UserInfo::new("alice", ["dev"]);
    let response = forward(child, request, &user, &ProxyOptions::default())
        .await
        .expect("answered");
    let body = collect(response.into_body(), 1 << 20)
        .await
        .expect("read")
        .expect("short");
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn the_agent_sends_requests_on_with_its_own_credential() {
    let server = Server::start(Speaks::default(), api).await;
    let (tunnels, own) = (Tunnels::new(), own(&server));
    let ending = Ending::default();
    let served = connect(&tunnels, &own, &ending).await;
    let child = tunnelled(&tunnels);
    let forged = [
        ("authorization", "Bearer forged"),
        ("impersonate-user", "root"),
        ("x-remote-user", "root"),
        ("cookie", "a=b"),
    ];
    assert_eq!(soon(said(&child, &forged)).await, "Bearer agent alice - -");

    let upgrade = Request::get("/exec")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .body(crate::empty())
        .expect("a request");
    let mut response = soon(child.upgrade(upgrade)).await.expect("answered");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut upgraded = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.expect("upgraded"));
    upgraded.write_all(b"hello").await.expect("written");
    upgraded.shutdown().await.expect("ended");
    let mut echoed = String::new();
    soon(upgraded.read_to_string(&mut echoed)).await.expect("read");
    assert_eq!(echoed, "hello");

    ending.stop.cancel();
    soon(served).await.expect("no panic").expect("ended well");
    let error = soon(child.get_json::<serde_json::Value>("/api"))
        .await
        .expect_err("gone");
    assert!(error.to_string().contains("no agent"), "{error}");
}

#[tokio::test]
async fn an_agent_that_goes_gets_no_more_and_another_takes_over() {
    let server = Server::start(Speaks::default(), api).await;
    let (tunnels, own) = (Tunnels::new(), own(&server));
    let (first, second) = (Ending::default(), Ending::default());
    let first_served = connect(&tunnels, &own, &first).await;
    let child = tunnelled(&tunnels);
    soon(said(&child, &[])).await;
    let second_served = connect(&tunnels, &own, &second).await;
    first.stop.cancel();
    soon(first_served).await.expect("no panic").expect("ended well");
    for _ in 0..20 {
        assert_eq!(soon(said(&child, &[])).await, "Bearer agent alice - -");
    }
    assert!(!second_served.is_finished());
    // The hub goes: it says so, and the agent may have another tunnel before this one ends.
    tunnels.drain();
    soon(second.unwanted.cancelled()).await;
    assert_eq!(soon(said(&child, &[])).await, "Bearer agent alice - -");
    soon(tunnels.close()).await;
    soon(second_served).await.expect("no panic").ok();
    assert!(tunnels.held().is_empty());
}

#[tokio::test]
async fn what_is_revoked_is_cut_at_once() {
    let server = Server::start(Speaks::default(), api).await;
    let (tunnels, own) = (Tunnels::new(), own(&server));
    let (hub_side, agent_side) = duplex(64 << 10);
    let (revoke, revoked) = tokio::sync::oneshot::channel::<String>();
    let slot = tunnels.reserve("c1", "a").expect("room");
    tunnels.hold(slot, async { Ok(Box::new(hub_side) as Box<dyn Io>) }, async {
        revoked.await.expect("revoked")
    });
    let tunnel = Tunnel {
        io: Box::new(agent_side),
        extensions: http::Extensions::new(),
    };
    let serving = tokio::spawn(async move { agent::serve(tunnel, &own, &Ending::default()).await });
    let mut changes = tunnels.subscribe();
    soon(changes.wait_for(|held| held.contains("c1"))).await.expect("held");
    let child = tunnelled(&tunnels);
    let hanging = tokio::spawn(async move {
        let request = Request::get("/never").body(crate::empty()).expect("a request");
        child.send(request).await.map(drop)
    });
    tokio::task::yield_now().await;
    revoke.send("a test".to_owned()).expect("still held");
    soon(serving).await.expect("no panic").ok();
    assert!(
        soon(hanging).await.expect("no panic").is_err(),
        "what was under way is cut"
    );
    assert!(tunnels.held().is_empty());
}

#[tokio::test]
async fn an_agent_that_opens_streams_is_cut() {
    let tunnels = Tunnels::new();
    let (hub_side, agent_side) = duplex(64 << 10);
    held(&tunnels, hub_side);
    // An agent that behaves as if it were the hub.
    let (opens, asked) = mpsc::channel(1);
    let evil = tokio::spawn(mux::open_streams(agent_side, asked));
    let (sender, receiver) = tokio::sync::oneshot::channel();
    opens.send(sender).await.expect("asked");
    if let Ok(mut stream) = soon(receiver).await {
        // Whether it can be written depends on who is faster.
        let _ = stream.write_all(b"h").await;
        let _ = stream.flush().await;
    }
    soon(evil).await.expect("no panic").ok();
    let mut changes = tunnels.subscribe();
    soon(changes.wait_for(|held| held.is_empty())).await.expect("cut");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_silent_is_taken_for_dead() {
    let tunnels = Tunnels::new();
    let (hub_side, agent_side) = duplex(64 << 10);
    held(&tunnels, hub_side);
    // It takes streams, and says nothing on any.
    let (sender, mut streams) = mpsc::channel(8);
    let accepting = tokio::spawn(mux::accept_streams(agent_side, sender));
    let control = soon(streams.recv()).await.expect("the stream of heartbeats");
    let mut changes = tunnels.subscribe();
    changes.wait_for(|held| held.contains("c1")).await.expect("held");
    changes.wait_for(|held| held.is_empty()).await.expect("given up");
    drop(control);
    soon(accepting).await.expect("no panic").ok();
}

#[tokio::test]
async fn there_are_no_more_tunnels_than_there_is_room_for() {
    let tunnels = Tunnels::new();
    let all_of = |agent: &str| {
        let mut slots = Vec::new();
        loop {
            match tunnels.reserve("c1", agent) {
                Ok(slot) => slots.push(slot),
                Err(full) => return (slots, full),
            }
        }
    };
    let (mut first, full) = all_of("a");
    assert_eq!((first.len(), full), (8, TooManyTunnels::OfAgent));
    let (second, _) = all_of("b");
    assert_eq!(second.len(), 8);
    let cluster = "c1".into();
    assert_eq!(all_of("c").1, TooManyTunnels::OfCluster { cluster });
    tunnels.reserve("c2", "a").expect("another cluster has room of its own");

    // One that is held counts until it has ended, and what comes later does not cut it.
    let (hub_side, agent_side) = duplex(64 << 10);
    let slot = first.pop().expect("one of eight");
    tunnels.hold(slot, async { Ok(Box::new(hub_side) as Box<dyn Io>) }, pending());
    tunnels.reserve("c1", "a").expect_err("full");
    drop(agent_side);
    let freed = async {
        while tunnels.reserve("c1", "a").is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
    drop((first, second));
    assert_eq!(all_of("a").0.len(), 8);
}

/// Sends `count` frames of one byte on each of the streams 1, 3 and 5, as nobody does who means well.
async fn drip(agent: DuplexStream, count: usize) -> DuplexStream {
    let (mut from, mut to) = tokio::io::split(agent);
    let batch: Vec<u8> = (0..3000_u32)
        .flat_map(|index| {
            let stream = u8::try_from(index % 3 * 2 + 1).expect("1, 3 or 5");
            [0, 0, 0, 0, 0, 0, 0, stream, 0, 0, 0, 1, b'x']
        })
        .collect();
    let sending = async {
        for _ in 0..count / 1000 {
            if to.write_all(&batch).await.is_err() {
                return;
            }
        }
    };
    let mut ignored = vec![0; 64 << 10];
    let ignoring = async { while matches!(from.read(&mut ignored).await, Ok(1..)) {} };
    tokio::select! {
        () = sending => {}
        () = ignoring => {}
    }
    from.unsplit(to)
}

/// Three streams of a tunnel whose agent is `drip`.
async fn three(opens: &mpsc::Sender<mux::Open>) -> Vec<mux::Stream> {
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        opens.send(sender).await.expect("asked");
        let mut stream = soon(receiver).await.expect("opened");
        stream.write_all(b"h").await.expect("written");
        stream.flush().await.expect("sent");
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn an_agent_that_sends_byte_by_byte_is_cut_where_nobody_reads() {
    let (hub_side, agent_side) = duplex(64 << 10);
    let (opens, asked) = mpsc::channel(1);
    let hub = tokio::spawn(mux::open_streams(hub_side, asked));
    let streams = three(&opens).await;
    let agent = tokio::spawn(drip(agent_side, 200_000));
    let error = soon(hub).await.expect("no panic").expect_err("cut");
    assert!(error.to_string().contains("frames wait"), "{error}");
    drop(soon(agent).await);
    drop(streams);
}

#[tokio::test]
async fn an_agent_may_send_byte_by_byte_what_is_read() {
    let (hub_side, agent_side) = duplex(64 << 10);
    let (opens, asked) = mpsc::channel(1);
    let hub = tokio::spawn(mux::open_streams(hub_side, asked));
    let mut reading = Vec::new();
    for mut stream in three(&opens).await {
        reading.push(tokio::spawn(async move {
            let mut bytes = vec![0; 200_000];
            stream.read_exact(&mut bytes).await.map(drop)
        }));
    }
    let agent = drip(agent_side, 200_000).await;
    for reading in reading {
        soon(reading).await.expect("no panic").expect("all of it");
    }
    drop(agent);
    soon(hub).await.expect("no panic").ok();
}
