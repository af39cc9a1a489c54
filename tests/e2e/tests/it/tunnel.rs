//! Tunnels: a cluster that the hub does not dial, with `umbra agent` in it.
//!
//! The manifest that `umbra join --tunnel` prints is applied to a real cluster, and agents run as processes beside it with the
//! token of the manifest's service account, so that what they may do is what the manifest lets them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use umbra_auth::certificates::{CertificateAuthority, CertificateRequest, ClientSubject, IssuedCertificate};
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::{Hub, umbra};
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::cluster_root;

const REQUESTS: &str = "/apis/umbra.dev/v1alpha1/clusterjoinrequests";

/// A hub of its own, because placements and copies of other tests are for all clusters, and a cluster that joins by tunnel.
#[derive(Debug)]
pub(crate) struct Tunnelled<'a> {
    programs: &'a Programs,
    pub(crate) hub: Hub,
    cluster: &'a Cluster,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl<'a> Tunnelled<'a> {
    /// Registers `guest` and applies its manifest.
    pub(crate) fn start(world: &'a World, cluster: &'a Cluster) -> Self {
        Self::start_with(world, cluster, &[])
    }

    /// The same on a hub with flags.
    fn start_with(world: &'a World, cluster: &'a Cluster, flags: &[&str]) -> Self {
        let hub = Hub::start(world.programs, flags);
        let folder = environment::folder("agent");
        let kubeconfig = hub.kubeconfig();
        let manifest = hub
            .umbra(&[
                "join",
                "guest",
                "--tunnel",
                "--hub-kubeconfig",
                &kubeconfig.to_string_lossy(),
            ])
            .expect_success();
        cluster.kubectl().ok_with(&manifest, "apply --server-side -f -");
        let token = cluster
            .kubectl()
            .ok("create token umbra-agent -n umbra-agent --duration=2h");
        let authority = identity::authority(cluster.folder());
        let kubeconfig = identity::write_kubeconfig(
            &folder.join("kubeconfig"),
            &[Context {
                name: "own",
                server: cluster.server().to_owned(),
                authority_pem: authority.certificate_pem(),
                credential: &Credential::Token(token.trim().to_owned()),
            }],
        );
        let bootstrap = cluster
            .kubectl()
            .path("secret umbra-agent-bootstrap -n umbra-agent", "{.data.token}");
        let tunnelled = Self {
            programs: world.programs,
            hub,
            cluster,
            folder,
            kubeconfig,
        };
        std::fs::write(tunnelled.token_file(), decoded(&bootstrap)).expect("written");
        std::fs::copy(tunnelled.hub.folder().join("ca.crt"), tunnelled.authority_file()).expect("copied");
        tunnelled
    }

    fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    fn authority_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("the token")
    }

    /// Replaces the token by another.
    fn another_token(&self) {
        let kubeconfig = self.hub.kubeconfig();
        let kubeconfig = kubeconfig.to_string_lossy();
        let join = [
            "join",
            "guest",
            "--tunnel",
            "--token-only",
            "--hub-kubeconfig",
            &kubeconfig,
        ];
        let token = self.hub.umbra(&join).expect_success();
        std::fs::write(self.token_file(), token.trim()).expect("written");
    }

    /// An agent of `cluster` that keeps who it is where `state` says.
    fn agent_of(&self, cluster: &str, kubeconfig: &Path, state: [&str; 2]) -> Process {
        let mut command = umbra(self.programs);
        command
            .args(["agent", "--hub", &self.hub.url(), "--cluster", cluster])
            .arg("--hub-ca-file")
            .arg(self.authority_file())
            .arg("--bootstrap-token-file")
            .arg(self.token_file())
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(state);
        Process::start_logged(command, &environment::folder("agent-log").join("agent.log"))
    }

    /// An agent as the manifest runs it.
    pub(crate) fn agent(&self) -> Process {
        let state = ["--state-secret", "umbra-agent/umbra-agent-identity"];
        self.agent_of("guest", &self.kubeconfig, state)
    }

    fn child(&self) -> Kubectl {
        self.hub.child("guest")
    }

    /// Waits until the tunnel serves again, and says after how long.
    fn serves(&self, what: &str) -> Duration {
        let began = Instant::now();
        let child = self.child();
        wait::until(what, wait::DEADLINE, || {
            let outcome = child.run("get --raw /readyz");
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
        began.elapsed()
    }

    /// Waits until requests fail.
    fn is_cut(&self, what: &str) -> Duration {
        let began = Instant::now();
        let child = self.child();
        wait::until(what, wait::DEADLINE, || {
            let outcome = child.run("get --raw /readyz");
            if outcome.succeeded() {
                Err("it still answers".to_owned())
            } else {
                Ok(())
            }
        });
        began.elapsed()
    }

    /// The certificate that the agents of the manifest have now.
    fn certificate(&self) -> IssuedCertificate {
        let kept = self
            .cluster
            .kubectl()
            .path("secret umbra-agent-identity -n umbra-agent", r"{.data.agent\.json}");
        let kept: Value = serde_json::from_str(&decoded(&kept)).expect("what the agent keeps");
        let text = |key: &str| kept[key].as_str().expect("complete").to_owned();
        IssuedCertificate {
            certificate_pem: text("certificate"),
            key_pem: text("key"),
        }
    }

    /// kubectl on the hub as somebody with this credential.
    fn kubectl_as(&self, name: &str, credential: &Credential) -> Kubectl {
        let authority = identity::authority(self.hub.folder());
        let path = identity::write_kubeconfig(
            &self.folder.join(name),
            &[Context {
                name,
                server: self.hub.url(),
                authority_pem: authority.certificate_pem(),
                credential,
            }],
        );
        Kubectl::new(self.programs, &path)
    }
}

/// Waits until an agent says something.
#[track_caller]
fn says(agent: &Process, text: &str) {
    says_within(wait::DEADLINE, agent, text);
}

#[track_caller]
fn says_within(deadline: Duration, agent: &Process, text: &str) {
    wait::until(text, deadline, || {
        let said = agent.output();
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}

fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64.trim());
    String::from_utf8(bytes.expect("base64")).expect("text")
}

/// A request to join that somebody makes up.
fn request(name: &str, cluster: &str, subject: &str) -> String {
    let made = CertificateRequest::create(subject).expect("a request");
    json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest", "metadata": {"name": name},
        "spec": {"clusterName": cluster, "clusterUID": "u", "request": made.request_pem, "username": "root"},
        "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Mine", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    .to_string()
}

#[test]
fn agents_renew_their_certificates_and_nobody_notices() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.tunnel.renewal");
    let spare = World::spare();
    let tunnelled = Tunnelled::start_with(&world, &spare, &["--agent-certificate-lifetime", "30s"]);
    let mut agent = tunnelled.agent();
    tunnelled.hub.wait_for_child("guest");
    let first = tunnelled.certificate();
    let (child, mut requests) = (tunnelled.child(), 0);
    wait::until("two renewals", wait::DEADLINE, || {
        child.ok("get --raw /readyz");
        requests += 1;
        let said = agent.output();
        match said.matches("the certificate has been renewed").count() {
            0 | 1 => Err(said),
            _ => Ok(()),
        }
    });
    let last = tunnelled.certificate();
    assert!(first.certificate_pem != last.certificate_pem && first.key_pem != last.key_pem);
    // What the manifest says of the hub grows old. The agent knows by what to verify it from what it was told with its certificate.
    agent.stop();
    let other = CertificateAuthority::create("another", Duration::from_secs(3600)).expect("an authority");
    std::fs::write(tunnelled.authority_file(), other.certificate_pem()).expect("written");
    let mut agent = tunnelled.agent();
    says(&agent, "connected to the hub as guest");
    tunnelled.serves("by what the hub has said");
    item.pass(&format!(
        "2 renewals; {requests} requests meanwhile, none failed; connects again with another authority in its file"
    ));
    agent.stop();
    tunnelled.hub.leave("guest").expect_success();
    spare.kubectl().ok("delete namespace umbra-agent --timeout=90s");
}

#[test]
fn an_agent_keeps_who_it_is_until_it_is_somebody_else() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.tunnel.token");
    let spare = World::spare();
    let tunnelled = Tunnelled::start(&world, &spare);
    let mut agent = tunnelled.agent();
    tunnelled.hub.wait_for_child("guest");
    let first = tunnelled.certificate();

    // Its request is deleted, and the token has been used: nothing better is to be had than what it has.
    tunnelled.hub.root().ok("delete clusterjoinrequests --all");
    says(&agent, "has been used");
    says(&agent, "no other certificate");
    assert_eq!(tunnelled.certificate().certificate_pem, first.certificate_pem);

    // Another token, and nothing is started again.
    tunnelled.another_token();
    let began = Instant::now();
    tunnelled.serves("the agent has joined again");
    assert_ne!(tunnelled.certificate().key_pem, first.key_pem);
    item.pass(&format!(
        "joined again {:.0} s after another token",
        began.elapsed().as_secs_f64()
    ));
    agent.stop();
    tunnelled.hub.leave("guest").expect_success();
    spare.kubectl().ok("delete namespace umbra-agent --timeout=90s");
}

#[test]
fn a_cluster_behind_a_tunnel_is_like_any_other() {
    let Some(world) = World::shared() else { return };
    let repertoire = Item::open("children.tunnel.repertoire");
    let restarts = Item::open("children.tunnel.restart");
    let ha = Item::open("children.tunnel.ha");
    let revoke = Item::open("children.tunnel.revoke");
    let spare = World::spare();
    let tunnelled = Tunnelled::start(&world, &spare);
    let mut agent = tunnelled.agent();
    tunnelled.hub.wait_for_child("guest");

    let direct = spare.kubectl().namespace("tunnelled");
    direct.ok("create namespace tunnelled");
    let kubectl = tunnelled.child().namespace("tunnelled");
    cluster_root::read(&kubectl, &direct, tunnelled.hub.administrator());
    cluster_root::write(&kubectl, &direct);
    cluster_root::connect(&kubectl);
    let copies = tunnelled.hub.view().ok("get pods -n tunnelled -o name");
    assert!(copies.contains("@guest"), "{copies}");
    let secrets = tunnelled.hub.root().ok("get secrets -A -o name");
    assert!(
        !secrets.contains("guest"),
        "the hub has no credential of the cluster: {secrets}"
    );
    repertoire.pass("the same commands, WebSocket and SPDY");

    // Killed and started again: no token is needed, what it is is kept in the cluster.
    std::fs::write(tunnelled.token_file(), "").expect("written");
    let times: u32 = std::env::var("UMBRA_TUNNEL_RESTARTS")
        .ok()
        .and_then(|times| times.parse().ok())
        .unwrap_or(2);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        agent.signal(Signal::KILL);
        agent.wait(wait::DEADLINE);
        agent = tunnelled.agent();
        longest = longest.max(tunnelled.serves("the agent that was started again serves"));
    }
    restarts.pass(&format!(
        "{times} times, serves again after {:.1} s",
        longest.as_secs_f64()
    ));

    // Two agents; one is killed while a log is followed through whichever.
    let mut second = tunnelled.agent();
    says(&second, "connected to the hub");
    agent.signal(Signal::KILL);
    agent.wait(wait::DEADLINE);
    let taken_over = tunnelled.serves("the other agent serves");
    ha.pass(&format!("the other serves after {:.1} s", taken_over.as_secs_f64()));

    // Denied: cut at once, and the certificate that was good a moment ago lets nobody in.
    let certificate = tunnelled.certificate();
    let kubeconfig = tunnelled.hub.kubeconfig();
    let deny = ["deny", "guest", "--hub-kubeconfig", &kubeconfig.to_string_lossy()];
    tunnelled.hub.umbra(&deny).expect_success();
    let cut = tunnelled.is_cut("the tunnel is cut");
    revoke.measure(
        &format!("{:.2} s, with the start of kubectl", cut.as_secs_f64()),
        cut < Duration::from_secs(1),
    );
    let old = tunnelled.kubectl_as("old", &Credential::Certificate(certificate));
    let path = "get --raw /apis/umbra.dev/v1alpha1/managedclusters/guest/tunnel";
    assert!(old.fails(path).contains("is not approved"), "{}", old.fails(path));
    second.stop();

    // Nothing is left of it on the hub.
    tunnelled.hub.leave("guest").expect_success();
    wait::until("the requests are gone", wait::DEADLINE, || {
        let left = tunnelled.hub.root().ok("get clusterjoinrequests -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    spare
        .kubectl()
        .ok("delete namespace tunnelled umbra-agent --timeout=90s");
}

#[test]
fn an_agent_is_nobody_but_its_own_cluster() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.tunnel.attacks");
    let spare = World::spare();
    let tunnelled = Tunnelled::start(&world, &spare);
    let hub = &tunnelled.hub;
    hub.umbra(&[
        "join",
        "other",
        "--tunnel",
        "--token-only",
        "--hub-kubeconfig",
        &hub.kubeconfig().to_string_lossy(),
    ])
    .expect_success();
    let refused = std::cell::Cell::new(0);
    let refuse = |outcome: umbra_e2e::kubectl::Outcome, expected: &str| {
        let said = outcome.expect_failure();
        assert!(said.contains(expected), "{expected}: {said}");
        refused.set(refused.get() + 1);
    };
    let create = ["create", "--raw", REQUESTS, "-f", "-"];

    // With the token: another cluster, another name in the request, anything else.
    let bearer = tunnelled.kubectl_as("bearer", &Credential::Token(tunnelled.token()));
    refuse(
        bearer.run_with(&request("a", "other", "umbra:agent:other"), create),
        "not for cluster other",
    );
    refuse(
        bearer.run_with(&request("a", "guest", "umbra:agent:other"), create),
        "in the name of",
    );
    refuse(
        bearer.run_with(&request("a", "guest", "system:masters"), create),
        "in the name of",
    );
    for path in [
        "/api/v1/namespaces/umbra-system/secrets",
        REQUESTS,
        "/apis/umbra.dev/v1alpha1/managedclusters",
        "/api",
    ] {
        refuse(bearer.run(["get", "--raw", path]), "orbidden");
    }
    let inside = format!("/apis/umbra.dev/v1alpha1/{}", "managedclusters/guest/proxy/api");
    refuse(bearer.run(["get", "--raw", &inside]), "orbidden");
    let forged = tunnelled.token().replace("guest", "other");
    let forger = tunnelled.kubectl_as("forger", &Credential::Token(forged));
    refuse(
        forger.run_with(&request("a", "other", "umbra:agent:other"), create),
        "nauthorized",
    );

    // Once its agent has joined, the token is of no use to whoever finds it.
    let agent = tunnelled.agent();
    hub.wait_for_child("guest");
    refuse(
        bearer.run_with(&request("again", "guest", "umbra:agent:guest"), create),
        "has been used",
    );

    // An agent in another cluster with another token of this one.
    tunnelled.another_token();
    wait::until("the first token counts no more", wait::DEADLINE, || {
        let said = bearer.run(["get", "--raw", REQUESTS]).expect_failure();
        if said.contains("nauthorized") {
            Ok(())
        } else {
            Err(said)
        }
    });
    refused.set(refused.get() + 1);
    let north = world.children[0].kubeconfig();
    let state = environment::folder("stranger");
    let stranger_state = ["--state-dir", &state.to_string_lossy()];
    let mut stranger = tunnelled.agent_of("guest", &north, stranger_state);
    says(&stranger, "has denied");
    stranger.stop();
    refused.set(refused.get() + 1);

    // A status that was sent along counts for nothing, and who asked is who asked.
    let bearer = tunnelled.kubectl_as("bearer-again", &Credential::Token(tunnelled.token()));
    // The token of the denied agent was for its request.
    refuse(
        bearer.run_with(&request("again", "guest", "umbra:agent:guest"), create),
        "has been used",
    );
    tunnelled.another_token();
    let bearer = tunnelled.kubectl_as("bearer-third", &Credential::Token(tunnelled.token()));
    wait::until("the third token counts", wait::DEADLINE, || {
        let said = bearer.run(["get", "--raw", REQUESTS]).expect_failure();
        if said.contains("orbidden") { Ok(()) } else { Err(said) }
    });
    bearer.ok_with(&request("mine", "guest", "umbra:agent:guest"), create);
    let made: Value = hub.root().json(["get", "clusterjoinrequest", "mine"]);
    assert_eq!(made["spec"]["username"], "umbra:bootstrap:guest");
    assert_ne!(made["status"]["conditions"][0]["reason"], "Mine");

    // Nor may it write as often as it likes.
    let insisted = (0..30)
        .map(|_| {
            bearer
                .run_with(&request("mine", "guest", "umbra:agent:guest"), create)
                .expect_failure()
        })
        .find(|said| !said.contains("already exists"));
    assert!(
        insisted.as_ref().is_some_and(|said| said.contains("writes too often")),
        "{insisted:?}"
    );
    refused.set(refused.get() + 1);

    // Nobody becomes a machine, not even who may impersonate everybody.
    let root = hub.root();
    for claimed in [
        &["--as=umbra:agent:guest"][..],
        &["--as=umbra:bootstrap:guest"],
        &["--as=umbra:replica"],
        &["--as=root", "--as-group=umbra:agents"],
        &["--as=root", "--as-group=umbra:replicas"],
    ] {
        let claiming = claimed.iter().fold(root.clone(), |root, flag| root.with(flag));
        refuse(claiming.run(["get", "--raw", "/api"]), "belongs to machines");
    }
    // Nor with a certificate of an authority that says who people are.
    let people = identity::authority(hub.folder());
    let claims = identity::certificate(&people, "umbra:replica", &["umbra:replicas", "system:masters"]);
    let claims = tunnelled.kubectl_as("claims", &Credential::Certificate(claims));
    refuse(claims.run(["get", "--raw", "/api"]), "nauthorized");

    // With the certificate of the agent: everything but its own tunnel.
    let certificate = tunnelled.certificate();
    let own = tunnelled.kubectl_as("agent-certificate", &Credential::Certificate(certificate));
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
        refuse(own.run(["get", "--raw", path]), "orbidden");
    }
    refuse(
        own.run_with(&request("b", "guest", "umbra:agent:guest"), create),
        "orbidden",
    );
    let masters = own.with("--as=root").with("--as-group=system:masters");
    refuse(masters.run(["get", "--raw", "/api"]), "orbidden");

    // With certificates that look like one.
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
    let impostor = tunnelled.kubectl_as("impostor", &Credential::Certificate(made_up));
    refuse(impostor.run(["get", "--raw", tunnel]), "nauthorized");
    // Even of the agents' own authority, where it is for no request that was approved.
    let agents = CertificateAuthority::load(&hub.folder().join("agents")).expect("the agents' authority");
    let unknown = agents
        .issue_client(&subject, Duration::from_secs(600))
        .expect("a certificate");
    let unknown = tunnelled.kubectl_as("unknown", &Credential::Certificate(unknown));
    refuse(unknown.run(["get", "--raw", tunnel]), "earlier ManagedCluster");
    let masters = ClientSubject {
        groups: vec!["system:masters".to_owned()],
        ..subject
    };
    let masters = agents
        .issue_client(&masters, Duration::from_secs(600))
        .expect("a certificate");
    let masters = tunnelled.kubectl_as("masters", &Credential::Certificate(masters));
    refuse(masters.run(["get", "--raw", "/api"]), "nauthorized");

    drop(agent);
    hub.leave("guest").expect_success();
    spare.kubectl().ok("delete namespace umbra-agent --timeout=90s");
    item.pass(&format!("{} refused", refused.get()));
}

#[test]
fn every_replica_reaches_a_cluster_whose_tunnel_ends_at_another() {
    let Some(aggregated) = Aggregated::exclusive() else {
        return;
    };
    let item = Item::open("children.tunnel.replicas");
    let spare = World::spare();
    let folder = environment::folder("agent-of-replicas");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    std::fs::write(file("ca.crt"), aggregated.authority_pem()).expect("written");
    let administrator = aggregated.kubeconfig();
    let administrator = administrator.to_string_lossy();
    let url = |replica| format!("https://127.0.0.1:{}", aggregated.replica_port(replica));
    let run = |arguments: &[&str]| {
        let mut command = umbra(aggregated.programs());
        command.args(arguments);
        umbra_e2e::kubectl::Outcome::of(command, "").expect_success()
    };
    let token = run(&[
        "join",
        "far",
        "--tunnel",
        "--token-only",
        "--agent-hub",
        &url(0),
        "--hub-kubeconfig",
        &administrator,
    ]);
    std::fs::write(file("token"), token).expect("written");
    let agent_of = |replica: usize, state: &str| {
        let mut command = umbra(aggregated.programs());
        command
            .args([
                "agent",
                "--hub",
                &url(replica),
                "--cluster",
                "far",
                "--hub-ca-file",
                &file("ca.crt"),
            ])
            .args(["--bootstrap-token-file", &file("token"), "--state-dir", &file(state)])
            .arg("--kubeconfig")
            .arg(spare.kubeconfig());
        Process::start_logged(command, &environment::folder("agent-log").join("agent.log"))
    };
    // The hub's administrator is nobody in the cluster before.
    spare
        .kubectl()
        .ok("create clusterrolebinding far --clusterrole=cluster-admin --user=kubernetes-admin");
    let through = |replica: usize| {
        aggregated.lead_to(Some(replica));
        let root = aggregated.root().server(&aggregated.root_url("managedclusters", "far"));
        wait::until("the cluster answers", wait::DEADLINE, || {
            let outcome = root.run("get --raw /api/v1/namespaces/kube-system");
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
        root
    };
    let agent = agent_of(0, "kept");
    through(0);
    let root = through(1);
    // Also what is no request and answer.
    root.ok("create namespace far");
    let mut watch = root.start("get configmaps -n far -w -o name");
    root.ok("create configmap seen -n far");
    watch.wait_for("the event", |output| output.contains("configmap/seen"));
    watch.signal(Signal::KILL);

    // The replica with the tunnel dies: the agent's next one is elsewhere.
    let elsewhere = agent_of(1, "kept");
    aggregated.lead_to(None);
    aggregated.end(0, Signal::KILL);
    let began = Instant::now();
    through(1);
    let moved = began.elapsed();
    aggregated.start_again(0);
    through(0);

    // Whoever deletes the authority takes back all that it has issued, also from tunnels that are there.
    aggregated.root().ok("delete secret umbra-agents -n umbra-system");
    // A replica looks once or twice a minute; then the agent is refused five times, with pauses of up to 30 s.
    for agent in [&elsewhere, &agent] {
        says_within(wait::DEADLINE * 2, agent, "the hub keeps refusing the certificate");
    }
    agent.signal(Signal::KILL);
    drop(elsewhere);
    aggregated.lead_to(None);
    run(&["leave", "far", "--hub-kubeconfig", &administrator]);
    spare.kubectl().ok("delete namespace far --timeout=90s");
    spare.kubectl().ok("delete clusterrolebinding far");
    item.pass(&format!(
        "both ways; {:.1} s after kill -9 of the one with the tunnel; refused once the authority is gone",
        moved.as_secs_f64()
    ));
}
