//! Issuing certificates: a small certificate authority for standalone hubs, agents and tests.
//!
//! Keys are ECDSA P-256. Every lifetime is explicit. A certificate is valid from five minutes before it was issued, as
//! Kubernetes' own signer does (`pkg/controller/certificates/signer`), so that a clock that is a little behind does not
//! refuse it, and never longer than its issuer.

mod files;
mod name;
mod request;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use files::{write_private, write_public};
pub use request::{CertificateRequest, requested_name, validity, validity_of_pem};

/// How long before its issue a certificate starts to be valid.
const BACKDATE: Duration = Duration::from_mins(5);

/// File of the authority's certificate in its folder.
pub const CA_CERTIFICATE_FILE: &str = "ca.crt";
/// File of the authority's key in its folder.
pub const CA_KEY_FILE: &str = "ca.key";

/// Why a certificate could not be issued, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate could not be built or signed.
    #[error("cannot issue a certificate for {subject:?}")]
    Issue {
        /// Whom it was for.
        subject: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate that was built could not be read back.
    #[error("cannot read the certificate of {subject:?}: {reason}")]
    Unreadable {
        /// Whose it is.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// A PEM file holds no certificate authority.
    #[error("not the certificate and key of a certificate authority")]
    NotAnAuthority {
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate, followed by nothing: the authority is not part of the chain.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

impl std::fmt::Debug for IssuedCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// Whom a client certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientSubject {
    /// The user: the common name.
    pub user: String,
    /// The groups: one organization each.
    pub groups: Vec<String>,
    /// The UID; empty for none.
    pub uid: String,
}

/// Signs certificates.
pub struct CertificateAuthority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    /// Seconds since the epoch.
    not_after: i64,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CertificateAuthority {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// [`CertificateError::Issue`].
    pub fn create(common_name: &str, lifetime: Duration) -> Result<Self, CertificateError> {
        let issue = |source| CertificateError::Issue {
            subject: common_name.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name_only(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, lifetime, i64::MAX);
        let certificate = params.self_signed(&key).map_err(issue)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// An authority from its PEM files.
    ///
    /// # Errors
    /// [`CertificateError::NotAnAuthority`].
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let not_an_authority = |source| CertificateError::NotAnAuthority { source };
        let unreadable = || not_an_authority(rcgen::Error::CouldNotParseCertificate);
        let key = KeyPair::from_pem(key_pem).map_err(not_an_authority)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| unreadable())?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| unreadable())?;
        if !parsed.is_ca() || *parsed.public_key().raw != *key.subject_public_key_info() {
            return Err(unreadable());
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(not_an_authority)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            not_after,
            key_pem: key_pem.to_owned(),
            issuer,
            certificate,
        })
    }

    /// The authority kept in a folder.
    ///
    /// # Errors
    /// [`CertificateError::File`] or [`CertificateError::NotAnAuthority`].
    pub fn load(folder: &Path) -> Result<Self, CertificateError> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map_err(|source| CertificateError::File { path, source })
        };
        Self::from_pem(&read(CA_CERTIFICATE_FILE)?, &read(CA_KEY_FILE)?)
    }

    /// Writes the authority into a folder, the key readable by its owner alone. The key is written first: a certificate
    /// without its key would look like an authority.
    ///
    /// # Errors
    /// [`CertificateError::File`].
    pub fn store(&self, folder: &Path) -> Result<(), CertificateError> {
        write_private(&folder.join(CA_KEY_FILE), self.key_pem.as_bytes())?;
        write_public(&folder.join(CA_CERTIFICATE_FILE), self.certificate_pem.as_bytes())
    }

    /// The authority kept in a folder, or a new one that is then kept there.
    ///
    /// # Errors
    /// As [`Self::load`], [`Self::create`] and [`Self::store`].
    pub fn load_or_create(folder: &Path, common_name: &str, lifetime: Duration) -> Result<Self, CertificateError> {
        if folder.join(CA_CERTIFICATE_FILE).exists() {
            return Self::load(folder);
        }
        let authority = Self::create(common_name, lifetime)?;
        authority.store(folder)?;
        Ok(authority)
    }

    /// The authority's certificate, for those who are to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's key, PKCS #8 as PEM: for whoever keeps the authority elsewhere than in a folder.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for a server. Each of `names` is a DNS name or an IP address; the first is also the common name.
    ///
    /// # Errors
    /// [`CertificateError::Issue`], for instance where a name is neither.
    pub fn issue_serving(&self, names: &[String], lifetime: Duration) -> Result<IssuedCertificate, CertificateError> {
        let common_name = names.first().map_or("", String::as_str);
        let issue = |source| CertificateError::Issue {
            subject: common_name.to_owned(),
            source,
        };
        let mut params = CertificateParams::new(names.to_vec()).map_err(issue)?;
        params.distinguished_name = common_name_only(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.complete(&mut params, lifetime);
        let key = KeyPair::generate().map_err(issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Ok(IssuedCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate and key for a client.
    ///
    /// # Errors
    /// [`CertificateError::Issue`].
    pub fn issue_client(
        &self,
        subject: &ClientSubject,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, CertificateError> {
        let key = KeyPair::generate().map_err(|source| CertificateError::Issue {
            subject: subject.user.clone(),
            source,
        })?;
        Ok(IssuedCertificate {
            certificate_pem: self.sign_client(&key, subject, lifetime)?,
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate, as PEM, for a client that holds its key itself and has sent a PKCS #10 request. Only the public key
    /// is taken from the request: who the client is, is for the caller to decide.
    ///
    /// # Errors
    /// [`CertificateError::Issue`], also where the request cannot be read or is not signed with its key.
    pub fn sign_client_request(
        &self,
        request_pem: &str,
        subject: &ClientSubject,
        lifetime: Duration,
    ) -> Result<String, CertificateError> {
        let request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(|source| CertificateError::Issue {
                subject: subject.user.clone(),
                source,
            })?;
        self.sign_client(&request.public_key, subject, lifetime)
    }

    fn sign_client(
        &self,
        public_key: &impl PublicKeyData,
        subject: &ClientSubject,
        lifetime: Duration,
    ) -> Result<String, CertificateError> {
        let issue = |source| CertificateError::Issue {
            subject: subject.user.clone(),
            source,
        };
        let mut params = CertificateParams::default();
        // The library's names hold each attribute once; the real subject replaces this one below.
        params.distinguished_name = common_name_only(&subject.user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.complete(&mut params, lifetime);
        let certificate = params.signed_by(public_key, &self.issuer).map_err(issue)?;
        let der = name::with_subject(certificate.der(), subject, self.issuer.key())?;
        Ok(name::pem(&der))
    }

    /// What every certificate issued here has in common.
    fn complete(&self, params: &mut CertificateParams, lifetime: Duration) {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(params, lifetime, self.not_after);
    }
}

fn common_name_only(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from a little before now for `lifetime`, at most until `latest` (seconds since the epoch).
fn set_validity(params: &mut CertificateParams, lifetime: Duration, latest: i64) {
    let now = jiff::Timestamp::now().as_second();
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    // X.509 ends with the year 9999; "no expiry" is that moment (RFC 5280, 4.1.2.5).
    let end_of_time = 253_402_300_799;
    let end = now.saturating_add(seconds).min(latest).min(end_of_time);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or(0));
    params.not_before = at(now.saturating_sub_unsigned(BACKDATE.as_secs()));
    params.not_after = at(end);
}

#[cfg(test)]
mod tests;
