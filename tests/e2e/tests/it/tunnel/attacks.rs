//! What a malicious agent, or whoever finds what belongs to one, does not get.

use std::cell::Cell;
use std::time::Duration;

use serde_json::Value;
use umbra_auth::certificates::{CertificateAuthority, ClientSubject};
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::identity::{self, Credential};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::{REQUESTS, Tunnelled, request, says};

const CREATE: [&str; 5] = ["create", "--raw", REQUESTS, "-f", "-"];

/// A cluster with a tunnel, and how often something was refused.
struct Attacks<'a> {
    world: &'a World,
    tunnelled: Tunnelled<'a>,
    refused: Cell<usize>,
}

#[test]
fn an_agent_is_nobody_but_its_own_cluster() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.tunnel.attacks");
    let spare = World::spare();
    let attacks = Attacks {
        world: &world,
        tunnelled: Tunnelled::start(&world, &spare),
        refused: Cell::new(0),
    };
    let hub = &attacks.tunnelled.hub;
    hub.umbra(&[
        "join",
        "other",
        "--tunnel",
        "--token-only",
        "--hub-kubeconfig",
        &hub.kubeconfig().to_string_lossy(),
    ])
    .expect_success();
    let bearer = attacks.bearer("bearer");
    attacks.with_the_token(&bearer);
    let agent = attacks.tunnelled.agent();
    hub.wait_for_child("guest");
    attacks.with_a_used_token(&bearer);
    attacks.with_an_agent_elsewhere(&bearer);
    attacks.with_a_status();
    attacks.impersonating_machines();
    attacks.with_the_certificate_of_the_agent();
    attacks.with_certificates_that_look_like_one();
    drop(agent);
    hub.leave("guest").expect_success();
    spare.kubectl().ok("delete namespace umbra-agent --timeout=90s");
    item.pass(&format!("{} refused", attacks.refused.get()));
}

impl Attacks<'_> {
    fn refuse(&self, outcome: Outcome, expected: &str) {
        let said = outcome.expect_failure();
        assert!(said.contains(expected), "{expected}: {said}");
        self.refused.set(self.refused.get() + 1);
    }

    /// Whoever has the present token.
    fn bearer(&self, name: &str) -> Kubectl {
        let token = self.tunnelled.token();
        self.tunnelled.kubectl_as(name, &Credential::Token(token))
    }

    /// Another cluster, another name in the request, anything else.
    fn with_the_token(&self, bearer: &Kubectl) {
        self.refuse(
            bearer.run_with(&request("a", "other", "umbra:agent:other"), CREATE),
            "not for cluster other",
        );
        self.refuse(
            bearer.run_with(&request("a", "guest", "umbra:agent:other"), CREATE),
            "in the name of",
        );
        self.refuse(
            bearer.run_with(&request("a", "guest", "system:masters"), CREATE),
            "in the name of",
        );
        for path in [
            "/api/v1/namespaces/umbra-system/secrets",
            REQUESTS,
            "/apis/umbra.dev/v1alpha1/managedclusters",
            "/api",
        ] {
            self.refuse(bearer.run(["get", "--raw", path]), "orbidden");
        }
        let inside = format!("/apis/umbra.dev/v1alpha1/{}", "managedclusters/guest/proxy/api");
        self.refuse(bearer.run(["get", "--raw", &inside]), "orbidden");
        let forged = self.tunnelled.token().replace("guest", "other");
        let forger = self.tunnelled.kubectl_as("forger", &Credential::Token(forged));
        self.refuse(
            forger.run_with(&request("a", "other", "umbra:agent:other"), CREATE),
            "nauthorized",
        );
    }

    /// Once its agent has joined, the token is of no use to whoever finds it.
    fn with_a_used_token(&self, bearer: &Kubectl) {
        self.refuse(
            bearer.run_with(&request("again", "guest", "umbra:agent:guest"), CREATE),
            "has been used",
        );
    }

    /// An agent in another cluster with another token of this one.
    fn with_an_agent_elsewhere(&self, bearer: &Kubectl) {
        self.tunnelled.another_token();
        wait::until("the first token counts no more", wait::DEADLINE, || {
            let said = bearer.run(["get", "--raw", REQUESTS]).expect_failure();
            if said.contains("nauthorized") {
                Ok(())
            } else {
                Err(said)
            }
        });
        self.refused.set(self.refused.get() + 1);
        let north = self.world.children[0].kubeconfig();
        let state = environment::folder("stranger");
        let stranger_state = ["--state-dir", &state.to_string_lossy()];
        let mut stranger = self.tunnelled.agent_of("guest", &north, stranger_state);
        says(&stranger, "has denied");
        stranger.stop();
        self.refused.set(self.refused.get() + 1);
    }

    /// A status that was sent along counts for nothing, and who asked is who asked.
    fn with_a_status(&self) {
        let bearer = self.bearer("bearer-again");
        // The token of the denied agent was for its request.
        self.refuse(
            bearer.run_with(&request("again", "guest", "umbra:agent:guest"), CREATE),
            "has been used",
        );
        self.tunnelled.another_token();
        let bearer = self.bearer("bearer-third");
        wait::until("the third token counts", wait::DEADLINE, || {
            let said = bearer.run(["get", "--raw", REQUESTS]).expect_failure();
            if said.contains("orbidden") { Ok(()) } else { Err(said) }
        });
        bearer.ok_with(&request("mine", "guest", "umbra:agent:guest"), CREATE);
        let made: Value = self.tunnelled.hub.root().json(["get", "clusterjoinrequest", "mine"]);
        assert_eq!(made["spec"]["username"], "umbra:bootstrap:guest");
        assert_ne!(made["status"]["conditions"][0]["reason"], "Mine");
        self.too_often(&bearer);
    }

    /// Nor may it write as often as it likes.
    fn too_often(&self, bearer: &Kubectl) {
        let insisted = (0..30)
            .map(|_| {
                bearer
                    .run_with(&request("mine", "guest", "umbra:agent:guest"), CREATE)
                    .expect_failure()
            })
            .find(|said| !said.contains("already exists"));
        assert!(
            insisted.as_ref().is_some_and(|said| said.contains("writes too often")),
            "{insisted:?}"
        );
        self.refused.set(self.refused.get() + 1);
    }

    /// Nobody becomes a machine, not even who may impersonate everybody.
    fn impersonating_machines(&self) {
        let root = self.tunnelled.hub.root();
        for claimed in [
            &["--as=umbra:agent:guest"][..],
            &["--as=umbra:bootstrap:guest"],
            &["--as=umbra:replica"],
            &["--as=root", "--as-group=umbra:agents"],
            &["--as=root", "--as-group=umbra:replicas"],
        ] {
            let claiming = claimed.iter().fold(root.clone(), |root, flag| root.with(flag));
            self.refuse(claiming.run(["get", "--raw", "/api"]), "belongs to machines");
        }
        // Nor with a certificate of an authority that says who people are.
        let people = identity::authority(self.tunnelled.hub.folder());
        let claims = identity::certificate(&people, "umbra:replica", &["umbra:replicas", "system:masters"]);
        let claims = self.tunnelled.kubectl_as("claims", &Credential::Certificate(claims));
        self.refuse(claims.run(["get", "--raw", "/api"]), "nauthorized");
    }

    /// Everything but its own tunnel.
    fn with_the_certificate_of_the_agent(&self) {
        let certificate = self.tunnelled.certificate();
        let own = self
            .tunnelled
            .kubectl_as("agent-certificate", &Credential::Certificate(certificate));
        for path in [
            "/apis/umbra.dev/v1alpha1/managedclusters/other/tunnel",
            "/apis/umbra.dev/v1alpha1/managedclusters/guest/proxy/api",
            "/apis/umbra.dev/v1alpha1/managedclusters/other/proxy/api",
            "/apis/umbra.dev/v1alpha1/views/all/proxy/api",
            "/apis/umbra.dev/v1alpha1/managedclusters/guest",
            "/apis/umbra.dev/v1alpha1/clusterjoinrequests/mine",
            "/api/v1/namespaces/umbra-system/secrets",
            "/metrics",
        ] {
            self.refuse(own.run(["get", "--raw", path]), "orbidden");
        }
        self.refuse(
            own.run_with(&request("b", "guest", "umbra:agent:guest"), CREATE),
            "orbidden",
        );
        let masters = own.with("--as=root").with("--as-group=system:masters");
        self.refuse(masters.run(["get", "--raw", "/api"]), "orbidden");
    }

    /// Of an authority that somebody made up, and of the agents' own.
    fn with_certificates_that_look_like_one(&self) {
        let subject = ClientSubject {
            user: "umbra:agent:guest".to_owned(),
            groups: vec!["umbra:agents".to_owned()],
            uid: "a/b/c".to_owned(),
        };
        let made_up = CertificateAuthority::create("umbra-agents", Duration::from_secs(3600)).expect("an authority");
        let made_up = made_up
            .issue_client(&subject, Duration::from_secs(600))
            .expect("a certificate");
        let tunnel = "/apis/umbra.dev/v1alpha1/managedclusters/guest/tunnel";
        let impostor = self.tunnelled.kubectl_as("impostor", &Credential::Certificate(made_up));
        self.refuse(impostor.run(["get", "--raw", tunnel]), "nauthorized");
        // Even of the agents' own authority, where it is for no request that was approved.
        let agents =
            CertificateAuthority::load(&self.tunnelled.hub.folder().join("agents")).expect("the agents' authority");
        let unknown = agents
            .issue_client(&subject, Duration::from_secs(600))
            .expect("a certificate");
        let unknown = self.tunnelled.kubectl_as("unknown", &Credential::Certificate(unknown));
        self.refuse(unknown.run(["get", "--raw", tunnel]), "earlier ManagedCluster");
        let masters = ClientSubject {
            groups: vec!["system:masters".to_owned()],
            ..subject
        };
        let masters = agents
            .issue_client(&masters, Duration::from_secs(600))
            .expect("a certificate");
        let masters = self.tunnelled.kubectl_as("masters", &Credential::Certificate(masters));
        self.refuse(masters.run(["get", "--raw", "/api"]), "nauthorized");
    }
}
