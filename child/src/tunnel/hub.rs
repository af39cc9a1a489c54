//! The hub's side: which tunnels there are, and streams through them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CONTROL, HTTP, control,
    mux::{self, Open, STREAMS, Stream},
};
use crate::{
    credentials::ClientCertificate,
    transport::{Connected, Connector, Io, Protocol},
};

/// How long a stream may take to be opened: nothing but a byte is sent for it.
const OPEN: Duration = Duration::from_secs(5);
/// Streams that are asked for at once; more wait.
const ASKED: usize = 64;

/// Tunnels of one cluster that end here at once.
const PER_CLUSTER: usize = 16;
/// Those of one agent: half, so that one certificate that is in wrong hands leaves room for agents with another. The agents of one
/// Deployment share theirs; each has one tunnel, and a second for as long as something is under way on the one before. So four of
/// them have room.
const PER_AGENT: usize = 8;

/// Tunnels that end at other replicas of the hub.
#[async_trait]
pub trait Peers: fmt::Debug + Send + Sync {
    /// A stream of HTTP to `cluster` through another replica; `None` where none has a tunnel of it. Ends within seconds.
    ///
    /// # Errors
    /// Where the replicas that have one could not be reached.
    async fn open(&self, cluster: &str) -> io::Result<Option<Box<dyn Io>>>;
}

/// There is no room for another tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooManyTunnels {
    /// One agent has as many as one may.
    #[error(
        "the agents that share this certificate's ClusterJoinRequest have {PER_AGENT} tunnels here already; no more are opened"
    )]
    OfAgent,
    /// The cluster has as many as one may.
    #[error("cluster {cluster} has {PER_CLUSTER} tunnels here already; no more are opened")]
    OfCluster {
        /// Its name.
        cluster: Arc<str>,
    },
}

/// How many tunnels there are, and begin, by cluster and agent.
type Counts = BTreeMap<Arc<str>, BTreeMap<Arc<str>, usize>>;

/// Room for one tunnel, as long as this lives.
pub struct Slot {
    tunnels: Tunnels,
    cluster: Arc<str>,
    agent: Arc<str>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("cluster", &self.cluster)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.tunnels.0.counts.lock();
        let Some(agents) = counts.get_mut(&self.cluster) else {
            return;
        };
        if let Some(count) = agents.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                agents.remove(&self.agent);
            }
        }
        if agents.is_empty() {
            counts.remove(&self.cluster);
        }
    }
}

/// The tunnels that end here, by cluster. Clones are the same set.
#[derive(Clone)]
pub struct Tunnels(Arc<Set>);

struct Set {
    tunnels: Mutex<BTreeMap<Arc<str>, Vec<Arc<Tunnel>>>>,
    counts: Mutex<Counts>,
    next: AtomicU64,
    held: watch::Sender<BTreeSet<Arc<str>>>,
    peers: OnceLock<Arc<dyn Peers>>,
    connectors: Mutex<BTreeMap<Arc<str>, Arc<TunnelConnector>>>,
    tracker: TaskTracker,
    drain: CancellationToken,
    cancel: CancellationToken,
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tunnels").field(&self.held()).finish()
    }
}

/// One tunnel.
struct Tunnel {
    id: u64,
    opens: mpsc::Sender<Open>,
    streams: Arc<Semaphore>,
    draining: AtomicBool,
}

impl Tunnel {
    fn load(&self) -> usize {
        STREAMS - self.streams.available_permits()
    }

    async fn open(&self, kind: u8) -> io::Result<TunnelStream> {
        let full = |_| io::Error::other(format!("all {STREAMS} streams of the tunnel are in use"));
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(full)?;
        let opened = async {
            let gone = || io::Error::new(io::ErrorKind::ConnectionReset, "the tunnel has ended");
            let (sender, receiver) = oneshot::channel();
            self.opens.send(sender).await.map_err(|_| gone())?;
            let mut stream = receiver.await.map_err(|_| gone())?;
            stream.write_u8(kind).await?;
            stream.flush().await?;
            Ok(TunnelStream {
                stream,
                _permit: permit,
            })
        };
        timeout(OPEN, opened).await.unwrap_or_else(|_| {
            let message = format!("the tunnel opened no stream within {} s", OPEN.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl Default for Tunnels {
    fn default() -> Self {
        Self::new()
    }
}

impl Tunnels {
    /// No tunnels yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Set {
            tunnels: Mutex::default(),
            counts: Mutex::default(),
            next: AtomicU64::new(0),
            held: watch::Sender::default(),
            peers: OnceLock::new(),
            connectors: Mutex::default(),
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            cancel: CancellationToken::new(),
        }))
    }

    /// Reaches clusters without a tunnel here through other replicas from now on. Only the first call counts.
    pub fn set_peers(&self, peers: Arc<dyn Peers>) {
        let _ = self.0.peers.set(peers);
    }

    /// The clusters with a tunnel here. The receiver is told of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeSet<Arc<str>>> {
        self.0.held.subscribe()
    }

    /// The clusters with a tunnel here.
    #[must_use]
    pub fn held(&self) -> BTreeSet<Arc<str>> {
        self.0.held.borrow().clone()
    }

    /// What reaches `cluster`; the same for every call, so that a child that is configured anew keeps its connections.
    #[must_use]
    pub fn connector(&self, cluster: &str) -> Arc<dyn Connector> {
        let mut connectors = self.0.connectors.lock();
        if let Some(connector) = connectors.get(cluster) {
            return Arc::clone(connector) as _;
        }
        let connector = Arc::new(TunnelConnector {
            cluster: cluster.into(),
            tunnels: Self(Arc::clone(&self.0)),
        });
        connectors.insert(cluster.into(), Arc::clone(&connector));
        connector
    }

    /// Forgets what reaches a cluster that is gone.
    pub fn forget(&self, cluster: &str) {
        self.0.connectors.lock().remove(cluster);
    }

    /// Room for one more tunnel of `agent`, which speaks for `cluster`. Those that there are stay, however many ask: who has
    /// connected is not to be cut by who comes later.
    ///
    /// # Errors
    /// Where there is none.
    pub fn reserve(&self, cluster: &str, agent: &str) -> Result<Slot, TooManyTunnels> {
        let (cluster, agent): (Arc<str>, Arc<str>) = (cluster.into(), agent.into());
        let mut counts = self.0.counts.lock();
        let agents = counts.get(&cluster);
        let of_agent = agents
            .and_then(|agents| agents.get(&agent))
            .copied()
            .unwrap_or_default();
        let of_cluster: usize = agents.map_or(0, |agents| agents.values().sum());
        if of_agent >= PER_AGENT {
            return Err(TooManyTunnels::OfAgent);
        }
        if of_cluster >= PER_CLUSTER {
            return Err(TooManyTunnels::OfCluster { cluster });
        }
        *counts
            .entry(Arc::clone(&cluster))
            .or_default()
            .entry(Arc::clone(&agent))
            .or_default() += 1;
        drop(counts);
        Ok(Slot {
            tunnels: self.clone(),
            cluster,
            agent,
        })
    }

    /// Takes over a connection for which there is room, in a task of its own, until it breaks or `revoked` says why it is to be
    /// cut, which is then done at once.
    pub fn hold(
        &self,
        slot: Slot,
        io: impl Future<Output = io::Result<Box<dyn Io>>> + Send + 'static,
        revoked: impl Future<Output = String> + Send + 'static,
    ) {
        let tunnels = self.clone();
        let cancel = self.0.cancel.clone();
        self.0.tracker.spawn(async move {
            let cluster = &slot.cluster;
            let held = async {
                tokio::select! {
                    ended = async { tunnels.run(cluster, io.await?).await } => match ended {
                        Ok(()) => tracing::info!(%cluster, "a tunnel has ended"),
                        Err(error) => tracing::info!(%cluster, %error, "a tunnel has ended"),
                    },
                    reason = revoked => tracing::warn!(%cluster, reason, "a tunnel is cut"),
                }
            };
            cancel.run_until_cancelled(held).await;
        });
    }

    async fn run(&self, cluster: &Arc<str>, io: Box<dyn Io>) -> io::Result<()> {
        let (opens, asked) = mpsc::channel(ASKED);
        let tunnel = Arc::new(Tunnel {
            id: self.0.next.fetch_add(1, Ordering::Relaxed),
            opens,
            streams: Arc::new(Semaphore::new(STREAMS)),
            draining: AtomicBool::new(false),
        });
        let controlled = async {
            let stream = tunnel.open(CONTROL).await?;
            let _registered = self.register(cluster, &tunnel);
            tracing::info!(%cluster, tunnel = tunnel.id, "an agent is connected");
            let drained = || {
                tunnel.draining.store(true, Ordering::Relaxed);
                self.publish();
            };
            control::beat(stream, &self.0.drain, drained).await
        };
        tokio::select! {
            ended = mux::open_streams(io, asked) => ended,
            ended = controlled => ended,
        }
    }

    fn register(&self, cluster: &Arc<str>, tunnel: &Arc<Tunnel>) -> Registered<'_> {
        let mut tunnels = self.0.tunnels.lock();
        tunnels.entry(Arc::clone(cluster)).or_default().push(Arc::clone(tunnel));
        drop(tunnels);
        self.publish();
        Registered {
            tunnels: self,
            cluster: Arc::clone(cluster),
            id: tunnel.id,
        }
    }

    fn publish(&self) {
        let tunnels = self.0.tunnels.lock();
        let usable = |all: &Vec<Arc<Tunnel>>| all.iter().any(|one| !one.draining.load(Ordering::Relaxed));
        let held: BTreeSet<Arc<str>> = tunnels
            .iter()
            .filter(|(_, all)| usable(all))
            .map(|(cluster, _)| Arc::clone(cluster))
            .collect();
        drop(tunnels);
        self.0.held.send_if_modified(|known| {
            let changed = *known != held;
            *known = held;
            changed
        });
    }

    /// A stream of HTTP to `cluster` through a tunnel that ends here; `None` where there is none.
    ///
    /// # Errors
    /// Where none of its tunnels opens a stream.
    pub async fn open(&self, cluster: &str) -> io::Result<Option<Box<dyn Io>>> {
        let mut tunnels = self.0.tunnels.lock().get(cluster).cloned().unwrap_or_default();
        // Those whose agent is going only where there is no other.
        tunnels.sort_by_key(|one| (one.draining.load(Ordering::Relaxed), one.load()));
        let mut failure = None;
        for tunnel in tunnels {
            match tunnel.open(HTTP).await {
                Ok(stream) => return Ok(Some(Box::new(stream))),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Asks all agents to have their tunnels elsewhere. What is under way goes on.
    pub fn drain(&self) {
        self.0.drain.cancel();
    }

    /// Cuts all tunnels and waits until they have ended.
    pub async fn close(&self) {
        self.0.cancel.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

/// A tunnel that can be used, as long as this lives.
struct Registered<'a> {
    tunnels: &'a Tunnels,
    cluster: Arc<str>,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut tunnels = self.tunnels.0.tunnels.lock();
        if let Some(all) = tunnels.get_mut(&self.cluster) {
            all.retain(|one| one.id != self.id);
            if all.is_empty() {
                tunnels.remove(&self.cluster);
            }
        }
        drop(tunnels);
        self.tunnels.publish();
    }
}

/// Reaches one cluster through whatever tunnel of it there is.
pub struct TunnelConnector {
    cluster: Arc<str>,
    tunnels: Tunnels,
}

impl fmt::Debug for TunnelConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelConnector")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for TunnelConnector {
    /// The tunnel has authenticated the agent, so `certificate` is not used. HTTP/2 is spoken with prior knowledge.
    async fn connect(
        &self,
        protocol: Protocol,
        _certificate: Option<&Arc<ClientCertificate>>,
    ) -> io::Result<Connected> {
        let connected = |io| Connected {
            io,
            http2: protocol == Protocol::Any,
        };
        let here = self.tunnels.open(&self.cluster).await;
        if let Ok(Some(io)) = here {
            return Ok(connected(io));
        }
        if let Some(peers) = self.tunnels.0.peers.get()
            && let Some(io) = peers.open(&self.cluster).await?
        {
            return Ok(connected(io));
        }
        here?;
        let message = "no agent of the cluster is connected; look at the pods of the Deployment umbra-agent there";
        Err(io::Error::new(io::ErrorKind::NotConnected, message))
    }
}

/// A stream, counted as long as it lives.
struct TunnelStream {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
