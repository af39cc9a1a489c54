//! Views with `spec.authorization: HubRBAC` behind a real kube-apiserver: the hub says who sees what.

use std::time::{Duration, Instant};

use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::namespace_everywhere;

/// How long a permission that was withdrawn may show: 10 s for which umbra remembers it, 2 s until it looks again. The
/// rest is for the hub's own informers and a busy machine.
const WITHDRAWN: Duration = Duration::from_secs(90);

#[test]
fn tenants_of_the_hub_see_their_namespace_of_all_children() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.hub-rbac");
    let (ours, theirs) = ("hub-rbac-shop", "hub-rbac-bank");
    let root = hub.cluster.kubectl();
    for namespace in [ours, theirs] {
        namespace_everywhere(&world, namespace);
        root.ok(["create", "namespace", namespace]);
        for child in &world.children {
            let kubectl = child.kubectl().namespace(namespace);
            // Once the namespace has its service account.
            wait::until("a pod", wait::DEADLINE, || {
                let outcome = kubectl.run_with(POD, "apply -f -");
                outcome.succeeded().then_some(()).ok_or_else(|| outcome.to_string())
            });
        }
    }
    root.apply("{apiVersion: umbra.dev/v1alpha1, kind: View, metadata: {name: shops}, spec: {authorization: HubRBAC}}");
    root.apply(ROLES);
    let hubs = root.namespace(ours);
    hubs.ok("create rolebinding ivy --role=hub-rbac --user=ivy");
    root.ok("create clusterrolebinding hub-rbac-ivy --clusterrole=hub-rbac-enter --user=ivy");
    let ivy = hub.certificate_user("ivy", &["tenants"]).context("hub");
    let ivy = ivy.server(&hub.root_url("views", "shops"));

    // Reading: the hub's word is enough.
    let (table, _) = wait::for_text(
        "the pods of both children",
        || ivy.run("get pods -A").to_string(),
        |table| table.contains("web@north") && table.contains("web@south"),
    );
    assert!(table.contains(ours) && !table.contains(theirs), "{table}");
    assert_eq!(ivy.ok(format!("get pods -n {ours} -o name")).lines().count(), 2);
    ivy.ok(format!("get pod web@north -n {ours}"));
    for command in [
        format!("get pods -n {theirs}"),
        format!("get pod web@north -n {theirs}"),
        format!("get configmaps -n {ours}"),
        "get configmaps -A".to_owned(),
        "get nodes".to_owned(),
    ] {
        let refused = ivy.fails(&*command);
        assert!(
            refused.contains("Forbidden") && refused.contains(".view.umbra.dev"),
            "{command}: {refused}"
        );
    }
    assert_eq!(ivy.ok(format!("auth can-i list pods -n {ours}")).trim(), "yes");
    assert_eq!(ivy.run(format!("auth can-i list pods -n {theirs}")).stdout.trim(), "no");
    // Another view, in which the children decide.
    let all = ivy.server(&hub.root_url("views", "all"));
    assert!(all.fails("get pods -A").contains("Forbidden"));

    // Writing: both have to agree.
    let label = |cluster: &str| format!("label pod web@{cluster} -n {ours} seen=yes");
    let refused = ivy.fails(&*label("north"));
    assert!(
        refused.contains("Forbidden") && !refused.contains("core.view.umbra.dev"),
        "{refused}"
    );
    let north = world
        .children
        .iter()
        .find(|child| child.name == "north")
        .expect("north");
    let north = north.kubectl().namespace(ours);
    north.ok("create rolebinding hub-rbac-ivy --clusterrole=edit --user=ivy");
    wait::for_text(
        "the label",
        || ivy.run(&*label("north")).to_string(),
        |text| text.contains("labeled"),
    );
    assert!(ivy.fails(&*label("south")).contains("Forbidden"));
    // What the child allows and the hub does not.
    let refused = ivy.fails(format!("delete pod web@north -n {ours}"));
    assert!(refused.contains("core.view.umbra.dev"), "{refused}");

    // What is withdrawn is gone from watches, too.
    let mut watch = ivy.start("get pods -A -w --no-headers -o custom-columns=NAME:.metadata.name");
    watch.wait_for("the beginning", |text| {
        text.contains("web@north") && text.contains("web@south")
    });
    let withdrawn = Instant::now();
    hubs.ok("delete rolebinding ivy");
    wait::until("the list is refused", WITHDRAWN, || {
        let outcome = ivy.run("get pods -A");
        if outcome.to_string().contains("Forbidden") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    // kubectl ends with the watch: it says that it is too old, or that it may not begin another one.
    let ended = wait::until("the watch ends", WITHDRAWN, || {
        watch.ended().ok_or_else(|| "it watches on".to_owned())
    });
    assert!(!watch.output().contains(theirs), "{ended}: {}", watch.output());
    item.pass(&format!(
        "2 children, withdrawn after {} s",
        withdrawn.elapsed().as_secs()
    ));
}

/// A pod that nobody has to run.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: main, image: nginx}]}
";

const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: hub-rbac, namespace: hub-rbac-shop}
rules:
- {apiGroups: [core.view.umbra.dev], resources: [pods], verbs: [get, list, watch, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: hub-rbac-enter}
rules:
- {apiGroups: [umbra.dev], resources: [views/proxy], resourceNames: [shops, all], verbs: [get, create, update, patch, delete]}
";
