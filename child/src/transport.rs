//! Byte streams to a child's API server: the seam between how it is reached and what is said to it.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::Engine as _;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::TcpKeepalive;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::{
    config::ChildConfig,
    credentials::ClientCertificate,
    tls::{self, Trust},
};

/// How long DNS, TCP, a proxy and TLS may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/1.1 has no pings, and an `exec` may be silent for hours: the kernel asks whether the peer is still there, 9 times
/// by default before it gives up.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// What a proxy may answer to `CONNECT`.
const PROXY_ANSWER_LIMIT: usize = 16 << 10;

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

/// Opens byte streams to one child's API server.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream, authenticating with `certificate` where the stream itself authenticates. Must end within seconds.
    ///
    /// # Errors
    ///
    /// When the child cannot be reached, or is not who it should be. The text is shown to users.
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected>;
}

/// Dials the API server: TCP, a `CONNECT` proxy where one is configured, TLS.
pub struct DirectConnector {
    host: String,
    port: u16,
    proxy: Option<Url>,
    tls: Option<Tls>,
}

struct Tls {
    trust: Trust,
    name: ServerName<'static>,
    /// The configurations of the last certificate, kept because they hold the session tickets.
    cache: Mutex<Option<Configurations>>,
}

#[derive(Clone)]
struct Configurations {
    certificate: Option<Arc<ClientCertificate>>,
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl fmt::Debug for DirectConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectConnector")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl DirectConnector {
    /// A connector for the server of `config`.
    ///
    /// # Errors
    ///
    /// A message that says what is wrong with the configuration.
    pub fn new(config: &ChildConfig) -> Result<Self, String> {
        let server = &config.server;
        let host = match server
            .host()
            .ok_or_else(|| format!("the server {server} has no host"))?
        {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = server
            .port_or_known_default()
            .ok_or_else(|| format!("the server {server} has no port"))?;
        if let Some(proxy) = config.proxy_url.as_ref().filter(|proxy| proxy.scheme() != "http") {
            return Err(format!(
                "proxies of scheme {:?} are not supported; use http://",
                proxy.scheme()
            ));
        }
        let tls = match server.scheme() {
            "https" => Some(Tls {
                trust: Trust::new(config.certificate_authority.as_deref(), config.insecure_skip_tls_verify)?,
                name: {
                    let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
                    ServerName::try_from(name)
                        .map_err(|error| format!("the TLS server name cannot be used: {error}"))?
                },
                cache: Mutex::new(None),
            }),
            "http" if config.allow_plaintext => None,
            "http" => {
                return Err(format!(
                    "the server {server} would be sent credentials in the clear; use https://"
                ));
            }
            other => return Err(format!("servers of scheme {other:?} are not supported; use https://")),
        };
        Ok(Self {
            host,
            port,
            proxy: config.proxy_url.clone(),
            tls,
        })
    }

    async fn dial(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        let tcp = match &self.proxy {
            None => TcpStream::connect((self.host.as_str(), self.port)).await?,
            Some(proxy) => self.through(proxy).await?,
        };
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEP_ALIVE_TIME)
                .with_interval(KEEP_ALIVE_INTERVAL),
        )?;
        let Some(tls) = &self.tls else {
            return Ok(Connected {
                io: Box::new(tcp),
                http2: false,
            });
        };
        let config = tls.configuration(protocol, certificate)?;
        let stream = TlsConnector::from(config)
            .connect(tls.name.clone(), tcp)
            .await
            .map_err(explained)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            io: Box::new(stream),
            http2,
        })
    }

    /// RFC 9110 §9.3.6.
    async fn through(&self, proxy: &Url) -> io::Result<TcpStream> {
        let failed = |message: String| io::Error::other(format!("proxy {}: {message}", proxy.host_str().unwrap_or("")));
        let host = proxy
            .host_str()
            .ok_or_else(|| failed("no host".into()))?
            .trim_matches(['[', ']']);
        let port = proxy.port_or_known_default().unwrap_or(80);
        let mut tcp = TcpStream::connect((host, port))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let target = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if !proxy.username().is_empty() {
            let decoded = |text| {
                percent_encoding::percent_decode_str(text)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            let pair = format!(
                "{}:{}",
                decoded(proxy.username()),
                decoded(proxy.password().unwrap_or(""))
            );
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
        }
        request.push_str("\r\n");
        tcp.write_all(request.as_bytes()).await?;
        // Byte by byte, because what follows the empty line belongs to TLS.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() > PROXY_ANSWER_LIMIT {
                return Err(failed("its answer is too long".into()));
            }
            answer.push(tcp.read_u8().await.map_err(|error| failed(error.to_string()))?);
        }
        let line = String::from_utf8_lossy(&answer);
        let line = line.lines().next().unwrap_or_default();
        if line
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.len() == 3 && code.starts_with('2'))
        {
            Ok(tcp)
        } else {
            Err(failed(format!("it answered {line:?} to CONNECT {target}")))
        }
    }
}

impl Tls {
    fn configuration(
        &self,
        protocol: Protocol,
        certificate: Option<&Arc<ClientCertificate>>,
    ) -> io::Result<Arc<ClientConfig>> {
        let mut cache = self.cache.lock();
        let configurations = match &*cache {
            Some(cached) if cached.certificate.as_ref() == certificate => cached.clone(),
            _ => {
                let certificate_pem = certificate.map(Arc::as_ref);
                let made = Configurations {
                    certificate: certificate.cloned(),
                    any: Arc::new(tls::client_config(&self.trust, certificate_pem, &[b"h2", b"http/1.1"])?),
                    http1: Arc::new(tls::client_config(&self.trust, certificate_pem, &[b"http/1.1"])?),
                };
                *cache = Some(made.clone());
                made
            }
        };
        Ok(match protocol {
            Protocol::Any => configurations.any,
            Protocol::Http1 => configurations.http1,
        })
    }
}

/// Says what to do about a certificate that is not trusted.
fn explained(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => io::Error::new(
            error.kind(),
            format!("{error}; check the cluster's certificate authority (caData) and tlsServerName"),
        ),
        _ => error,
    }
}

#[async_trait]
impl Connector for DirectConnector {
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.dial(protocol, certificate))
            .await
            .map_err(|_| {
                let message = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, message)
            })?
    }
}
