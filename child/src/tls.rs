//! TLS towards a child: rustls with aws-lc-rs, never without verification unless the registration says so.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use crate::credentials::ClientCertificate;

/// What a server's certificate is verified against.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// These roots.
    Roots(Arc<RootCertStore>),
    /// Nothing: any certificate will do.
    Anything,
}

impl Trust {
    /// The given PEM certificates, or else the platform's roots.
    pub(crate) fn new(certificate_authority: Option<&[u8]>, insecure: bool) -> Result<Self, String> {
        if insecure {
            return Ok(Self::Anything);
        }
        let mut roots = RootCertStore::empty();
        if let Some(pem) = certificate_authority {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| format!("the certificate authority is not PEM: {error}"))?;
                roots
                    .add(certificate)
                    .map_err(|error| format!("the certificate authority cannot be used: {error}"))?;
            }
            if roots.is_empty() {
                return Err("the certificate authority has no CERTIFICATE block".into());
            }
        } else {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(
                    "no certificate authority is given and this machine has no root certificates; set caData \
                            (certificate-authority-data) to the certificate that signed the server's"
                        .into(),
                );
            }
        }
        Ok(Self::Roots(Arc::new(roots)))
    }

    /// What a proxy's certificate is verified against: the platform's roots, and the cluster's.
    pub(crate) fn for_proxy(certificate_authority: Option<&[u8]>, insecure: bool) -> Result<Self, String> {
        let cluster = Self::new(certificate_authority, insecure)?;
        let Self::Roots(roots) = cluster else {
            return Ok(cluster);
        };
        let mut roots = Arc::unwrap_or_clone(roots);
        if certificate_authority.is_some() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Ok(Self::Roots(Arc::new(roots)))
    }
}

/// The configuration of connections that offer `alpn`.
pub(crate) fn client_config(
    trust: &Trust,
    certificate: Option<&ClientCertificate>,
    alpn: &[&[u8]],
) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match trust {
        Trust::Roots(roots) => builder.with_root_certificates(Arc::clone(roots)),
        Trust::Anything => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnything(provider))),
    };
    let mut config = match certificate {
        Some(certificate) => {
            let (chain, key) = certificate.parse().map_err(io::Error::other)?;
            builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// `insecure-skip-tls-verify`: the server proves that it has the key of its certificate, and the certificate proves
/// nothing.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
