//! When credentials end, as far as they say so themselves.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The last second of the year 9999, which is as far as times of Kubernetes go.
const LAST: f64 = 253_402_300_799.0;

/// When credentials end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// From when on the child refuses them.
    pub at: SystemTime,
    /// Whether the hub gets new ones by itself, from a plugin or a file. What is not renewed ends, and somebody has to act.
    pub renewed: bool,
}

impl Expiry {
    /// The one that matters more: what is not renewed comes before what is, and then what ends sooner.
    pub(super) fn sooner(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter()
            .chain(other)
            .min_by_key(|expiry| (expiry.renewed, expiry.at))
    }
}

/// When the first of the certificates in `pem`, which is the hub's own, is no longer valid.
pub(super) fn of_certificate(pem: &str) -> Option<SystemTime> {
    let certificate = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
    since_epoch(certificate.validity().not_after.timestamp())
}

/// When a token ends that is a JSON Web Token (RFC 7519 §4.1.4), as those of service accounts and of OpenID Connect are. It is
/// read and not verified: that is the child's to do.
pub(super) fn of_token(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.split('.');
    let (claims, _signature) = (parts.nth(1)?, parts.next()?);
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    // Numbers may have fractions, and nothing says that they are sensible.
    (claims.exp <= LAST).then(|| since_epoch(claims.exp as i64)).flatten()
}

fn since_epoch(seconds: i64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn tokens_and_certificates_say_when_they_end() {
        let token = |claims: &str| {
            let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
            of_token(&format!("e30.{claims}.c2ln"))
        };
        assert_eq!(token(r#"{"exp":1893456000,"sub":"x"}"#), Some(at(1_893_456_000)));
        assert_eq!(token(r#"{"exp":1893456000.5}"#), Some(at(1_893_456_000)));
        assert_eq!(token(r#"{"sub":"x"}"#), None);
        assert_eq!(token(r#"{"exp":-1}"#), None);
        assert_eq!(token(r#"{"exp":1e300}"#), None);
        assert_eq!(of_token("opaque"), None);
        assert_eq!(of_token("a.b"), None);

        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["hub".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(of_certificate(&certificate.pem()), Some(at(1_893_456_000)));
        assert_eq!(of_certificate("nothing"), None);
    }

    #[test]
    fn what_nobody_renews_comes_first() {
        let expiry = |seconds, renewed| {
            Some(Expiry {
                at: at(seconds),
                renewed,
            })
        };
        assert_eq!(Expiry::sooner(expiry(10, true), expiry(20, false)), expiry(20, false));
        assert_eq!(Expiry::sooner(expiry(30, false), expiry(20, false)), expiry(20, false));
        assert_eq!(Expiry::sooner(None, expiry(20, true)), expiry(20, true));
        assert_eq!(Expiry::sooner(None, None), None);
    }
}
