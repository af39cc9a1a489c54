//! A small server on loopback, with TLS and a certificate authority of its own.

mod front;
mod memory;

pub(crate) use front::Front;
pub(crate) use memory::{Memory, in_memory};

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::Notify};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::Body,
    config::ChildConfig,
    credentials::{ClientCertificate, Secret},
};

/// What a server speaks, and how many streams it allows on a connection.
pub(crate) struct Speaks {
    pub(crate) alpn: &'static [&'static [u8]],
    pub(crate) streams: u32,
}

impl Default for Speaks {
    fn default() -> Self {
        Self {
            alpn: &[b"h2", b"http/1.1"],
            streams: 100,
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
    ca: String,
    issuer: Issuer<'static, KeyPair>,
    cancel: CancellationToken,
    cut: Arc<Notify>,
    tasks: TaskTracker,
}

impl Server {
    pub(crate) async fn start<H, F>(speaks: Speaks, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate authority");
        let issuer = Issuer::new(params, key);

        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".into(), "child.test".into()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"),
            )
            .expect("a configuration");
        config.alpn_protocols = speaks.alpn.iter().map(|one| one.to_vec()).collect();

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            accepted: Arc::default(),
            ca: ca.pem(),
            issuer,
            cancel: CancellationToken::new(),
            cut: Arc::default(),
            tasks: TaskTracker::new(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = accept(
            listener,
            acceptor,
            speaks.streams,
            handler,
            (server.accepted.clone(), server.cut.clone()),
            server.tasks.clone(),
        );
        server
            .tasks
            .spawn(server.cancel.clone().run_until_cancelled_owned(accepting));
        server
    }

    /// How a child at this server is configured.
    pub(crate) fn config(&self) -> ChildConfig {
        let url = format!("https://{}", self.address).parse().expect("a URL");
        let mut config = ChildConfig::new("c1", url);
        config.certificate_authority = Some(self.ca.clone().into_bytes());
        config
    }

    /// A client certificate that the server accepts.
    pub(crate) fn client_certificate(&self, name: &str) -> ClientCertificate {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        ClientCertificate {
            certificate: params.signed_by(&key, &self.issuer).expect("a certificate").pem(),
            key: Secret::new(key.serialize_pem()),
        }
    }

    /// Closes all connections, and accepts new ones.
    pub(crate) fn close_connections(&self) {
        self.cut.notify_waiters();
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn accept<H, F>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    streams: u32,
    handler: H,
    (accepted, cut): (Arc<AtomicUsize>, Arc<Notify>),
    tasks: TaskTracker,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        let (accepted, cut) = (accepted.clone(), cut.clone());
        tasks.spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            accepted.fetch_add(1, Ordering::SeqCst);
            let certificates = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ClientCertificates(certificates));
                let answered = handler(request);
                async move { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(streams);
            // Ends with an error when the client leaves, which is the client's right.
            tokio::select! {
                _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {}
                () = cut.notified() => {}
            }
        });
    }
}

/// How many certificates the client presented.
#[derive(Clone, Copy)]
pub(crate) struct ClientCertificates(pub(crate) usize);
