//! `umbra doctor`: nothing to say of an installation that is well, and the right thing of one that is not.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use umbra_e2e::aggregated::{Aggregated, manifests};
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::{Hub, umbra};
use umbra_e2e::identity::Credential;
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_show::Item;

#[track_caller]
fn run(programs: &Programs, kubeconfig: &Path, arguments: &str) -> Outcome {
    let mut command = umbra(programs);
    command
        .arg("doctor")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments.split_whitespace());
    Outcome::of(command, "")
}

/// What was found, and how it ended.
struct Found {
    findings: Vec<Value>,
    outcome: Outcome,
}

impl Found {
    #[track_caller]
    fn of(programs: &Programs, kubeconfig: &Path, arguments: &str) -> Self {
        let outcome = run(programs, kubeconfig, &format!("-o json {arguments}"));
        let document: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
        let findings = document["findings"].as_array().cloned().expect("a list");
        Self { findings, outcome }
    }

    fn at(&self, level: &str) -> Vec<String> {
        let these = self.findings.iter().filter(|one| one["level"] == level);
        these
            .map(|one| format!("{} {} → {}", one["check"], one["message"], one["advice"]))
            .collect()
    }

    /// Whether a check of that name found something wrong, with these words in message and advice.
    fn is_wrong(&self, check: &str, message: &str, advice: &str) -> bool {
        let has = |value: &Value, part: &str| value.as_str().is_some_and(|text| text.contains(part));
        let all = self
            .findings
            .iter()
            .filter(|one| one["level"] == "wrong" && one["check"] == check);
        all.into_iter()
            .any(|one| has(&one["message"], message) && has(&one["advice"], advice))
    }
}

/// Waits until the doctor finds everything that is listed as check, message and advice; returns how many.
#[track_caller]
fn finds(programs: &Programs, hub: &Aggregated, expected: &[(&str, &str, &str)]) -> usize {
    wait::until("the doctor finds it", wait::DEADLINE, || {
        let found = Found::of(programs, &hub.cluster.kubeconfig(), "");
        let lacks: Vec<_> = expected
            .iter()
            .filter(|(check, message, advice)| !found.is_wrong(check, message, advice))
            .collect();
        if lacks.is_empty() {
            assert_eq!(found.outcome.code, Some(1), "{}", found.outcome);
            return Ok(expected.len());
        }
        Err(format!("{lacks:?} are not in\n{}", found.outcome))
    })
}

/// Waits until nothing is wrong, or could be better.
#[track_caller]
fn is_well(programs: &Programs, kubeconfig: &Path) -> Found {
    wait::until("the doctor finds nothing", wait::DEADLINE, || {
        let found = Found::of(programs, kubeconfig, "");
        if found.outcome.succeeded() && found.at("warning").is_empty() {
            return Ok(found);
        }
        Err(found.outcome.to_string())
    })
}

/// An object without what the server wrote into it, to be made again.
#[track_caller]
fn saved(kubectl: &Kubectl, arguments: &str) -> String {
    let mut object = kubectl.json(format!("get {arguments}"));
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations"));
    object.to_string()
}

/// Takes back what a test did to the hub, also where it fails.
struct Restore<'a> {
    hub: &'a Aggregated,
    manifests: Vec<String>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let kubectl = self.hub.cluster.kubectl();
        let rbac = manifests().join("rbac.yaml");
        // Whatever fails here fails the tests that come after this one.
        let _ = kubectl.run(["apply", "-f", &rbac.to_string_lossy()]);
        for manifest in &self.manifests {
            let _ = kubectl.run_with(manifest, "apply -f -");
        }
        // Umbra first has to tell kube-apiserver its authority again.
        let remove = || kubectl.run("delete managedcluster doctor-gone --ignore-not-found --wait=false");
        if !std::thread::panicking() {
            wait::until("the child that is not there can be deleted", wait::DEADLINE, || {
                let outcome = remove();
                if outcome.succeeded() {
                    Ok(())
                } else {
                    Err(outcome.to_string())
                }
            });
        }
        let _ = remove();
        let _ = kubectl.run("delete secret doctor-gone -n umbra-system --ignore-not-found");
    }
}

/// A child that nobody reaches, and whose credential has ended.
fn gone() -> String {
    let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"exp":1700000000}"#));
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
    let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": "doctor-gone"},
        "spec": {"connection": {"server": "https://127.0.0.1:1",
            "credentialsSecretRef": {"namespace": "umbra-system", "name": "doctor-gone"}}}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "doctor-gone", "namespace": "umbra-system"},
        "stringData": {"kubeconfig": kubeconfig.to_string()}});
    json!({"apiVersion": "v1", "kind": "List", "items": [secret, cluster]}).to_string()
}

#[test]
fn what_is_wrong_with_an_installation_is_found_with_what_helps() {
    let Some(hub) = Aggregated::exclusive() else { return };
    let item = Item::open("aggregated.doctor");
    let programs = environment::programs().expect("the hub has them");
    let kubectl = hub.cluster.kubectl();
    let well = is_well(programs, &hub.cluster.kubeconfig());
    let checks = well.at("ok").len();
    let text = run(programs, &hub.cluster.kubeconfig(), "").expect_success();
    assert!(
        text.contains("✓ ok") && text.contains("2 of 2 reachable and copied"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");

    let mut restore = Restore {
        hub: &hub,
        manifests: vec![saved(kubectl, "secret umbra-encryption -n umbra-system")],
    };
    let mut faults = 0;
    kubectl.ok("delete secret umbra-encryption -n umbra-system");
    kubectl.ok("delete rolebinding umbra:authentication-reader -n kube-system");
    kubectl.apply(&gone());
    faults += finds(
        programs,
        &hub,
        &[
            ("encryption", "umbra-encryption", "before any replica is restarted"),
            ("rbac", "front proxy", "umbra:authentication-reader"),
            (
                "children",
                "doctor-gone is not reachable",
                "reaches https://127.0.0.1:1",
            ),
            ("credentials", "doctor-gone ended on 2023-11-14", "new kubeconfig"),
        ],
    );
    for manifest in std::mem::take(&mut restore.manifests) {
        kubectl.apply(&manifest);
    }

    // Umbra may no longer mend the caBundle by itself. What makes it known that the hub is not reached comes from kube-apiserver.
    kubectl.ok("delete clusterrolebinding umbra:auth-delegator umbra:api-service");
    let other = umbra_auth::certificates::CertificateAuthority::create("other", std::time::Duration::from_secs(86_400));
    let other = other.expect("an authority");
    let bundle = base64::engine::general_purpose::STANDARD.encode(other.certificate_pem());
    let patch = json!({"spec": {"caBundle": bundle}}).to_string();
    faults += finds(
        programs,
        &hub,
        &[
            ("rbac", "tokenreviews", "umbra:auth-delegator"),
            ("rbac", "patch apiservices", "umbra:api-service"),
        ],
    );
    kubectl.ok([
        "patch",
        "apiservice",
        "v1alpha1.umbra.dev",
        "--type=merge",
        "-p",
        &patch,
    ]);
    faults += finds(
        programs,
        &hub,
        &[
            (
                "certificates",
                "is not the authority in Secret umbra-serving",
                "may patch the APIService",
            ),
            ("certificates", "the certificate that umbra shows", "see rbac"),
            ("api-service", "FailedDiscoveryCheck", "caBundle"),
        ],
    );
    drop(restore);
    wait::until("the child that is not there is gone", wait::DEADLINE, || {
        let seen = kubectl.run("get managedcluster doctor-gone");
        if seen.stderr.contains("NotFound") {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    hub.wait_until_available();
    is_well(programs, &hub.cluster.kubeconfig());

    // Somebody who may look at nothing is told so, and not that anything is wrong.
    let nobody = hub.user("doctor-nobody", &Credential::Token(token(kubectl)));
    let found = Found::of(programs, nobody.kubeconfig(), "--context hub");
    assert!(
        found.outcome.succeeded() && found.at("wrong").is_empty(),
        "{}",
        found.outcome
    );
    assert!(found.at("notChecked").len() >= 8, "{}", found.outcome);
    item.pass(&format!(
        "{checks} checks of a healthy hub, {faults} faults with advice, standalone {}",
        standalone(programs)
    ));
}

/// A token of somebody without permissions.
#[track_caller]
fn token(kubectl: &Kubectl) -> String {
    kubectl.ok("create serviceaccount doctor-nobody -n default");
    kubectl.ok("create token doctor-nobody -n default").trim().to_owned()
}

/// A standalone hub: what does not apply is left out.
#[track_caller]
fn standalone(programs: &Programs) -> usize {
    let hub = Hub::start(programs, &[]);
    let file = hub.folder().join("kubeconfig");
    let found = is_well(programs, &file);
    assert!(
        !found
            .findings
            .iter()
            .any(|one| one["check"] == "api-service" || one["check"] == "rbac"),
        "{}",
        found.outcome
    );
    let closed = environment::free_port();
    let text = std::fs::read_to_string(&file).expect("read");
    let elsewhere = environment::folder("doctor-closed").join("kubeconfig");
    std::fs::write(&elsewhere, text.replace(&hub.port().to_string(), &closed.to_string())).expect("written");
    let missing = Found::of(programs, &elsewhere, "");
    assert!(
        missing.is_wrong("hub", "does not answer", "kubectl version"),
        "{}",
        missing.outcome
    );
    found.at("ok").len()
}
