//! The listener: TLS, connections, their limits, and an orderly end.
//!
//! An end takes these steps, because kube-aggregator does not handle a GOAWAY gracefully
//! (<https://github.com/kubernetes/kubernetes/issues/135285>) and a watch would hold its connection for an hour:
//! readiness fails → [`ServerOptions::shutdown_delay`] for load balancers to notice → no more connections → watches end
//! cleanly → every connection is told to finish (GOAWAY, `Connection: close`) → after [`ServerOptions::grace`] the rest is
//! cut.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;
use umbra_child::Tracked;

use crate::filters::{Connection, PeerCertificates};
use crate::service::ApiServer;
use crate::watchdog;

/// Headers of one request, in bytes: Go's `MaxHeaderBytes` of 1 MiB. Front proxies send one header per group.
const HEADER_BYTES: usize = 1 << 20;
/// Headers of one request of HTTP/1.1, in number. hyper's 100 is less than the groups of some users.
const HEADER_COUNT: usize = 2048;
/// Streams of one connection by default: through an aggregator the watches of many users share one.
const STREAMS: u32 = 1000;
/// Bytes of a request body that are on the way: 99% of objects fit (`secure_serving.go`, `resourceBody99Percentile`).
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection: sixteen of them at full speed.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Bytes of an answer that wait in the connection: two chunks of a list, so that one is sent while the next is written.
const SEND_BUFFER: usize = 512 * 1024;
/// Streams that a client may cancel before they are looked at. An informer factory cancels its watches at once; ten times
/// the default of 20 lets it, and still stops who resets thousands (CVE-2023-44487).
const PENDING_RESETS: usize = 200;
/// How often an HTTP/2 client is asked whether it is there, and how long it may take to answer: what Go's clients use
/// (`http2` ReadIdleTimeout 30 s, PingTimeout 15 s).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client of HTTP/1.1 may take for a request's headers, which is also how long it may keep an idle connection.
/// Go's clients close theirs after 90 s; closing later lets them be first.
const HEADER_TIMEOUT: Duration = Duration::from_secs(95);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time; beyond, clients wait in the kernel's queue. A tenth of the sockets a process commonly gets
/// (1,048,576) would do as well; this bounds memory at some 3 GB even where each fills its buffers.
const CONNECTIONS: usize = 10_000;
/// A dead peer of an idle connection is noticed after 30 s + 3 × 15 s.
const TCP_IDLE: Duration = Duration::from_secs(30);
const TCP_INTERVAL: Duration = Duration::from_secs(15);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody else does.
    #[error(
        "cannot listen on {address}: the port is in use; stop the process that has it (`ss -ltnp 'sport = :{}'` shows \
         which) or choose another address",
        address.port()
    )]
    AddressInUse {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// How a server treats connections, and how it ends.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// How long requests still come in after readiness fails. Default 0; as long as load balancers take to notice.
    pub shutdown_delay: Duration,
    /// How long requests may take to finish after that. Default 30 s.
    pub grace: Duration,
    /// Whether HTTP/2 is spoken. Default yes; without, every watch has a connection of its own.
    pub http2: bool,
    /// Streams of one HTTP/2 connection (`http2-max-streams-per-connection`). Default 1000.
    pub http2_streams: u32,
    /// How likely an HTTP/2 request is the last that its connection takes: the client is told by GOAWAY to open another one,
    /// which a load balancer may lead elsewhere, and what is under way goes on (`k8s.io/apiserver/pkg/server/filters/goaway.go`).
    /// 0 to 0.02, default 0: kube-aggregator does not always bear it (<https://github.com/kubernetes/kubernetes/issues/135285>).
    pub goaway_chance: f64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            shutdown_delay: Duration::ZERO,
            grace: Duration::from_secs(30),
            http2: true,
            http2_streams: STREAMS,
            goaway_chance: 0.0,
        }
    }
}

/// A listener that serves an [`ApiServer`].
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    api: ApiServer,
    options: ServerOptions,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens. Connections wait until [`Server::run`] takes them.
    ///
    /// `tls` is taken as it is, except that HTTP/2 and HTTP/1.1 are offered where it offers no protocol. Without a
    /// `ClientCertVerifier` no client certificate is ever seen.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        mut tls: ServerConfig,
        api: ApiServer,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        if tls.alpn_protocols.is_empty() {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        if !options.http2 {
            tls.alpn_protocols.retain(|protocol| protocol != b"h2");
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::AddressInUse { address, source },
            _ => ServerError::Bind { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            api,
            options,
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then ends in the order that the module describes. Returns when everything has ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = Arc::new(Connections {
            acceptor: self.acceptor,
            api: self.api.clone(),
            options: self.options,
            tasks: TaskTracker::new(),
            finish: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let api = &self.api;
        let stop = CancellationToken::new();
        let draining = async {
            shutdown.cancelled().await;
            tracing::info!(address = %self.address, "shutting down");
            api.fail_readiness();
            tokio::time::sleep(self.options.shutdown_delay).await;
            stop.cancel();
        };
        let sweeping = sweep(api, &stop);
        let accepting = accept(self.listener, &connections, &stop);
        tokio::join!(draining, sweeping, accepting);

        api.end_watches();
        connections.finish.cancel();
        connections.tasks.close();
        if tokio::time::timeout(self.options.grace, connections.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.tasks.len(),
                "cutting connections that did not finish"
            );
            connections.abort.cancel();
            connections.tasks.wait().await;
        }
    }
}

/// Ends what nobody reads.
async fn sweep(api: &ApiServer, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(watchdog::SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                let now = Instant::now();
                let (watches, answers) = (api.watchdog().sweep(now), api.unread().sweep(now));
                if watches > 0 || answers > 0 {
                    tracing::info!(watches, answers, "ended what clients stopped reading");
                    api.metrics().stalled(watches, answers);
                }
            }
        }
    }
}

async fn accept(listener: TcpListener, connections: &Arc<Connections>, stop: &CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let served = Arc::clone(connections).serve(stream, peer, place);
                connections.tasks.spawn(served);
            }
            Err(error) => {
                // Mostly the limit of open files: waiting lets connections end. Jitter, as for every retry.
                tracing::warn!(%error, "a connection could not be accepted");
                let jitter: f64 = rand::random();
                tokio::time::sleep(Duration::from_secs_f64(0.05 + jitter * 0.1)).await;
            }
        }
    }
}

/// What connections share.
struct Connections {
    acceptor: TlsAcceptor,
    api: ApiServer,
    options: ServerOptions,
    tasks: TaskTracker,
    /// Connections take no more requests.
    finish: CancellationToken,
    /// Connections are cut.
    abort: CancellationToken,
}

impl Connections {
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        let abort = self.abort.child_token();
        tokio::select! {
            () = abort.cancelled() => {}
            () = self.serve_until_done(stream, peer, &abort) => {}
        }
    }

    async fn serve_until_done(&self, stream: TcpStream, peer: SocketAddr, abort: &CancellationToken) {
        if let Err(error) = set_up(&stream) {
            tracing::debug!(%peer, %error, "a socket could not be set up");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                // Port scanners and TCP health checks end here as well, so this is no warning.
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!(%peer, "a TLS handshake took too long");
                return;
            }
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = PeerCertificates(certificates.into());
        let api = self.api.clone();
        let connection = Connection {
            abort: abort.clone(),
            peer,
        };
        let retire = self.finish.child_token();
        let (retiring, chance) = (retire.clone(), self.options.goaway_chance);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(certificates.clone());
            request.extensions_mut().insert(connection.clone());
            if chance > 0.0 && request.version() == Version::HTTP_2 && rand::random::<f64>() < chance {
                retiring.cancel();
            }
            api.clone().call(request)
        });
        let builder = builder(Tracked::new(self.tasks.clone()), self.options);
        let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = retire.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error = %error, "a connection ended with an error");
        }
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(TCP_IDLE)
        .with_interval(TCP_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn builder(executor: Tracked, options: ServerOptions) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(executor);
    if !options.http2 {
        builder = builder.http1_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADER_COUNT)
        .max_buf_size(HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.http2_streams)
        .max_header_list_size(HEADER_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(STREAM_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
