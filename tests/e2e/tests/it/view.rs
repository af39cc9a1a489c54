//! The view root: the copies of many children as one API, for administrators with a certificate and with a token of the hub.

use std::time::{Duration, Instant};

use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::{CHILDREN, World};
use umbra_show::Item;

use crate::{deploy, namespace_everywhere, pod_of, sorted_lines};

#[test]
fn tables_begin_with_the_cluster_and_go_on_as_the_child_prints_them() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.table");
    namespace_everywhere(&world, "view-table");
    for child in &world.children {
        deploy(&child.kubectl().namespace("view-table"), "web", 2);
    }
    let own = world.children[0].kubectl().ok("get pods -n view-table");
    let mut expected = vec!["CLUSTER".to_owned()];
    expected.extend(header(&own));
    for view in world.views() {
        let (table, _) = wait::for_text(
            "all four pods",
            || view.ok("get pods -n view-table"),
            |table| table.matches("Running").count() == 4,
        );
        assert_eq!(header(&table), expected, "{table}");
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split_whitespace().collect();
            assert!(CHILDREN.contains(&cells[0]), "{row}");
            assert!(cells[1].ends_with(&format!("@{}", cells[0])), "{row}");
        }
        let everywhere = view.ok("get pods -A");
        assert_eq!(header(&everywhere)[..2], ["NAMESPACE", "CLUSTER"], "{everywhere}");
        let wide = view.ok("get pods -n view-table -o wide");
        assert!(header(&wide).contains(&"NODE".to_owned()), "{wide}");
    }
    item.pass(&format!("columns {}", expected.join(" ")));
}

/// The columns of a table.
fn header(table: &str) -> Vec<String> {
    let line = table.lines().next().unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_is_copied_is_what_the_children_have() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.copies");
    namespace_everywhere(&world, "view-copies");
    for child in &world.children {
        let kubectl = child.kubectl().namespace("view-copies");
        deploy(&kubectl, "web", 1);
        kubectl.ok("expose deployment/web --port=80");
        kubectl.ok("create configmap settings --from-literal=a=b");
        kubectl.ok("create role reader --verb=get --resource=pods");
        kubectl.ok("create rolebinding reader --role=reader --user=somebody");
    }
    let resources = [
        "deployments.apps",
        "replicasets.apps",
        "pods",
        "services",
        "configmaps",
        "nodes",
        "namespaces",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "endpointslices.discovery.k8s.io",
        "serviceaccounts",
    ];
    let mut objects = 0;
    let views = world.views();
    // Who asks alternates between them.
    for (resource, view) in resources.into_iter().zip(views.iter().cycle()) {
        objects += wait::until(&format!("{resource} of both children"), wait::DEADLINE, || {
            let mut expected = Vec::new();
            for child in &world.children {
                let names = child.kubectl().ok(["get", resource, "-n", "view-copies", "-o", "name"]);
                expected.extend(names.lines().map(|name| format!("{name}@{}", child.name)));
            }
            expected.sort();
            let seen = sorted_lines(&view.ok(["get", resource, "-n", "view-copies", "-o", "name"]));
            if seen == expected && !seen.is_empty() {
                Ok(seen.len())
            } else {
                Err(format!("the children have {expected:#?}\nthe view has {seen:#?}"))
            }
        });
    }
    // In pages, and not at all for what is never copied.
    for view in &views {
        let paged = sorted_lines(&view.ok("get clusterroles --chunk-size=7 -o name"));
        assert!(paged.len() > 14);
        assert!(paged.windows(2).all(|pair| pair[0] != pair[1]), "{paged:#?}");
    }
    item.pass(&format!("{} resources, {objects} objects", resources.len()));
}

#[test]
fn labels_select_clusters() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.selector");
    namespace_everywhere(&world, "view-selector");
    for child in &world.children {
        deploy(&child.kubectl().namespace("view-selector"), "web", 1);
    }
    for view in world.views() {
        wait::until("both copies", wait::DEADLINE, || {
            let found = sorted_lines(&view.ok("get deploy -n view-selector -o name"));
            if found.len() == 2 {
                Ok(())
            } else {
                Err(found.join("\n"))
            }
        });
        select(&view);
    }
    item.pass("only that cluster's");
}

fn select(view: &Kubectl) {
    let names = |selector: &str| sorted_lines(&view.ok(["get", "deploy", "-A", "-l", selector, "-o", "name"]));
    for child in CHILDREN {
        let found = names(&format!("umbra.dev/cluster={child}"));
        assert!(found.contains(&format!("deployment.apps/web@{child}")), "{found:?}");
        assert!(
            found.iter().all(|name| name.ends_with(&format!("@{child}"))),
            "{found:?}"
        );
    }
    let both = names("umbra.dev/cluster in (north,south),app=web");
    assert!(both.iter().any(|name| name.ends_with("@north")) && both.iter().any(|name| name.ends_with("@south")));
    assert!(names("umbra.dev/cluster=elsewhere").is_empty());
}

#[test]
fn a_watch_sees_a_pod_that_is_deleted_through_the_view() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.watch");
    namespace_everywhere(&world, "view-watch");
    for child in &world.children {
        deploy(&child.kubectl().namespace("view-watch"), "web", 1);
    }
    let mut longest = Duration::ZERO;
    for view in world.views() {
        longest = longest.max(watch_a_deletion(&world, &view));
    }
    item.pass(&format!("DELETED after {:.1} s", longest.as_secs_f64()));
}

/// How long it takes until the watch has it.
fn watch_a_deletion(world: &World, view: &Kubectl) -> Duration {
    let scoped = view.namespace("view-watch");
    wait::until("both copies", wait::DEADLINE, || {
        let found = sorted_lines(&scoped.ok("get pods -o name"));
        if found.len() == 2 {
            Ok(())
        } else {
            Err(found.join("\n"))
        }
    });
    let doomed = format!(
        "{}@north",
        pod_of(&world.children[0].kubectl().namespace("view-watch"), "web")
    );
    let mut watch = view.start("get pods -A -w --output-watch-events");
    watch.wait_for("the pod is listed", |text| text.contains(&doomed));
    let start = Instant::now();
    let answer = scoped.ok(["delete", "pod", &doomed]);
    assert!(answer.contains("deleted"), "{answer}");
    let deleted = |line: &str| line.starts_with("DELETED") && line.contains(&doomed);
    watch.wait_for("DELETED", |text| text.lines().any(deleted));
    let took = start.elapsed();
    let replaced = |line: &str| {
        line.starts_with("ADDED") && line.contains("@north") && line.contains("view-watch") && !line.contains(&doomed)
    };
    let seen = watch.wait_for("the pod that replaces it", |text| text.lines().any(replaced));
    assert!(
        !seen
            .lines()
            .any(|line| line.starts_with("DELETED") && line.contains("view-watch") && line.contains("@south")),
        "{seen}"
    );
    watch.stop();
    // The child agrees.
    let bare = doomed.trim_end_matches("@north");
    assert!(
        world.children[0]
            .kubectl()
            .namespace("view-watch")
            .fails(["get", "pod", bare])
            .contains("NotFound")
    );
    took
}

#[test]
fn names_are_qualified_and_bare_ones_work_where_they_are_unique() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.names");
    namespace_everywhere(&world, "view-names");
    for child in &world.children {
        child
            .kubectl()
            .ok("create configmap both -n view-names --from-literal=a=b");
    }
    world.children[1]
        .kubectl()
        .ok("create configmap alone -n view-names --from-literal=a=b");
    let own = world.children[0].kubectl().json("get configmap both -n view-names");
    for view in world.views().map(|view| view.namespace("view-names")) {
        wait::until("the copies", wait::DEADLINE, || {
            let found = view.ok("get configmaps -o name");
            if found.contains("alone@south") && found.matches("both@").count() == 2 {
                Ok(())
            } else {
                Err(found)
            }
        });
        let object = view.json("get configmap both@north");
        assert_eq!(object["metadata"]["name"], "both@north");
        assert_eq!(object["metadata"]["labels"]["umbra.dev/cluster"], "north");
        assert_eq!(object["metadata"]["uid"], own["metadata"]["uid"], "the child's UID");
        assert_eq!(view.json("get configmap alone")["metadata"]["name"], "alone@south");

        let ambiguous = view.fails("get configmap both");
        assert!(
            ambiguous.contains("both@north") && ambiguous.contains("both@south"),
            "{ambiguous}"
        );
        let absent = view.fails("get configmap nowhere");
        assert!(absent.contains("NotFound"), "{absent}");
        let elsewhere = view.fails("get configmap both@elsewhere");
        assert!(elsewhere.contains("elsewhere"), "{elsewhere}");
    }
    item.pass("409 names both@north, both@south");
    Item::open("errors.ambiguous").pass("names both@north and both@south");
}

#[test]
fn people_find_their_way_in_a_view() {
    let Some(world) = World::shared() else { return };
    namespace_everywhere(&world, "view-tour");
    for child in &world.children {
        deploy(&child.kubectl().namespace("view-tour"), "web", 1);
    }
    let views = world.views().map(|view| view.namespace("view-tour"));
    let pod = format!(
        "{}@south",
        pod_of(&world.children[1].kubectl().namespace("view-tour"), "web")
    );
    for view in views {
        wait::until("the copy", wait::DEADLINE, || {
            let found = view.ok("get pods -o name");
            if found.contains(&pod) { Ok(()) } else { Err(found) }
        });
        assert!(view.ok("api-resources").contains("deployments"));
        assert!(
            view.ok("explain deployment.spec.replicas")
                .contains("Number of desired pods")
        );
        assert!(view.ok(["describe", "pod", &pod]).contains("nginx"));
        assert!(view.ok(["logs", &pod]).contains("nginx"));
        assert_eq!(view.ok(["exec", &pod, "--", "echo", "hello"]), "hello\n");
        // Not copied, and therefore served live.
        assert!(view.ok("get events -o name").contains("@south"));
        assert!(view.ok("get deploy web@south -o yaml").contains("name: web@south"));
        assert!(
            view.ok("rollout status deployment/web@south --timeout=60s")
                .contains("successfully rolled out")
        );
    }
}
