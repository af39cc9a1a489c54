//! Which certificates count, and for how long.

use std::time::Duration;

use http::{HeaderMap, Request};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::status::Status;
use umbra_auth::authenticate::{Credentials, RequestAuthenticator as _};
use umbra_auth::certificates::{CertificateAuthority, CertificateRequest};
use umbra_child::tunnel::Tunnels;

use super::*;
use crate::generic::subresource::Connector as _;
use crate::hub::agents::tunnel::Validity;
use crate::hub::agents::{AgentAuthenticator, AgentAuthority, Agents, OpenTunnels};
use crate::mirror::Mirror;
use crate::request::RequestContext;

const HOUR: Duration = Duration::from_secs(3600);

fn new_authority() -> CertificateAuthority {
    CertificateAuthority::create("umbra-agents", HOUR).unwrap()
}

fn authority() -> AgentAuthority {
    let first = new_authority();
    let trusted = first.certificate_pem().as_bytes().to_vec();
    AgentAuthority::new(first, &trusted, HOUR).unwrap()
}

fn issued(authority: &AgentAuthority) -> CertificateDer<'static> {
    let asked = CertificateRequest::create("umbra:agent:east").unwrap();
    let pem = authority.sign(&asked.request_pem, &agent()).unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn known(authority: &AgentAuthority, certificate: &CertificateDer<'static>) -> Option<UserInfo> {
    let authenticator = AgentAuthenticator::new(authority.bundle().clone(), Mirror::of(Directory::default()));
    let credentials = Credentials {
        peer_certificates: std::slice::from_ref(certificate),
        headers: &HeaderMap::new(),
    };
    authenticator.authenticate(&credentials, UnixTime::now()).unwrap()
}

#[test]
fn the_authority_of_agents_says_who_is_one() {
    let authority = authority();
    let certificate = issued(&authority);
    let user = known(&authority, &certificate).expect("an agent");
    assert_eq!(Machine::of(&user).unwrap(), Some(Machine::Agent(agent())));
    let replica = authority.issue_replica_client(HOUR).unwrap();
    let replica = CertificateDer::from_pem_slice(replica.certificate_pem.as_bytes()).unwrap();
    let user = known(&authority, &replica).expect("a replica");
    assert_eq!(Machine::of(&user).unwrap(), Some(Machine::Replica));
    // What another authority says of its own is nothing to this one.
    assert_eq!(known(&self::authority(), &certificate), None);
}

#[test]
fn certificates_of_an_authority_count_for_as_long_as_it_is_trusted() {
    let authority = authority();
    let certificate = issued(&authority);
    let first = authority.trusted_pem();
    let mut changes = authority.subscribe();
    let second = new_authority();
    let both = [second.certificate_pem().as_bytes(), &first].concat();
    let alone = second.certificate_pem().as_bytes().to_vec();
    let again = || CertificateAuthority::from_pem(second.certificate_pem(), second.key_pem()).unwrap();
    authority.replace(again(), &both).unwrap();
    assert!(authority.believes(&certificate) && changes.has_changed().unwrap());
    changes.mark_unchanged();
    authority.replace(again(), &both).unwrap();
    assert!(!changes.has_changed().unwrap(), "the same again is no change");
    authority.replace(again(), &alone).unwrap();
    assert!(!authority.believes(&certificate) && changes.has_changed().unwrap());
    assert_eq!(known(&authority, &certificate), None);
}

#[tokio::test]
async fn a_tunnel_ends_with_the_authority_of_its_certificate() {
    let authority = authority();
    let certificate: Arc<[u8]> = Arc::from(issued(&authority).as_ref());
    let validity = Validity {
        agent: agent(),
        certificate,
        expires: jiff::Timestamp::now().as_second() + 3600,
        directory: Mirror::of(directory(&cluster(|_| {}), &request(|_| {}))),
        authority: authority.clone(),
    };
    let mut ends = std::pin::pin!(validity.ends());
    assert!(futures::poll!(ends.as_mut()).is_pending());
    let second = new_authority();
    let trusted = second.certificate_pem().as_bytes().to_vec();
    authority.replace(second, &trusted).unwrap();
    let reason = ends.await;
    assert!(reason.contains("not trusted any more"), "{reason}");
}

/// Asks for a tunnel as an agent does, on a connection that nothing comes of.
async fn ask(tunnels: &OpenTunnels, user: &UserInfo) -> Result<u16, Status> {
    let info = RequestInfo::parse("GET", "/apis/umbra.dev/v1alpha1/managedclusters/east/tunnel", "");
    let context = RequestContext {
        info: Arc::new(info),
        ..super::admission::context(user.clone())
    };
    let mut request = Request::get("/")
        .header("connection", "Upgrade")
        .header("upgrade", umbra_child::tunnel::PROTOCOL)
        .body(umbra_child::empty())
        .unwrap();
    let upgrade = hyper::upgrade::on(&mut request);
    request.extensions_mut().insert(upgrade);
    let answered = tunnels.connect(&context, request).await;
    answered.map(|response| response.status().as_u16())
}

#[tokio::test]
async fn an_agent_has_no_more_tunnels_than_there_is_room_for_and_nobody_else_has_any() {
    let authority = authority();
    let user = known(&authority, &issued(&authority)).expect("an agent");
    let agents = Agents {
        directory: Mirror::of(directory(&cluster(|_| {}), &request(|_| {}))),
        tunnels: Tunnels::new(),
        authority,
    };
    let tunnels = OpenTunnels::new(agents.clone(), TaskTracker::new(), CancellationToken::new());
    // Nothing of them runs before this test waits for something.
    for _ in 0..8 {
        assert_eq!(ask(&tunnels, &user).await.unwrap(), 101);
    }
    let refused = ask(&tunnels, &user).await.unwrap_err();
    assert_eq!(refused.code, 429, "{}", refused.message);
    // The same in all but what it has proved itself with.
    let mut claimed = user.clone();
    claimed.machine = None;
    assert_eq!(ask(&tunnels, &claimed).await.unwrap_err().code, 403);
    agents.tunnels.close().await;
    assert_eq!(ask(&tunnels, &user).await.unwrap(), 101);
}
