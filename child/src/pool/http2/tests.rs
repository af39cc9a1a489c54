use std::time::Duration;

use futures::poll;
use h2::{Reason, RecvStream, server};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    body::{BodyError, boxed, empty, full},
    credentials::{ClientCertificate, Credentials, CredentialsConfig},
    tests::soon,
    transport::{Connector, Protocol},
};

/// What nobody asks for a connection here.
#[derive(Debug)]
struct Nowhere;

#[async_trait::async_trait]
impl Connector for Nowhere {
    async fn connect(&self, _: Protocol, _: Option<&Arc<ClientCertificate>>) -> std::io::Result<Connected> {
        unreachable!("connections are made by hand")
    }
}

mod misbehaviour;

type Peer = server::Connection<DuplexStream, Bytes>;

fn shared() -> Shared {
    Shared {
        cluster: "c1".into(),
        server: "https://c1".into(),
        connector: Arc::new(Nowhere),
        credentials: Arc::new(Credentials::new(CredentialsConfig::default())),
        expected: None,
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    }
}

/// A connection to a peer that allows `streams`, the peer, and the permits.
async fn connected(streams: u32) -> (Sender, Peer, Arc<Semaphore>) {
    connected_as(streams, false).await
}

/// The same, which may read ahead of its readers.
async fn connected_as(streams: u32, reads_ahead: bool) -> (Sender, Peer, Arc<Semaphore>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let sizes = Sizes {
        streams: 100,
        requests: 100,
        window: 1 << 16,
        reads_ahead,
    };
    let connected = Connected {
        io: Box::new(near),
        http2: true,
    };
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(streams);
    let shared = shared();
    let (connection, peer) = tokio::join!(connect(&shared, sizes, connected), builder.handshake::<_, Bytes>(far));
    let (sender, permits, ready) = connection.ok().unwrap();
    let mut peer = peer.unwrap();
    soon(async {
        tokio::select! {
            () = ready.notified() => {}
            _ = peer.accept() => unreachable!("nothing has been sent"),
        }
    })
    .await;
    (sender, peer, permits)
}

/// Lets the peer go on until it is dropped.
struct GoesOn(CancellationToken);

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The next request, and how it is answered.
async fn accepted(mut peer: Peer) -> (http::Request<RecvStream>, server::SendResponse<Bytes>, GoesOn) {
    let (request, respond) = soon(peer.accept()).await.unwrap().unwrap();
    let stop = CancellationToken::new();
    let goes_on = async move { while peer.accept().await.is_some() {} };
    TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(goes_on));
    (request, respond, GoesOn(stop))
}

fn reason_of(error: &ProtocolError) -> Option<Reason> {
    match error {
        ProtocolError::Http2(error) => error.reason(),
        _ => None,
    }
}

fn get() -> Request<Body> {
    Request::get("https://c1/").body(empty()).unwrap()
}

/// A request whose body comes from what is returned.
fn post() -> (Request<Body>, mpsc::Sender<Result<Frame<Bytes>, BodyError>>) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let request = Request::post("https://c1/").body(boxed(StreamBody::new(frames)));
    (request.unwrap(), sender)
}

#[tokio::test]
async fn what_is_reset_has_not_ended() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let (mut sender, peer, _permits) = connected(10).await;
        let answered = async {
            let (_request, mut respond, goes_on) = accepted(peer).await;
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data("half".into(), false).unwrap();
            (body, goes_on)
        };
        let (response, (mut sent, _goes_on)) = tokio::join!(sender.send(get(), None), answered);
        let mut body = response.ok().unwrap().into_body();
        assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
        sent.send_reset(reason);
        let end = soon(body.frame()).await;
        assert_eq!(reason_of(&end.unwrap().unwrap_err()), Some(reason));
    }
}

#[tokio::test]
async fn the_peer_hears_of_what_is_given_up_before_there_is_more() {
    let (mut sender, mut peer, permits) = connected(2).await;
    assert_eq!(permits.available_permits(), 2);
    for _ in 0..2 {
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        let mut request = Box::pin(sender.send(get(), Some(permit)));
        assert!(poll!(&mut request).is_pending());
    }
    // The driver runs, the peer does not: nothing comes back.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(permits.available_permits(), 0);
    let both = Arc::clone(&permits).acquire_many_owned(2);
    soon(async {
        tokio::select! {
            both = both => drop(both.unwrap()),
            () = async { while peer.accept().await.is_some() {} } => unreachable!("the connection stays"),
        }
    })
    .await;
}

#[tokio::test]
async fn what_has_ended_frees_its_stream_at_once() {
    let (mut sender, peer, permits) = connected(2).await;
    let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
    let answered = async {
        let (_request, mut respond, goes_on) = accepted(peer).await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("whole".into(), true).unwrap();
        goes_on
    };
    let (response, _goes_on) = tokio::join!(sender.send(get(), Some(permit)), answered);
    let body = response.ok().unwrap().into_body();
    assert_eq!(permits.available_permits(), 1);
    assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "whole");
    assert_eq!(permits.available_permits(), 2);
}

#[tokio::test]
async fn a_body_goes_on_beside_its_response_and_ends_with_it() {
    let (mut sender, peer, _permits) = connected(10).await;
    let (request, frames) = post();
    let (response, (request, mut respond, _goes_on)) = tokio::join!(sender.send(request, None), async {
        let (request, mut respond, goes_on) = accepted(peer).await;
        let body = respond.send_response(Response::new(()), false).unwrap();
        (request, body, goes_on)
    });
    let mut received = request.into_body();
    let response = response.ok().unwrap();
    for part in ["one", "two"] {
        frames.send(Ok(Frame::data(part.into()))).await.unwrap();
        assert_eq!(soon(received.data()).await.unwrap().unwrap(), part);
    }
    respond.send_data("answer".into(), false).unwrap();
    drop(response);
    let broken = soon(received.data()).await.unwrap().unwrap_err();
    assert_eq!(broken.reason(), Some(Reason::CANCEL));
    soon(frames.closed()).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_look_whole() {
    let (mut sender, peer, _permits) = connected(10).await;
    let (request, frames) = post();
    let answered = async {
        frames.send(Ok(Frame::data("half".into()))).await.unwrap();
        let (request, _respond, _goes_on) = accepted(peer).await;
        let mut received = request.into_body();
        assert_eq!(soon(received.data()).await.unwrap().unwrap(), "half");
        frames.send(Err("broken".into())).await.unwrap();
        let end = soon(received.data()).await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL));
    };
    let (response, ()) = tokio::join!(sender.send(request, None), answered);
    assert!(response.err().unwrap().unsent.is_none(), "a part of it was sent");
}

#[tokio::test]
async fn trailers_and_lengths_travel() {
    let (mut sender, peer, _permits) = connected(10).await;
    let (request, frames) = post();
    let answered = async {
        let (request, mut respond, goes_on) = accepted(peer).await;
        assert!(!request.headers().contains_key(CONTENT_LENGTH));
        let mut received = request.into_body();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        frames.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
        assert!(soon(received.data()).await.is_none());
        assert_eq!(soon(received.trailers()).await.unwrap().unwrap(), trailers);
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_trailers(trailers).unwrap();
        goes_on
    };
    let (response, _goes_on) = tokio::join!(sender.send(request, None), answered);
    let body = soon(response.ok().unwrap().into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "1");

    let length = |method: Method, body: Body| {
        let (mut head, body) = Request::builder().method(method).body(body).unwrap().into_parts();
        say_length(&mut head, &body);
        head.headers
            .get(CONTENT_LENGTH)
            .map(|length| length.to_str().unwrap().to_owned())
    };
    assert_eq!(length(Method::POST, full("four")).as_deref(), Some("4"));
    assert_eq!(length(Method::POST, empty()).as_deref(), Some("0"));
    assert_eq!(length(Method::DELETE, full("four")).as_deref(), Some("4"));
    assert_eq!(length(Method::DELETE, empty()), None);
    assert_eq!(length(Method::GET, empty()), None);
}

#[tokio::test]
async fn a_peer_that_goes_away_gets_no_more() {
    let (mut sender, mut peer, _permits) = connected(10).await;
    assert!(!sender.is_closed());
    peer.graceful_shutdown();
    soon(async {
        // Ends once the other side has closed, which it does when it has nothing under way.
        let _ = peer.accept().await;
    })
    .await;
    soon(async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let failed = soon(sender.send(get(), None)).await.err().unwrap();
    assert!(failed.unsent.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_pings_is_given_up() {
    let (mut sender, peer, permits) = connected(10).await;
    let began = tokio::time::Instant::now();
    let failed = sender.send(get(), None).await.err().unwrap();
    assert!(failed.unsent.is_none());
    assert_eq!(began.elapsed(), Duration::from_secs(25));
    assert!(sender.is_closed());
    assert!(permits.is_closed());
    drop(peer);
}
