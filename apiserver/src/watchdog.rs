//! Ends watches whose clients stopped reading.
//!
//! A body is only asked for more while the connection has room, so it cannot notice that nobody asks. Every watch
//! therefore notes when it handed out a frame and has not been asked again; a sweep ends those that wait for longer than
//! [`STALL`]: the source of events goes at once, and a connection of HTTP/1.1, which carries nothing else, is cut. On
//! HTTP/2 the stream ends cleanly whenever its client reads again; until then it costs what hyper has buffered for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_registry::resource::EventStream;

/// How long a client may leave a frame unread: longer than the pauses of a busy client or a suspended network (the
/// keepalive of HTTP/2 takes 45 s to notice a dead peer), shorter than the five minutes in which a store may compact
/// what the watch would resume from.
pub(crate) const STALL: Duration = Duration::from_secs(90);

/// How often is looked.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);

/// The events of one watch, together with whether its client reads.
pub(crate) struct Guarded {
    events: Mutex<Option<EventStream>>,
    unread_since: Mutex<Option<Instant>>,
    /// Cuts the connection, where it carries nothing else.
    connection: Option<CancellationToken>,
    registry: Arc<Watchdog>,
    id: u64,
}

impl Guarded {
    /// The events; `None` once the watch is over.
    pub(crate) fn events(&self) -> MutexGuard<'_, Option<EventStream>> {
        self.events.lock()
    }

    /// The client asks for more.
    pub(crate) fn is_read(&self) {
        *self.unread_since.lock() = None;
    }

    /// A frame was handed out.
    pub(crate) fn waits_for_reader(&self) {
        *self.unread_since.lock() = Some(Instant::now());
    }

    /// Ends the watch.
    pub(crate) fn close(&self) {
        *self.events.lock() = None;
        self.registry.watches.lock().remove(&self.id);
    }

    fn stalled(&self, now: Instant) -> bool {
        let since = *self.unread_since.lock();
        since.is_some_and(|since| now.duration_since(since) > STALL)
    }
}

/// All watches of a server.
#[derive(Default)]
pub(crate) struct Watchdog {
    watches: Mutex<HashMap<u64, Arc<Guarded>>>,
    next: std::sync::atomic::AtomicU64,
}

impl Watchdog {
    /// Takes a watch into care. `connection` is cut when the client stops reading.
    pub(crate) fn guard(self: &Arc<Self>, events: EventStream, connection: Option<CancellationToken>) -> Arc<Guarded> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let guarded = Arc::new(Guarded {
            events: Mutex::new(Some(events)),
            unread_since: Mutex::new(None),
            connection,
            registry: Arc::clone(self),
            id,
        });
        self.watches.lock().insert(id, Arc::clone(&guarded));
        guarded
    }

    /// Ends the watches that have been left unread for too long as of `now`.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let stalled: Vec<Arc<Guarded>> = {
            let watches = self.watches.lock();
            watches.values().filter(|one| one.stalled(now)).cloned().collect()
        };
        for watch in &stalled {
            watch.close();
            if let Some(connection) = &watch.connection {
                connection.cancel();
            }
        }
        stalled.len()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.watches.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    #[tokio::test]
    async fn only_what_is_left_unread_is_ended() {
        let watchdog = Arc::new(Watchdog::default());
        let events = || futures::stream::pending().boxed();
        let cut = CancellationToken::new();
        let (unread, idle) = (
            watchdog.guard(events(), Some(cut.clone())),
            watchdog.guard(events(), None),
        );
        unread.waits_for_reader();
        idle.waits_for_reader();
        idle.is_read();
        assert_eq!(watchdog.sweep(Instant::now()), 0);
        assert_eq!(watchdog.sweep(Instant::now() + STALL * 2), 1);
        assert!(cut.is_cancelled() && unread.events().is_none() && idle.events().is_some());
        assert_eq!(watchdog.count(), 1);
    }
}
