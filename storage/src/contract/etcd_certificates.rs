//! The certificates of etcd servers that tests start.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, Identity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// What a client needs: everything as PEM.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The authority that has signed the certificates of the servers.
    pub authority: Vec<u8>,
    /// The client's certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl ClientCertificate {
    /// The same for a plain etcd client.
    pub(super) fn tls(&self) -> TlsOptions {
        TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.certificate, &self.key))
    }

    /// A client certificate of an authority that no server knows, with that authority.
    #[must_use]
    pub fn foreign() -> Self {
        Signer::new().client()
    }
}

/// An authority with the files that servers read and the certificate of a client.
#[derive(Debug)]
pub(super) struct Authority {
    client: ClientCertificate,
    files: [PathBuf; 3],
}

impl Authority {
    /// Makes one, and writes the servers' files into `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        let signer = Signer::new();
        let (certificate, key) = signer.sign("etcd");
        let client = signer.client();
        let write = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            path
        };
        let files = [
            write("ca.crt", &client.authority),
            write("server.crt", certificate.as_bytes()),
            write("server.key", key.as_bytes()),
        ];
        Self { client, files }
    }

    pub(super) fn client(&self) -> &ClientCertificate {
        &self.client
    }

    pub(super) fn server_flags(&self) -> Vec<String> {
        let [authority, certificate, key] = &self.files;
        vec![
            format!("--trusted-ca-file={}", authority.display()),
            format!("--cert-file={}", certificate.display()),
            format!("--key-file={}", key.display()),
            "--client-cert-auth".to_owned(),
        ]
    }
}

/// An authority that signs.
struct Signer {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "etcd-ca");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("keys can be made");
        let pem = parameters.self_signed(&key).expect("an authority signs itself").pem();
        Self {
            pem,
            issuer: Issuer::new(parameters, key),
        }
    }

    fn client(&self) -> ClientCertificate {
        let (certificate, key) = self.sign("umbra");
        ClientCertificate {
            authority: self.pem.clone().into_bytes(),
            certificate: certificate.into_bytes(),
            key: key.into_bytes(),
        }
    }

    fn sign(&self, name: &str) -> (String, String) {
        let addresses = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut parameters = CertificateParams::new(addresses).expect("addresses are names of a certificate");
        parameters.distinguished_name.push(DnType::CommonName, name);
        // The servers' gateway is a client of the server with the same certificate.
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("an authority signs");
        (certificate.pem(), key.serialize_pem())
    }
}
