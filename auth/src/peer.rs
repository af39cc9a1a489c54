//! What a certificate says about its holder.
//!
//! Kubernetes reads an identity from the subject: the common name is the user, each organization a group
//! (`k8s.io/apiserver/pkg/authentication/request/x509.CommonNameUserConversion`), and an attribute of its own the UID.

use rustls_pki_types::CertificateDer;
use umbra_apimachinery::user::UserInfo;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Key of `UserInfo::extra` under which the credential that proved the identity is named.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The object identifier of the UID attribute, dotted (`k8s.io/apimachinery/pkg/apis/asn1.X509UID`).
pub const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// A certificate that names nobody in a way Kubernetes understands.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// More than one UID attribute, or an empty one.
    #[error("the client certificate has to carry one UID that is not empty, or none")]
    BadUid,
}

/// The subject of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The last common name; empty where there is none.
    pub common_name: String,
    /// All organizations, in order.
    pub organizations: Vec<String>,
    /// All UID attributes, in order.
    uids: Vec<String>,
}

impl Subject {
    /// Reads the subject of a certificate. Says nothing about whether the certificate is to be trusted.
    ///
    /// # Errors
    /// [`PeerError::Unreadable`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| PeerError::Unreadable(error.to_string()))?;
        let mut subject = Self::default();
        for attribute in parsed.subject().iter_attributes() {
            let Ok(value) = attribute.as_str() else { continue };
            match attribute.attr_type().to_id_string().as_str() {
                "2.5.4.3" => value.clone_into(&mut subject.common_name),
                "2.5.4.10" => subject.organizations.push(value.to_owned()),
                UID_OID => subject.uids.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(subject)
    }
}

/// The identity that a certificate, already verified, proves; `None` where it has no common name.
///
/// # Errors
/// Where the certificate cannot be read, or its UID is not one value.
pub fn user_of(certificate: &CertificateDer<'_>) -> Result<Option<UserInfo>, PeerError> {
    let subject = Subject::of(certificate)?;
    if subject.common_name.is_empty() {
        return Ok(None);
    }
    let uid = match subject.uids.as_slice() {
        [] => String::new(),
        [uid] if !uid.is_empty() => uid.clone(),
        _ => return Err(PeerError::BadUid),
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let fingerprint: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut user = UserInfo::new(subject.common_name, subject.organizations);
    user.uid = uid;
    user.extra
        .insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={fingerprint}")]);
    Ok(Some(user))
}
