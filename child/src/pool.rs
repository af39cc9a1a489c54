//! Connections of one lane to one child.
//!
//! A client of HTTP/2 that accepts any number of requests holds those above the peer's stream limit back, for ever when the
//! streams before them are watches (hyperium/hyper#2197). So streams are counted here: each connection has as
//! many permits as it may have streams, the smaller of the lane's limit and what the peer's SETTINGS say, and a request
//! without a permit gets another connection. A permit is given back when the response body ends or is dropped.
//!
//! Windows: `connection window = streams × stream window`, so that bodies nobody reads cannot take the window from those
//! somebody reads (hyperium/hyper#2899).
//!
//! A connection is used once it has said that it leads to the right cluster ([`verify`]).
//!
//! A peer that does not negotiate HTTP/2 gets one HTTP/1.1 connection per request, kept for the next one.

mod ahead;
mod driver;
mod http1;
mod http2;
mod places;
mod received;
mod shared;
mod upload;
mod verify;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http1::SendRequest as Http1Sender;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::{http1::IdleConnections, http2::as_http2};
pub(crate) use self::{
    http1::as_http1,
    places::{Full, Place, Places},
    shared::{DialFailure, Shared},
    verify::Expected,
};
use crate::{
    body::{Body, boxed},
    credentials::Current,
    error::{ChildError, ProtocolError},
    failure::Failure,
    transport::{Connected, Protocol},
};

/// Go's limit for headers (`http.DefaultMaxHeaderBytes`).
pub(crate) const HEADER_LIMIT: usize = 1 << 20;
/// How long a new connection waits for the peer's SETTINGS before it is used with a single stream.
const SETTINGS_WAIT: Duration = Duration::from_secs(1);
/// What `h2` is to assume before SETTINGS. One, so that nothing is ever queued beyond a limit that is not known yet.
const STREAMS_BEFORE_SETTINGS: usize = 1;
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
    /// Whether what is sent ahead is kept outside of the connection, because readers may stall for long ([`ahead`]).
    pub(crate) reads_ahead: bool,
}

/// The connections of one lane.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Shared,
    sizes: Sizes,
    places: Places,
    http2: Mutex<Vec<Http2>>,
    http1: IdleConnections,
    /// One dial at a time; those that wait use what it brings, also a failure.
    dialling: tokio::sync::Mutex<Option<(Instant, DialFailure)>>,
    peer_is_http1: AtomicBool,
}

#[derive(Debug)]
struct Http2 {
    sender: http2::Sender,
    streams: Arc<Semaphore>,
    generation: u64,
}

/// The right to send one request on a connection.
pub(crate) enum Lease {
    Http2 {
        sender: http2::Sender,
        permit: OwnedSemaphorePermit,
    },
    Http1 {
        sender: Http1Sender<Body>,
        generation: u64,
        epoch: u64,
    },
}

/// A request that has no response, itself where nothing of it was sent, and its place.
struct Unanswered {
    unsent: Option<Box<Request<Body>>>,
    place: Place,
    error: ProtocolError,
}

impl Pool {
    pub(crate) fn new(shared: Shared, sizes: Sizes) -> Self {
        Self {
            shared,
            sizes,
            places: Places::new(sizes.requests),
            http2: Mutex::default(),
            http1: IdleConnections::default(),
            dialling: tokio::sync::Mutex::new(None),
            peer_is_http1: AtomicBool::new(false),
        }
    }

    /// Allows as many requests from now on.
    pub(crate) fn set_limit(&self, requests: usize) {
        self.places.set(requests);
    }

    /// A place among the requests of the lane, waited for at most `patience` and at most 10 s.
    /// Where a user streams, it is one of that user's share.
    pub(crate) async fn place(&self, patience: Duration, user: Option<&Arc<str>>) -> Result<Place, ChildError> {
        let place = self.places.take(patience, user).await;
        place.map_err(|full| self.shared.busy(full))
    }

    /// Sends a request with an absolute URI on `lease`, or on another connection where that one has just been closed, and
    /// waits for the response headers. Cancel safe: dropping the future resets the stream.
    pub(crate) async fn send(
        &self,
        mut lease: Lease,
        mut request: Request<Body>,
        current: &Current,
        mut place: Place,
    ) -> Result<Response<Body>, ChildError> {
        let mut attempt = 1;
        loop {
            let failed = match self.send_on(lease, request, place).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            match failed.unsent {
                Some(unsent) if attempt < ATTEMPTS => {
                    (request, place) = (*unsent, failed.place);
                    attempt += 1;
                    lease = self.lease(current).await?;
                }
                _ => {
                    return Err(ChildError::Http {
                        cluster: Arc::clone(&self.shared.cluster),
                        source: failed.error,
                    });
                }
            }
        }
    }

    /// Forgets all connections. What is under way on them goes on.
    pub(crate) fn discard(&self) {
        // What is being dialled leads where connections are not to lead any more, and is not kept either.
        self.http1.clear();
        self.http2.lock().clear();
    }

    /// How many HTTP/2 connections there are.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.http2.lock().len()
    }

    /// Sends a request on `lease`. What is leased, and the place, are given back when the body of the response ends.
    async fn send_on(
        &self,
        lease: Lease,
        mut request: Request<Body>,
        place: Place,
    ) -> Result<Response<Body>, Unanswered> {
        let uri = request.uri().clone();
        match lease {
            Lease::Http2 { mut sender, permit } => {
                as_http2(&mut request, &uri);
                match sender.send(request, Some(permit)).await {
                    Ok(response) => Ok(response.map(|body| boxed(body.holding(place)))),
                    Err(http2::Failed { unsent, error }) => Err(Unanswered { unsent, place, error }),
                }
            }
            Lease::Http1 {
                mut sender,
                generation,
                epoch,
            } => {
                as_http1(&mut request, &uri);
                match sender.try_send_request(request).await {
                    Ok(response) => Ok(self.http1.returned_by(response, (sender, generation, epoch), place)),
                    Err(mut failed) => Err(Unanswered {
                        unsent: failed.take_message().map(|mut unsent| {
                            *unsent.uri_mut() = uri;
                            Box::new(unsent)
                        }),
                        place,
                        error: failed.into_error().into(),
                    }),
                }
            }
        }
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
            connections.retain_mut(|one| !one.sender.is_closed() && one.generation >= generation);
            for one in connections.iter() {
                if let Ok(permit) = Arc::clone(&one.streams).try_acquire_owned() {
                    return Some(Lease::Http2 {
                        sender: one.sender.clone(),
                        permit,
                    });
                }
            }
        }
        let (sender, generation, epoch) = self.http1.take(generation)?;
        Some(Lease::Http1 {
            sender,
            generation,
            epoch,
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
        let epoch = self.http1.epoch();
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
                epoch,
            });
        }
        let connection = self.http2_connection(connected, current.generation).await;
        let (mut lease, connection) =
            connection.map_err(|error| DialFailure::new(Failure::ConnectionLost, error.to_string()))?;
        self.shared.verify(lease.as_new(), current).await?;
        let mut connections = self.http2.lock();
        if self.http1.epoch() == epoch {
            connections.push(connection);
        }
        Ok(lease)
    }

    async fn http2_connection(&self, connected: Connected, generation: u64) -> Result<(Lease, Http2), ProtocolError> {
        let (sender, streams, ready) = http2::connect(&self.shared, self.sizes, connected).await?;
        let permit = Arc::clone(&streams)
            .try_acquire_owned()
            .expect("a new connection has a permit");
        // A peer that never says more is used one stream at a time.
        let _ = tokio::time::timeout(SETTINGS_WAIT, ready.notified()).await;
        let connection = Http2 {
            sender: sender.clone(),
            streams,
            generation,
        };
        Ok((Lease::Http2 { sender, permit }, connection))
    }
}
