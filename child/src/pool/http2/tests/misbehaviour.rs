//! Peers and callers that do what they should not: it concerns them alone.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{connection::Child, testing::in_memory};

/// Answers every request as `answer` does, until what is returned is dropped.
fn served<A, F>(mut peer: Peer, answer: A) -> GoesOn
where
    A: Fn(http::Request<RecvStream>, server::SendResponse<Bytes>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let stopped = stop.clone();
    let serving = async move {
        while let Some(Ok((request, respond))) = peer.accept().await {
            tasks.spawn(stopped.clone().run_until_cancelled_owned(answer(request, respond)));
        }
    };
    TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(serving));
    GoesOn(stop)
}

fn ask(path: &str) -> Request<Body> {
    Request::get(format!("https://c1{path}")).body(empty()).unwrap()
}

#[tokio::test]
async fn headers_that_are_too_long_end_one_request() {
    let (mut sender, peer, _permits) = connected(10).await;
    let _served = served(peer, |request, mut respond| async move {
        let length = request.uri().path()[1..].parse().unwrap();
        let response = Response::builder().header("x-long", "x".repeat(length)).body(());
        respond.send_response(response.unwrap(), true).unwrap();
    });
    // More CONTINUATION frames than `h2` takes where frames may be long, and all that Go's servers take.
    let long = soon(sender.send(ask("/1000000"), None)).await.ok().unwrap();
    assert_eq!(long.headers()["x-long"].len(), 1_000_000);
    let longer = soon(sender.send(ask("/5000000"), None)).await.err().unwrap();
    assert!(matches!(longer.error, ProtocolError::HeadersTooLong { .. }));
    soon(sender.send(ask("/1"), None)).await.ok().unwrap();
}

#[tokio::test]
async fn small_pieces_that_nobody_reads_harm_nobody() {
    const PIECES: usize = 60_000;
    let (mut sender, peer, _permits) = connected_as(10, true).await;
    let _served = served(peer, |request, mut respond| async move {
        let pieces = if request.uri().path() == "/log" { PIECES } else { 1 };
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        for number in 1..=pieces {
            body.send_data(Bytes::from_static(b"x"), number == pieces).unwrap();
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let unread = soon(sender.send(ask("/log"), None)).await.ok().unwrap();
    for _ in 0..1000 {
        let other = soon(sender.send(ask("/"), None)).await.ok().unwrap();
        assert_eq!(soon(other.into_body().collect()).await.unwrap().to_bytes(), "x");
    }
    assert_eq!(
        soon(unread.into_body().collect()).await.unwrap().to_bytes().len(),
        PIECES
    );
}

#[tokio::test]
async fn what_breaks_here_counts_until_the_peer_has_heard_of_it() {
    let (mut sender, mut peer, permits) = connected(2).await;
    let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
    let (request, frames) = post();
    let (failed, ()) = tokio::join!(sender.send(request, Some(permit)), async {
        frames.send(Err("broken".into())).await.unwrap();
    });
    assert!(failed.is_err());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(permits.available_permits(), 1);
    soon(async {
        tokio::select! {
            both = permits.acquire_many(2) => drop(both.unwrap()),
            () = async { while peer.accept().await.is_some() {} } => unreachable!("the connection stays"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_outlives_its_response_ends_at_once() {
    let (mut sender, peer, _permits) = connected(10).await;
    let (request, frames) = post();
    let (response, (request, _goes_on)) = tokio::join!(sender.send(request, None), async {
        let (request, mut respond, goes_on) = accepted(peer).await;
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("all".into(), true).unwrap();
        (request, goes_on)
    });
    let mut body = response.ok().unwrap().into_body();
    soon(body.frame()).await.unwrap().unwrap();
    assert!(body.is_end_stream());
    drop(body);
    let mut received = request.into_body();
    assert_eq!(
        soon(received.data()).await.unwrap().unwrap_err().reason(),
        Some(Reason::CANCEL)
    );
    soon(frames.closed()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_is_there_though_it_answers_no_pings() {
    /// An empty SETTINGS, and a PING of the peer's own.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let sizes = Sizes {
        streams: 10,
        requests: 10,
        window: 1 << 16,
        reads_ahead: false,
    };
    let io = Connected {
        io: Box::new(near),
        http2: true,
    };
    let (mut sender, permits, _ready) = connect(&shared(), sizes, io).await.ok().unwrap();
    far.write_all(&SETTINGS).await.unwrap();
    let mut sent = vec![0; 1 << 16];
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        far.write_all(&PING).await.unwrap();
        assert!(far.read(&mut sent).await.unwrap() > 0);
        assert!(!sender.is_closed());
    }
    let began = tokio::time::Instant::now();
    while !permits.is_closed() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(26), "{:?}", began.elapsed());
}

/// Refuses the first request of each connection, and answers the others.
#[derive(Debug, Default)]
struct Refuses(TaskTracker);

#[async_trait::async_trait]
impl Connector for Refuses {
    async fn connect(&self, _: Protocol, _: Option<&Arc<ClientCertificate>>) -> std::io::Result<Connected> {
        let (near, far) = tokio::io::duplex(1 << 20);
        self.0.spawn(async move {
            let Ok(mut peer) = server::handshake(far).await else {
                return;
            };
            let first = AtomicBool::new(true);
            while let Some(Ok((_request, mut respond))) = peer.accept().await {
                if first.swap(false, Ordering::SeqCst) {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    let _ = respond.send_response(Response::<()>::default(), true);
                }
            }
        });
        Ok(Connected {
            io: Box::new(near),
            http2: true,
        })
    }
}

#[tokio::test]
async fn what_was_not_processed_is_asked_again_where_it_can_be() {
    let child = || Child::with_connector(in_memory(), Arc::new(Refuses::default()), Default::default()).unwrap();
    soon(child().send(ask("/"))).await.unwrap();
    let (request, _frames) = post();
    let error = soon(child().send(request)).await.err().unwrap();
    assert!(error.is_unprocessed(), "{error}");
}
