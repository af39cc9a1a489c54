//! The one type of body that crosses this crate's boundary.

mod begun;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::begun::{Unbegun, begun};

/// What can go wrong while a body streams.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body, of a request or a response. Frames pass through it untouched, trailers included.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Any body as [`Body`].
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A body of nothing.
#[must_use]
pub fn empty() -> Body {
    boxed(Empty::new())
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    boxed(Full::new(bytes.into()))
}

/// A body that breaks off where it has nothing to give at `deadline`. What comes faster than it is read goes on: whoever reads
/// slowly waits for nobody.
///
/// kube-apiserver aborts a request that is not long-running at its deadline, also when the answer has begun
/// (`k8s.io/apiserver/pkg/server/filters/timeout.go`).
#[must_use]
pub fn ending_by(body: Body, deadline: Instant) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return body;
    }
    let deadline = Box::pin(sleep_until(deadline));
    EndingBy { body, deadline }.boxed_unsync()
}

struct EndingBy {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl http_body::Body for EndingBy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.deadline.as_mut().poll(context));
        // What comes of the child's connection after this is of no use to anybody.
        self.body = empty();
        let late = "the deadline of the request has passed before its response was complete";
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body with what `strip` leaves of its trailers.
pub(crate) fn stripping_trailers(body: Body, strip: fn(&mut HeaderMap)) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return body;
    }
    StrippingTrailers { body, strip }.boxed_unsync()
}

struct StrippingTrailers {
    body: Body,
    strip: fn(&mut HeaderMap),
}

impl http_body::Body for StrippingTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            (self.strip)(trailers);
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

/// Reads a body to its end; `None` when it is longer than `limit` bytes.
///
/// # Errors
///
/// When the body breaks off.
pub async fn collect<B>(body: B, limit: usize) -> Result<Option<Bytes>, B::Error>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut left = limit;
    let take = |length: usize| {
        left = left.checked_sub(length).ok_or(())?;
        Ok::<(), ()>(())
    };
    match collect_with(body, take).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Uncollected::NoRoom(())) => Ok(None),
        Err(Uncollected::Broken(error)) => Err(error),
    }
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum Uncollected<E, R> {
    /// Its end did not come.
    Broken(E),
    /// There was no room for a piece of it.
    NoRoom(R),
}

/// Reads a body to its end. `take` makes room for each piece before it is kept, by its length in bytes.
///
/// # Errors
/// Those of the body, and of `take`.
pub async fn collect_with<B, R>(
    body: B,
    mut take: impl FnMut(usize) -> Result<(), R>,
) -> Result<Bytes, Uncollected<B::Error, R>>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Uncollected::Broken)?.into_data() else {
            continue;
        };
        take(data.len()).map_err(Uncollected::NoRoom)?;
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    /// A body of what is sent.
    struct Sent(mpsc::Receiver<&'static str>);

    impl http_body::Body for Sent {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.0
                .poll_recv(context)
                .map(|text| text.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }

    fn sent() -> (mpsc::Sender<&'static str>, Body) {
        let (sender, receiver) = mpsc::channel(8);
        (sender, boxed(Sent(receiver)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_go_on_breaks_off_at_its_deadline() {
        let (sender, body) = sent();
        sender.send("begin").await.unwrap();
        let began = Instant::now();
        let deadline = Duration::from_secs(3);
        let mut body = ending_by(body, began + deadline);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begin");
        let broken = body.frame().await.unwrap().unwrap_err();
        assert!(broken.to_string().contains("deadline"), "{broken}");
        assert_eq!(began.elapsed(), deadline);
        assert!(body.frame().await.is_none());
        assert!(sender.is_closed(), "nobody reads on");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_can_be_read_for_as_long_as_one_likes() {
        let (sender, body) = sent();
        let mut body = ending_by(body, Instant::now() + Duration::from_secs(3));
        sender.send("one").await.unwrap();
        sender.send("two").await.unwrap();
        drop(sender);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(collect(&mut body, 100).await.unwrap().unwrap(), "onetwo");
        assert!(http_body::Body::is_end_stream(&ending_by(empty(), Instant::now())));
    }
}
