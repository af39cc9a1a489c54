//! Bodies that have begun: what breaks off before its first byte can still be answered with an error.
//!
//! An answer is sent on when its first piece is there, so that a child that is gone by then is told of by a status. What
//! breaks off later has to look broken: the error is held back for one turn of whoever sends the body, so that what came
//! before it, the head of the answer above all, is sent and the client does not see a connection that ends without a word.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures::FutureExt as _;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Body, BodyError, empty};

/// Why a body has not begun.
#[derive(Debug)]
pub(crate) enum Unbegun {
    /// Nothing of it came in time.
    Late,
    /// It broke off.
    Broken(BodyError),
}

/// The body, once its first piece or its end is there: until `until`; without it, only what is there at once is looked at.
///
/// # Errors
/// Where it breaks off before it begins, or does not begin in time.
pub(crate) async fn begun(mut body: Body, until: Option<Instant>) -> Result<Body, Unbegun> {
    if body.is_end_stream() {
        return Ok(body);
    }
    let first = match until {
        Some(until) => timeout_at(until, body.frame()).await.map_err(|_| Unbegun::Late)?,
        None => match body.frame().now_or_never() {
            Some(first) => first,
            None => return Ok(Begun::new(None, body).boxed_unsync()),
        },
    };
    match first {
        Some(Ok(first)) => Ok(Begun::new(Some(first), body).boxed_unsync()),
        Some(Err(error)) => Err(Unbegun::Broken(error)),
        None => Ok(empty()),
    }
}

struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
    broken: Option<BodyError>,
}

impl Begun {
    fn new(first: Option<Frame<Bytes>>, rest: Body) -> Self {
        Self {
            first,
            rest,
            broken: None,
        }
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match ready!(Pin::new(&mut self.rest).poll_frame(context)) {
            Some(Err(error)) => {
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.broken.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Trailers are still to come, and a length of nothing would be the end of them over HTTP/1.1.
        if self.first.as_ref().is_some_and(Frame::is_trailers) {
            return SizeHint::default();
        }
        let first = self.first.as_ref().and_then(Frame::data_ref);
        let first = first.map_or(0, |data| data.remaining() as u64);
        let rest = self.rest.size_hint();
        let mut whole = SizeHint::new();
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(first)) {
            whole.set_upper(upper);
        }
        whole.set_lower(rest.lower().saturating_add(first));
        whole
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;
    use crate::body::{boxed, collect, full};

    type Piece = Result<&'static str, &'static str>;

    fn sent() -> (mpsc::Sender<Piece>, Body) {
        let (sender, receiver) = mpsc::channel(4);
        let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
            let piece: Piece = receiver.recv().await?;
            let frame = piece.map(|data| Frame::data(Bytes::from(data)));
            Some((frame.map_err(std::io::Error::other), receiver))
        });
        (sender, boxed(StreamBody::new(Box::pin(pieces))))
    }

    fn later() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_before_it_begins_is_no_body() {
        let (sender, body) = sent();
        sender.send(Err("reset")).await.unwrap();
        assert!(matches!(begun(body, later()).await, Err(Unbegun::Broken(_))));
        let (_sender, body) = sent();
        assert!(matches!(begun(body, later()).await, Err(Unbegun::Late)));
        let (sender, body) = sent();
        sender.send(Err("reset")).await.unwrap();
        assert!(matches!(begun(body, None).await, Err(Unbegun::Broken(_))));
    }

    #[tokio::test]
    async fn what_breaks_later_lets_what_came_before_be_sent() {
        for until in [None, later()] {
            let (sender, body) = sent();
            sender.send(Ok("first")).await.unwrap();
            sender.send(Err("reset")).await.unwrap();
            let mut body = begun(body, until).await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
            assert!(futures::poll!(body.frame()).is_pending(), "a turn to send in");
            assert!(!body.is_end_stream());
            assert!(body.frame().await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_and_lengths_stay_exact() {
        let body = begun(full("hello"), later()).await.unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(5), false));
        assert_eq!(collect(body, 9).await.unwrap().unwrap(), "hello");
        assert!(begun(empty(), None).await.unwrap().is_end_stream());
        let (sender, body) = sent();
        // A stream that says nothing yet is begun all the same.
        let body = begun(body, None).await.unwrap();
        sender.send(Ok("late")).await.unwrap();
        drop(sender);
        assert_eq!(collect(body, 9).await.unwrap().unwrap(), "late");
        let (sender, body) = sent();
        drop(sender);
        assert!(begun(body, later()).await.unwrap().is_end_stream());
    }
}
