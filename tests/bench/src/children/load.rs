//! Load: clients that each send one request after another on a connection of their own, and time them.
#![expect(clippy::disallowed_methods, reason = "what a load spawns ends with its runtime")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use umbra_auth::certificates::IssuedCertificate;

use crate::figure::percentile;

/// Where requests go, and as whom: HTTP/2 over TLS, as client-go speaks, or HTTP/1.1 in the clear, all that `kubectl proxy` has.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `host:port`.
    authority: String,
    /// What comes before the paths of the child's API.
    prefix: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// An API server at a URL that trusts `certificate`, itself certified by `authority_pem`.
    pub(super) fn https(url: &str, authority_pem: &str, certificate: &IssuedCertificate) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (authority, prefix) = split(url)?;
        Ok(Self {
            authority,
            prefix,
            tls: Some(Arc::new(config)),
        })
    }

    /// A server in the clear.
    pub(super) fn http(url: &str) -> anyhow::Result<Self> {
        let (authority, prefix) = split(url)?;
        Ok(Self {
            authority,
            prefix,
            tls: None,
        })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(&self.authority)
            .await
            .context(self.authority.clone())?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
            tokio::spawn(connection);
            return Ok(Connection::Http1(sender));
        };
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(ServerName::try_from(host)?, tcp)
            .await?;
        // Windows as client-go's, so that a stream of a gigabyte is not held up by this end.
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(1 << 30)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Connection::Http2(sender))
    }

    fn uri(&self, path: &str) -> anyhow::Result<Uri> {
        let whole = match self.tls {
            Some(_) => format!("https://{}{}{path}", self.authority, self.prefix),
            None => format!("{}{path}", self.prefix),
        };
        Ok(whole.parse()?)
    }
}

/// `scheme://host:port/prefix` without the scheme.
fn split(url: &str) -> anyhow::Result<(String, String)> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().with_context(|| format!("{url} has no host"))?;
    Ok((authority.to_string(), uri.path().trim_end_matches('/').to_owned()))
}

enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Sends a GET, reads the answer to its end, and says how many bytes it had.
    async fn get(&mut self, target: &Target, uri: &Uri) -> anyhow::Result<u64> {
        let mut request = Request::get(uri.clone()).header("accept", "application/json");
        if target.tls.is_none() {
            request = request.header("host", &target.authority);
        }
        let request = request.body(Empty::new())?;
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = 0;
        let mut beginning = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                bytes += data.len() as u64;
                if status != StatusCode::OK {
                    beginning.extend_from_slice(data);
                }
            }
        }
        if status != StatusCode::OK {
            bail!("{uri}: {status}: {}", String::from_utf8_lossy(&beginning));
        }
        Ok(bytes)
    }
}

/// What a load was answered with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers {
    /// How many requests were answered.
    pub(super) count: usize,
    /// In a second.
    pub(super) per_second: f64,
    /// Seconds that half of the requests took at most.
    pub(super) p50: f64,
    /// Seconds that 99 of 100 requests took at most.
    pub(super) p99: f64,
}

/// Sends GET requests for a path on as many connections for a while, one after another on each.
pub(super) async fn run(target: &Target, path: &str, connections: usize, time: Duration) -> anyhow::Result<Answers> {
    let uri = target.uri(path)?;
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = target.connect().await?;
        // What is made at the first request is not what is measured.
        connection.get(target, &uri).await?;
        open.push(connection);
    }
    let start = Instant::now();
    let clients: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            let (target, uri) = (target.clone(), uri.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while start.elapsed() < time {
                    let begun = Instant::now();
                    connection.get(&target, &uri).await?;
                    took.push(begun.elapsed().as_secs_f64());
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.context("a client panicked")??);
    }
    let seconds = start.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    Ok(Answers {
        count: took.len(),
        per_second: took.len() as f64 / seconds,
        p50: percentile(&took, 0.5),
        p99: percentile(&took, 0.99),
    })
}

/// Reads one answer to its end: its bytes, and the seconds that took.
pub(super) async fn read(target: &Target, path: &str) -> anyhow::Result<(u64, f64)> {
    let uri = target.uri(path)?;
    let mut connection = target.connect().await?;
    let start = Instant::now();
    let bytes = connection.get(target, &uri).await?;
    Ok((bytes, start.elapsed().as_secs_f64()))
}
