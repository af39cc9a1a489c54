//! Connections of one lane to one child.
//!
//! hyper's HTTP/2 client accepts any number of requests and holds those above the peer's stream limit back, for ever
//! when the streams before them are watches (hyperium/hyper#2197). So streams are counted here: each connection has as
//! many permits as it may have streams, the smaller of the lane's limit and what the peer's SETTINGS say, and a request
//! without a permit gets another connection. A permit is given back when the response body ends or is dropped.
//!
//! Windows: `connection window = streams × stream window`, so that bodies nobody reads cannot take the window from those
//! somebody reads (hyperium/hyper#2899).
//!
//! A peer that does not negotiate HTTP/2 gets one HTTP/1.1 connection per request, kept for the next one.

mod driver;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Request, Response, Uri, Version, header::HOST};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::driver::{Driver, Executor, drive};
use crate::{
    body::{Body, boxed},
    credentials::{Credentials, Current},
    error::ChildError,
    transport::{Connected, Connector, Protocol},
};

/// Go's limit for headers (`http.DefaultMaxHeaderBytes`).
pub(crate) const HEADER_LIMIT: usize = 1 << 20;
/// hyper's default of 100 is less than the groups some users have.
const HEADER_COUNT_LIMIT: usize = 2000;
/// A dead peer is noticed within the sum of both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new connection waits for the peer's SETTINGS before it is used with a single stream.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);
/// What hyper assumes before SETTINGS. One, so that nothing is ever queued beyond a limit that is not known yet.
const STREAMS_BEFORE_SETTINGS: usize = 1;
/// HTTP/1.1 connections that wait for the next request: how many, and how long.
const IDLE_LIMIT: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How often a request that was never written is tried on another connection.
const ATTEMPTS: usize = 3;

/// The sizes of one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Streams on one HTTP/2 connection. Go's server allows 100.
    pub(crate) streams: usize,
    /// Requests under way in the whole lane.
    pub(crate) requests: usize,
    /// Bytes a stream may be sent ahead of its reader.
    pub(crate) window: u32,
}

/// What all parts of one child share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<str>,
    pub(crate) server: Arc<str>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// The connections of one lane.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Shared,
    sizes: Sizes,
    permits: Arc<Semaphore>,
    http2: Mutex<Vec<Http2>>,
    http1: Arc<Mutex<Vec<Idle>>>,
    /// One dial at a time; those that wait use what it brings, also a failure.
    dialling: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
    peer_is_http1: AtomicBool,
}

#[derive(Debug)]
struct Http2 {
    sender: http2::SendRequest<Body>,
    streams: Arc<Semaphore>,
    generation: u64,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    generation: u64,
    since: Instant,
}

/// The right to send one request on a connection.
enum Lease {
    Http2 {
        sender: http2::SendRequest<Body>,
        permit: OwnedSemaphorePermit,
    },
    Http1 {
        sender: http1::SendRequest<Body>,
        generation: u64,
    },
}

impl Pool {
    pub(crate) fn new(shared: Shared, sizes: Sizes) -> Self {
        Self {
            shared,
            sizes,
            permits: Arc::new(Semaphore::new(sizes.requests)),
            http2: Mutex::default(),
            http1: Arc::default(),
            dialling: tokio::sync::Mutex::new(None),
            peer_is_http1: AtomicBool::new(false),
        }
    }

    /// A place among the requests of the lane, waited for at most `patience`.
    pub(crate) async fn place(&self, patience: Duration) -> Result<OwnedSemaphorePermit, ChildError> {
        match tokio::time::timeout(patience, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.closed()),
            Err(_) => Err(ChildError::Busy {
                cluster: Arc::clone(&self.shared.cluster),
                limit: self.sizes.requests,
            }),
        }
    }

    /// Sends a request with an absolute URI and waits for the response headers. Cancel safe: dropping the future resets
    /// the stream.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        current: &Current,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, ChildError> {
        let uri = request.uri().clone();
        let mut attempt = 1;
        loop {
            let lease = self.lease(current).await?;
            match lease.send(request, &uri).await {
                Ok((response, lease)) => return Ok(self.with_lease(response, lease, place)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if attempt < ATTEMPTS => {
                        request = unsent;
                        attempt += 1;
                    }
                    _ => {
                        return Err(ChildError::Http {
                            cluster: Arc::clone(&self.shared.cluster),
                            source: failed.into_error(),
                        });
                    }
                },
            }
        }
    }

    /// Forgets all connections. What is under way on them goes on.
    pub(crate) fn discard(&self) {
        self.http2.lock().clear();
        self.http1.lock().clear();
    }

    /// How many HTTP/2 connections there are.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.http2.lock().len()
    }

    fn closed(&self) -> ChildError {
        ChildError::Closed {
            cluster: Arc::clone(&self.shared.cluster),
        }
    }

    fn with_lease(&self, response: Response<Incoming>, lease: Lease, place: OwnedSemaphorePermit) -> Response<Body> {
        let held = match lease {
            Lease::Http2 { permit, .. } => Held::Stream { _permit: permit },
            Lease::Http1 { sender, generation } => Held::Connection {
                idle: Arc::clone(&self.http1),
                sender,
                generation,
            },
        };
        response.map(|body| {
            boxed(LeasedBody {
                body,
                held: Some(held),
                _place: place,
            })
        })
    }

    async fn lease(&self, current: &Current) -> Result<Lease, ChildError> {
        let started = Instant::now();
        if let Some(lease) = self.existing(current.generation) {
            return Ok(lease);
        }
        if self.peer_is_http1.load(Ordering::Relaxed) {
            return self.dial(current).await.map_err(|reason| self.connect_error(reason));
        }
        let mut last_failure = self.dialling.lock().await;
        if let Some(lease) = self.existing(current.generation) {
            return Ok(lease);
        }
        if let Some((_, reason)) = last_failure.as_ref().filter(|(when, _)| *when >= started) {
            return Err(self.connect_error(Arc::clone(reason)));
        }
        match self.dial(current).await {
            Ok(lease) => {
                *last_failure = None;
                Ok(lease)
            }
            Err(reason) => {
                *last_failure = Some((Instant::now(), Arc::clone(&reason)));
                Err(self.connect_error(reason))
            }
        }
    }

    fn connect_error(&self, reason: Arc<str>) -> ChildError {
        if self.shared.cancel.is_cancelled() {
            return self.closed();
        }
        ChildError::Connect {
            cluster: Arc::clone(&self.shared.cluster),
            server: Arc::clone(&self.shared.server),
            reason,
        }
    }

    /// A connection that has room. The first is preferred, so that the others run idle.
    fn existing(&self, generation: u64) -> Option<Lease> {
        {
            let mut connections = self.http2.lock();
            connections.retain(|one| !one.sender.is_closed() && one.generation >= generation);
            for one in connections.iter() {
                if let Ok(permit) = Arc::clone(&one.streams).try_acquire_owned() {
                    return Some(Lease::Http2 {
                        sender: one.sender.clone(),
                        permit,
                    });
                }
            }
        }
        let mut idle = self.http1.lock();
        idle.retain(|one| one.sender.is_ready() && one.generation >= generation && one.since.elapsed() < IDLE_TIME);
        idle.pop().map(|one| Lease::Http1 {
            sender: one.sender,
            generation: one.generation,
        })
    }

    async fn dial(&self, current: &Current) -> Result<Lease, Arc<str>> {
        let dialled = self
            .shared
            .connector
            .connect(Protocol::Any, current.certificate.as_ref());
        let connected = self
            .shared
            .cancel
            .run_until_cancelled(dialled)
            .await
            .ok_or("the connection is closed")?
            .map_err(|error| error.to_string())?;
        self.peer_is_http1.store(!connected.http2, Ordering::Relaxed);
        let lease = if connected.http2 {
            self.http2_connection(connected, current.generation).await
        } else {
            let sender = http1_connection(&self.shared, connected).await;
            sender.map(|sender| Lease::Http1 {
                sender,
                generation: current.generation,
            })
        };
        lease.map_err(|error| error.to_string().into())
    }

    async fn http2_connection(&self, connected: Connected, generation: u64) -> hyper::Result<Lease> {
        let executor = Executor {
            tracker: self.shared.tracker.clone(),
            cancel: self.shared.cancel.clone(),
            settled: Arc::default(),
            polled: Arc::default(),
        };
        let streams = u32::try_from(self.sizes.streams).unwrap_or(u32::MAX);
        let (sender, connection) = http2::Builder::new(executor.clone())
            .timer(TokioTimer::new())
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_stream_window_size(self.sizes.window)
            .initial_connection_window_size(self.sizes.window.saturating_mul(streams))
            .max_frame_size(256 << 10)
            .max_header_list_size(u32::try_from(HEADER_LIMIT).unwrap_or(u32::MAX))
            // Watches end by being reset; a burst of them is no attack.
            .max_pending_accept_reset_streams(1000)
            .max_concurrent_reset_streams(1000)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(connected.io))
            .await?;
        let limit = Arc::new(Semaphore::new(STREAMS_BEFORE_SETTINGS));
        let ready = Arc::new(Notify::new());
        self.shared
            .tracker
            .spawn(self.shared.cancel.clone().run_until_cancelled_owned(drive(
                connection,
                Driver {
                    cluster: Arc::clone(&self.shared.cluster),
                    executor,
                    permits: Arc::clone(&limit),
                    granted: STREAMS_BEFORE_SETTINGS,
                    most: self.sizes.streams,
                    ready: Arc::clone(&ready),
                },
            )));
        let permit = Arc::clone(&limit)
            .try_acquire_owned()
            .expect("a new connection has a permit");
        // A peer that never says more is used one stream at a time.
        let _ = tokio::time::timeout(SETTINGS_WAIT, ready.notified()).await;
        self.http2.lock().push(Http2 {
            sender: sender.clone(),
            streams: limit,
            generation,
        });
        Ok(Lease::Http2 { sender, permit })
    }
}

/// An HTTP/1.1 connection whose task runs until it is closed, or its upgrade is taken over.
pub(crate) async fn http1_connection(shared: &Shared, connected: Connected) -> hyper::Result<http1::SendRequest<Body>> {
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

impl Lease {
    async fn send(
        self,
        mut request: Request<Body>,
        uri: &Uri,
    ) -> Result<(Response<Incoming>, Self), TrySendError<Request<Body>>> {
        match self {
            Self::Http2 { mut sender, permit } => {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = uri.clone();
                request.headers_mut().remove(HOST);
                let response = sender.try_send_request(request).await?;
                Ok((response, Self::Http2 { sender, permit }))
            }
            Self::Http1 { mut sender, generation } => {
                as_http1(&mut request, uri);
                let response = sender.try_send_request(request).await?;
                Ok((response, Self::Http1 { sender, generation }))
            }
        }
    }
}

/// What a response body keeps from others until it ends.
enum Held {
    Stream {
        _permit: OwnedSemaphorePermit,
    },
    Connection {
        idle: Arc<Mutex<Vec<Idle>>>,
        sender: http1::SendRequest<Body>,
        generation: u64,
    },
}

struct LeasedBody {
    body: Incoming,
    held: Option<Held>,
    _place: OwnedSemaphorePermit,
}

impl LeasedBody {
    /// Gives the stream or the connection back, the latter only when the body was read to its end.
    fn release(&mut self) {
        if let Some(Held::Connection {
            idle,
            sender,
            generation,
        }) = self.held.take()
        {
            let mut idle = idle.lock();
            if self.body.is_end_stream() && !sender.is_closed() && idle.len() < IDLE_LIMIT {
                idle.push(Idle {
                    sender,
                    generation,
                    since: Instant::now(),
                });
            }
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
