//! Proxies on the way to a server.
//!
//! `http://` and `https://` proxies are asked to `CONNECT` (RFC 9110 §9.3.6); `socks5://` and `socks5h://` proxies speak SOCKS 5
//! (RFC 1928) with a user name and a password (RFC 1929) where the URL has them. As in Go (`net/http` `Transport.dialConn`), both
//! SOCKS schemes leave it to the proxy to resolve names.
//!
//! Deviation: an `https://` proxy is verified against the platform's roots together with the cluster's certificate authority,
//! where Go takes the latter alone, so that a company's proxy need not have a certificate of the cluster.

use std::{fmt, io, sync::Arc};

use base64::Engine as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_socks::tcp::Socks5Stream;
use url::{Host, Url};

use super::{Io, keep_alive, names::Name, race};
use crate::{
    config::redacted,
    failure::{ConnectError, Failure},
    tls::{self, Trust},
};

/// What a proxy may answer to `CONNECT`.
const ANSWER_LIMIT: usize = 16 << 10;

/// A proxy.
pub(super) struct Proxy {
    /// As people may see it: without credentials.
    shown: String,
    server: Name,
    kind: Kind,
    credentials: Option<Credentials>,
}

enum Kind {
    Connect,
    ConnectOverTls(Arc<ClientConfig>, ServerName<'static>),
    Socks,
}

struct Credentials {
    username: String,
    password: String,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Proxy {
    /// The proxy at `url`. `certificate_authority` and `insecure` are those of the cluster.
    ///
    /// # Errors
    /// A message that says what is wrong with the URL.
    pub(super) fn new(url: &Url, certificate_authority: Option<&[u8]>, insecure: bool) -> Result<Self, String> {
        let shown = redacted(url).to_string();
        let (host, address) = match url.host() {
            Some(Host::Ipv4(address)) => (address.to_string(), true),
            Some(Host::Ipv6(address)) => (address.to_string(), true),
            Some(Host::Domain(name)) => (name.to_owned(), false),
            None => return Err(format!("the proxy {shown} has no host")),
        };
        // `url` knows the ports of its special schemes alone, and those of SOCKS are none. 1080 is IANA's.
        let (port, kind) = match url.scheme() {
            "http" => (80, Kind::Connect),
            "https" => {
                let trust = Trust::for_proxy(certificate_authority, insecure)?;
                let config = tls::client_config(&trust, None, &[b"http/1.1"]).map_err(|error| error.to_string())?;
                let name = ServerName::try_from(host.clone()).map_err(|error| format!("the proxy {shown}: {error}"))?;
                (443, Kind::ConnectOverTls(Arc::new(config), name))
            }
            "socks5" | "socks5h" => (1080, Kind::Socks),
            other => {
                return Err(format!(
                    "proxies of scheme {other:?} are not supported; use http, https, socks5 or socks5h"
                ));
            }
        };
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        // Hosts of schemes that `url` does not know are not normalised.
        let host = if address { host } else { decoded(&host) };
        let credentials = (!url.username().is_empty()).then(|| Credentials {
            username: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        });
        Ok(Self {
            shown,
            server: Name::new(host.trim_matches(['[', ']']), url.port().unwrap_or(port)),
            kind,
            credentials,
        })
    }

    /// Where it is.
    pub(super) fn server(&self) -> &Name {
        &self.server
    }

    /// A stream to `host` through the proxy. Not cancel safe: what was begun is dropped.
    ///
    /// # Errors
    /// When the proxy does not answer, or does not connect.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let tcp = race::connect(&self.server).await.map_err(|error| self.failed(&error))?;
        keep_alive(&tcp)?;
        let connected: io::Result<Box<dyn Io>> = match &self.kind {
            Kind::Connect => self.ask(tcp, host, port).await,
            Kind::ConnectOverTls(config, name) => {
                let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await;
                self.ask(tls.map_err(|error| self.failed(&error))?, host, port).await
            }
            Kind::Socks => self.socks(tcp, host, port).await,
        };
        connected
    }

    fn failed(&self, why: &dyn fmt::Display) -> io::Error {
        ConnectError::io(Failure::Proxy, format!("proxy {}: {why}", self.shown))
    }

    async fn ask<S: Io>(&self, mut stream: S, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(Credentials { username, password }) = &self.credentials {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
        }
        request.push_str("\r\n");
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            // Byte by byte, because what follows the empty line belongs to the server.
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                if answer.len() > ANSWER_LIMIT {
                    return Err(io::Error::other("its answer is too long"));
                }
                answer.push(stream.read_u8().await?);
            }
            Ok(answer)
        };
        let answer = exchange.await.map_err(|error| self.failed(&error))?;
        let answer = String::from_utf8_lossy(&answer);
        let line = answer.lines().next().unwrap_or_default();
        let code = line.split(' ').nth(1).unwrap_or_default();
        if code.len() == 3 && code.starts_with('2') {
            Ok(Box::new(stream))
        } else {
            Err(self.failed(&format_args!("it answered {line:?} to CONNECT {target}")))
        }
    }

    async fn socks(&self, tcp: TcpStream, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let connected = match &self.credentials {
            None => Socks5Stream::connect_with_socket(tcp, (host, port)).await,
            Some(Credentials { username, password }) => {
                Socks5Stream::connect_with_password_and_socket(tcp, (host, port), username, password).await
            }
        };
        let stream = connected.map_err(|error| self.failed(&format_args!("{error}, for {host}:{port}")))?;
        Ok(Box::new(stream.into_inner()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, String> {
        Proxy::new(&url.parse().unwrap(), None, true)
    }

    #[test]
    fn credentials_are_not_shown() {
        for url in [
            "http://jane:s3cret@proxy.test:3128",
            "socks5h://jane:s3cret@proxy.test",
            "https://jane:s3cret@[::1]",
        ] {
            let proxy = proxy(url).unwrap();
            let said = format!("{proxy:?} {}", proxy.failed(&"broken"));
            assert!(!said.contains("s3cret") && !said.contains("jane"), "{said}");
            assert_eq!(proxy.credentials.as_ref().map(|one| &*one.password), Some("s3cret"));
        }
    }

    #[test]
    fn each_scheme_has_its_port() {
        let address = |url| {
            proxy(url)
                .map(|one| (one.server.host().to_owned(), one.server.port()))
                .unwrap()
        };
        assert_eq!(address("http://p.test"), ("p.test".to_owned(), 80));
        assert_eq!(address("https://p.test"), ("p.test".to_owned(), 443));
        assert_eq!(address("socks5://[::1]"), ("::1".to_owned(), 1080));
        assert_eq!(address("socks5h://p.test:9"), ("p.test".to_owned(), 9));
        assert!(proxy("ftp://p.test").is_err_and(|error| error.contains("ftp")));
    }
}
