//! Reading a stream ahead of who reads its body, into a buffer that knows no frames.
//!
//! What a caller does not read waits in the window of its stream. `h2` keeps it as the frames it came in, and counts what
//! small frames waste against a budget of the whole connection: one caller who does not read the log of a program that prints
//! a byte at a time would have the connection ended for all. Here what waits is put together, so a stream never costs more than
//! its window and a few pieces, and the window opens, as before, when the caller reads.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use h2::{FlowControl, RecvStream};
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;

/// Pieces that are smaller are copied behind what waits already; larger ones are kept as they came.
const SMALL: usize = 4 << 10;
/// What small pieces are put together to.
const PUT_TOGETHER: usize = 16 << 10;

/// The reader's side.
pub(super) struct Ahead {
    waiting: Arc<Mutex<Waiting>>,
    window: FlowControl,
}

/// What has come and has not been read.
#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    /// Small pieces after all others.
    small: BytesMut,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), h2::Error>>,
    reader: Option<Waker>,
}

impl Waiting {
    fn push(&mut self, piece: Bytes) {
        let first = self.pieces.is_empty() && self.small.is_empty();
        if first || piece.len() >= SMALL {
            self.close_small();
            self.pieces.push_back(piece);
        } else {
            self.small.extend_from_slice(&piece);
            if self.small.len() >= PUT_TOGETHER {
                self.close_small();
            }
        }
        self.wake();
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close_small();
        }
        self.pieces.pop_front()
    }

    fn finish(&mut self, end: Result<Option<HeaderMap>, h2::Error>) {
        self.end = Some(end.map(|trailers| self.trailers = trailers));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Ahead {
    /// The reader's side of a stream, and what has to run for it to get anything.
    pub(super) fn of(mut stream: RecvStream) -> (Self, impl Future<Output = ()> + Send) {
        let window = stream.flow_control().clone();
        let waiting = Arc::<Mutex<Waiting>>::default();
        let ahead = Self {
            waiting: Arc::clone(&waiting),
            window,
        };
        let reading = async move {
            while let Some(data) = stream.data().await {
                match data {
                    Ok(piece) => waiting.lock().push(piece),
                    Err(error) => return waiting.lock().finish(Err(error)),
                }
            }
            let trailers = stream.trailers().await;
            waiting.lock().finish(trailers);
        };
        (ahead, reading)
    }

    /// The next piece, the trailers, or `None` at the end.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut waiting = self.waiting.lock();
        if let Some(piece) = waiting.take() {
            drop(waiting);
            // Fails only where the stream has ended, and then there is nothing to open.
            let _ = self.window.release_capacity(piece.len());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = waiting.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut waiting.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(failed @ Err(_)) => {
                let failed = std::mem::replace(failed, Ok(()));
                Poll::Ready(failed.err().map(Err))
            }
            None => {
                waiting.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether all has been read.
    pub(super) fn is_end_stream(&self) -> bool {
        let waiting = self.waiting.lock();
        matches!(waiting.end, Some(Ok(())))
            && waiting.pieces.is_empty()
            && waiting.small.is_empty()
            && waiting.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the sizes and however it is read: the same bytes, in few pieces.
        #[test]
        fn nothing_is_lost_and_little_is_wasted(sizes in prop::collection::vec((0usize..6000, any::<bool>()), 0..200)) {
            let (mut waiting, mut sent, mut read) = (Waiting::default(), Vec::new(), Vec::new());
            for (number, (size, reads)) in sizes.into_iter().enumerate() {
                let piece = vec![u8::try_from(number % 251).unwrap(); size];
                sent.extend_from_slice(&piece);
                waiting.push(piece.into());
                let bytes = sent.len() - read.len();
                prop_assert!(waiting.pieces.len() <= 2 + bytes * 2 / SMALL, "{} for {bytes}", waiting.pieces.len());
                if reads {
                    read.extend_from_slice(&waiting.take().unwrap_or_default());
                }
            }
            while let Some(piece) = waiting.take() {
                read.extend_from_slice(&piece);
            }
            prop_assert!(sent == read);
        }
    }
}
