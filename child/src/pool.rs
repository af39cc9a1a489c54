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
//! A connection is used once it has said that it leads to the right cluster ([`verify`]).
//!
//! A peer that does not negotiate HTTP/2 gets one HTTP/1.1 connection per request, kept for the next one.

mod driver;
mod places;
mod verify;

use std::{
    io,
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
pub(crate) use self::{
    places::{Full, Places},
    verify::Expected,
};
use crate::{
    body::{Body, boxed},
    credentials::{Credentials, Current},
    error::ChildError,
    failure::Failure,
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
    /// Which cluster connections have to lead to, where that is known.
    pub(crate) expected: Option<Expected>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// The connections of one lane.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Shared,
    sizes: Sizes,
    places: Places,
    http2: Mutex<Vec<Http2>>,
    http1: Arc<Mutex<Vec<Idle>>>,
    /// One dial at a time; those that wait use what it brings, also a failure.
    dialling: tokio::sync::Mutex<Option<(Instant, DialFailure)>>,
    peer_is_http1: AtomicBool,
}

/// Why there is no connection. All that waited for one share it.
#[derive(Debug, Clone)]
pub(crate) enum DialFailure {
    Connect { failure: Failure, reason: Arc<str> },
    CredentialsRefused,
    WrongCluster { expected: Arc<str>, found: Arc<str> },
}

impl DialFailure {
    pub(crate) fn new(failure: Failure, reason: impl Into<Arc<str>>) -> Self {
        Self::Connect {
            failure,
            reason: reason.into(),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        Self::new(Failure::of_io(error), error.to_string())
    }
}

impl Shared {
    /// The failure of a connection as the error of a request.
    pub(crate) fn connect_error(&self, failure: DialFailure) -> ChildError {
        let cluster = Arc::clone(&self.cluster);
        if self.cancel.is_cancelled() {
            return ChildError::Closed { cluster };
        }
        match failure {
            DialFailure::Connect { failure, reason } => ChildError::Connect {
                cluster,
                server: self.connector.way().unwrap_or_else(|| Arc::clone(&self.server)),
                reason,
                failure,
            },
            DialFailure::CredentialsRefused => ChildError::CredentialsRefused { cluster },
            DialFailure::WrongCluster { expected, found } => ChildError::WrongCluster {
                cluster,
                expected,
                found,
            },
        }
    }

    /// The error of a request that found no place.
    pub(crate) fn busy(&self, full: Full) -> ChildError {
        ChildError::Busy {
            cluster: Arc::clone(&self.cluster),
            limit: full.limit,
        }
    }

    /// An HTTP/1.1 connection of its own that leads to the right cluster, for an upgrade.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn connect_http1(&self, current: &Current) -> Result<http1::SendRequest<Body>, DialFailure> {
        let mut ways = self.connector.ways();
        loop {
            match self.connect_http1_once(current).await {
                Err(failure) if self.goes_another_way(&failure, &mut ways) => {}
                connected => return connected,
            }
        }
    }

    /// Goes to another endpoint where one leads to another cluster and not all of `ways` have been tried. Whether it does.
    fn goes_another_way(&self, failure: &DialFailure, ways: &mut usize) -> bool {
        *ways = ways.saturating_sub(1);
        matches!(failure, DialFailure::WrongCluster { .. }) && *ways > 0 && self.connector.avoid()
    }

    async fn connect_http1_once(&self, current: &Current) -> Result<http1::SendRequest<Body>, DialFailure> {
        let connected = self.connector.connect(Protocol::Http1, current.certificate.as_ref());
        let connected = connected.await.map_err(|error| DialFailure::of_io(&error))?;
        self.speak_http1(connected, current).await
    }

    /// The same on a stream that is open.
    ///
    /// # Errors
    /// When it leads elsewhere, or is broken.
    pub(crate) async fn speak_http1(
        &self,
        connected: Connected,
        current: &Current,
    ) -> Result<http1::SendRequest<Body>, DialFailure> {
        let mut sender = http1_connection(self, connected)
            .await
            .map_err(|error| DialFailure::new(Failure::ConnectionLost, error.to_string()))?;
        self.verify_http1(&mut sender, current).await?;
        Ok(sender)
    }
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
pub(crate) enum Lease {
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
            places: Places::new(sizes.requests),
            http2: Mutex::default(),
            http1: Arc::default(),
            dialling: tokio::sync::Mutex::new(None),
            peer_is_http1: AtomicBool::new(false),
        }
    }

    /// Allows as many requests from now on.
    pub(crate) fn set_limit(&self, requests: usize) {
        self.places.set(requests);
    }

    /// A place among the requests of the lane, waited for at most `patience` and at most 10 s.
    pub(crate) async fn place(&self, patience: Duration) -> Result<OwnedSemaphorePermit, ChildError> {
        let place = self.places.take(patience).await;
        place.map_err(|full| self.shared.busy(full))
    }

    /// Sends a request with an absolute URI on `lease`, or on another connection where that one has just been closed, and
    /// waits for the response headers. Cancel safe: dropping the future resets the stream.
    pub(crate) async fn send(
        &self,
        mut lease: Lease,
        mut request: Request<Body>,
        current: &Current,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, ChildError> {
        let uri = request.uri().clone();
        let mut attempt = 1;
        loop {
            match lease.send(request, &uri).await {
                Ok((response, lease)) => return Ok(self.with_lease(response, lease, place)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if attempt < ATTEMPTS => {
                        request = unsent;
                        attempt += 1;
                        lease = self.lease(current).await?;
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

    /// A connection with room for a request.
    ///
    /// # Errors
    /// When there is none and none can be made. [`ChildError::CredentialsRefused`] when the child refuses `current` on a new one.
    pub(crate) async fn lease(&self, current: &Current) -> Result<Lease, ChildError> {
        let failed = |failure| self.shared.connect_error(failure);
        let started = Instant::now();
        if let Some(lease) = self.existing(current.generation) {
            return Ok(lease);
        }
        if self.peer_is_http1.load(Ordering::Relaxed) {
            return self.dial(current).await.map_err(failed);
        }
        let mut last_failure = self.dialling.lock().await;
        if let Some(lease) = self.existing(current.generation) {
            return Ok(lease);
        }
        if let Some((_, failure)) = last_failure.as_ref().filter(|(when, _)| *when >= started) {
            return Err(failed(failure.clone()));
        }
        match self.dial(current).await {
            Ok(lease) => {
                *last_failure = None;
                Ok(lease)
            }
            Err(failure) => {
                *last_failure = Some((Instant::now(), failure.clone()));
                Err(failed(failure))
            }
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

    async fn dial(&self, current: &Current) -> Result<Lease, DialFailure> {
        let mut ways = self.shared.connector.ways();
        loop {
            match self.dial_once(current).await {
                Err(failure) if self.shared.goes_another_way(&failure, &mut ways) => {}
                dialled => return dialled,
            }
        }
    }

    async fn dial_once(&self, current: &Current) -> Result<Lease, DialFailure> {
        let dialled = self
            .shared
            .connector
            .connect(Protocol::Any, current.certificate.as_ref());
        let connected = self
            .shared
            .cancel
            .run_until_cancelled(dialled)
            .await
            .ok_or_else(|| DialFailure::new(Failure::Unreachable, "the connection is closed"))?
            .map_err(|error| DialFailure::of_io(&error))?;
        self.peer_is_http1.store(!connected.http2, Ordering::Relaxed);
        if !connected.http2 {
            return Ok(Lease::Http1 {
                sender: self.shared.speak_http1(connected, current).await?,
                generation: current.generation,
            });
        }
        let connection = self.http2_connection(connected, current.generation).await;
        let (mut lease, connection) =
            connection.map_err(|error| DialFailure::new(Failure::ConnectionLost, error.to_string()))?;
        self.shared.verify(lease.as_new(), current).await?;
        self.http2.lock().push(connection);
        Ok(lease)
    }

    async fn http2_connection(&self, connected: Connected, generation: u64) -> hyper::Result<(Lease, Http2)> {
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
        let connection = Http2 {
            sender: sender.clone(),
            streams: limit,
            generation,
        };
        Ok((Lease::Http2 { sender, permit }, connection))
    }
}

/// An HTTP/1.1 connection whose task runs until it is closed, or its upgrade is taken over.
async fn http1_connection(shared: &Shared, connected: Connected) -> hyper::Result<http1::SendRequest<Body>> {
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
