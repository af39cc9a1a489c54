//! HTTP/1.1 connections: one request at a time, kept for the next one.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Request, Response, Uri, Version, header::HOST};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{HEADER_LIMIT, Place, Shared};
use crate::{
    body::{Body, boxed},
    transport::Connected,
};

/// hyper's default of 100 is less than the groups some users have.
const HEADER_COUNT_LIMIT: usize = 2000;
/// Connections that wait for the next request: how many, and how long.
const IDLE_LIMIT: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(60);

/// A connection that waits for the next request.
#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    generation: u64,
    since: Instant,
}

/// A connection, the generation of the credentials it was made with, and the epoch it was made in.
type Leased = (http1::SendRequest<Body>, u64, u64);

/// The connections that wait. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct IdleConnections(Arc<Connections>);

#[derive(Debug, Default)]
struct Connections {
    idle: Mutex<Vec<Idle>>,
    /// How often all connections were forgotten. One of an earlier epoch is not kept.
    epoch: AtomicU64,
}

impl IdleConnections {
    /// One that was made with credentials of this generation or later, and which generation that was.
    pub(super) fn take(&self, generation: u64) -> Option<Leased> {
        let mut idle = self.0.idle.lock();
        idle.retain(|one| one.sender.is_ready() && one.generation >= generation && one.since.elapsed() < IDLE_TIME);
        let epoch = self.epoch();
        idle.pop().map(|one| (one.sender, one.generation, epoch))
    }

    /// How often all connections were forgotten.
    pub(super) fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::SeqCst)
    }

    /// Forgets all, those under way too.
    pub(super) fn clear(&self) {
        let mut idle = self.0.idle.lock();
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        idle.clear();
    }

    /// The response, whose body gives the connection back once it is read to its end.
    pub(super) fn returned_by(&self, response: Response<Incoming>, leased: Leased, place: Place) -> Response<Body> {
        response.map(|body| {
            boxed(LeasedBody {
                body,
                held: Some(leased),
                idle: self.clone(),
                _place: place,
            })
        })
    }
}

/// An HTTP/1.1 connection whose task runs until it is closed, or its upgrade is taken over.
pub(super) async fn connect(shared: &Shared, connected: Connected) -> hyper::Result<http1::SendRequest<Body>> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(HEADER_COUNT_LIMIT)
        .max_buf_size(HEADER_LIMIT)
        .handshake(TokioIo::new(connected.io))
        .await?;
    let cluster = Arc::clone(&shared.cluster);
    let ended = shared
        .cancel
        .clone()
        .run_until_cancelled_owned(connection.with_upgrades());
    shared.tracker.spawn(ended.map(move |ended| {
        if let Some(Err(error)) = ended {
            tracing::debug!(%cluster, %error, "HTTP/1.1 connection ended");
        }
    }));
    Ok(sender)
}

/// Makes `request` one of HTTP/1.1: origin form and `Host`.
pub(crate) fn as_http1(request: &mut Request<Body>, uri: &Uri) {
    *request.version_mut() = Version::HTTP_11;
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    if let Some(host) = uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        request.headers_mut().insert(HOST, host);
    }
}

struct LeasedBody {
    body: Incoming,
    held: Option<Leased>,
    idle: IdleConnections,
    _place: Place,
}

impl LeasedBody {
    /// Gives the connection back, when the body was read to its end.
    fn release(&mut self) {
        let Some((sender, generation, epoch)) = self.held.take() else {
            return;
        };
        let mut idle = self.idle.0.idle.lock();
        if epoch == self.idle.epoch() && self.body.is_end_stream() && !sender.is_closed() && idle.len() < IDLE_LIMIT {
            idle.push(Idle {
                sender,
                generation,
                since: Instant::now(),
            });
        }
    }
}

impl http_body::Body for LeasedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.release();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LeasedBody {
    fn drop(&mut self) {
        self.release();
    }
}
