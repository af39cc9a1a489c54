//! `exec`, `attach`, `port-forward`: SPDY and WebSocket connections, spliced byte for byte.
//!
//! The handshake goes to the child on an HTTP/1.1 connection of its own. When the child answers 101, the caller gets the
//! same 101 and both byte streams are joined; anything else is relayed like any response. Nothing in between understands
//! what is said.
//!
//! For this reason nobody changes to a protocol in which requests could be made (`h2c`, `TLS/1.0`, `HTTP/2.0`): those would go
//! to the child by the hub's connection, as the hub, and nobody would look at them. A request that asks for nothing else is an
//! ordinary one.
//!
//! An end of stream is passed on as one. After the first, the other direction goes on as long as bytes move, and ends after
//! [`DRAIN`] without any: peers that never close their side would otherwise keep sessions for ever, and cutting at the
//! first end, as Go's `UpgradeAwareHandler` does, loses the last output.

use std::{
    any::Any,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    body::{Body, empty},
    connection::{Child, UpgradeSlot},
    error::ChildError,
    proxy::{self, ProxyOptions, tokens},
};

/// How long a session lives without a byte once one side has ended.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long both sides may take to switch protocols after the 101.
const SWITCH: Duration = Duration::from_secs(10);
/// What is read at once. Terminals need little and `kubectl cp` gains nothing from more.
const BUFFER: usize = 32 << 10;

const PROTOCOLS: HeaderName = HeaderName::from_static("sec-websocket-protocol");
/// How browsers send a token (`k8s.io/apiserver/pkg/authentication/request/websocket`).
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// A request extension: what is dropped when the session that the request opens has ended, or when there is none.
#[derive(Clone)]
pub struct HeldBySession(pub Arc<dyn Any + Send + Sync>);

impl std::fmt::Debug for HeldBySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldBySession")
    }
}

/// Protocols that carry requests, without their versions (IANA's registry of upgrade tokens).
const CARRY_REQUESTS: [&str; 5] = ["h2", "h2c", "h3", "http", "tls"];

/// The protocols that are named, but those that carry requests.
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, &UPGRADE).filter(|protocol| {
        let name = protocol.split('/').next().unwrap_or_default().trim();
        !CARRY_REQUESTS.iter().any(|one| name.eq_ignore_ascii_case(one))
    })
}

/// Whether a request asks for another protocol that it may get.
#[must_use]
pub fn is_requested(headers: &HeaderMap) -> bool {
    protocols(headers).next().is_some()
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Removes the caller's token from the subprotocols.
pub(crate) fn strip_bearer_protocol(headers: &mut HeaderMap) {
    if !tokens(headers, &PROTOCOLS).any(|protocol| protocol.starts_with(BEARER_PROTOCOL)) {
        return;
    }
    let kept: Vec<&str> = tokens(headers, &PROTOCOLS)
        .filter(|one| !one.starts_with(BEARER_PROTOCOL))
        .collect();
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !kept.is_empty() => headers.insert(PROTOCOLS, value),
        _ => headers.remove(PROTOCOLS),
    };
}

/// Sends a request for an upgrade on. The splice runs in a task of the child until either side ends it, the child is
/// removed, or the process stops.
pub(crate) async fn forward(
    child: &Child,
    mut request: Request<Body>,
    impersonation: HeaderMap,
    options: &ProxyOptions,
) -> Result<Response<Body>, ChildError> {
    if request.version() > Version::HTTP_11 || request.extensions().get::<OnUpgrade>().is_none() {
        return Err(ChildError::NotUpgradable);
    }
    let caller = hyper::upgrade::on(&mut request);
    let held = request.extensions_mut().remove::<HeldBySession>();
    let asked: Vec<String> = protocols(request.headers()).map(str::to_owned).collect();
    let protocol = HeaderValue::from_str(&asked.join(", ")).map_err(http::Error::from)?;
    let mut outbound = proxy::outbound(request, impersonation)?;
    outbound
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    outbound.headers_mut().insert(UPGRADE, protocol);
    let mut response = child.upgrade(outbound).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return proxy::inbound(child, response, options);
    }
    let upgrade = response.headers().get(UPGRADE).cloned();
    let is_asked_for = |protocol: &str| asked.iter().any(|one| one.eq_ignore_ascii_case(protocol));
    if !tokens(response.headers(), &UPGRADE).all(is_asked_for) {
        return Err(ChildError::Protocol {
            cluster: Arc::clone(child.name()),
            message: "it changes to a protocol that it was not asked for",
        });
    }
    let slot = response.extensions_mut().remove::<UpgradeSlot>();
    let peer = hyper::upgrade::on(&mut response);
    let cancel = child.cancellation().clone();
    let cluster = Arc::clone(child.name());
    child.tracker().spawn(async move {
        let _kept = (slot, held);
        match cancel.run_until_cancelled(splice(caller, peer)).await {
            Some(Ok((sent, received))) => tracing::debug!(%cluster, sent, received, "session ended"),
            Some(Err(error)) => tracing::debug!(%cluster, %error, "session broke off"),
            None => tracing::debug!(%cluster, "session cut"),
        }
    });
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    proxy::strip_connection_headers(answer.headers_mut());
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(upgrade) = upgrade {
        answer.headers_mut().insert(UPGRADE, upgrade);
    }
    Ok(answer)
}

/// Joins both sides once they have switched. Returns the bytes from the caller and those from the child.
async fn splice(caller: OnUpgrade, child: OnUpgrade) -> io::Result<(u64, u64)> {
    let switched = async { tokio::try_join!(caller, child) };
    let (caller, child) = tokio::time::timeout(SWITCH, switched)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the protocol was not switched"))?
        .map_err(io::Error::other)?;
    join(TokioIo::new(caller), TokioIo::new(child), DRAIN).await
}

/// Copies in both directions until both have ended, or one has and nothing moves for `drain`.
async fn join<A, B>(a: A, b: B, drain: Duration) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let (there_count, back_count) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut there = std::pin::pin!(copy(a_read, b_write, &there_count));
    let mut back = std::pin::pin!(copy(b_read, a_write, &back_count));
    let totals = || (there_count.load(Ordering::Relaxed), back_count.load(Ordering::Relaxed));
    tokio::select! {
        ended = &mut there => {
            ended?;
            drained(back, &back_count, drain).await?;
        }
        ended = &mut back => {
            ended?;
            drained(there, &there_count, drain).await?;
        }
    }
    Ok(totals())
}

/// Waits for the direction that is left, as long as it moves.
async fn drained(copying: impl Future<Output = io::Result<()>>, moved: &AtomicU64, drain: Duration) -> io::Result<()> {
    let mut copying = std::pin::pin!(copying);
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(drain, &mut copying).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Copies to the end of `from`, then ends `to`.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_other_direction_goes_on() {
        let (mut client, hub_side) = duplex(64);
        let (hub_other, mut server) = duplex(64);
        let joined = join(hub_side, hub_other, Duration::from_secs(60));
        let talk = async {
            client.write_all(b"question").await.expect("written");
            client.shutdown().await.expect("shut down");
            let mut question = String::new();
            server.read_to_string(&mut question).await.expect("read to the end");
            server.write_all(b"answer").await.expect("written");
            server.shutdown().await.expect("shut down");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("read to the end");
            (question, answer)
        };
        let (moved, (question, answer)) = tokio::join!(joined, talk);
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        assert_eq!(moved.expect("joined"), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_never_ends_is_left_when_nothing_moves() {
        let (client, hub_side) = duplex(64);
        let (hub_other, _server) = duplex(64);
        drop(client);
        let moved = join(hub_side, hub_other, DRAIN).await.expect("joined");
        assert_eq!(moved, (0, 0));
    }

    #[test]
    fn upgrades_are_recognised() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, upgrade"));
        assert!(!is_requested(&headers));
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(is_requested(&headers));
        headers.insert(
            PROTOCOLS,
            HeaderValue::from_static("base64url.bearer.authorization.k8s.io.eA"),
        );
        strip_bearer_protocol(&mut headers);
        assert!(!headers.contains_key(PROTOCOLS));
    }
}
