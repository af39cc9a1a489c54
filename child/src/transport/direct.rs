//! Dialling one endpoint: name, addresses, proxy, TLS.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use url::Host;

use super::{Connected, Connector, Io, Protocol, keep_alive, names::Name, race, through::Proxy};
use crate::{
    config::{ChildConfig, Endpoint, redacted},
    credentials::ClientCertificate,
    failure::{ConnectError, Failure},
    tls::{self, Trust},
};

/// How long DNS, TCP, a proxy and TLS may take together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Dials the API server: TCP, a proxy where one is configured, TLS.
pub struct DirectConnector {
    server: Name,
    proxy: Option<Proxy>,
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
            .field("server", &self.server)
            .field("proxy", &self.proxy)
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
        let [first, ..] = &config.endpoints()[..] else {
            unreachable!("a child has its server")
        };
        Self::of(first, config.allow_plaintext)
    }

    /// A connector for one endpoint.
    ///
    /// # Errors
    /// As [`DirectConnector::new`].
    pub(super) fn of(endpoint: &Endpoint, allow_plaintext: bool) -> Result<Self, String> {
        let server = redacted(&endpoint.server);
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
        let (authority, insecure) = (
            endpoint.certificate_authority.as_deref(),
            endpoint.insecure_skip_tls_verify,
        );
        let proxy = endpoint.proxy_url.as_ref();
        let proxy = proxy.map(|url| Proxy::new(url, authority, insecure)).transpose()?;
        let tls = match server.scheme() {
            "https" => Some(Tls {
                trust: Trust::new(authority, insecure)?,
                name: {
                    let name = endpoint.tls_server_name.clone().unwrap_or_else(|| host.clone());
                    ServerName::try_from(name)
                        .map_err(|error| format!("the TLS server name cannot be used: {error}"))?
                },
                cache: Mutex::new(None),
            }),
            "http" if allow_plaintext => None,
            "http" => {
                return Err(format!(
                    "the server {server} would be sent credentials in the clear; use https://"
                ));
            }
            other => return Err(format!("servers of scheme {other:?} are not supported; use https://")),
        };
        let server = Name::new(host, port);
        Ok(Self { server, proxy, tls })
    }

    async fn dial(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        let stream: Box<dyn Io> = match &self.proxy {
            None => {
                let tcp = race::connect(&self.server).await?;
                keep_alive(&tcp)?;
                Box::new(tcp)
            }
            Some(proxy) => proxy.connect(self.server.host(), self.server.port()).await?,
        };
        let Some(tls) = &self.tls else {
            return Ok(Connected {
                io: stream,
                http2: false,
            });
        };
        let config = tls.configuration(protocol, certificate)?;
        let stream = TlsConnector::from(config)
            .connect(tls.name.clone(), stream)
            .await
            .map_err(|error| explained(&error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            io: Box::new(stream),
            http2,
        })
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

/// Says what to do about a certificate that is not trusted, and that it was TLS that failed.
fn explained(error: &io::Error) -> io::Error {
    let failure = match Failure::of_io(error) {
        // Whoever closes the connection in the middle of the handshake may be no TLS server, or be overloaded.
        Failure::Unreachable => Failure::Tls,
        failure => failure,
    };
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let message = match inner {
        Some(rustls::Error::InvalidCertificate(_)) => {
            format!("{error}; check the cluster's certificate authority (caData) and tlsServerName")
        }
        _ => format!("TLS: {error}"),
    };
    ConnectError::io(failure, message)
}

#[async_trait]
impl Connector for DirectConnector {
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.dial(protocol, certificate))
            .await
            .map_err(|_| {
                let name = self.proxy.as_ref().map_or(&self.server, Proxy::server);
                if name.is_being_looked_up() {
                    let (host, seconds) = (name.host(), CONNECT_TIMEOUT.as_secs());
                    let message = format!("the name {host} is not resolved within {seconds} s; check the name servers");
                    return ConnectError::io(Failure::Dns, message);
                }
                let through = self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy:?}"));
                let message = format!(
                    "no connection within {} s{}",
                    CONNECT_TIMEOUT.as_secs(),
                    through.unwrap_or_default()
                );
                ConnectError::io(Failure::Timeout, message)
            })?
    }
}
