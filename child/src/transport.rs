//! Byte streams to a child's API server: the seam between how it is reached and what is said to it.
//!
//! * [`direct`]: one endpoint is dialled: names ([`names`]) and addresses ([`race`]), a proxy ([`through`]), TLS.
//! * [`endpoints`]: several endpoints of one API server, of which one is used until it fails.
//! * Tunnels are another [`Connector`] and live elsewhere.

mod direct;
mod endpoints;
mod names;
mod race;
mod through;

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use socket2::TcpKeepalive;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{config::ChildConfig, credentials::ClientCertificate};

pub use direct::DirectConnector;
use endpoints::Endpoints;

/// HTTP/1.1 has no pings, and an `exec` may be silent for hours: the kernel asks whether the peer is still there, 9 times
/// by default before it gives up.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where the child speaks it, else HTTP/1.1.
    Any,
    /// HTTP/1.1, for upgrades.
    Http1,
}

/// An open stream.
pub struct Connected {
    /// The stream, TLS done.
    pub io: Box<dyn Io>,
    /// Whether the peer speaks HTTP/2 on it.
    pub http2: bool,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected")
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}

/// A stream on a way that is preferred to the one in use.
#[derive(Debug)]
pub struct Preferred {
    /// Which way it is; for [`Connector::settle`].
    pub way: usize,
    /// The stream, for HTTP/1.1.
    pub connected: Connected,
}

/// Opens byte streams to one child's API server.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream, authenticating with `certificate` where the stream itself authenticates. Must end within seconds.
    ///
    /// # Errors
    ///
    /// When the child cannot be reached, or is not who it should be. The text is shown to users.
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected>;

    /// Where connections lead now, for people, where there is more than one way. `None` by default.
    fn way(&self) -> Option<Arc<str>> {
        None
    }

    /// How many ways there are. One by default.
    fn ways(&self) -> usize {
        1
    }

    /// Goes another way from now on, because what answers on this one does not serve. Whether there is another one; `false` by
    /// default.
    fn avoid(&self) -> bool {
        false
    }

    /// Tries the ways that are preferred to the one in use. `None`, the default, where there is none.
    async fn try_preferred(&self, _certificate: Option<&Arc<ClientCertificate>>) -> Option<io::Result<Preferred>> {
        None
    }

    /// Goes `way` from now on.
    fn settle(&self, _way: usize) {}
}

/// What opens streams to the child of `config`.
///
/// # Errors
/// A message that says what is wrong with the configuration.
pub(crate) fn connector(config: &ChildConfig) -> Result<Arc<dyn Connector>, String> {
    if let Some(connector) = &config.connector {
        return Ok(Arc::clone(connector));
    }
    if config.alternatives.is_empty() {
        return Ok(Arc::new(DirectConnector::new(config)?));
    }
    Ok(Arc::new(Endpoints::new(config)?))
}

/// What every TCP connection to a child or its proxy is set to.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(tcp).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE_TIME)
            .with_interval(KEEP_ALIVE_INTERVAL),
    )
}
