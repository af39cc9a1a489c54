//! The body of a request on its way, beside its response.

use std::{
    ops::ControlFlow,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::poll;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use tokio_util::sync::DropGuard;

use super::Shared;
use crate::body::Body;

/// A body that is being sent; sending ends when this is dropped.
pub(super) struct Upload {
    ended: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Upload {
    /// Sends a body beside what else happens. `None` when all is sent already.
    pub(super) async fn start(shared: &Shared, stream: SendStream<Bytes>, body: Body) -> Option<Self> {
        let mut sending = Box::pin(Sending { stream, body });
        if poll!(&mut sending).is_ready() {
            return None;
        }
        let (stop, ended) = (shared.cancel.child_token(), Arc::new(AtomicBool::new(false)));
        let upload = Self {
            ended: Arc::clone(&ended),
            _stop: stop.clone().drop_guard(),
        };
        shared.tracker.spawn(stop.run_until_cancelled_owned(async move {
            sending.await;
            ended.store(true, Ordering::Release);
        }));
        Some(upload)
    }

    /// Whether nothing more is sent.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Reads on only when the window of the stream is open, and one frame at a time.
struct Sending {
    stream: SendStream<Bytes>,
    body: Body,
}

impl Future for Sending {
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

impl Sending {
    /// Sends what the body gave. Breaks after the last.
    fn pass_on<E>(&mut self, frame: Option<Result<Frame<Bytes>, E>>) -> ControlFlow<()> {
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
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(_) => {
                // Otherwise the peer would wait for the rest.
                self.stream.send_reset(Reason::INTERNAL_ERROR);
                ControlFlow::Break(())
            }
        }
    }
}
