//! The oldest Kubernetes that may join.

use serde_json::json;
use umbra_e2e::altered::Alteration;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::{Hub, umbra};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::scene::{GUEST, Scene, says};

const OLD: [&str; 3] = ["v1.23.17", "v1.23.17-eks-a5565ad", "1.23+"];
const NEW: [&str; 4] = ["v1.24.0", "v1.29.3-eks-adc7111", "1.30+", "v1.31.1-gke.2105000"];

fn calls_itself(version: &str) -> Alteration {
    Alteration {
        version: Some((0, version.to_owned())),
        ..Alteration::default()
    }
}

#[test]
fn a_cluster_that_is_too_old_is_refused_wherever_it_comes() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.version");
    let scene = Scene::start(&world);
    let altered = scene.altered_kubeconfig();
    for version in OLD {
        scene.alter(calls_itself(version));
        scene.refused(&altered, &[], &["1.24 or newer: update the cluster first", version]);
    }
    for version in NEW {
        scene.alter(calls_itself(version));
        scene.join(&altered, &[]).expect_success();
        let shown = scene.hub.root().path("managedcluster guest", "{.status.version}");
        assert_eq!(shown, version);
        scene.hub.leave(GUEST).expect_success();
    }
    scene.nothing_is_left("joined and left");
    registered_past_join(&scene);
    agent(&scene);
    item.pass(&format!(
        "{} refused by join, by the agent, and as Reachable=False, VersionUnsupported; {} pass",
        OLD.join(", "),
        NEW.join(", ")
    ));
}

/// Without `umbra join`, as GitOps does: the hub says it in a condition, copies nothing, and goes on once the cluster was updated.
fn registered_past_join(scene: &Scene<'_>) {
    scene.alter(calls_itself(OLD[0]));
    let root = scene.hub.root();
    let kubeconfig = scene.altered_kubeconfig();
    let file = format!("--from-file=kubeconfig={}", kubeconfig.display());
    root.ok(["create", "secret", "generic", "old", "-n", "umbra-system", &file]);
    let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": GUEST},
        "spec": {"connection": {"server": scene.altered.url(),
            "credentialsSecretRef": {"namespace": "umbra-system", "name": "old"}}}});
    root.apply(&cluster.to_string());
    let path = r#"{range .status.conditions[?(@.type=="Reachable")]}{.status} {.reason}: {.message}{end}"#;
    wait::for_text(
        "the hub refuses the version",
        || root.path("managedcluster guest", path),
        |text| {
            [
                "False VersionUnsupported: ",
                OLD[0],
                "1.24 or newer: update the cluster first",
            ]
            .iter()
            .all(|part| text.contains(part))
        },
    );
    let ready = root.path(
        "managedcluster guest",
        r#"{.status.conditions[?(@.type=="Ready")].status}"#,
    );
    assert_eq!(ready, "False");
    let entered = scene.hub.child(GUEST).fails("get namespaces");
    assert!(!entered.is_empty());
    scene.alter(calls_itself(NEW[0]));
    scene.hub.wait_for_child(GUEST);
    root.ok("delete managedcluster guest --timeout=60s");
    root.ok("delete secret old -n umbra-system");
    scene.alter(Alteration::default());
}

/// An agent beside an old cluster, or with a clock that is off that of the hub, asks nobody to approve it.
fn agent(scene: &Scene<'_>) {
    let hub = Hub::start(scene.world.programs, &[]);
    let folder = environment::folder("old-agent");
    let hub_kubeconfig = hub.kubeconfig();
    let token = hub.umbra(&[
        "join",
        GUEST,
        "--tunnel",
        "--token-only",
        "--hub-kubeconfig",
        &hub_kubeconfig.to_string_lossy(),
    ]);
    std::fs::write(folder.join("token"), token.expect_success()).expect("written");
    let authority = umbra_e2e::identity::authority(hub.folder());
    let hub_altered = umbra_e2e::altered::Altered::start(hub.port(), &authority);
    let agent = |hub_url: &str| {
        let mut command = umbra(scene.world.programs);
        command
            .args(["agent", "--hub", hub_url, "--cluster", GUEST, "--hub-ca-file"])
            .arg(hub.folder().join("ca.crt"))
            .arg("--bootstrap-token-file")
            .arg(folder.join("token"))
            .arg("--kubeconfig")
            .arg(scene.altered_kubeconfig());
        Process::start_logged(command, &folder.join("agent.log"))
    };
    scene.alter(calls_itself(OLD[1]));
    let mut old = agent(&hub.url());
    says(&old, "1.24 or newer: update the cluster first");
    old.stop();
    scene.alter(Alteration::default());
    hub_altered.alter(Alteration {
        date: Some("Tue, 01 Jan 2069 00:00:00 GMT"),
        ..Alteration::default()
    });
    let mut late = agent(&hub_altered.url());
    says(&late, "the hub's clock is");
    says(&late, "Set the clocks");
    late.stop();
    let asked = hub.root().ok("get clusterjoinrequests -o name");
    assert_eq!(asked, "", "nobody is asked in vain");
}
