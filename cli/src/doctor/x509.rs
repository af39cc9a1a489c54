//! Certificates: when they end, and whether a server's is one that a client takes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use umbra_auth::tls::crypto_provider;

/// How long a server may take to show its certificate. One that cannot be reached from here must not hold everything up.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) der: CertificateDer<'static>,
    pub(super) subject: String,
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn from_der(der: CertificateDer<'static>) -> Result<Self> {
        let (_, read) = x509_parser::parse_x509_certificate(&der).context("not a certificate")?;
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp());
        let (subject, validity) = (read.subject().to_string(), read.validity());
        let (begins, ends) = (time(validity.not_before)?, time(validity.not_after)?);
        Ok(Self {
            der,
            subject,
            begins,
            ends,
        })
    }

    /// Reads all certificates of PEM text.
    ///
    /// # Errors
    /// Where there is none, or one is malformed.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Vec<Self>> {
        let certificates: Result<Vec<_>> = CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(der.context("not PEM")?))
            .collect();
        let certificates = certificates?;
        anyhow::ensure!(!certificates.is_empty(), "there is no certificate in it");
        Ok(certificates)
    }
}

/// How long it is until something, in days; negative where it is over.
pub(super) fn days_until(end: Timestamp, now: Timestamp) -> i64 {
    end.duration_since(now).as_hours().div_euclid(24)
}

/// What a server has shown.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// Its own certificate.
    pub(super) certificate: Certificate,
    /// Why a client refuses it that trusts the authorities given and knows the server by the name given; `None` where it takes it.
    pub(super) refused: Option<String>,
}

/// Lets a server show its certificate, and judges it as a client with `authorities` would.
///
/// # Errors
/// Where it cannot be reached, or shows none.
pub(super) async fn shown(address: (&str, u16), name: &str, authorities: &[Certificate]) -> Result<Shown> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().map(|one| one.der.clone()));
    let provider = crypto_provider();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = Arc::new(Watching {
        // Without authorities there is nothing to judge by.
        inner: inner.build().ok(),
        provider: Arc::clone(&provider),
        seen: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).context("not a name of a server")?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    };
    let connected = tokio::time::timeout(HANDSHAKE, connect).await;
    let seen = verifier.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(seen) = seen {
        return Ok(Shown {
            certificate: Certificate::from_der(seen.certificate)?,
            refused: seen.refused,
        });
    }
    connected.with_context(|| format!("no answer within {} s", HANDSHAKE.as_secs()))??;
    anyhow::bail!("it shows no certificate")
}

/// What a verifier has seen.
#[derive(Debug)]
struct Seen {
    certificate: CertificateDer<'static>,
    refused: Option<String>,
}

/// Takes every certificate and remembers what would have been said of it. Nothing is sent over such a connection.
#[derive(Debug)]
struct Watching {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Seen>>,
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self
            .inner
            .as_ref()
            .map(|inner| inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now));
        let refused = match judged {
            Some(Ok(_)) => None,
            Some(Err(rustls::Error::InvalidCertificate(error))) => Some(error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => Some("no authority is trusted".to_owned()),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen {
            certificate: end_entity.clone().into_owned(),
            refused,
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use umbra_auth::certificates::{CertificateAuthority, IssuedCertificate};
    use umbra_auth::tls::{ReloadableServingCertificate, server_config};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Serves one handshake.
    async fn serve_once(issued: &IssuedCertificate) -> u16 {
        let serving =
            ReloadableServingCertificate::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(&serving.unwrap()).unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio_util::task::TaskTracker::new().spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _whoever_looks_may_hang_up = acceptor.accept(stream).await;
        });
        port
    }

    #[tokio::test]
    async fn what_a_server_shows_is_judged_as_a_client_would() {
        let authority = CertificateAuthority::create("right", DAY).unwrap();
        let other = CertificateAuthority::create("other", DAY).unwrap();
        let issued = authority
            .issue_serving(&["umbra.umbra-system.svc".to_owned()], DAY)
            .unwrap();
        let trusted =
            |authority: &CertificateAuthority| Certificate::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        for (name, authorities, refused) in [
            ("umbra.umbra-system.svc", trusted(&authority), false),
            ("umbra.elsewhere.svc", trusted(&authority), true),
            ("umbra.umbra-system.svc", trusted(&other), true),
            ("umbra.umbra-system.svc", Vec::new(), true),
        ] {
            let port = serve_once(&issued).await;
            let shown = shown(("127.0.0.1", port), name, &authorities).await.unwrap();
            assert_eq!(shown.refused.is_some(), refused, "{name}: {:?}", shown.refused);
            assert!(days_until(shown.certificate.ends, Timestamp::now()) < 1);
        }
    }

    #[test]
    fn days_are_whole_and_over_is_negative() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let days = |end: &str| days_until(end.parse().unwrap(), now);
        assert_eq!(days("2026-11-23T11:00:00Z"), 1);
        assert_eq!(days("2026-11-21T13:00:00Z"), 0);
        assert_eq!(days("2026-11-21T11:00:00Z"), -1);
    }

    #[test]
    fn text_without_certificates_is_an_error() {
        assert!(Certificate::from_pem(b"hello").is_err());
        assert!(Certificate::from_der(CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
