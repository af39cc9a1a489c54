//! The hub behind a real kube-apiserver: its users, its permissions, its aggregation layer, and umbra behind it with the
//! rights of an installation.

mod refusals;
mod replicas;

use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::streams::{self, Protocol};
use crate::{deploy, deployment};

/// Lets a user of the hub, whom the children know by another name, enter the view and edit a namespace of every child.
#[track_caller]
fn admit(hub: &Aggregated, world: &World, namespace: &str, user: &str, there: &str) {
    let binding = format!("{namespace}-{}", user.replace(':', "-"));
    hub.cluster.kubectl().ok(format!(
        "create clusterrolebinding {binding} --clusterrole=umbra-editor --user={user}"
    ));
    for child in &world.children {
        let kubectl = child.kubectl().namespace(namespace);
        kubectl.ok(format!(
            "create rolebinding {binding} --clusterrole=edit --user={there}"
        ));
    }
}

#[track_caller]
fn namespaces(world: &World, namespace: &str) {
    crate::namespace_everywhere(world, namespace);
}

#[test]
fn umbras_kinds_are_native_to_the_hub() {
    let Some(hub) = Aggregated::shared() else { return };
    let item = Item::open("aggregated.kinds");
    let kubectl = hub.cluster.kubectl();
    let table = kubectl.ok("get managedclusters");
    assert!(table.contains("north") && table.contains("south"), "{table}");
    let short = kubectl.ok("get mcl,umbra");
    assert!(
        short.contains("view.umbra.dev/all") && short.contains("fleet.umbra.dev/all"),
        "{short}"
    );
    let explained = kubectl.ok("explain managedclusters.spec.sync");
    assert!(explained.contains("exclude"), "{explained}");
    assert!(
        kubectl
            .ok("api-resources --api-group=umbra.dev")
            .contains("managedclusters")
    );
    assert!(
        kubectl
            .ok("get --raw /openapi/v2")
            .contains("dev.umbra.v1alpha1.ManagedCluster")
    );

    let view = "{apiVersion: umbra.dev/v1alpha1, kind: View, metadata: {name: native}, spec: {clusterNames: [north]}}";
    kubectl.ok_with(view, "apply --server-side -f -");
    kubectl.ok("label view native a=b");
    assert_eq!(kubectl.path("view native", "{.metadata.labels.a}"), "b");
    let wrong = kubectl.run_with(
        &view.replace("clusterNames: [north]", "clusterNames: north"),
        "apply -f -",
    );
    assert!(wrong.stderr.contains("clusterNames"), "{wrong}");

    // Owners are followed by the hub's own garbage collector.
    let uid = kubectl.path("view native", "{.metadata.uid}");
    let owned = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, namespace: default, ownerReferences:
        [{{apiVersion: umbra.dev/v1alpha1, kind: View, name: native, uid: {uid}}}]}}}}"
    );
    // Of a namespaced object the owner may be cluster-scoped.
    kubectl.apply(&owned);
    kubectl.ok("delete view native --cascade=foreground --timeout=90s");
    wait::for_text(
        "the ConfigMap that the view owned is gone",
        || kubectl.path("configmap owned", "{.metadata.name}"),
        |text| text.contains("NotFound"),
    );
    item.pass("table, explain, apply, garbage collection");
}

#[test]
fn users_of_the_hub_see_and_change_children_through_the_aggregation_layer() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let (lists, connects) = (Item::open("aggregated.view"), Item::open("aggregated.exec"));
    let namespace = "aggregated-view";
    namespaces(&world, namespace);
    for child in &world.children {
        deploy(&child.kubectl().namespace(namespace), "web", 1);
    }
    admit(&hub, &world, namespace, "carol", "carol");
    let robot = format!("system:serviceaccount:{namespace}:robot");
    hub.cluster.kubectl().ok(["create", "namespace", namespace]);
    // No service account of the hub is one of a child.
    admit(&hub, &world, namespace, &robot, &format!("hub:{robot}"));
    let carol = hub.certificate_user("carol", &["developers"]);
    let robot = hub.token_user(namespace, "robot");

    for user in [&carol, &robot] {
        let view = user.context("view").namespace(namespace);
        let (table, _) = wait::for_text(
            "both pods",
            || view.run("get pods").to_string(),
            |table| table.matches("Running").count() == 2,
        );
        assert!(
            table.contains("CLUSTER") && table.contains("@north") && table.contains("@south"),
            "{table}"
        );
        let refused = user.context("view").fails("get pods -n kube-system");
        assert!(refused.contains("Forbidden"), "{refused}");
    }
    // The hub's API server judges who may act as somebody else, and umbra gets somebody else.
    let as_carol = hub.view().namespace(namespace).with("--as=carol");
    assert_eq!(as_carol.ok("get pods -o name").lines().count(), 2);
    assert!(as_carol.fails("get pods -n kube-system").contains("Forbidden"));
    assert!(
        carol
            .context("view")
            .with("--as=kubernetes-admin")
            .fails("get pods -A")
            .contains("impersonate")
    );
    let me = carol.context("north").ok("auth whoami -o json");
    assert!(me.contains("\"carol\"") && me.contains("developers"), "{me}");
    lists.pass("a client certificate and a token, 2 children");

    let south = carol.context("south").namespace(namespace);
    let view = carol.context("view").namespace(namespace);
    south.apply(TALKER);
    south.ok("wait pod/talker --for=condition=Ready --timeout=90s");
    for (kubectl, pod) in [(&south, "talker"), (&view, "talker@south")] {
        streams::logs(kubectl, pod);
        for protocol in Protocol::ALL {
            let kubectl = protocol.of(kubectl);
            streams::exec(&kubectl, pod);
            streams::terminal(&kubectl, pod);
            streams::forward(&kubectl, &format!("pod/{pod}"));
        }
    }
    // A token goes with every kind of request.
    for protocol in Protocol::ALL {
        streams::exec(
            &protocol.of(&robot.context("view").namespace(namespace)),
            "talker@south",
        );
    }
    connects.pass("logs -f, exec, exec -it, port-forward; cluster and view");
}

/// A pod whose process says something every now and then, with a port.
const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done"]
    ports: [{containerPort: 80}]
"#;

#[test]
fn tenants_write_in_a_fleet_what_their_namespace_on_the_hub_lets_them() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.fleet");
    let (ours, theirs) = ("aggregated-ours", "aggregated-theirs");
    let root = hub.cluster.kubectl();
    root.apply("{apiVersion: umbra.dev/v1alpha1, kind: Fleet, metadata: {name: team}, spec: {}}");
    let administrator = root.server(&hub.root_url("fleets", "team"));
    for namespace in [ours, theirs] {
        root.ok(["create", "namespace", namespace]);
        wait::until("a namespace in the fleet", wait::DEADLINE, || {
            let outcome = administrator.run(["create", "namespace", namespace]);
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
    }
    root.ok("create clusterrole team-gate --verb=get,create,update,patch,delete --resource=fleets.umbra.dev/proxy");
    let robot = format!("system:serviceaccount:{ours}:tom-robot");
    for (number, user) in ["tom", &robot].into_iter().enumerate() {
        let user = format!("--user={user}");
        root.ok(format!(
            "create clusterrolebinding team-gate-{number} --clusterrole=team-gate {user}"
        ));
        // The hub aggregates umbra's rules into its own role `edit`.
        root.ok(format!(
            "create rolebinding tom-{number} --clusterrole=edit {user} -n {ours}"
        ));
    }
    let mut refusals = 0;
    for tom in [hub.certificate_user("tom", &[]), hub.token_user(ours, "tom-robot")] {
        refusals += works_in_its_namespace(&world, &tom.context("fleet"), ours, theirs);
    }
    item.pass(&format!(
        "certificate and token: placed in 2 children, {refusals} refusals"
    ));
}

/// Somebody who may edit `ours` and nothing else; how often they were refused.
#[track_caller]
fn works_in_its_namespace(world: &World, tom: &Kubectl, ours: &str, theirs: &str) -> usize {
    let template = deployment("web", 2);
    let placement = crate::fleet::placement("web", "Deployment", "");
    wait::until("the tenant's permission", wait::DEADLINE, || {
        let outcome = tom
            .namespace(ours)
            .run_with(&format!("{template}---\n{placement}"), "apply -f -");
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    for child in &world.children {
        crate::fleet::wait_for_path(&child.kubectl().namespace(ours), "deploy web", "{.spec.replicas}", "2");
    }
    assert_eq!(tom.namespace(ours).ok("auth can-i create deployments").trim(), "yes");
    assert!(tom.namespace(theirs).fails("auth can-i create deployments").is_empty());
    let refusals = [
        tom.namespace(theirs).run_with(&template, "apply -f -"),
        tom.namespace(theirs).run("get deployments"),
        tom.run("get deployments -A"),
        tom.namespace(ours).run("create clusteroverride a"),
        tom.run("delete namespace aggregated-ours"),
    ];
    for refused in &refusals {
        assert!(!refused.succeeded(), "{refused}");
    }
    let refused = tom.namespace(theirs).fails("get deployments");
    assert!(refused.contains("apps.fleet.umbra.dev"), "{refused}");
    tom.namespace(ours).ok("delete placement web");
    for child in &world.children {
        crate::fleet::wait_until_gone(&child.kubectl().namespace(ours), "deploy web");
    }
    refusals.len()
}

#[test]
fn whoever_has_the_role_joins_a_cluster_and_is_its_administrator() {
    // Alone: placements of other tests are for all clusters.
    let Some(hub) = Aggregated::exclusive() else { return };
    let item = Item::open("aggregated.join");
    let spare = World::spare();
    let root = hub.cluster.kubectl();
    root.ok("create clusterrolebinding paula --clusterrole=umbra-administrator --user=paula");
    root.ok("create rolebinding paula -n umbra-system --role=umbra-administrator --user=paula");
    let paula = hub.certificate_user("paula", &[]);
    for allowed in ["create secrets -n umbra-system", "list managedclusters.umbra.dev"] {
        wait::for_text(
            "paula's permission",
            || paula.run(format!("auth can-i {allowed}")).stdout,
            |answer| answer.trim() == "yes",
        );
    }
    let (theirs, own) = (spare.kubeconfig(), paula.kubeconfig().to_string_lossy());
    let (theirs, own) = (theirs.to_string_lossy(), own.as_ref());
    let from = [
        "--context",
        &spare.name,
        "--kubeconfig",
        &theirs,
        "--hub-kubeconfig",
        own,
    ];
    hub.umbra(&[&["join", "joined"], from.as_slice()].concat())
        .expect_success();

    let seen = paula
        .context("view")
        .ok("get namespaces -l umbra.dev/cluster=joined -o name");
    assert!(seen.contains("namespace/kube-system@joined"), "{seen}");
    paula
        .server(&hub.cluster_url("joined"))
        .ok("create configmap made -n default");
    assert_eq!(
        spare.kubectl().path("configmap made -n default", "{.metadata.name}"),
        "made"
    );
    spare.kubectl().ok("delete configmap made -n default");
    // Not even the administrator of the hub, whom nobody has let in.
    let refused = hub.child("joined").fails("get secrets -A");
    assert!(refused.contains("Forbidden"), "{refused}");

    hub.umbra(&["leave", "joined", "--hub-kubeconfig", own])
        .expect_success();
    let left = spare.kubectl().ok("get clusterrolebindings -o name");
    assert!(!left.contains("umbra:admins"), "{left}");
    item.pass("by a role, not system:masters; nobody else gets in");
}
