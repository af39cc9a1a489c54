//! Ends answers whose clients stopped reading.
//!
//! A body is only asked for more while the connection has room, so it cannot notice that nobody asks. Every watch, and every
//! short request that holds a place among those in flight, therefore notes when it handed out a frame and has not been asked
//! again; a sweep ends those that wait for longer than [`STALL`]: what the answer comes from goes at once, and a connection of
//! HTTP/1.1, which carries nothing else, is cut. On HTTP/2 the stream ends whenever its client reads again; until then it costs
//! what hyper has buffered for it. kube-apiserver ends all but watches at their deadline, read or not
//! (`k8s.io/apiserver/pkg/server/filters/timeout.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a client may leave a frame unread: longer than the pauses of a busy client or a suspended network (the
/// keepalive of HTTP/2 takes 45 s to notice a dead peer), shorter than the five minutes in which a store may compact
/// what the watch would resume from.
pub(crate) const STALL: Duration = Duration::from_secs(90);

/// How often is looked.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);

/// What one answer comes from, together with whether its client reads.
pub(crate) struct Guarded<S> {
    source: Mutex<Option<S>>,
    unread_since: Mutex<Option<Instant>>,
    /// Cuts the connection, where it carries nothing else.
    connection: Option<CancellationToken>,
    registry: Arc<Watchdog<S>>,
    id: u64,
}

impl<S> Guarded<S> {
    /// What the answer comes from; `None` once it is over.
    pub(crate) fn source(&self) -> MutexGuard<'_, Option<S>> {
        self.source.lock()
    }

    /// The client asks for more.
    pub(crate) fn is_read(&self) {
        *self.unread_since.lock() = None;
    }

    /// A frame was handed out.
    pub(crate) fn waits_for_reader(&self) {
        *self.unread_since.lock() = Some(Instant::now());
    }

    /// Ends the answer.
    pub(crate) fn close(&self) {
        self.registry.answers.lock().remove(&self.id);
        let source = self.source.lock().take();
        drop(source);
    }

    fn stalled(&self, now: Instant) -> bool {
        let since = *self.unread_since.lock();
        since.is_some_and(|since| now.duration_since(since) > STALL)
    }
}

/// All answers of one kind of a server.
pub(crate) struct Watchdog<S> {
    answers: Mutex<HashMap<u64, Arc<Guarded<S>>>>,
    next: std::sync::atomic::AtomicU64,
}

impl<S> Default for Watchdog<S> {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            next: std::sync::atomic::AtomicU64::default(),
        }
    }
}

impl<S> Watchdog<S> {
    /// Takes an answer into care. `connection` is cut when the client stops reading.
    pub(crate) fn guard(self: &Arc<Self>, source: S, connection: Option<CancellationToken>) -> Arc<Guarded<S>> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let guarded = Arc::new(Guarded {
            source: Mutex::new(Some(source)),
            unread_since: Mutex::new(None),
            connection,
            registry: Arc::clone(self),
            id,
        });
        self.answers.lock().insert(id, Arc::clone(&guarded));
        guarded
    }

    /// Ends the answers that have been left unread for too long as of `now`.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let stalled: Vec<Arc<Guarded<S>>> = {
            let answers = self.answers.lock();
            answers.values().filter(|one| one.stalled(now)).cloned().collect()
        };
        for answer in &stalled {
            answer.close();
            if let Some(connection) = &answer.connection {
                connection.cancel();
            }
        }
        stalled.len()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.answers.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_left_unread_is_ended() {
        let watchdog = Arc::new(Watchdog::default());
        let cut = CancellationToken::new();
        let (unread, idle) = (
            watchdog.guard("events", Some(cut.clone())),
            watchdog.guard("events", None),
        );
        unread.waits_for_reader();
        idle.waits_for_reader();
        idle.is_read();
        assert_eq!(watchdog.sweep(Instant::now()), 0);
        assert_eq!(watchdog.sweep(Instant::now() + STALL * 2), 1);
        assert!(cut.is_cancelled() && unread.source().is_none() && idle.source().is_some());
        assert_eq!(watchdog.count(), 1);
    }
}
