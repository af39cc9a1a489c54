//! A TCP proxy before a server, which fails as networks and servers do, from one moment to the next.
//!
//! What is open when a fault begins suffers it too, where a network's fault would reach it, and goes on afterwards where TCP
//! would: nothing is lost between two bytes, except by a reset. Faults of single packets are made of what TCP makes of them for
//! a program, because not every kernel has netem: a lost segment is a pause of one retransmission timeout, in order.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_auth::certificates::CertificateAuthority;

use crate::faults::carry::carry;

/// How long a program may take to start.
const RELEASED: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long the proxy itself waits for a connection before it counts as lost. On loopback one takes microseconds.
const LOST: Duration = Duration::from_millis(200);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Packets in both directions are dropped, SYNs too, and nobody is told.
    Dropped,
    /// The server takes connections and requests and never answers.
    Mute,
    /// The server sends so many bytes a second on each connection.
    Slow(u32),
    /// Each connection is reset after so many bytes of the server.
    Reset(u64),
    /// Nobody listens, and what was open is reset.
    Refused,
    /// One segment of a hundred is lost.
    Lossy,
    /// What was open is reset, and the server's certificate has expired.
    Expired,
}

/// The proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    fault: watch::Sender<Fault>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy at a free port of 127.0.0.1 before the server at `target`, whose certificates `authority` signs.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn start(target: SocketAddr, authority: &CertificateAuthority) -> Self {
        let (fault, seen) = watch::channel(Fault::None);
        let cancel = CancellationToken::new();
        let expired = expired(authority);
        let (tell, told) = std::sync::mpsc::channel();
        let until = cancel.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = listening(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                let address = listener.local_addr().expect("a listener has an address");
                tell.send(address.port()).expect("somebody waits");
                let proxy = Running {
                    address,
                    target,
                    fault: seen,
                    expired,
                    tasks: TaskTracker::new(),
                    cancel: until.clone(),
                };
                until.run_until_cancelled(proxy.serve(listener)).await;
                proxy.tasks.close();
                proxy.tasks.wait().await;
            });
        });
        Self {
            port: told.recv().expect("the proxy listens"),
            fault,
            cancel,
            thread: Some(thread),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this goes wrong, and nothing else.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been printed.
            let _ = thread.join();
        }
    }
}

/// What a server with a certificate of yesterday presents.
type Expired = std::sync::Arc<rustls::ServerConfig>;

fn expired(authority: &CertificateAuthority) -> Expired {
    // Good until now: over by the time that anybody looks at it.
    let issued = authority.issue_serving(&["127.0.0.1".to_owned()], Duration::ZERO);
    let issued = issued.expect("an authority issues certificates");
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    std::sync::Arc::new(config.expect("the key of the certificate"))
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The same for an address whose listener has just been closed. A program that is being started at that moment has it still, until
/// it runs.
async fn bound_again(address: SocketAddr) -> TcpSocket {
    let deadline = Instant::now() + RELEASED;
    loop {
        match bound(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            bound => return bound.unwrap_or_else(|error| panic!("{address}: {error}")),
        }
    }
}

fn listening(address: SocketAddr) -> TcpListener {
    let socket = bound(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.listen(BACKLOG).expect("a bound socket")
}

struct Running {
    address: SocketAddr,
    target: SocketAddr,
    fault: watch::Receiver<Fault>,
    expired: Expired,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Running {
    async fn serve(&self, mut listener: TcpListener) {
        let mut fault = self.fault.clone();
        loop {
            let now = *fault.borrow_and_update();
            match now {
                Fault::Refused => {
                    drop(listener);
                    // A bound socket that does not listen: the port stays ours, and connections to it are refused.
                    let socket = bound_again(self.address).await;
                    if fault.changed().await.is_err() {
                        return;
                    }
                    listener = socket.listen(BACKLOG).expect("a bound socket");
                }
                Fault::Dropped => {
                    let waiting = self.fill(&listener).await;
                    let changed = fault.changed().await;
                    drop(waiting);
                    rustix::net::listen(&listener, BACKLOG.cast_signed()).expect("a listener");
                    if changed.is_err() {
                        return;
                    }
                }
                _ => tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((client, _)) = accepted {
                            self.take(client, now);
                        }
                    }
                    changed = fault.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    /// Has so many connections wait that the kernel drops further SYNs, as it does where a listener's queue is full.
    async fn fill(&self, listener: &TcpListener) -> Vec<TcpStream> {
        rustix::net::listen(listener, 0).expect("a listener");
        let mut waiting = Vec::new();
        while let Ok(connected) = tokio::time::timeout(LOST, TcpStream::connect(self.address)).await {
            waiting.push(connected.expect("the listener is there"));
        }
        waiting
    }

    fn take(&self, client: TcpStream, fault: Fault) {
        if fault == Fault::Expired {
            let config = std::sync::Arc::clone(&self.expired);
            self.tasks.spawn_blocking(move || present(client, config));
            return;
        }
        let (target, seen) = (self.target, self.fault.clone());
        let carrying = async move {
            // A server that is not there any more closes the connection, as far as the client can tell.
            if let Ok(server) = TcpStream::connect(target).await {
                carry(client, server, seen).await;
            }
        };
        self.tasks
            .spawn(self.cancel.clone().run_until_cancelled_owned(carrying));
    }
}

/// Shakes hands with the expired certificate; the client hangs up.
fn present(client: TcpStream, config: Expired) {
    let Ok(mut client) = client.into_std() else { return };
    let ready = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(Some(Duration::from_secs(5))));
    let Ok(mut connection) = rustls::ServerConnection::new(config) else {
        return;
    };
    while ready.is_ok() && connection.is_handshaking() {
        if connection.complete_io(&mut client).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
