//! Running one HTTP/2 connection, and learning how many streams its peer allows.
//!
//! hyper tells the limit only through the connection, which a task of its own polls; the frame that brings the limit does not
//! wake that task. Until SETTINGS have come, every step of hyper's tasks therefore wakes the driver; afterwards the driver
//! looks whenever it runs anyway, which is with every request.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::STREAMS_BEFORE_SETTINGS;
use crate::{body::Body, transport::Io};

/// Spawns hyper's own tasks where they can be waited for, and wakes the driver while the peer's SETTINGS are awaited.
#[derive(Debug, Clone)]
pub(super) struct Executor {
    pub(super) tracker: TaskTracker,
    pub(super) cancel: CancellationToken,
    /// Whether SETTINGS have come.
    pub(super) settled: Arc<AtomicBool>,
    /// Told of every step of hyper's tasks until then.
    pub(super) polled: Arc<Notify>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let (settled, polled) = (Arc::clone(&self.settled), Arc::clone(&self.polled));
        let mut future = Box::pin(future);
        let observed = poll_fn(move |context| {
            let progress = future.as_mut().poll(context);
            if !settled.load(Ordering::Relaxed) {
                polled.notify_one();
            }
            progress
        });
        self.tracker
            .spawn(self.cancel.clone().run_until_cancelled_owned(observed));
    }
}

/// What follows the peer's limit while a connection runs.
pub(super) struct Driver {
    pub(super) cluster: Arc<str>,
    pub(super) executor: Executor,
    /// The streams that may be opened.
    pub(super) permits: Arc<Semaphore>,
    /// How many permits there are, used or not.
    pub(super) granted: usize,
    /// How many there may be, whatever the peer allows.
    pub(super) most: usize,
    /// Told when SETTINGS have come or never will.
    pub(super) ready: Arc<Notify>,
}

impl Driver {
    /// Makes the permits those that the peer's limit allows.
    fn adjust(&mut self, peer_allows: usize) {
        if peer_allows != STREAMS_BEFORE_SETTINGS && !self.executor.settled.swap(true, Ordering::Relaxed) {
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

type Connection = http2::Connection<TokioIo<Box<dyn Io>>, Body, Executor>;

/// Runs a connection to its end.
pub(super) async fn drive(connection: Connection, mut driver: Driver) {
    let mut connection = Box::pin(connection);
    let polled = Arc::clone(&driver.executor.polled);
    loop {
        let step = poll_fn(|context| {
            let progress = connection.as_mut().poll(context);
            if progress.is_pending() {
                driver.adjust(connection.as_ref().get_ref().current_max_send_streams());
            }
            progress
        });
        tokio::select! {
            ended = step => {
                if let Err(error) = ended {
                    tracing::debug!(cluster = %driver.cluster, %error, "HTTP/2 connection ended");
                }
                driver.permits.close();
                // Whoever waits for SETTINGS need not wait longer.
                driver.ready.notify_one();
                return;
            }
            () = polled.notified() => {}
        }
    }
}
