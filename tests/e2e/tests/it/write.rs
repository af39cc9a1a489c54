//! Writing through a view: the owning child does it, as the calling user, and the writer reads its own writes.

use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::{deploy, namespace_everywhere, sorted_lines};

#[test]
fn edit_patch_scale_label_apply_and_delete_reach_the_owner_alone() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.write");
    namespace_everywhere(&world, "view-write");
    let [north, south] = world
        .children
        .each_ref()
        .map(|child| child.kubectl().namespace("view-write"));
    for child in [&north, &south] {
        deploy(child, "web", 1);
    }
    let view = world.hub.view().namespace("view-write");
    wait::until("both copies", wait::DEADLINE, || {
        let found = sorted_lines(&view.ok("get deploy -o name"));
        if found.len() == 2 {
            Ok(())
        } else {
            Err(found.join("\n"))
        }
    });
    // What the view says at once, what north says, and that south does not change.
    let expect = |path: &str, value: &str, other: &str| {
        assert_eq!(view.path("deploy web@north", path), value, "the view: {path}");
        assert_eq!(north.path("deploy web", path), value, "north: {path}");
        assert_eq!(south.path("deploy web", path), other, "south: {path}");
    };

    view.ok("scale deploy/web@north --replicas=3");
    expect("{.spec.replicas}", "3", "1");
    view.ok([
        "patch",
        "deploy",
        "web@north",
        "-p",
        r#"{"metadata":{"annotations":{"by":"strategic"}}}"#,
    ]);
    expect("{.metadata.annotations.by}", "strategic", "");
    view.ok([
        "patch",
        "deploy",
        "web@north",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#,
    ]);
    expect("{.spec.replicas}", "2", "1");
    view.ok([
        "patch",
        "deploy",
        "web@north",
        "--type=merge",
        "-p",
        r#"{"spec":{"paused":true}}"#,
    ]);
    expect("{.spec.paused}", "true", "");
    view.ok("label deploy web@north tier=front");
    expect("{.metadata.labels.tier}", "front", "");
    view.ok("annotate deploy web@north note=seen");
    expect("{.metadata.annotations.note}", "seen", "");
    view.variable(
        "KUBE_EDITOR",
        "sed -i s/revisionHistoryLimit:.*/revisionHistoryLimit:\\ 4/",
    )
    .ok("edit deploy web@north");
    expect("{.spec.revisionHistoryLimit}", "4", "10");
    view.ok("set image deploy/web@north main=nginx:2");
    expect("{.spec.template.spec.containers[0].image}", "nginx:2", "nginx");
    // The label of the view is never written into a child.
    assert_eq!(north.path("deploy web", r"{.metadata.labels.umbra\.dev/cluster}"), "");

    // A revision that the copy no longer has is a conflict, as anywhere.
    let mut stale = view.json("get deploy web@north");
    view.ok("label deploy web@north tier=back --overwrite");
    stale["spec"]["replicas"] = 7.into();
    let conflict = view.run_with(&stale.to_string(), "replace -f -").expect_failure();
    assert!(
        conflict.contains("Conflict") || conflict.contains("has been modified"),
        "{conflict}"
    );
    expect("{.spec.replicas}", "2", "1");

    create_and_apply(&view, &north, &south);

    assert!(view.ok("delete deploy web@north").contains("deleted"));
    assert!(view.fails("get deploy web@north").contains("NotFound"));
    assert!(north.fails("get deploy web").contains("NotFound"));
    assert_eq!(south.path("deploy web", "{.spec.replicas}"), "1");
    item.pass("12 kinds of writes, south unchanged");
}

/// Creating needs to say where.
fn create_and_apply(view: &Kubectl, north: &Kubectl, south: &Kubectl) {
    let settings = |name: &str, more: &str, value: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}{more}}}, data: {{key: {value}}}}}")
    };
    let value = |child: &Kubectl, name: &str| child.path(["configmap", name], "{.data.key}");

    view.apply(&settings("by-name@north", "", "one"));
    assert_eq!(value(north, "by-name"), "one");
    assert!(view.apply(&settings("by-name@north", "", "one")).contains("unchanged"));
    assert!(view.apply(&settings("by-name@north", "", "two")).contains("configured"));
    assert_eq!(value(north, "by-name"), "two");
    assert!(value(south, "by-name").contains("NotFound"));

    view.ok_with(
        &settings("by-label", ", labels: {umbra.dev/cluster: south}", "one"),
        "create -f -",
    );
    assert_eq!(value(south, "by-label"), "one");
    view.ok_with(&settings("server-side@south", "", "one"), "apply --server-side -f -");
    assert_eq!(value(south, "server-side"), "one");
    let nowhere = view
        .run_with(&settings("nowhere", "", "one"), "create -f -")
        .expect_failure();
    assert!(
        nowhere.contains("umbra.dev/cluster") && nowhere.contains('@'),
        "{nowhere}"
    );
    view.ok_with(&settings("dry@north", "", "one"), "apply --dry-run=server -f -");
    assert!(value(north, "dry").contains("NotFound"));
    let invalid = view.run_with(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: BAD_@north}}",
        "create -f -",
    );
    assert!(invalid.expect_failure().contains("Invalid"));
}
