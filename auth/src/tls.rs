//! TLS of a port that serves everyone: front proxies, people with certificates, clients with tokens, strangers.
//!
//! Go's servers ask for a client certificate and let authenticators judge it afterwards (`tls.RequestClientCert`). rustls'
//! own verifier judges during the handshake, against one set of roots, and would turn away a browser whose certificate
//! nobody here knows. [`RequestClientCertificate`] asks, has the client prove that it holds the key, and judges nothing;
//! [`CaBundle::verify_client`] judges per request, against the authorities of that moment. So a resumed session is
//! judged like a new one.
//!
//! Deviations from Go, all of webpki: X.509 version 1 certificates, a certificate authority used as the client's own
//! certificate, and the extended key usage `any` are refused.

mod options;
mod verified;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use umbra_apimachinery::user::UserInfo;

pub use self::options::{CipherSuite, TlsOptions, TlsVersion};
use self::verified::{Owner, VerifiedChains};
use crate::authenticate::{AuthenticationError, Credentials, RequestAuthenticator};
use crate::peer::user_of;

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not of what was expected.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// What was read.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate of a bundle cannot be a root of trust.
    #[error("certificate {index} of the CA bundle cannot be trusted")]
    Anchor {
        /// Which, counted from 0.
        index: usize,
        /// Why not.
        #[source]
        source: webpki::Error,
    },
    /// Certificate and key do not go together, or no TLS configuration can be made of them.
    #[error("the certificate and key cannot be served")]
    Serve {
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The cryptography that every TLS connection of Umbra uses.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Asks for a client certificate, requires proof of its key, verifies nothing else.
#[derive(Debug)]
pub struct RequestClientCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl RequestClientCertificate {
    /// A verifier that accepts the signature algorithms of this provider.
    #[must_use]
    pub fn new(provider: &CryptoProvider) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for RequestClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a Go client sends its certificate only where the hints contain its issuer or are empty.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Accepts any certificate: [`CaBundle::verify_client`] follows, per request.
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Authorities that are trusted to say who a client is.
#[derive(Debug, Clone)]
pub struct CaBundle {
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    verified: VerifiedChains,
}

impl Default for CaBundle {
    /// Trusts nobody.
    fn default() -> Self {
        Self {
            anchors: Vec::new(),
            algorithms: crypto_provider().signature_verification_algorithms,
            verified: VerifiedChains::default(),
        }
    }
}

impl CaBundle {
    /// The certificates of a PEM file. An empty file trusts nobody.
    ///
    /// # Errors
    /// Where the file is broken or a certificate cannot be a root of trust.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut anchors = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let certificate = certificate.map_err(|source| TlsError::Pem {
                what: "CA bundle",
                source,
            })?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|source| TlsError::Anchor { index, source })?
                .to_owned();
            anchors.push(anchor);
        }
        Ok(Self {
            anchors,
            ..Self::default()
        })
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Verifies that a chain, the client's own certificate first, leads to one of the authorities, may be used by a
    /// client, and is valid at `now`. A chain that was is not verified again as long as all of its certificates are valid.
    ///
    /// # Errors
    /// Why the chain is not to be trusted.
    pub fn verify_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), webpki::Error> {
        self.verify_owned(chain, now).map(drop)
    }

    fn verify_owned(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Owner, webpki::Error> {
        self.verified.verify(chain, now, || self.verify_anew(chain, now))
    }

    fn verify_anew(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), webpki::Error> {
        let Some((own, intermediates)) = chain.split_first() else {
            return Err(webpki::Error::UnknownIssuer);
        };
        webpki::EndEntityCert::try_from(own)?.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )?;
        Ok(())
    }
}

/// A CA bundle that can be exchanged while requests are judged by it. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ReloadableCaBundle(Arc<ArcSwap<CaBundle>>);

impl ReloadableCaBundle {
    /// Starts with `bundle`.
    #[must_use]
    pub fn new(bundle: CaBundle) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(bundle)))
    }

    /// Judges every later request by `bundle`, also on connections that exist.
    pub fn replace(&self, bundle: CaBundle) {
        self.0.store(Arc::new(bundle));
    }

    /// The bundle of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<CaBundle> {
        self.0.load_full()
    }
}

/// Authenticates by client certificate: the common name is the user, the organizations are the groups.
#[derive(Debug)]
pub struct CertificateAuthenticator {
    bundle: ReloadableCaBundle,
}

impl CertificateAuthenticator {
    /// Trusts the authorities of `bundle`.
    #[must_use]
    pub fn new(bundle: ReloadableCaBundle) -> Self {
        Self { bundle }
    }
}

impl RequestAuthenticator for CertificateAuthenticator {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(own) = credentials.peer_certificates.first() else {
            return Ok(None);
        };
        let bundle = self.bundle.0.load();
        if bundle.is_empty() {
            return Ok(None);
        }
        let owner = bundle
            .verify_owned(credentials.peer_certificates, now)
            .map_err(|source| AuthenticationError::Certificate { source })?;
        if let Some(known) = owner.get() {
            return Ok(known.clone());
        }
        let user = user_of(own).map_err(|source| AuthenticationError::Peer { source })?;
        // Whoever was faster has read the same.
        let _ = owner.set(user.clone());
        Ok(user)
    }
}

/// The certificate that a server shows, exchangeable while it serves. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ReloadableServingCertificate(Arc<ArcSwap<CertifiedKey>>);

impl ReloadableServingCertificate {
    /// From PEM: the chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// Where either is broken or they do not go together.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(certified_key(
            chain_pem, key_pem,
        )?))))
    }

    /// Shows another certificate to every later connection.
    ///
    /// # Errors
    /// As [`Self::from_pem`]; the certificate in use then stays.
    pub fn replace(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified_key(chain_pem, key_pem)?));
        Ok(())
    }
}

impl ResolvesServerCert for ReloadableServingCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, asking for client certificates by [`RequestClientCertificate`].
///
/// # Errors
/// [`TlsError::Serve`].
pub fn server_config(certificate: &ReloadableServingCertificate) -> Result<ServerConfig, TlsError> {
    server_config_with(certificate, &TlsOptions::default())
}

/// As [`server_config`], with the versions and cipher suites of `options`.
///
/// # Errors
/// [`TlsError::Serve`].
pub fn server_config_with(
    certificate: &ReloadableServingCertificate,
    options: &TlsOptions,
) -> Result<ServerConfig, TlsError> {
    let mut provider = CryptoProvider::clone(&crypto_provider());
    options.restrict(&mut provider);
    let versions = options.versions(&provider);
    let provider = Arc::new(provider);
    let verifier = Arc::new(RequestClientCertificate::new(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|source| TlsError::Serve { source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certified_key(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem {
            what: "certificate chain",
            source,
        })?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| TlsError::Pem {
        what: "private key",
        source,
    })?;
    CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(|source| TlsError::Serve { source })
}

#[cfg(test)]
mod tests;
