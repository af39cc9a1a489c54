//! The body of a response as it comes, and the stream it comes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::DropGuard;

use super::{Place, Shared, ahead::Ahead, driver::GivenUp, http2::within_limit, upload::Upload};
use crate::error::ProtocolError;

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

/// The right to a stream, until it has ended on both sides.
pub(super) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    given_up: Arc<GivenUp>,
}

impl Held {
    pub(super) fn new(permit: Option<OwnedSemaphorePermit>, given_up: Arc<GivenUp>) -> Self {
        Self { permit, given_up }
    }

    /// The stream has ended on both sides.
    pub(super) fn release(&mut self) {
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

/// The body of a response as it comes. The window opens as it is read.
pub(super) struct Received {
    source: Source,
    /// The body of the request, which ends with that of the response.
    upload: Option<Upload>,
    held: Held,
    /// The place of the request in its lane.
    _place: Option<Place>,
}

/// Where a body comes from.
enum Source {
    /// Its stream, there until this is dropped.
    Stream {
        stream: Option<RecvStream>,
        ended: Arc<Ended>,
        /// Whether trailers are next.
        all_data: bool,
    },
    /// What has been read of it. Reading ends when the guard is dropped.
    Ahead { ahead: Ahead, _reading: DropGuard },
}

impl Received {
    /// A body that is read from its stream.
    pub(super) fn new(stream: RecvStream, ended: Arc<Ended>, upload: Option<Upload>, held: Held) -> Self {
        let source = Source::Stream {
            stream: Some(stream),
            ended,
            all_data: false,
        };
        Self::from(source, upload, held)
    }

    /// A body that waits outside of its stream until it is read.
    pub(super) fn ahead(shared: &Shared, stream: RecvStream, upload: Option<Upload>, held: Held) -> Self {
        let (ahead, reading) = Ahead::of(stream);
        let stop = shared.cancel.child_token();
        let source = Source::Ahead {
            ahead,
            _reading: stop.clone().drop_guard(),
        };
        shared.tracker.spawn(stop.run_until_cancelled_owned(reading));
        Self::from(source, upload, held)
    }

    fn from(source: Source, upload: Option<Upload>, held: Held) -> Self {
        Self {
            source,
            upload,
            held,
            _place: None,
        }
    }

    /// The same, which gives `place` back when it is dropped.
    pub(super) fn holding(mut self, place: Place) -> Self {
        self._place = Some(place);
        self
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let uploading = self.upload.as_ref().is_some_and(|upload| !upload.has_ended());
        if uploading || !http_body::Body::is_end_stream(self) {
            return;
        }
        self.held.release();
        if let Source::Stream { stream, ended, .. } = &mut self.source
            && let Some(stream) = stream.take()
        {
            ended.put(stream);
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = ProtocolError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProtocolError>>> {
        let frame = match &mut self.source {
            Source::Stream { stream: None, .. } => None,
            Source::Stream {
                stream: Some(stream),
                all_data,
                ..
            } => ready!(poll_stream(stream, all_data, context)),
            Source::Ahead { ahead, .. } => ready!(ahead.poll_frame(context)),
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            if let Some(trailers) = frame.trailers_ref() {
                within_limit(trailers)?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Stream { stream, .. } => stream.as_ref().is_none_or(RecvStream::is_end_stream),
            Source::Ahead { ahead, .. } => ahead.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        SizeHint::default()
    }
}

fn poll_stream(
    stream: &mut RecvStream,
    all_data: &mut bool,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    if !*all_data {
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                // Fails only where the stream has ended, and then there is nothing to open.
                let _ = stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => *all_data = true,
        }
    }
    let trailers = ready!(stream.poll_trailers(context)).transpose();
    Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
}
