//! Requests that kubectl would not send: with any header, as an attacker would.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use umbra_auth::certificates::IssuedCertificate;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers and body as they came.
    pub text: String,
}

/// A TLS connection to 127.0.0.1, which gives up reading after 30 s.
///
/// # Panics
/// Where nobody listens. What is wrong with the certificates shows with the first bytes.
#[must_use]
#[track_caller]
pub fn connect(
    port: u16,
    authority_pem: &str,
    certificate: Option<&IssuedCertificate>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).expect("an authority"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(chain, key)
                .expect("the key of the certificate")
        }
    };
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout above zero");
    StreamOwned::new(connection, socket)
}

/// Sends one HTTP/1.1 request to 127.0.0.1 and reads the answer to its end.
///
/// # Panics
/// Where there is no answer within 30 s.
#[must_use]
#[track_caller]
pub fn request(
    port: u16,
    authority_pem: &str,
    certificate: Option<&IssuedCertificate>,
    method_and_path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut stream = connect(port, authority_pem, certificate);
    let mut head = format!("{method_and_path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream
        .write_all(head.as_bytes())
        .unwrap_or_else(|error| panic!("{method_and_path}: {error}"));
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method_and_path}: no answer: {read:?} {text}"));
    Answer { status, text }
}
