//! Requests for certificates (PKCS #10), and what certificates say of their time.

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertificateError, common_name_only};

/// A request for a certificate, and the key that it is for.
#[derive(Clone)]
pub struct CertificateRequest {
    /// The request, signed with the key.
    pub request_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

impl std::fmt::Debug for CertificateRequest {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest")
            .field("request_pem", &self.request_pem)
            .finish_non_exhaustive()
    }
}

impl CertificateRequest {
    /// A request in the name of `common_name`, with a new key.
    ///
    /// # Errors
    /// [`CertificateError::Issue`].
    pub fn create(common_name: &str) -> Result<Self, CertificateError> {
        let issue = |source| CertificateError::Issue {
            subject: common_name.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name_only(common_name);
        let request = params.serialize_request(&key).map_err(issue)?;
        Ok(Self {
            request_pem: request.pem().map_err(issue)?,
            key_pem: key.serialize_pem(),
        })
    }
}

/// The common name that a request, as PEM, is made in; `None` where it has none or several.
///
/// # Errors
/// [`CertificateError::Unreadable`]. Whether the request is signed with its key is not looked at:
/// [`super::CertificateAuthority::sign_client_request`] does.
pub fn requested_name(request_pem: &str) -> Result<Option<String>, CertificateError> {
    let unreadable = |reason: String| CertificateError::Unreadable {
        subject: "a certificate request".to_owned(),
        reason,
    };
    let (_, pem) = parse_x509_pem(request_pem.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|error| unreadable(error.to_string()))?;
    let mut names = request
        .certification_request_info
        .subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok());
    Ok(match (names.next(), names.next()) {
        (Some(name), None) => Some(name.to_owned()),
        _ => None,
    })
}

/// From when and until when a certificate is valid, in seconds since the epoch.
///
/// # Errors
/// [`CertificateError::Unreadable`].
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(i64, i64), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| CertificateError::Unreadable {
        subject: "a certificate".to_owned(),
        reason: error.to_string(),
    })?;
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// The same of the first certificate of a PEM.
///
/// # Errors
/// [`CertificateError::Unreadable`].
pub fn validity_of_pem(pem: &str) -> Result<(i64, i64), CertificateError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| CertificateError::Unreadable {
        subject: "a certificate".to_owned(),
        reason: error.to_string(),
    })?;
    validity(&certificate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certificates::{CertificateAuthority, ClientSubject};

    #[test]
    fn a_request_is_for_its_name_and_a_certificate_for_its_time() {
        let request = CertificateRequest::create("umbra:agent:east").unwrap();
        assert_eq!(
            requested_name(&request.request_pem).unwrap().as_deref(),
            Some("umbra:agent:east")
        );
        assert!(requested_name("nonsense").is_err());
        let authority = CertificateAuthority::create("test", Duration::from_secs(7200)).unwrap();
        let subject = ClientSubject {
            user: "umbra:agent:east".to_owned(),
            ..ClientSubject::default()
        };
        let issued = authority
            .sign_client_request(&request.request_pem, &subject, Duration::from_secs(3600))
            .unwrap();
        let (from, until) = validity_of_pem(&issued).unwrap();
        assert_eq!(until - from, 3600 + 300);
        assert!(validity_of_pem("").is_err());
    }
}
