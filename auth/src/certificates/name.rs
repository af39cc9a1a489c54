//! Subjects with several organizations.
//!
//! A Kubernetes client certificate has one organization per group; rcgen's distinguished names hold one value per
//! attribute. So rcgen builds everything but the subject, and here the subject is exchanged and the result signed again.
//! What is written is DER of RFC 5280, 4.1: `SEQUENCE { tbsCertificate, signatureAlgorithm, signature BIT STRING }`.

use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertificateError, ClientSubject};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;

/// `2.5.4.3`, `2.5.4.10` and `1.3.6.1.4.1.57683.2`, as complete DER elements.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0a];
const UID: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

/// The same certificate with another subject, signed by `key`, which has to be the one that signed it before.
pub(super) fn with_subject(
    certificate: &CertificateDer<'_>,
    subject: &ClientSubject,
    key: &KeyPair,
) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |reason: String| CertificateError::Unreadable {
        subject: subject.user.clone(),
        reason,
    };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(error.to_string()))?;
    let tbs = parsed.tbs_certificate.as_ref();
    let old_subject = parsed.subject().as_raw();
    let body = content(tbs).ok_or_else(|| unreadable("no body".to_owned()))?;
    let start = (old_subject.as_ptr() as usize)
        .checked_sub(body.as_ptr() as usize)
        .filter(|start| start + old_subject.len() <= body.len())
        .ok_or_else(|| unreadable("the subject is not part of the body".to_owned()))?;
    // What follows the body in the outer sequence begins with the signature algorithm.
    let after_body = content(certificate)
        .and_then(|all| all.get(tbs.len()..))
        .ok_or_else(|| unreadable("no signature algorithm".to_owned()))?;
    let algorithm = element(after_body).ok_or_else(|| unreadable("no signature algorithm".to_owned()))?;

    let new_subject = encode_subject(subject);
    let tbs = encode(
        SEQUENCE,
        &[&body[..start], &new_subject, &body[start + old_subject.len()..]],
    );
    let signature = key.sign(&tbs).map_err(|source| CertificateError::Issue {
        subject: subject.user.clone(),
        source,
    })?;
    // The leading zero says that no bit of the last byte is unused.
    let signature = encode(BIT_STRING, &[&[0], &signature]);
    Ok(encode(SEQUENCE, &[&tbs, algorithm, &signature]))
}

/// PEM of a certificate.
pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    // RFC 7468: lines of 64 characters.
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn encode_subject(subject: &ClientSubject) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = subject
        .groups
        .iter()
        .map(|group| attribute(ORGANIZATION, group))
        .collect();
    parts.push(attribute(COMMON_NAME, &subject.user));
    if !subject.uid.is_empty() {
        parts.push(attribute(UID, &subject.uid));
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    encode(SEQUENCE, &parts)
}

fn attribute(oid: &[u8], value: &str) -> Vec<u8> {
    let value = encode(UTF8_STRING, &[value.as_bytes()]);
    encode(SET, &[&encode(SEQUENCE, &[oid, &value])])
}

/// A DER element of definite length.
fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            der.push(0x80 | u8::try_from(bytes.len()).expect("a length has at most eight bytes"));
            der.extend(bytes);
        }
    }
    for part in parts {
        der.extend_from_slice(part);
    }
    der
}

/// Lengths of the header and of the content of the element that `der` begins with.
fn lengths(der: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let count = first & 0x7f;
    let bytes = der.get(2..2 + count)?;
    let length = bytes.iter().try_fold(0_usize, |length, byte| {
        length.checked_mul(256)?.checked_add(usize::from(*byte))
    })?;
    Some((2 + count, length))
}

/// The content of the element that `der` begins with.
fn content(der: &[u8]) -> Option<&[u8]> {
    let (header, length) = lengths(der)?;
    der.get(header..header + length)
}

/// The whole element that `der` begins with.
fn element(der: &[u8]) -> Option<&[u8]> {
    let (header, length) = lengths(der)?;
    der.get(..header + length)
}
