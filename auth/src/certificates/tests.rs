use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::peer::{Subject, user_of};
use crate::tls::CaBundle;
use rustls_pki_types::UnixTime;

const HOUR: Duration = Duration::from_hours(1);

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_client_certificate_carries_user_groups_and_uid() {
    let authority = CertificateAuthority::create("umbra-test", HOUR).unwrap();
    let subject = ClientSubject {
        user: "jürgen".to_owned(),
        // Long enough to need lengths of two and three bytes.
        groups: (0..40).map(|n| format!("group-{n}-{}", "x".repeat(20))).collect(),
        uid: "u-1".to_owned(),
    };
    let issued = authority.issue_client(&subject, HOUR).unwrap();
    let certificate = der(&issued.certificate_pem);
    let user = user_of(&certificate).unwrap().unwrap();
    assert_eq!(user.name, subject.user);
    assert_eq!(user.groups, subject.groups);
    assert_eq!(user.uid, "u-1");
    assert!(user.extra[crate::peer::CREDENTIAL_ID][0].starts_with("X509SHA256="));
    let bundle = CaBundle::from_pem(authority.certificate_pem().as_bytes()).unwrap();
    bundle
        .verify_client(std::slice::from_ref(&certificate), UnixTime::now())
        .unwrap();
}

#[test]
fn a_request_is_signed_for_whom_the_caller_says() {
    let authority = CertificateAuthority::create("umbra-test", HOUR).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name_only("system:masters-please");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let subject = ClientSubject {
        user: "agent".to_owned(),
        ..ClientSubject::default()
    };
    let signed = authority.sign_client_request(&request, &subject, HOUR).unwrap();
    assert_eq!(Subject::of(&der(&signed)).unwrap().common_name, "agent");
    assert!(authority.sign_client_request("nonsense", &subject, HOUR).is_err());
}

#[test]
fn an_authority_survives_its_folder_with_a_private_key() {
    let folder = tempfile::tempdir().unwrap();
    let first = CertificateAuthority::load_or_create(folder.path(), "umbra-test", HOUR).unwrap();
    let second = CertificateAuthority::load_or_create(folder.path(), "other", HOUR).unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    let mode = |file: &str| {
        let metadata = std::fs::metadata(folder.path().join(file)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(CA_KEY_FILE), 0o600);
    assert_eq!(mode(CA_CERTIFICATE_FILE), 0o644);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "no temporary file is left");
}

#[test]
fn a_key_of_another_authority_is_refused() {
    let one = CertificateAuthority::create("one", HOUR).unwrap();
    let two = CertificateAuthority::create("two", HOUR).unwrap();
    let mixed = CertificateAuthority::from_pem(&one.certificate_pem, &two.key_pem);
    assert!(matches!(mixed, Err(CertificateError::NotAnAuthority { .. })));
}

#[test]
fn nothing_outlives_its_issuer() {
    let authority = CertificateAuthority::create("umbra-test", HOUR).unwrap();
    let issued = authority
        .issue_serving(&["localhost".to_owned(), "127.0.0.1".to_owned()], 10 * HOUR)
        .unwrap();
    let certificate = der(&issued.certificate_pem);
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    assert_eq!(parsed.validity().not_after.timestamp(), authority.not_after);
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 2);
}
