//! Errors say what happened, to which object, and what to do.

use std::time::Duration;

use umbra_e2e::environment;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::fleet::{placement, wait_for_condition, wait_for_path};

/// Probes come every 10 s and five have to fail; twice that for a busy machine.
const OUTAGE: Duration = Duration::from_secs(180);

/// That an error has all these words.
#[track_caller]
pub(crate) fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn joining_says_what_is_wrong_with_a_kubeconfig() {
    let Some(world) = World::shared() else { return };
    let (context, bad, unreachable) = (
        Item::open("errors.context"),
        Item::open("errors.kubeconfig"),
        Item::open("errors.unreachable"),
    );
    let north = &world.children[0];
    let unknown = world.hub.join("x", "nope", &north.kubeconfig()).expect_failure();
    says(&unknown, &["nope", "north"]);
    context.pass("names the contexts that there are");

    let folder = environment::folder("kubeconfigs");
    let missing = folder.join("missing");
    says(
        &world.hub.join("x", "north", &missing).expect_failure(),
        &["missing", "--kubeconfig"],
    );
    let garbage = folder.join("garbage");
    std::fs::write(&garbage, "clusters: [{name").unwrap();
    says(&world.hub.join("x", "north", &garbage).expect_failure(), &["garbage"]);
    let empty = folder.join("empty");
    std::fs::write(&empty, "apiVersion: v1\nkind: Config\n").unwrap();
    says(&world.hub.join("x", "north", &empty).expect_failure(), &["north"]);
    bad.pass("names file and reason");

    let nobody = format!("https://127.0.0.1:{}", environment::free_port());
    let authority = identity::authority(north.folder());
    let closed = identity::write_kubeconfig(
        &folder.join("closed"),
        &[Context {
            name: "closed",
            server: nobody.clone(),
            authority_pem: authority.certificate_pem(),
            credential: &Credential::Token("secret-token".to_owned()),
        }],
    );
    let refused = world.hub.join("x", "closed", &closed).expect_failure();
    says(&refused, &[nobody.trim_start_matches("https://")]);
    assert!(!refused.contains("secret-token"), "{refused}");
    let wrong = identity::write_kubeconfig(
        &folder.join("wrong"),
        &[Context {
            name: "wrong",
            server: north.server().to_owned(),
            authority_pem: authority.certificate_pem(),
            credential: &Credential::Token("secret-token".to_owned()),
        }],
    );
    let unauthorized = world.hub.join("x", "wrong", &wrong).expect_failure();
    assert!(
        unauthorized.contains("401") || unauthorized.to_lowercase().contains("unauthorized"),
        "{unauthorized}"
    );
    unreachable.pass("names the server and why");

    // Whatever failed has left nothing.
    assert!(world.hub.root().fails("get managedcluster x").contains("NotFound"));
    says(&world.hub.leave("x").expect_failure(), &["x"]);
    says(
        &world
            .hub
            .join("UPPER_case", "north", &north.kubeconfig())
            .expect_failure(),
        &["UPPER_case"],
    );
    says(
        &world
            .hub
            .umbra(&["leave", "north", "--hub-kubeconfig", "/nowhere/kubeconfig"])
            .expect_failure(),
        &["/nowhere/kubeconfig"],
    );
}

#[test]
fn an_override_with_a_missing_path_names_object_cluster_and_patch() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("errors.override");
    world.hub.fleet().ok("create namespace errors-override");
    let fleet = world.hub.fleet().namespace("errors-override");
    fleet.ok("create configmap settings --from-literal=a=b");
    fleet.apply(&placement("settings", "ConfigMap", ""));
    let child = world.children[0].kubectl().namespace("errors-override");
    wait_for_path(&child, "configmap settings", "{.data.a}", "b");
    let wrong = |optional: bool| {
        format!(
            "apiVersion: umbra.dev/v1alpha1
kind: Override
metadata: {{name: wrong}}
spec:
  resources: [{{apiVersion: v1, kind: ConfigMap, name: settings}}]
  patches:
  - {{type: MergePatch, value: {{data: {{a: c}}}}}}
  - {{type: JSONPatch, optional: {optional}, value: [{{op: replace, path: /data/absent, value: x}}]}}
"
        )
    };
    fleet.apply(&wrong(false));
    let told = wait_for_condition(&fleet, "override wrong", "Applied", "False");
    says(&told, &["settings", "/data/absent", "patch 1"]);
    let rendered = wait_for_condition(&fleet, "rendering settings.configmaps@north", "Rendered", "False");
    says(&rendered, &["wrong", "/data/absent"]);
    wait_for_condition(&fleet, "placement settings", "Applied", "False");
    assert_eq!(
        child.path("configmap settings", "{.data.a}"),
        "b",
        "the last good one stays in force"
    );
    fleet.apply(&wrong(true));
    wait_for_path(&child, "configmap settings", "{.data.a}", "c");
    wait_for_condition(&fleet, "override wrong", "Applied", "True");
    fleet.ok("delete placement settings");
    item.pass("names object, cluster, patch, path");
}

#[test]
fn a_placement_that_matches_no_cluster_says_so() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("errors.placement");
    world.hub.fleet().ok("create namespace errors-placement");
    let fleet = world.hub.fleet().namespace("errors-placement");
    fleet.ok("create configmap settings --from-literal=a=b");
    fleet.apply(&placement("settings", "ConfigMap", "  clusterNames: [atlantis]"));
    let told = wait_for_condition(&fleet, "placement settings", "Scheduled", "False");
    says(&told, &["north", "south", "spec.clusterNames"]);
    let table = fleet.ok("get placement settings");
    assert!(table.contains("False"), "{table}");
    // A change that matches nothing keeps what runs.
    fleet.apply(&placement("settings", "ConfigMap", "  clusterNames: [north]"));
    let child = world.children[0].kubectl().namespace("errors-placement");
    wait_for_path(&child, "configmap settings", "{.data.a}", "b");
    fleet.apply(&placement("settings", "ConfigMap", "  clusterNames: [atlantis]"));
    wait_for_condition(&fleet, "placement settings", "Scheduled", "False");
    assert_eq!(child.path("configmap settings", "{.data.a}"), "b");
    fleet.ok("delete placement settings");
    item.pass("names the clusters and the fields");
}

#[test]
fn a_child_that_stops_answering_is_shown_as_last_known_with_a_warning() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("errors.outage");
    let spare = World::spare();
    // A hub of its own: the placements of other tests are for all clusters.
    let hub = world.another_hub();
    for (name, cluster) in [("outage", &*spare), ("north", &world.children[0])] {
        hub.join(name, &cluster.name, &cluster.kubeconfig()).expect_success();
        hub.wait_for_child(name);
    }
    let view = hub.view();
    let list = "get namespaces -l umbra.dev/cluster=outage -o name";
    let before = view.ok(list);
    assert!(before.contains("namespace/kube-system@outage"), "{before}");
    let mut watch = view.start("get namespaces -w --output-watch-events -l umbra.dev/cluster=outage");
    watch.wait_for("the namespaces", |text| text.contains("kube-system@outage"));

    // It still accepts connections and says nothing any more: the worst way to fail.
    let pause = spare.pause();
    let warned = wait::until("a warning", OUTAGE, || {
        let outcome = view.run(list);
        assert_eq!(outcome.stdout, before, "as last known: {outcome}");
        if outcome.stderr.contains("Warning") && outcome.stderr.contains("outage") {
            Ok(outcome.stderr)
        } else {
            Err(outcome.to_string())
        }
    });
    says(&warned, &["unreachable"]);
    assert!(!watch.stdout().contains("DELETED"), "{}", watch.output());
    assert!(hub.root().ok("get managedcluster outage").contains("False"));
    let direct = hub.child("outage").fails("get namespaces");
    says(&direct, &["outage", "unreachable", "check that it runs"]);
    // The others do not notice.
    let other = view.run("get nodes -l umbra.dev/cluster=north");
    assert!(other.succeeded() && other.stdout.contains("@north"), "{other}");

    drop(pause);
    wait::until("the warning goes", OUTAGE, || {
        let outcome = view.run(list);
        assert_eq!(outcome.stdout, before, "{outcome}");
        if outcome.succeeded() && outcome.stderr.is_empty() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    hub.wait_for_child("outage");
    watch.stop();
    hub.leave("outage").expect_success();
    item.pass("copies as last known, a warning, 0 DELETED");
}
