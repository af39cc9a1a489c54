//! A child in memory: what takes hours on a network takes no time where the clock is paused and nothing waits for a socket.

use std::{
    convert::Infallible,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    body::Body,
    config::ChildConfig,
    connection::Child,
    credentials::ClientCertificate,
    transport::{Connected, Connector, Protocol},
};

/// What a pipe in memory holds, as the buffers of sockets do.
const PIPE: usize = 64 << 10;

/// How a child in memory is configured.
pub(crate) fn in_memory() -> ChildConfig {
    ChildConfig::new("c1", "https://child.test".parse().expect("a URL"))
}

/// A server in memory, and connections to it.
pub(crate) struct Memory<H> {
    handler: H,
    /// Nothing arrives any more, and nobody says so.
    silent: watch::Sender<bool>,
    connected: AtomicUsize,
    tasks: TaskTracker,
}

impl<H> fmt::Debug for Memory<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl<H> Memory<H> {
    /// A server that answers as `handler` does.
    pub(crate) fn new(handler: H) -> Arc<Self> {
        Arc::new(Self {
            handler,
            silent: watch::Sender::new(false),
            connected: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
        })
    }

    /// Drops whatever is sent from now on, on present connections and on new ones, or goes on with new ones.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Connections so far.
    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Ordering::SeqCst)
    }
}

impl<H, F> Memory<H>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    /// A child there that nobody probes.
    pub(crate) fn child(self: &Arc<Self>) -> Child {
        Child::with_connector(in_memory(), Arc::clone(self) as _, Default::default()).expect("a child")
    }
}

#[async_trait]
impl<H, F> Connector for Memory<H>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn connect(&self, protocol: Protocol, _: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        let mut silent = self.silent.subscribe();
        if *silent.borrow() {
            return std::future::pending().await;
        }
        self.connected.fetch_add(1, Ordering::SeqCst);
        let ((client, mut near), (mut far, server)) = (tokio::io::duplex(PIPE), tokio::io::duplex(PIPE));
        self.tasks.spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                _ = silent.wait_for(|silent| *silent) => {}
            }
            // Open, until the other side gives up.
            let _ = silent.wait_for(|silent| !*silent).await;
        });
        let handler = self.handler.clone();
        self.tasks.spawn(async move {
            let service = service_fn(move |request| {
                let answered = handler(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            // Ends with an error when the client leaves, which is the client's right.
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(server), service)
                .await;
        });
        Ok(Connected {
            io: Box::new(client),
            http2: protocol == Protocol::Any,
        })
    }
}
