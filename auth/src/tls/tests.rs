use std::io::{Read as _, Write as _};
use std::time::Duration;

use http::HeaderMap;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::*;
use crate::certificates::{CertificateAuthority, ClientSubject, IssuedCertificate};

const HOUR: Duration = Duration::from_hours(1);

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, HOUR).unwrap()
}

fn client(authority: &CertificateAuthority, lifetime: Duration) -> IssuedCertificate {
    let subject = ClientSubject {
        user: "alice".to_owned(),
        groups: vec!["dev".to_owned(), "ops".to_owned()],
        uid: String::new(),
    };
    authority.issue_client(&subject, lifetime).unwrap()
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn bundle(authority: &CertificateAuthority) -> CaBundle {
    CaBundle::from_pem(authority.certificate_pem().as_bytes()).unwrap()
}

/// The chain that the server sees of a client with this certificate and this key, after a handshake in memory.
fn handshake(certificate: Option<&str>, key: Option<&str>) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    let serving = authority("serving");
    let issued = serving.issue_serving(&["localhost".to_owned()], HOUR).unwrap();
    let certificate_of_server =
        ReloadableServingCertificate::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config(&certificate_of_server).unwrap())).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(serving.certificate().clone()).unwrap();
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            // Without the check that certificate and key match, so that a thief can be played.
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let signing = provider.key_provider.load_private_key(key).unwrap();
            let certified = CertifiedKey::new(chain(certificate), signing);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
        _ => builder.with_no_client_auth(),
    };
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    client.writer().write_all(b"hello").unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    let mut greeting = [0; 5];
    server.reader().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
    Ok(server.peer_certificates().map(<[_]>::to_vec).unwrap_or_default())
}

#[test]
fn everyone_gets_through_the_handshake_who_holds_the_key() {
    let unknown = client(&authority("stranger"), HOUR);
    assert!(handshake(None, None).unwrap().is_empty());
    let seen = handshake(Some(&unknown.certificate_pem), Some(&unknown.key_pem)).unwrap();
    assert_eq!(seen, chain(&unknown.certificate_pem));
}

#[test]
fn a_stolen_certificate_without_its_key_is_refused() {
    let authority = authority("ca");
    let (victim, thief) = (client(&authority, HOUR), client(&authority, HOUR));
    assert!(handshake(Some(&victim.certificate_pem), Some(&thief.key_pem)).is_err());
}

#[test]
fn certificates_are_judged_by_the_bundle_of_the_moment() {
    let (known, other) = (authority("known"), authority("other"));
    let peer = chain(&client(&known, HOUR).certificate_pem);
    let headers = HeaderMap::new();
    let credentials = Credentials {
        peer_certificates: &peer,
        headers: &headers,
    };
    let reloadable = ReloadableCaBundle::new(bundle(&known));
    let authenticator = CertificateAuthenticator::new(reloadable.clone());
    let user = authenticator
        .authenticate(&credentials, UnixTime::now())
        .unwrap()
        .unwrap();
    assert_eq!((user.name.as_str(), user.groups.len()), ("alice", 2));

    reloadable.replace(bundle(&other));
    let refused = authenticator.authenticate(&credentials, UnixTime::now());
    assert!(matches!(refused, Err(AuthenticationError::Certificate { .. })));

    reloadable.replace(CaBundle::from_pem(b"").unwrap());
    assert_eq!(authenticator.authenticate(&credentials, UnixTime::now()).unwrap(), None);
}

#[test]
fn expired_certificates_and_those_of_servers_are_refused() {
    let known = authority("known");
    let peer = chain(&client(&known, Duration::from_mins(1)).certificate_pem);
    let bundle = bundle(&known);
    let later = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 120));
    bundle.verify_client(&peer, UnixTime::now()).unwrap();
    bundle.verify_client(&peer, UnixTime::now()).unwrap();
    assert_eq!(bundle.verified.len(), 1);
    assert!(matches!(
        bundle.verify_client(&peer, later),
        Err(webpki::Error::CertExpired { .. })
    ));
    let serving = known.issue_serving(&["localhost".to_owned()], HOUR).unwrap();
    let refused = bundle.verify_client(&chain(&serving.certificate_pem), UnixTime::now());
    assert!(refused.is_err(), "a server's certificate is no client's");
    assert!(bundle.verify_client(&[], UnixTime::now()).is_err());
}
