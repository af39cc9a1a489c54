//! One HTTP/2 connection, and requests on it.
//!
//! `h2` is used without hyper's client above it. That client hands each request to a task of the connection through a queue,
//! spawns another task that waits for the response, and hands that back through a second queue: three tasks have to run, on
//! whatever thread, before a request is written. Here the task that has the request writes it and is woken by its response.
//! What hyper adds to `h2` and is needed here is small: `Content-Length`, the pings ([`super::driver`]), and the body of a
//! request beside its response.
//!
//! In one respect this is stricter: hyper takes a stream that is reset with CANCEL for one that has ended. Here only
//! END_STREAM ends a body; whatever else ends it is an error, so that what broke off never looks whole.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST},
};
use http_body::Body as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{
    HEADER_LIMIT, STREAMS_BEFORE_SETTINGS, Shared, Sizes,
    driver::{Driver, GivenUp, Heard, drive},
    received::{Ended, Held, Received},
    upload::Upload,
};
use crate::{body::Body, error::ProtocolError, transport::Connected};

/// Above what Go's clients take of response headers (10 MiB, `http.Transport.MaxResponseHeaderBytes`), and so above what
/// kube-apiserver passes on of a program it proxies to. `h2` ends the connection of all where headers are too long; [`HEADER_LIMIT`]
/// is kept here, and ends the one request. Frames stay at 16 KiB, which is how Go divides headers: `h2` derives how many
/// frames they may have from both.
const HEADER_LIMIT_OF_CONNECTION: u32 = 16 << 20;
/// How long answers may come to a stream that was given up. `h2` counts those that come later as offences of the peer.
const LATE_ANSWERS: Duration = Duration::from_secs(60);
/// What a stream may be given ahead of what its window lets through: one frame of a caller, and hyper's own limit.
const SEND_BUFFER: usize = 1 << 20;

/// Sends requests on one connection. Clones share it; it ends when none is left and its streams have ended.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    ended: Arc<Ended>,
    given_up: Arc<GivenUp>,
    reads_ahead: bool,
    shared: Arc<Shared>,
}

/// A request that has no response.
pub(super) struct Failed {
    /// The request, where nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Body>>>,
    pub(super) error: ProtocolError,
}

impl<E: Into<ProtocolError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self {
            unsent: None,
            error: error.into(),
        }
    }
}

/// A new connection, the streams that may be opened on it, and who tells when the peer has said how many that are.
pub(super) async fn connect(
    shared: &Shared,
    sizes: Sizes,
    connected: Connected,
) -> Result<(Sender, Arc<Semaphore>, Arc<Notify>), ProtocolError> {
    let streams = u32::try_from(sizes.streams).unwrap_or(u32::MAX);
    let heard = Heard::new(connected.io);
    let reads = heard.reads();
    let (requests, connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .initial_window_size(sizes.window)
        .initial_connection_window_size(sizes.window.saturating_mul(streams))
        .max_header_list_size(HEADER_LIMIT_OF_CONNECTION)
        .max_send_buffer_size(SEND_BUFFER)
        // Watches end by being reset; a burst of them is no attack.
        .max_pending_accept_reset_streams(1000)
        .max_concurrent_reset_streams(1000)
        .reset_stream_duration(LATE_ANSWERS)
        // Counted over the life of a connection, which may be months.
        .max_local_error_reset_streams(None)
        .handshake(heard)
        .await?;
    let permits = Arc::new(Semaphore::new(STREAMS_BEFORE_SETTINGS));
    let ready = Arc::new(Notify::new());
    let (given_up, ended) = (Arc::<GivenUp>::default(), Arc::<Ended>::default());
    let driver = Driver {
        cluster: Arc::clone(&shared.cluster),
        permits: Arc::clone(&permits),
        granted: STREAMS_BEFORE_SETTINGS,
        most: sizes.streams,
        settled: false,
        ready: Arc::clone(&ready),
        given_up: Arc::clone(&given_up),
        ended: Arc::clone(&ended),
        reads,
    };
    let driven = drive(connection, driver);
    shared
        .tracker
        .spawn(shared.cancel.clone().run_until_cancelled_owned(driven));
    let sender = Sender {
        requests,
        ended,
        given_up,
        reads_ahead: sizes.reads_ahead,
        shared: Arc::new(shared.clone()),
    };
    Ok((sender, permits, ready))
}

/// Makes `request` one of HTTP/2: absolute form, and no `Host`, which `:authority` says.
///
/// The hub's credential may be compressed (RFC 7541 §7.1.3 leaves it to who sends it): it is the same in all requests of a connection,
/// and nobody can try a guess in its place, because this header of callers is removed. Otherwise the kilobyte of a token would be
/// encoded, sent and decoded with every request.
pub(super) fn as_http2(request: &mut Request<Body>, uri: &Uri) {
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.remove(HOST);
    if let Some(credential) = headers.get_mut(AUTHORIZATION) {
        credential.set_sensitive(false);
    }
}

impl Sender {
    /// Whether requests cannot be sent on it any more: it has broken, or the peer has said GOAWAY.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(self.requests.poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// Sends a request whose URI is absolute and waits for the headers of its response. Cancel safe: dropping the future, or
    /// the body of the response, resets the stream. `permit` is that of the stream; it comes back when the stream has ended.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Response<Received>, Failed> {
        if let Err(error) = poll_fn(|context| self.requests.poll_ready(context)).await {
            return Err(Failed {
                unsent: Some(Box::new(request)),
                error: error.into(),
            });
        }
        let (mut head, body) = request.into_parts();
        say_length(&mut head, &body);
        let ended = body.is_end_stream();
        let (response, stream) = self.requests.send_request(Request::from_parts(head, ()), ended)?;
        self.ended.clear();
        let mut held = Held::new(permit, Arc::clone(&self.given_up));
        let upload = if ended {
            None
        } else {
            Upload::start(&self.shared, stream, body).await
        };
        let (head, stream) = match response.await {
            Ok(response) => response.into_parts(),
            Err(error) => {
                if error.is_remote() || error.is_io() {
                    held.release();
                }
                return Err(error.into());
            }
        };
        within_limit(&head.headers)?;
        let received = if self.reads_ahead && !stream.is_end_stream() {
            Received::ahead(&self.shared, stream, upload, held)
        } else {
            Received::new(stream, Arc::clone(&self.ended), upload, held)
        };
        Ok(Response::from_parts(head, received))
    }
}

/// Whether headers are no longer than Go's servers allow, counted as HTTP/2 does (RFC 9113, section 6.5.2).
pub(super) fn within_limit(headers: &HeaderMap) -> Result<(), ProtocolError> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    if size > HEADER_LIMIT {
        return Err(ProtocolError::HeadersTooLong { limit: HEADER_LIMIT });
    }
    Ok(())
}

/// `Content-Length` where it is known and not there: RFC 9110 §8.6 wants it of methods that give content a meaning, also where there
/// is none.
fn say_length(head: &mut http::request::Parts, body: &Body) {
    let expected = !matches!(head.method, Method::GET | Method::HEAD | Method::DELETE);
    if let Some(length) = body.size_hint().exact()
        && (length > 0 || expected)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

#[cfg(test)]
mod tests;
