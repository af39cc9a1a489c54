//! Real sockets: TLS, HTTP/1.1 and HTTP/2, and how a server ends.

mod attacks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_registry::resource::Event;

use super::fake::{FakeHub, pod};
use crate::ApiServer;
use crate::server::{Server, ServerError, ServerOptions};

/// Nothing here takes long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Listening {
    address: SocketAddr,
    roots: RootCertStore,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Takes any certificate: what it proves is judged later.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn certificate() -> (ServerConfig, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider)))
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (config, roots)
}

async fn listen(api: ApiServer) -> Listening {
    let options = ServerOptions {
        grace: Duration::from_secs(10),
        ..ServerOptions::default()
    };
    listen_with(api, options).await
}

async fn listen_with(api: ApiServer, options: ServerOptions) -> Listening {
    let (config, roots) = certificate();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(any, config, api, options).await.unwrap();
    let (address, shutdown, tasks) = (server.local_address(), CancellationToken::new(), TaskTracker::new());
    tasks.spawn(server.run(shutdown.clone()));
    tasks.close();
    Listening {
        address,
        roots,
        shutdown,
        tasks,
    }
}

impl Listening {
    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_as(protocol, None).await
    }

    fn client_config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    async fn connect_as(
        &self,
        protocol: &[u8],
        identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }
}

fn watch_request() -> Request<Empty<Bytes>> {
    let uri = "https://localhost/api/v1/pods?watch=1&resourceVersion=5";
    Request::get(uri)
        .header("authorization", "alice")
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

/// The next data; `None` at a clean end, which HTTP/2 says with an empty frame.
async fn next_data(body: &mut Incoming) -> Option<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
    let data = frame.map(|frame| frame.unwrap().into_data().unwrap());
    data.filter(|data| !data.is_empty())
}

/// A watch over either protocol sees an event, then a clean end when the server shuts down, which then returns.
async fn watch_until_shutdown(protocol: &'static [u8], version: Version) {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let listening = listen(hub.server()).await;
    let io = TokioIo::new(listening.connect(protocol).await);
    let tasks = TaskTracker::new();
    let response = if version == Version::HTTP_2 {
        let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tasks.spawn(connection);
        requests.send_request(watch_request()).await.unwrap()
    } else {
        let (mut requests, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tasks.spawn(connection);
        requests.send_request(watch_request()).await.unwrap()
    };
    assert_eq!((response.status().as_u16(), response.version()), (200, version));
    let mut body = response.into_body();
    sender.send(Event::Added(pod("a", 0))).await.unwrap();
    let event = next_data(&mut body).await.unwrap();
    assert!(event.starts_with(br#"{"type":"ADDED""#));

    listening.shutdown.cancel();
    assert_eq!(next_data(&mut body).await, None);
    tokio::time::timeout(PATIENCE, listening.tasks.wait()).await.unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err());
}

#[tokio::test]
async fn a_watch_over_http2_ends_cleanly_with_the_server() {
    watch_until_shutdown(b"h2", Version::HTTP_2).await;
}

#[tokio::test]
async fn a_watch_over_http1_ends_cleanly_with_the_server() {
    watch_until_shutdown(b"http/1.1", Version::HTTP_11).await;
}

#[tokio::test]
async fn users_of_many_groups_fit() {
    let listening = listen(FakeHub::new(0, 0).server()).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let io = TokioIo::new(listening.connect(protocol).await);
        let tasks = TaskTracker::new();
        let mut request = Request::get("https://localhost/api/v1/namespaces/shop/pods/a")
            .header("host", "localhost")
            .header("authorization", "alice");
        for number in 0..1000 {
            request = request.header("x-remote-group", format!("group-{number:0100}"));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = if protocol == b"h2" {
            let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
            tasks.spawn(connection);
            requests.send_request(request).await.unwrap()
        } else {
            let (mut requests, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tasks.spawn(connection);
            requests.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200);
    }
    listening.shutdown.cancel();
    tokio::time::timeout(PATIENCE, listening.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn certificates_of_clients_are_seen() {
    let hub = FakeHub::new(0, 0);
    let listening = listen(hub.server()).await;
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let identity = Some((made.cert.der().clone(), key));
    let io = TokioIo::new(listening.connect_as(b"h2", identity).await);
    let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    let request = Request::get("https://localhost/api/v1/namespaces/shop/pods/a")
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(requests.send_request(request).await.unwrap().status(), 200);
    let want = format!("certificate of {} bytes", made.cert.der().len());
    assert_eq!(hub.users.lock()[0].name, want);
    listening.shutdown.cancel();
    tokio::time::timeout(PATIENCE, listening.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let api = FakeHub::new(0, 0).server();
    let (config, _) = certificate();
    let error = Server::bind(listening.address, config, api, ServerOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ServerError::AddressInUse { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&listening.address.to_string()) && text.contains("choose another address"),
        "{text}"
    );
}

type Requests = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A connection of HTTP/2, and what waits for its end.
async fn http2(listening: &Listening) -> (Requests, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let io = TokioIo::new(listening.connect(b"h2").await);
    let (requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    (requests, TaskTracker::new().spawn(connection))
}

fn read_request() -> Request<Empty<Bytes>> {
    Request::get("https://localhost/api/v1/namespaces/shop/pods/a")
        .header("authorization", "alice")
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn a_connection_is_retired_by_chance_and_what_is_under_way_goes_on() {
    let hub = FakeHub::new(0, 0);
    let sender = hub.next_watch();
    let options = ServerOptions {
        goaway_chance: 1.0,
        ..ServerOptions::default()
    };
    let listening = listen_with(hub.server(), options).await;
    let (mut requests, _connection) = http2(&listening).await;
    let response = requests.send_request(watch_request()).await.unwrap();
    let mut body = response.into_body();
    // Requests may still come in until the client has seen the GOAWAY; then it takes another connection for them.
    let retired = async { while requests.send_request(read_request()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, retired).await.unwrap();
    sender.send(Event::Added(pod("a", 0))).await.unwrap();
    let event = next_data(&mut body).await.unwrap();
    assert!(event.starts_with(br#"{"type":"ADDED""#));
    drop(sender);
    assert_eq!(next_data(&mut body).await, None);
    let (mut again, _) = http2(&listening).await;
    assert_eq!(again.send_request(read_request()).await.unwrap().status(), 200);
    listening.shutdown.cancel();
}

#[tokio::test]
async fn a_connection_stays_where_nothing_is_left_to_chance() {
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let (mut requests, _connection) = http2(&listening).await;
    for _ in 0..100 {
        assert_eq!(requests.send_request(read_request()).await.unwrap().status(), 200);
    }
    listening.shutdown.cancel();
}

#[tokio::test]
async fn clients_are_told_how_many_streams_a_connection_takes() {
    let hub = FakeHub::new(0, 0);
    let senders = [hub.next_watch()];
    let options = ServerOptions {
        http2_streams: 1,
        ..ServerOptions::default()
    };
    let listening = listen_with(hub.server(), options).await;
    let (mut requests, _connection) = http2(&listening).await;
    let watching = requests.send_request(watch_request()).await.unwrap();
    let mut second = std::pin::pin!(requests.send_request(read_request()));
    // The client itself holds the request back: the watch takes the only stream.
    for _ in 0..100 {
        assert!(futures::poll!(second.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(watching);
    drop(senders);
    let response = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    listening.shutdown.cancel();
}

#[tokio::test]
async fn http2_can_be_left_out() {
    let options = ServerOptions {
        http2: false,
        ..ServerOptions::default()
    };
    let listening = listen_with(FakeHub::new(0, 0).server(), options).await;
    let io = TokioIo::new(listening.connect(b"http/1.1").await);
    let (mut requests, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let _connection = TaskTracker::new().spawn(connection);
    let request = Request::get("/api/v1/namespaces/shop/pods/a")
        .header("host", "localhost")
        .header("authorization", "alice")
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(requests.send_request(request).await.unwrap().status(), 200);
    let mut config = listening.client_config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let refused = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    assert!(refused.is_err(), "there is no protocol in common");
    listening.shutdown.cancel();
}
