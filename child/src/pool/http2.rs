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
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::poll;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{
    HeaderValue, Method, Request, Response, Uri, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST},
};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::DropGuard;

use super::{
    HEADER_LIMIT, STREAMS_BEFORE_SETTINGS, Shared, Sizes,
    driver::{Driver, GivenUp, drive},
};
use crate::{body::Body, error::ProtocolError, transport::Connected};

/// What a stream may be given ahead of what its window lets through: one frame of a caller, and hyper's own limit.
const SEND_BUFFER: usize = 1 << 20;

/// Sends requests on one connection. Clones share it; it ends when none is left and its streams have ended.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    ended: Arc<Ended>,
    given_up: Arc<GivenUp>,
    shared: Arc<Shared>,
}

/// Streams that have ended and that `h2` has not been told to forget.
///
/// It wakes the connection when it is, for nothing while there are others; another thread would be woken for it with every
/// response. A request wakes the connection anyway, so they are dropped with the next one, or the next ping.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Vec<RecvStream>>);

impl Ended {
    fn put(&self, stream: RecvStream) {
        self.0.lock().push(stream);
    }

    pub(super) fn clear(&self) {
        let ended = std::mem::take(&mut *self.0.lock());
        drop(ended);
    }
}

/// A request that has no response.
pub(super) struct Failed {
    /// The request, where nothing of it was sent.
    pub(super) unsent: Option<Box<Request<Body>>>,
    pub(super) error: ProtocolError,
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Self {
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
    let (requests, connection) = Builder::new()
        .enable_push(false)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .initial_window_size(sizes.window)
        .initial_connection_window_size(sizes.window.saturating_mul(streams))
        .max_frame_size(256 << 10)
        .max_header_list_size(u32::try_from(HEADER_LIMIT).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        // Watches end by being reset; a burst of them is no attack.
        .max_pending_accept_reset_streams(1000)
        .max_concurrent_reset_streams(1000)
        .handshake(connected.io)
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
    };
    let driven = drive(connection, driver);
    shared
        .tracker
        .spawn(shared.cancel.clone().run_until_cancelled_owned(driven));
    let sender = Sender {
        requests,
        ended,
        given_up,
        shared: Arc::new(shared.clone()),
    };
    Ok((sender, permits, ready))
}

/// Makes `request` one of HTTP/2: absolute form, and no `Host`, which `:authority` says.
///
/// The hub's credential may be compressed (RFC 7541 §7.1.3 leaves it to who sends it): it is the same in all requests of a connection,
/// nobody else can put a guess in its place, because the header of a caller is removed, and tokens are too long to guess. Otherwise
/// its kilobyte would be encoded, sent and decoded with every request.
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
        let mut context = Context::from_waker(std::task::Waker::noop());
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
        let given_up = Arc::clone(&self.given_up);
        let (mut head, body) = request.into_parts();
        say_length(&mut head, &body);
        let ended = body.is_end_stream();
        let (response, stream) = self.requests.send_request(Request::from_parts(head, ()), ended)?;
        self.ended.clear();
        let mut held = Held { permit, given_up };
        let upload = if ended { None } else { self.upload(stream, body).await };
        match response.await {
            Ok(response) => {
                let ended = Arc::clone(&self.ended);
                Ok(response.map(|stream| Received::new(stream, ended, upload, held)))
            }
            Err(error) => {
                held.release();
                Err(error.into())
            }
        }
    }

    /// Sends a body beside what else happens. What is returned ends it when dropped; `None` when all is sent already.
    async fn upload(&self, stream: SendStream<Bytes>, body: Body) -> Option<DropGuard> {
        let mut upload = Box::pin(Upload { stream, body });
        if poll!(&mut upload).is_ready() {
            return None;
        }
        let stop = self.shared.cancel.child_token();
        let guard = stop.clone().drop_guard();
        self.shared.tracker.spawn(stop.run_until_cancelled_owned(upload));
        Some(guard)
    }
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

/// The body of a request on its way. Reads on only when the window of the stream is open, and one frame at a time.
struct Upload {
    stream: SendStream<Bytes>,
    body: Body,
}

impl Future for Upload {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // A peer that wants no more of it resets the stream. Whoever waits for the response is told why.
            if self.stream.poll_reset(context).is_ready() {
                return Poll::Ready(());
            }
            if !self.body.is_end_stream() {
                self.stream.reserve_capacity(1);
                while self.stream.capacity() == 0 {
                    match ready!(self.stream.poll_capacity(context)) {
                        Some(Ok(_)) => {}
                        None | Some(Err(_)) => return Poll::Ready(()),
                    }
                }
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            if self.pass_on(frame).is_break() {
                return Poll::Ready(());
            }
        }
    }
}

impl Upload {
    /// Sends what the body gave. Breaks after the last.
    fn pass_on<E>(&mut self, frame: Option<Result<Frame<Bytes>, E>>) -> std::ops::ControlFlow<()> {
        let sent = match frame {
            None => self.stream.send_data(Bytes::new(), true).map(|()| true),
            Some(Err(_)) => {
                // What the caller began to send does not go on; the child must not take it for whole.
                self.stream.send_reset(Reason::CANCEL);
                Ok(true)
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    self.stream.send_data(data, last).map(|()| last)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => self.stream.send_trailers(trailers).map(|()| true),
                    Err(_) => Ok(false),
                },
            },
        };
        match sent {
            Ok(false) => std::ops::ControlFlow::Continue(()),
            Ok(true) | Err(_) => std::ops::ControlFlow::Break(()),
        }
    }
}

/// The body of a response as it comes. The window opens as it is read.
pub(super) struct Received {
    /// There until this is dropped.
    stream: Option<RecvStream>,
    ended: Arc<Ended>,
    /// Whether trailers are next.
    all_data: bool,
    /// Ends the body of the request with that of the response.
    _upload: Option<DropGuard>,
    held: Held,
    /// The place of the request in its lane.
    _place: Option<OwnedSemaphorePermit>,
}

/// The right to a stream, until it has ended on both sides.
pub(super) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    given_up: Arc<GivenUp>,
}

impl Held {
    /// The stream has ended on both sides, or was never opened.
    fn release(&mut self) {
        self.permit = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.given_up.put(permit);
        }
    }
}

impl Received {
    fn new(stream: RecvStream, ended: Arc<Ended>, upload: Option<DropGuard>, held: Held) -> Self {
        Self {
            stream: Some(stream),
            ended,
            all_data: false,
            _upload: upload,
            held,
            _place: None,
        }
    }

    /// The same, which gives `place` back when it is dropped.
    pub(super) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take_if(|stream| stream.is_end_stream()) {
            self.held.release();
            self.ended.put(stream);
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if !this.all_data {
            match ready!(stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // Fails only where the stream has ended, and then there is nothing to open.
                    let _ = stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.all_data = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(context)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests;
