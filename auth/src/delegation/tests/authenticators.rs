use std::sync::Arc;

use http::HeaderMap;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::*;
use crate::authenticate::Credentials;
use crate::certificates::{CertificateAuthority, ClientSubject};
use crate::delegation::testing::FakeHub;
use crate::request_header::{RequestHeaderOptions, RequestHeaderTrust};
use crate::tls::CaBundle;
use crate::trust::ClientTrust;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A server behind a hub, and the hub's authorities.
struct World {
    clients: CertificateAuthority,
    proxies: CertificateAuthority,
    hub: Arc<FakeHub>,
    authenticator: DelegatedAuthenticator,
}

impl World {
    fn new() -> Self {
        let clients = CertificateAuthority::create("clients", DAY).unwrap();
        let proxies = CertificateAuthority::create("proxies", DAY).unwrap();
        let bundle = |authority: &CertificateAuthority| CaBundle::from_pem(authority.certificate_pem().as_bytes());
        let trust = ClientTrust::default();
        trust.client_authorities().replace(bundle(&clients).unwrap());
        let options = RequestHeaderOptions {
            allowed_names: vec!["front-proxy".to_owned()],
            ..RequestHeaderOptions::default()
        };
        let believed = RequestHeaderTrust::new(bundle(&proxies).unwrap(), &options);
        trust.request_header().replace(believed.unwrap());
        let hub = Arc::new(FakeHub::default());
        hub.issue("good", "robot", &[]);
        let options = TokenReviewOptions {
            patience: patience(),
            ..TokenReviewOptions::default()
        };
        let tokens = Arc::new(TokenReviews::new(Arc::clone(&hub) as _, options));
        Self {
            authenticator: DelegatedAuthenticator::new(trust.authenticators(), Some(tokens)),
            clients,
            proxies,
            hub,
        }
    }

    async fn judge(
        &self,
        certificate: Option<(&CertificateAuthority, &str)>,
        headers: &[(&'static str, &str)],
    ) -> Result<Option<String>, (bool, String)> {
        self.judge_after(Duration::ZERO, certificate, headers).await
    }

    /// Judges a request that comes so long after its certificate was issued, for an hour.
    async fn judge_after(
        &self,
        after: Duration,
        certificate: Option<(&CertificateAuthority, &str)>,
        headers: &[(&'static str, &str)],
    ) -> Result<Option<String>, (bool, String)> {
        let peer_certificates: Vec<CertificateDer<'static>> = certificate
            .map(|(authority, user)| {
                let subject = ClientSubject {
                    user: user.to_owned(),
                    ..ClientSubject::default()
                };
                let issued = authority.issue_client(&subject, HOUR).unwrap();
                CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
            })
            .into_iter()
            .collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let credentials = Credentials {
            peer_certificates: &peer_certificates,
            headers: &map,
        };
        let judged = self.authenticator.authenticate(&credentials, at(after)).await;
        judged.map(|user| user.map(|user| user.name.clone())).map_err(|error| {
            let expected = if error.is_unjudged() { 500 } else { 401 };
            assert_eq!(error.status().code, expected);
            (error.is_unjudged(), error.to_string())
        })
    }
}

fn at(after: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after)
}

const SPOOFED: (&str, &str) = ("x-remote-user", "admin");

#[tokio::test(start_paused = true)]
async fn everyone_is_known_by_what_proves_it() {
    let world = World::new();
    let is = |name: &str| Ok(Some(name.to_owned()));
    let proxy = Some((&world.proxies, "front-proxy"));
    let alice = Some((&world.clients, "alice"));
    assert_eq!(
        world.judge(proxy, &[SPOOFED]).await,
        is("admin"),
        "a proxy may name anybody"
    );
    assert_eq!(world.judge(alice, &[]).await, is("alice"));
    assert_eq!(
        world.judge(None, &[("authorization", "Bearer good")]).await,
        is("robot")
    );
    assert_eq!(world.judge(None, &[]).await, Ok(None));
    // The certificate counts before the token; the hub is not asked.
    let asked = world.hub.calls();
    assert_eq!(
        world.judge(alice, &[("authorization", "Bearer bad")]).await,
        is("alice")
    );
    assert_eq!(world.hub.calls(), asked);
    // What one authenticator refuses another may believe.
    let stranger = CertificateAuthority::create("other", HOUR).unwrap();
    let token = ("authorization", "Bearer good");
    assert_eq!(world.judge(Some((&stranger, "x")), &[token]).await, is("robot"));
}

#[tokio::test(start_paused = true)]
async fn spoofed_headers_name_nobody() {
    let world = World::new();
    assert_eq!(world.judge(None, &[SPOOFED]).await, Ok(None), "no certificate");
    let alice = world.judge(Some((&world.clients, "alice")), &[SPOOFED]).await;
    assert_eq!(
        alice,
        Ok(Some("alice".to_owned())),
        "a user's certificate is no proxy's"
    );
    let impostor = world.judge(Some((&world.clients, "front-proxy")), &[SPOOFED]).await;
    assert_eq!(
        impostor,
        Ok(Some("front-proxy".to_owned())),
        "the name without the authority"
    );

    let wrong_name = world.judge(Some((&world.proxies, "somebody")), &[SPOOFED]).await;
    let (unjudged, error) = wrong_name.unwrap_err();
    assert!(
        !unjudged && error.contains("cn=somebody is not in the allowed list"),
        "{error}"
    );
    let stranger = CertificateAuthority::create("other", HOUR).unwrap();
    let (unjudged, error) = world
        .judge(Some((&stranger, "front-proxy")), &[SPOOFED])
        .await
        .unwrap_err();
    assert!(!unjudged && error.contains("UnknownIssuer"), "{error}");
    let robot = world.judge(None, &[SPOOFED, ("authorization", "Bearer good")]).await;
    assert_eq!(robot, Ok(Some("robot".to_owned())), "a token is no proxy");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_401_and_an_outage_is_not() {
    let world = World::new();
    let token = [("authorization", "Bearer bad")];
    assert!(!world.judge(None, &token).await.unwrap_err().0);
    tokio::time::advance(SECOND * 60).await;
    world.hub.fail_with(&[500; 5]);
    assert!(world.judge(None, &token).await.unwrap_err().0);
    // Beside a certificate that is refused, it is still an outage: the token may be good.
    let stranger = CertificateAuthority::create("other", HOUR).unwrap();
    world.hub.fail_with(&[500; 5]);
    let (unjudged, error) = world.judge(Some((&stranger, "x")), &token).await.unwrap_err();
    assert!(unjudged && error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_proves_nothing_whosever_it_is() {
    let world = World::new();
    for (authority, name) in [(&world.clients, "alice"), (&world.proxies, "front-proxy")] {
        let certificate = Some((authority, name));
        assert!(world.judge(certificate, &[SPOOFED]).await.unwrap().is_some());
        let late = world.judge_after(HOUR * 2, certificate, &[SPOOFED]).await;
        let (unjudged, error) = late.unwrap_err();
        assert!(!unjudged && error.contains("CertExpired"), "{error}");
    }
}
