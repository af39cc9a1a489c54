//! A replica that can be stopped, killed, cut off and asked to leave, and does a little work under every lease.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_storage::{Precondition, Store};

use super::shared::{Backend, Connection};
use crate::lease::{LeaseKey, Leases, Membership, Timing};

/// Where the work of tests is.
pub(super) const WORK: &str = "/worked-on/";
/// Between two pieces of work.
const PAUSE: Duration = Duration::from_millis(300);

/// Like SIGSTOP: nothing of the replica runs, while time goes on.
#[derive(Debug, Default)]
struct Stop {
    stopped: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

struct Stoppable<F> {
    inner: Pin<Box<F>>,
    stop: Arc<Stop>,
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *self.stop.waker.lock() = Some(context.waker().clone());
        if self.stop.stopped.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

/// A replica.
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) leases: Leases,
    stop: Arc<Stop>,
    up: watch::Sender<bool>,
    leaving: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    /// Starts a replica that wants these leases.
    pub(super) fn start(backend: &Arc<Backend>, name: &str, keys: &[LeaseKey]) -> Self {
        let (up, connected) = watch::channel(true);
        let store = Connection::open(backend, connected);
        let membership = Membership::new(Arc::clone(&store), name, Timing::default()).unwrap();
        let leases = membership.leases();
        let leaving = CancellationToken::new();
        let stop: Arc<Stop> = Arc::default();
        let workers = keys
            .iter()
            .map(|key| work(leases.clone(), key.clone(), Arc::clone(&store), name.to_owned()));
        let workers = futures::future::join_all(workers);
        let cancel = leaving.clone();
        // The work is polled first, so that a replica that wakes up late works before it looks at its membership.
        let everything = async move {
            tokio::select! {
                biased;
                _ = workers => {}
                () = membership.run(cancel) => {}
            }
        };
        let task = TaskTracker::new().spawn(Stoppable {
            inner: Box::pin(everything),
            stop: Arc::clone(&stop),
        });
        Self {
            name: name.to_owned(),
            leases,
            stop,
            up,
            leaving,
            task,
        }
    }

    /// SIGKILL.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn set_stopped(&self, stopped: bool) {
        self.stop.stopped.store(stopped, Ordering::Relaxed);
        if let Some(waker) = self.stop.waker.lock().take() {
            waker.wake();
        }
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.up.send_replace(connected);
    }

    /// SIGTERM, and then whatever it takes.
    pub(super) fn ask_to_leave(&self) {
        self.leaving.cancel();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether it can do its share.
    pub(super) fn is_healthy(&self) -> bool {
        *self.up.borrow()
            && !self.stop.stopped.load(Ordering::Relaxed)
            && !self.leaving.is_cancelled()
            && !self.has_ended()
    }
}

/// Writes its name, again and again, while it holds the lease.
async fn work(leases: Leases, key: LeaseKey, store: Arc<dyn Store>, name: String) {
    let mut lease = leases.lease(key.clone());
    loop {
        let held = lease.acquire().await;
        let store = held.store(&store);
        let working = async {
            loop {
                let path = format!("{WORK}{key}");
                // Refused where the lease is somebody else's by now.
                let _ = store.put(&path, name.clone().into(), Precondition::None).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        held.lost().run_until_cancelled(working).await;
    }
}
