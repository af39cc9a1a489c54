//! Tunnels: a cluster that the hub does not dial, with `umbra agent` in it.
//!
//! The manifest that `umbra join --tunnel` prints is applied to a real cluster, and agents run as processes beside it with the
//! token of the manifest's service account, so that what they may do is what the manifest lets them.

mod attacks;
mod replicas;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use umbra_auth::certificates::{CertificateAuthority, CertificateRequest, IssuedCertificate};
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
