//! What stands before a server and fails as networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// An address that leads to a server, until it leads elsewhere or nowhere.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    cancel: CancellationToken,
}

struct State {
    target: Mutex<SocketAddr>,
    silent: AtomicBool,
    accepted: AtomicUsize,
    changed: Notify,
}

impl Front {
    /// A front at `listen` (with port 0) before `target`.
    pub(crate) async fn start(listen: &str, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            target: Mutex::new(target),
            silent: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let accepting = accept(listener, Arc::clone(&state), tasks.clone(), cancel.clone());
        tasks.spawn(cancel.clone().run_until_cancelled_owned(accepting));
        Self { address, state, cancel }
    }

    /// Cuts what is open, and leads there from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock() = target;
        self.state.silent.store(false, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }

    /// Cuts what is open; accepts from now on and says nothing.
    pub(crate) fn fall_silent(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, tasks: TaskTracker, cancel: CancellationToken) {
    while let Ok((mut inbound, _)) = listener.accept().await {
        state.accepted.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        let forwarding = async move {
            let changed = state.changed.notified();
            if state.silent.load(Ordering::SeqCst) {
                // Open for as long as nothing changes.
                changed.await;
                return;
            }
            let target = *state.target.lock();
            let Ok(mut outbound) = TcpStream::connect(target).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound) => {}
                () = changed => {}
            }
        };
        tasks.spawn(cancel.clone().run_until_cancelled_owned(forwarding));
    }
}
