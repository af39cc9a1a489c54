//! yamux over one connection, driven by one task.
//!
//! Bounds: at most [`STREAMS`] streams, each of which may be sent 256 KiB ahead of its reader (yamux's own window). yamux
//! widens windows of streams that are read as fast as they come; all of them together by no more than [`WIDENED`]. So a
//! tunnel costs at most `(STREAMS + ENDING) × 256 KiB + WIDENED` = 448 MiB of payload where the other side fills all windows and
//! nobody reads, and 52 MiB for the frames that it comes in ([`super::frames`]). Streams are opened by the hub alone, for one cluster no
//! more than its limits of connections allow (617 by default), on all tunnels together.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, DEFAULT_CREDIT, Mode};

use super::frames::{Counted, Frames, Watched};

/// Streams on one tunnel: 512 upgraded connections, 105 pooled ones with 80 requests each at most, and some that end.
pub(super) const STREAMS: usize = 1024;
/// What windows may grow by in sum, in bytes.
const WIDENED: usize = 128 << 20;
/// Beyond what the hub counts as open: streams that it has dropped and yamux has not ended yet.
const ENDING: usize = 256;
/// How long the farewell of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A stream of a tunnel.
pub(super) struct Stream {
    stream: Compat<yamux::Stream>,
    /// Counts what waits to be read, where the other side is not trusted.
    counted: Option<Counted>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(counted) = &self.counted {
            counted.read(buffer.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Asks for a stream to be opened.
pub(super) type Open = oneshot::Sender<Stream>;

fn config() -> Config {
    let mut config = Config::default();
    // The order matters: each setter checks that both go together.
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(STREAMS + ENDING);
    config.set_max_connection_receive_window(Some((STREAMS + ENDING) * DEFAULT_CREDIT as usize + WIDENED));
    config
}

/// Opens streams for whoever asks, until the connection ends or nobody can ask any more. Dropping the future cuts all streams.
///
/// # Errors
/// Where the connection breaks, or the other side opens a stream, which only this side may, or has too many frames waiting.
pub(super) async fn open_streams<T>(io: T, mut opens: mpsc::Receiver<Open>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let frames = Frames::default();
    let io = Watched::new(io, frames.clone());
    let mut connection = Connection::new(io.compat(), config(), Mode::Client);
    let mut wanted: Option<Open> = None;
    let ended = poll_fn(|context| {
        loop {
            if wanted.as_ref().is_none_or(oneshot::Sender::is_closed) {
                wanted = match opens.poll_recv(context) {
                    Poll::Ready(Some(open)) => Some(open),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => None,
                };
            }
            if wanted.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(context)
            {
                let stream = opened.map_err(io::Error::other)?;
                if let Some(open) = wanted.take() {
                    let counted = Some(frames.count(stream.id().val()));
                    let stream = stream.compat();
                    // Who has gone meanwhile drops the stream.
                    let _ = open.send(Stream { stream, counted });
                }
                continue;
            }
            return match connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(_))) => {
                    let message = "the agent opened a stream, which only the hub may do";
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            };
        }
    })
    .await;
    farewell(&mut connection).await;
    ended
}

/// Hands over the streams that the other side opens, until the connection ends or nobody takes them any more. Dropping the
/// future cuts all streams.
///
/// # Errors
/// Where the connection breaks.
pub(super) async fn accept_streams<T>(io: T, streams: mpsc::Sender<Stream>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut connection = Connection::new(io.compat(), config(), Mode::Server);
    let ended = poll_fn(|context| {
        loop {
            if streams.is_closed() {
                return Poll::Ready(Ok(()));
            }
            match connection.poll_next_inbound(context) {
                Poll::Ready(Some(Ok(stream))) => {
                    // As many as can be open have room, so whoever finds none opened more than there can be.
                    let stream = stream.compat();
                    if streams.try_send(Stream { stream, counted: None }).is_err() {
                        return Poll::Ready(Err(io::Error::other("the hub opened more streams than a tunnel has")));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    farewell(&mut connection).await;
    ended
}

/// Tells the other side that the connection ends, as far as it listens.
async fn farewell<T: futures::AsyncRead + futures::AsyncWrite + Unpin>(connection: &mut Connection<T>) {
    let closed = tokio::time::timeout(FAREWELL, poll_fn(|context| connection.poll_close(context))).await;
    if !matches!(closed, Ok(Ok(()))) {
        tracing::debug!("a tunnel ended without a farewell");
    }
}
