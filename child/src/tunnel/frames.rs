//! Counts frames that an agent has sent and nobody has read.
//!
//! yamux keeps each frame of a stream by itself until it is read: some [`OVERHEAD`] bytes of memory beside the payload. Its window
//! bounds the payload alone, so whoever sends byte by byte would make 256 KiB of it take 26 MiB, for each stream. Here the
//! frames that wait are counted across a tunnel, and an agent that has more than [`FRAMES`] of them waiting is cut. Frames that are
//! read cost nothing, however small.
//!
//! [`Watched`] reads the headers of frames as they come off the connection, before yamux does; [`Counted`] is told by the stream
//! what is read of it. Frames of streams that are not open are none: yamux keeps nothing of them.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames that may wait on one tunnel: twice the bytes of a window, so that one stream that nobody reads is never the reason,
/// whatever it carries.
const FRAMES: usize = 2 * yamux::DEFAULT_CREDIT as usize;
/// What a frame costs beside its payload, in bytes: the smallest allocation (32), its place in yamux's queue (32), its length here
/// (4); both queues may have twice the room they need. So at most 52 MiB on one tunnel.
const OVERHEAD: usize = 32 + 2 * (32 + 4);
/// The length of a header, and the type of the frames that carry payload
/// (<https://github.com/hashicorp/yamux/blob/master/spec.md>).
const HEADER: usize = 12;
const DATA: u8 = 0;

/// The frames that wait on one tunnel. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    frames: usize,
    /// The lengths of what waits, by stream; that of the first one is what is left of it.
    streams: HashMap<u32, VecDeque<u32>>,
}

impl Frames {
    /// Counts the frames of a stream from now on.
    pub(super) fn count(&self, stream: u32) -> Counted {
        self.0.lock().streams.insert(stream, VecDeque::new());
        Counted {
            frames: self.clone(),
            stream,
        }
    }

    fn arrived(&self, stream: u32, length: u32) -> io::Result<()> {
        let mut waiting = self.0.lock();
        let Some(lengths) = waiting.streams.get_mut(&stream).filter(|_| length > 0) else {
            return Ok(());
        };
        lengths.push_back(length);
        waiting.frames += 1;
        if waiting.frames > FRAMES {
            let message = format!(
                "more than {FRAMES} frames wait to be read, which take {} MiB beside what is in them",
                (FRAMES * OVERHEAD) >> 20
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(())
    }
}

/// The frames of one stream. They are forgotten with this.
#[derive(Debug)]
pub(super) struct Counted {
    frames: Frames,
    stream: u32,
}

impl Counted {
    /// Some bytes of the stream have been read.
    pub(super) fn read(&self, mut bytes: usize) {
        let waiting = &mut *self.frames.0.lock();
        let Some(lengths) = waiting.streams.get_mut(&self.stream) else {
            return;
        };
        while let Some(first) = lengths.front_mut() {
            let of_first = (*first as usize).min(bytes);
            bytes -= of_first;
            // No more than it was, which is a u32.
            *first -= of_first as u32;
            if *first > 0 {
                return;
            }
            lengths.pop_front();
            waiting.frames -= 1;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut waiting = self.frames.0.lock();
        let lengths = waiting.streams.remove(&self.stream).unwrap_or_default();
        waiting.frames -= lengths.len();
    }
}

/// A connection whose frames are counted as they come.
#[derive(Debug)]
pub(super) struct Watched<T> {
    io: T,
    frames: Frames,
    headers: Headers,
}

impl<T> Watched<T> {
    /// Counts what comes over `io`.
    pub(super) fn new(io: T, frames: Frames) -> Self {
        Self {
            io,
            frames,
            headers: Headers::default(),
        }
    }
}

/// Finds the headers of frames in what comes in pieces.
#[derive(Debug, Default)]
struct Headers {
    header: [u8; HEADER],
    /// How much of the header is there.
    known: usize,
    /// How much of the payload is still to come.
    payload: usize,
}

impl Headers {
    /// Tells `arrived` of the stream and length of each frame with payload that begins in `bytes`.
    fn feed(&mut self, mut bytes: &[u8], mut arrived: impl FnMut(u32, u32) -> io::Result<()>) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER - self.known).min(bytes.len());
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known < HEADER {
                return Ok(());
            }
            self.known = 0;
            let [_, kind, _, _, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
            if kind == DATA {
                let length = u32::from_be_bytes([l0, l1, l2, l3]);
                self.payload = length as usize;
                arrived(u32::from_be_bytes([s0, s1, s2, s3]), length)?;
            }
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        let frames = &this.frames;
        this.headers.feed(&buffer.filled()[before..], |stream, length| {
            frames.arrived(stream, length)
        })?;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, length: u32) -> Vec<u8> {
        let mut frame = vec![0, kind, 0, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend(length.to_be_bytes());
        // The others have a number where this one has its length.
        frame.extend(vec![0xff; if kind == DATA { length as usize } else { 0 }]);
        frame
    }

    proptest! {
        #[test]
        fn headers_are_found_however_they_come(
            frames in prop::collection::vec((0_u8..4, 0_u32..9, 0_u32..40), 0..20),
            piece in 1_usize..50,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, stream, length)| frame(*kind, *stream, *length)).collect();
            let (mut headers, mut found) = (Headers::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                headers.feed(piece, |stream, length| { found.push((stream, length)); Ok(()) }).unwrap();
            }
            let expected: Vec<_> = frames.iter().filter(|one| one.0 == DATA).map(|one| (one.1, one.2)).collect();
            prop_assert_eq!(found, expected);
        }

        /// Whatever is read in whatever pieces: what waits is what has come and was not read to its end.
        #[test]
        fn what_is_read_waits_no_more(lengths in prop::collection::vec(1_u32..9, 0..30), pieces in prop::collection::vec(0_usize..12, 0..30)) {
            let frames = Frames::default();
            let (one, other) = (frames.count(1), frames.count(3));
            frames.arrived(3, 7).unwrap();
            frames.arrived(5, 7).unwrap();
            for length in &lengths {
                frames.arrived(1, *length).unwrap();
            }
            let (all, mut read) = (lengths.iter().sum::<u32>() as usize, 0);
            for piece in pieces {
                let piece = piece.min(all - read);
                read += piece;
                one.read(piece);
            }
            let mut end = 0;
            let expected = lengths.iter().filter(|length| { end += **length as usize; end > read }).count();
            prop_assert_eq!(frames.0.lock().frames, expected + 1);
            drop(one);
            prop_assert_eq!(frames.0.lock().frames, 1);
            drop(other);
            prop_assert_eq!(frames.0.lock().frames, 0);
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let frames = Frames::default();
        let counted: Vec<_> = [1, 3, 5].map(|stream| frames.count(stream)).into();
        for index in 0..FRAMES {
            frames.arrived([1, 3, 5][index % 3], 1).unwrap();
        }
        assert!(frames.arrived(1, 1).is_err());
        drop(counted);
        assert_eq!(frames.0.lock().frames, 0);
    }
}
