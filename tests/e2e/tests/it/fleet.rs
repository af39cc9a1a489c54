//! The fleet root: templates, placements, two stages of overrides, renderings.

use std::path::Path;
use std::time::Duration;

use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::{deployment, namespace_everywhere};

/// Where the examples are.
pub(crate) fn examples() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/web")
        .to_string_lossy()
        .into_owned()
}

/// Waits until `get` with a JSONPath prints a text, and says how long that took.
#[track_caller]
pub(crate) fn wait_for_path(kubectl: &Kubectl, what: &str, path: &str, value: &str) -> Duration {
    wait::for_text(
        &format!("{what} {path} = {value}"),
        || kubectl.path(what, path),
        |text| text == value,
    )
    .1
}

/// Waits until there is no such object.
#[track_caller]
pub(crate) fn wait_until_gone(kubectl: &Kubectl, what: &str) {
    wait::for_text(
        &format!("{what} is gone"),
        || kubectl.path(what, "{.metadata} {.status}"),
        |text| text.contains("NotFound"),
    );
}

/// What a condition says: its status, reason and message.
#[track_caller]
fn condition(kubectl: &Kubectl, what: &str, kind: &str) -> String {
    let path =
        format!("{{range .status.conditions[?(@.type==\"{kind}\")]}}{{.status}} {{.reason}}: {{.message}}{{end}}");
    kubectl.path(what, &path)
}

/// Waits until a condition says a text.
#[track_caller]
pub(crate) fn wait_for_condition(kubectl: &Kubectl, what: &str, kind: &str, text: &str) -> String {
    wait::for_text(
        &format!("{what} {kind} says {text}"),
        || condition(kubectl, what, kind),
        |seen| seen.contains(text),
    )
    .0
}

/// A Placement of everything of a kind in its namespace, with more of its spec.
pub(crate) fn placement(name: &str, kind: &str, more: &str) -> String {
    let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    format!(
        "apiVersion: umbra.dev/v1alpha1
kind: Placement
metadata: {{name: {name}}}
spec:
  resources: [{{apiVersion: {api_version}, kind: {kind}}}]
{more}
"
    )
}

#[test]
fn the_examples_reach_every_child_each_with_its_own_rendering() {
    let Some(world) = World::shared() else { return };
    let (places, returns, withdraws) = (
        Item::open("fleet.examples"),
        Item::open("fleet.return"),
        Item::open("fleet.withdraw"),
    );
    let [north, south] = world
        .children
        .each_ref()
        .map(|child| child.kubectl().namespace("default"));
    world
        .hub
        .root()
        .ok("label managedcluster south region=us-west --overwrite");
    let fleet = world.hub.fleet();
    fleet.ok(["apply", "-f", &examples()]);

    let environment = "{.spec.template.spec.containers[0].env[?(@.name==\"CLUSTER\")].value}";
    let took = wait_for_path(&north, "deploy web", "{.spec.replicas}", "2");
    let took = took.max(wait_for_path(&south, "deploy web", "{.spec.replicas}", "4"));
    wait_for_path(&north, "deploy web", environment, "north");
    wait_for_path(&south, "deploy web", environment, "south");
    wait_for_path(
        &south,
        "deploy web",
        r"{.metadata.annotations.example\.com/audience}",
        "west of south",
    );
    assert_eq!(
        north.path("deploy web", r"{.metadata.annotations.example\.com/audience}"),
        ""
    );
    wait_for_path(&north, "deploy web", "{.status.readyReplicas}", "2");
    wait_for_path(&south, "deploy web", "{.status.readyReplicas}", "4");

    // What each child gets can be read, and the template is as it was written.
    wait_for_condition(&fleet, "placement web", "Applied", "True");
    let renderings = fleet.ok("get renderings");
    assert!(renderings.contains("web.deployments.apps@north"), "{renderings}");
    let rendering = fleet.json("get rendering web.deployments.apps@south");
    assert_eq!(rendering["spec"]["object"]["spec"]["replicas"], 4, "{rendering:#}");
    let overrides = rendering["spec"]["overrides"].to_string();
    assert!(
        overrides.contains("web-cluster-name") && overrides.contains("web-in-the-west"),
        "{overrides}"
    );
    assert!(overrides.contains("/spec/replicas"), "{overrides}");
    assert_eq!(fleet.path("deploy web", "{.spec.replicas}"), "2");
    // The template's status is that of all children.
    wait_for_path(&fleet, "deploy web", "{.status.readyReplicas}", "6");
    places.pass(&format!(
        "2 and 4 replicas, each its own CLUSTER, {:.1} s",
        took.as_secs_f64()
    ));

    fleet.ok("delete override web-in-the-west");
    let took = wait_for_path(&south, "deploy web", "{.spec.replicas}", "2");
    wait_for_path(
        &south,
        "deploy web",
        r"{.metadata.annotations.example\.com/audience}",
        "",
    );
    wait_for_path(&south, "deploy web", environment, "south");
    returns.pass(&format!("back to 2 after {:.1} s", took.as_secs_f64()));

    fleet.ok("delete placement web");
    for child in [&north, &south] {
        wait_until_gone(child, "deploy web");
    }
    assert_eq!(fleet.path("deploy web", "{.spec.replicas}"), "2", "the template stays");
    fleet.ok("delete deploy web");
    fleet.ok("delete clusteroverride web-cluster-name");
    wait_until_gone(&fleet, "rendering web.deployments.apps@north");
    withdraws.pass("gone from both children");
}

#[test]
fn stages_come_in_order_and_final_ones_win() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("fleet.stages");
    let fleet = world.hub.fleet().namespace("fleet-stages");
    world.hub.fleet().ok("create namespace fleet-stages");
    let patch = |value: &str| format!("  patches: [{{type: MergePatch, value: {{data: {value}}}}}]");
    let target = "  resources: [{apiVersion: v1, kind: ConfigMap, name: staged}]";
    let stage = |kind: &str, name: &str, more: &str, value: &str| {
        format!(
            "---\napiVersion: umbra.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{more}{target}\n{}\n",
            patch(value)
        )
    };
    let manifest = [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: staged}\ndata: {one: template, two: template, three: template, four: template}\n---\n".to_owned(),
        placement("staged", "ConfigMap", ""),
        stage("ClusterOverride", "staged-early", "  priority: 100\n", "{one: early, two: early, three: early}"),
        stage("ClusterOverride", "staged-late", "  priority: 900\n", "{two: late}"),
        stage("Override", "staged-tenant", "  priority: 0\n", "{three: tenant, four: tenant}"),
        stage("ClusterOverride", "staged-final", "  final: true\n", "{four: final}"),
    ]
    .concat();
    fleet.apply(&manifest);
    for child in &world.children {
        let child = child.kubectl().namespace("fleet-stages");
        wait_for_path(
            &child,
            "configmap staged",
            "{.data.one} {.data.two} {.data.three} {.data.four}",
            "early late tenant final",
        );
    }
    // Invalid for the child: nothing changes there, and it says why.
    fleet.apply(&stage("Override", "staged-tenant", "", "{three: {nested: true}}"));
    let why = wait_for_condition(&fleet, "override staged-tenant", "Applied", "False");
    assert!(why.contains("data") && why.contains("staged"), "{why}");
    let child = world.children[0].kubectl().namespace("fleet-stages");
    assert_eq!(
        child.path("configmap staged", "{.data.three}"),
        "tenant",
        "the last good one stays in force"
    );
    fleet.ok("delete override staged-tenant");
    wait_for_path(&child, "configmap staged", "{.data.three} {.data.four}", "early final");
    fleet.ok("delete clusteroverrides staged-early staged-late staged-final");
    wait_for_path(
        &child,
        "configmap staged",
        "{.data.one} {.data.two} {.data.three} {.data.four}",
        "template template template template",
    );
    item.pass("priority, stage 2 after 1, final");
}

#[test]
fn replicas_are_divided_by_weight() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("fleet.weighted");
    world.hub.fleet().ok("create namespace fleet-weights");
    let fleet = world.hub.fleet().namespace("fleet-weights");
    fleet.apply(&deployment("divided", 7));
    fleet.apply(&placement(
        "divided",
        "Deployment",
        "  replicas: {strategy: Weighted, weights: {north: 5, south: 2}}\n  clusterNames: [north, south]",
    ));
    let [north, south] = world
        .children
        .each_ref()
        .map(|child| child.kubectl().namespace("fleet-weights"));
    wait_for_path(&north, "deploy divided", "{.spec.replicas}", "5");
    wait_for_path(&south, "deploy divided", "{.spec.replicas}", "2");
    // As for any Deployment.
    fleet.ok("scale deploy/divided --replicas=14");
    wait_for_path(&north, "deploy divided", "{.spec.replicas}", "10");
    wait_for_path(&south, "deploy divided", "{.spec.replicas}", "4");
    fleet.ok("delete deploy divided");
    for child in [&north, &south] {
        wait_until_gone(child, "deploy divided");
    }
    item.pass("7 as 5 + 2, 14 as 10 + 4");
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("fleet.conflict");
    namespace_everywhere(&world, "fleet-conflict");
    let [north, south] = world
        .children
        .each_ref()
        .map(|child| child.kubectl().namespace("fleet-conflict"));
    north.ok("create configmap settings --from-literal=from=north");
    world.hub.fleet().ok("create namespace fleet-conflict");
    let fleet = world.hub.fleet().namespace("fleet-conflict");
    fleet.ok("create configmap settings --from-literal=from=fleet");
    fleet.apply(&placement("settings", "ConfigMap", ""));
    wait_for_path(&south, "configmap settings", "{.data.from}", "fleet");
    let rendering = "rendering settings.configmaps@north";
    let why = wait_for_condition(&fleet, rendering, "Applied", "Conflict");
    assert!(why.contains("onConflict") && why.contains("north"), "{why}");
    wait_for_condition(&fleet, "placement settings", "Applied", "False");
    assert_eq!(north.path("configmap settings", "{.data.from}"), "north");

    // Drift is repaired.
    south.ok([
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"from":"somebody"}}"#,
    ]);
    wait_for_path(&south, "configmap settings", "{.data.from}", "fleet");
    south.ok("delete configmap settings");
    wait_for_path(&south, "configmap settings", "{.data.from}", "fleet");

    // Withdrawn is what the fleet has made, and no more: neither the namespaces nor north's object.
    fleet.ok("delete placement settings");
    wait_until_gone(&south, "configmap settings");
    assert_eq!(north.path("configmap settings", "{.data.from}"), "north");
    for child in [&north, &south] {
        assert_eq!(child.path("namespace fleet-conflict", "{.status.phase}"), "Active");
    }
    item.pass("north's object untouched, drift repaired");
}
