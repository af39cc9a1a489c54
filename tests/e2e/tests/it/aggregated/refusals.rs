//! What is refused: spoofed headers, wrong credentials, users without the right to enter.

use std::time::Duration;

use umbra_auth::certificates::{CertificateAuthority, ClientSubject};
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::http;
use umbra_e2e::identity;
use umbra_e2e::wait;
use umbra_show::Item;

/// A front proxy's or a user's word, sent to umbra itself, past the hub's API server: the status and who umbra takes it for.
struct Past<'a> {
    hub: &'a Aggregated,
    authority: String,
}

const WHO: &str = "/apis/umbra.dev/v1alpha1/managedclusters/north/proxy/apis/authentication.k8s.io/v1";
const CLUSTERS: &str = "GET /apis/umbra.dev/v1alpha1/managedclusters";
const ADMIN: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

impl Past<'_> {
    #[track_caller]
    fn status(&self, authority: Option<&CertificateAuthority>, name: &str, headers: &[(&str, &str)]) -> u16 {
        let certificate = authority.map(|authority| identity::certificate(authority, name, &[]));
        self.answer(certificate.as_ref(), CLUSTERS, headers).status
    }

    #[track_caller]
    fn answer(
        &self,
        certificate: Option<&umbra_auth::certificates::IssuedCertificate>,
        request: &str,
        headers: &[(&str, &str)],
    ) -> http::Answer {
        http::request(self.hub.port(), &self.authority, certificate, request, headers)
    }
}

#[test]
fn nobody_is_believed_but_the_hub() {
    let Some(hub) = Aggregated::shared() else { return };
    let (item, gates) = (Item::open("aggregated.spoof"), Item::open("aggregated.gates"));
    let past = Past {
        hub: &hub,
        authority: hub.authority_pem(),
    };
    let read = |file: &str| {
        let path = hub.cluster.folder().join("pki").join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let proxies = CertificateAuthority::from_pem(&read("front-proxy-ca.crt"), &read("front-proxy-ca.key"))
        .expect("the authority of the cluster's front proxies");
    let users = identity::authority(hub.cluster.folder());
    let day = Duration::from_secs(24 * 60 * 60);
    let stranger = CertificateAuthority::create("front-proxy-ca", day).expect("an authority");

    assert_eq!(
        past.status(Some(&proxies), "front-proxy-client", &ADMIN),
        200,
        "the front proxy"
    );
    assert_eq!(past.status(None, "", &ADMIN), 401, "no certificate");
    assert_eq!(
        past.status(Some(&stranger), "front-proxy-client", &ADMIN),
        401,
        "another authority"
    );
    assert_eq!(
        past.status(Some(&proxies), "somebody", &ADMIN),
        401,
        "a wrong common name"
    );
    assert_eq!(
        past.status(Some(&users), "front-proxy-client", &ADMIN),
        403,
        "a user of that name"
    );
    assert_eq!(
        past.status(Some(&proxies), "front-proxy-client", &[]),
        401,
        "a proxy for nobody"
    );
    assert_eq!(
        past.status(None, "", &[("Authorization", "Bearer guess")]),
        401,
        "a wrong token"
    );
    let subject = ClientSubject {
        user: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        uid: String::new(),
    };
    let good = users.issue_client(&subject, day).expect("a certificate");
    assert_eq!(past.answer(Some(&good), CLUSTERS, &[]).status, 200, "an administrator");
    let brief = users.issue_client(&subject, Duration::ZERO).expect("a certificate");
    // Good to the end of the second it was issued in.
    wait::until("the end of a certificate", wait::DEADLINE, || {
        match past.answer(Some(&brief), CLUSTERS, &[]).status {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });

    // A token is good until it is revoked, and 10 s after.
    let kubectl = hub.cluster.kubectl();
    kubectl.ok("create serviceaccount leaver -n default");
    kubectl.ok("create clusterrolebinding leaver --clusterrole=umbra-editor --serviceaccount=default:leaver");
    let token = format!("Bearer {}", kubectl.ok("create token leaver -n default").trim());
    let with_token = || past.answer(None, CLUSTERS, &[("Authorization", &token)]).status;
    wait::until("the token's permission", wait::DEADLINE, || match with_token() {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    kubectl.ok("delete serviceaccount leaver -n default");
    wait::until("the refusal of a revoked token", wait::DEADLINE, || {
        match with_token() {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    item.pass("8 wrong credentials refused, a revoked token too");

    // Whoever may not enter is refused by the hub's API server, and past it by umbra.
    let mallory = hub.certificate_user("mallory", &[]);
    for context in ["view", "fleet", "north"] {
        let refused = mallory.context(context).fails("get pods");
        assert!(refused.contains("Forbidden"), "{context}: {refused}");
    }
    let certificate = identity::certificate(&users, "mallory", &[]);
    for root in ["views/all", "fleets/all", "managedclusters/north"] {
        let request = format!("GET /apis/umbra.dev/v1alpha1/{root}/proxy/api/v1/pods");
        let answer = past.answer(Some(&certificate), &request, &[]);
        assert_eq!(answer.status, 403, "{root}: {}", answer.text);
        let answer = past.answer(Some(&certificate), &request, &[("Impersonate-User", "admin")]);
        assert_eq!(answer.status, 403, "{root}: {}", answer.text);
    }
    // What a user sends of a proxy's headers does not reach a child.
    let answer = past.answer(Some(&good), &format!("GET {WHO}"), &[("X-Remote-User", "mallory")]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    gates.pass("3 roots, by the hub and by umbra");
}
