//! Running one HTTP/2 connection: learning how many streams its peer allows, noticing that the peer is gone, and letting it hear
//! of streams that were given up before others take their places.
//!
//! A stream that is reset is free on this side at once, on the other only when the peer has read so. Callers that give up
//! requests as fast as they send them would have the peer work on more than it allows, and it answers that by ending the
//! connection for all (CVE-2023-44487 and what Go's server does about it). So the permit of such a stream comes back with the
//! answer to a ping that was sent after the reset, as in Go's client (`pendingResets` in `net/http/internal/http2/transport.go`).

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use h2::{Ping, PingPong, client::Connection};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

use super::{STREAMS_BEFORE_SETTINGS, received::Ended};
use crate::transport::Io;

/// A dead peer is noticed within the sum of both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The permits of streams that were given up and of which the peer may not have heard.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    permits: Mutex<Vec<OwnedSemaphorePermit>>,
    some: Notify,
}

impl GivenUp {
    pub(super) fn put(&self, permit: OwnedSemaphorePermit) {
        self.permits.lock().push(permit);
        self.some.notify_one();
    }

    fn take(&self) -> Vec<OwnedSemaphorePermit> {
        std::mem::take(&mut self.permits.lock())
    }
}

/// What follows the peer's limit while a connection runs.
pub(super) struct Driver {
    pub(super) cluster: Arc<str>,
    /// The streams that may be opened.
    pub(super) permits: Arc<Semaphore>,
    /// How many permits there are, used or not.
    pub(super) granted: usize,
    /// How many there may be, whatever the peer allows.
    pub(super) most: usize,
    /// Whether SETTINGS have come.
    pub(super) settled: bool,
    /// Told when SETTINGS have come or never will.
    pub(super) ready: Arc<Notify>,
    pub(super) given_up: Arc<GivenUp>,
    pub(super) ended: Arc<Ended>,
    /// How often something was read of the peer.
    pub(super) reads: Arc<AtomicU64>,
}

impl Driver {
    /// Makes the permits those that the peer's limit allows.
    fn adjust(&mut self, peer_allows: usize) {
        if peer_allows != STREAMS_BEFORE_SETTINGS && !self.settled {
            self.settled = true;
            self.ready.notify_one();
        }
        let wanted = self.most.min(peer_allows);
        if wanted > self.granted {
            self.permits.add_permits(wanted - self.granted);
            self.granted = wanted;
        } else if wanted < self.granted {
            // Those in use follow when the driver comes by again.
            self.granted -= self.permits.forget_permits(self.granted - wanted);
        }
    }
}

/// Runs a connection to its end.
pub(super) async fn drive(mut connection: Connection<Heard, Bytes>, mut driver: Driver) {
    let pings = connection.ping_pong().expect("nobody has asked for them before");
    let given_up = (Arc::clone(&driver.given_up), Arc::clone(&driver.ended));
    let mut silence = pin!(silence(pings, given_up, Arc::clone(&driver.reads)));
    let ended = poll_fn(|context| {
        let progress = connection.poll_unpin(context);
        if progress.is_pending() {
            driver.adjust(connection.max_concurrent_send_streams());
            if silence.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
        }
        progress.map(Some)
    });
    match ended.await {
        None => tracing::debug!(cluster = %driver.cluster, "HTTP/2 connection ended: its peer does not answer pings"),
        Some(Err(error)) => tracing::debug!(cluster = %driver.cluster, %error, "HTTP/2 connection ended"),
        Some(Ok(())) => {}
    }
    driver.permits.close();
    // Whoever waits for SETTINGS need not wait longer.
    driver.ready.notify_one();
}

/// Pings the peer every now and then and after streams were given up, and ends when nothing comes of it any more. A peer from which
/// bytes come is there, also where the answer to the ping is behind many of them.
async fn silence(mut pings: PingPong, (given_up, ended): (Arc<GivenUp>, Arc<Ended>), reads: Arc<AtomicU64>) {
    loop {
        // Either way it is time for a ping.
        let _ = tokio::time::timeout(KEEP_ALIVE_INTERVAL, given_up.some.notified()).await;
        let heard = given_up.take();
        ended.clear();
        let mut answered = pin!(pings.ping(Ping::opaque()));
        loop {
            let before = reads.load(Ordering::Relaxed);
            match tokio::time::timeout(KEEP_ALIVE_TIMEOUT, &mut answered).await {
                Ok(Ok(_)) => break,
                // The connection ends on its own.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) if reads.load(Ordering::Relaxed) == before => return,
                Err(_) => {}
            }
        }
        drop(heard);
    }
}

/// A stream that knows how often something was read of it.
pub(super) struct Heard {
    io: Box<dyn Io>,
    reads: Arc<AtomicU64>,
}

impl Heard {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self {
            io,
            reads: Arc::default(),
        }
    }

    pub(super) fn reads(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reads)
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
