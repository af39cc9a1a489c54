//! yamux over one connection, driven by one task.
//!
//! Bounds: at most [`STREAMS`] streams, each of which may be sent 256 KiB ahead of its reader (yamux's own window). yamux
//! widens windows of streams that are read as fast as they come; all of them together by no more than [`WIDENED`]. So a
//! tunnel costs at most `(STREAMS + ENDING) × 256 KiB + WIDENED` = 448 MiB of payload where the other side fills all windows and nobody
//! reads. yamux keeps each frame by itself, so frames of one byte take many times that.

use std::{future::poll_fn, io, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, DEFAULT_CREDIT, Mode};

/// Streams on one tunnel: 512 upgraded connections, 105 pooled ones with 80 requests each at most, and some that end.
pub(super) const STREAMS: usize = 1024;
/// What windows may grow by in sum, in bytes.
const WIDENED: usize = 128 << 20;
/// Beyond what the hub counts as open: streams that it has dropped and yamux has not ended yet.
const ENDING: usize = 256;
/// How long the farewell of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A stream of a tunnel.
pub(super) type Stream = Compat<yamux::Stream>;

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
/// Where the connection breaks, or the other side opens a stream, which only this side may.
pub(super) async fn open_streams<T>(io: T, mut opens: mpsc::Receiver<Open>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
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
                    // Who has gone meanwhile drops the stream.
                    let _ = open.send(stream.compat());
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
                    if streams.try_send(stream.compat()).is_err() {
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
