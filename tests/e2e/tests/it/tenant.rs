//! A tenant with a Role in one namespace of one child: sees that in the view, gets the child's 403 for the rest, and cannot
//! get more through the hub.

use umbra_e2e::http;
use umbra_e2e::identity;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::{deploy, namespace_everywhere, sorted_lines};

/// Lets a user enter the view and the roots of the children; what is there for whom, the children say.
fn let_in(world: &World, user: &str) {
    let hub = world.hub.root();
    hub.ok([
        "create",
        "clusterrole",
        &format!("enter-{user}"),
        "--verb=get,create,update,patch,delete",
        "--resource=views.umbra.dev/proxy,managedclusters.umbra.dev/proxy",
    ]);
    hub.ok([
        "create",
        "clusterrolebinding",
        &format!("enter-{user}"),
        &format!("--clusterrole=enter-{user}"),
        &format!("--user={user}"),
    ]);
}

/// Directly in the child: may read pods and deployments, and their logs, of one namespace.
fn grant(child: &Kubectl, namespace: &str, user: &str) {
    let child = child.namespace(namespace);
    child.ok([
        "create",
        "role",
        user,
        "--verb=get,list,watch",
        "--resource=pods,pods/log,deployments.apps,configmaps",
    ]);
    child.ok([
        "create",
        "rolebinding",
        user,
        &format!("--role={user}"),
        &format!("--user={user}"),
    ]);
}

#[test]
fn a_tenant_sees_exactly_what_the_children_let_it_see() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.sees");
    let [north, south] = world.children.each_ref().map(|child| child.kubectl().clone());
    for namespace in ["tenant-own", "tenant-other"] {
        namespace_everywhere(&world, namespace);
        for child in [&north, &south] {
            deploy(&child.namespace(namespace), "web", 1);
        }
    }
    let alice = world.user("alice", &["team"]);
    let_in(&world, "alice");
    let view = alice.kubectl.context("view");
    // Nothing yet.
    assert!(view.fails("get pods -A").contains("Forbidden"));

    grant(&north, "tenant-own", "alice");
    let expected: Vec<String> = sorted_lines(&north.ok("get pods -n tenant-own -o name"))
        .into_iter()
        .map(|name| format!("{name}@north"))
        .collect();
    let (_, took) = wait::for_text(
        "alice sees her pods and no other",
        || {
            let outcome = view.run("get pods -A -o name");
            format!("{}{}", outcome.stdout, outcome.stderr)
        },
        |text| sorted_lines(text) == expected,
    );
    assert_eq!(
        sorted_lines(&view.ok("get deploy -A -o name")),
        ["deployment.apps/web@north"]
    );
    assert_eq!(sorted_lines(&view.ok("get pods -n tenant-own -o name")), expected);
    assert_eq!(
        view.ok("get deploy web -n tenant-own -o name").trim(),
        "deployment.apps/web@north",
        "bare: alice has one"
    );
    let pod = expected[0].trim_start_matches("pod/").to_owned();
    assert!(view.ok(["logs", "-n", "tenant-own", &pod]).contains("nginx"));

    // A watch shows the same.
    let mut watch = view.start("get pods -A -w -o name");
    watch.wait_for("her pods", |text| text.contains(&expected[0]));
    north.ok("delete pods --all -n tenant-other");
    north.ok("rollout restart deploy/web -n tenant-own");
    let seen = watch.wait_for("her new pod", |text| text.lines().any(|line| line != expected[0]));
    let own = north.ok("get pods -n tenant-own -o name");
    for line in sorted_lines(&seen).iter().filter(|line| **line != expected[0]) {
        let name = line.trim_end_matches("@north");
        assert!(
            own.contains(name) || line.ends_with("@north") && name.contains("web-"),
            "{line}\n{own}"
        );
    }
    watch.stop();

    // What is taken away is gone from the view.
    north.ok("delete rolebinding alice -n tenant-own");
    wait::until("alice sees nothing", wait::DEADLINE, || {
        let outcome = view.run("get pods -A");
        if outcome.stderr.contains("Forbidden") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    item.pass(&format!(
        "1 namespace of 1 child, {:.1} s after the grant",
        took.as_secs_f64()
    ));
}

#[test]
fn the_rest_is_the_childs_403() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.forbidden");
    namespace_everywhere(&world, "tenant-rest");
    let [north, south] = world.children.each_ref().map(|child| child.kubectl().clone());
    for child in [&north, &south] {
        child.ok("create configmap settings -n tenant-rest --from-literal=a=b");
    }
    let bob = world.user("bob", &["team"]);
    let_in(&world, "bob");
    grant(&north, "tenant-rest", "bob");
    let view = bob.kubectl.context("view");
    wait::for_text(
        "bob sees his config maps",
        || {
            let outcome = view.run("get configmaps -n tenant-rest -o name");
            format!("{}{}", outcome.stdout, outcome.stderr)
        },
        |text| text.contains("settings@north"),
    );
    // The same words as without the hub, but for the user's own certificate.
    let refused = [
        "get pods -n kube-system",
        "get secrets -n tenant-rest",
        "get nodes",
        "get configmaps -A",
        "delete configmap settings -n tenant-rest",
        "create configmap more -n tenant-rest",
    ];
    for command in refused {
        let through = bob.kubectl.context("north").fails(command);
        let direct = bob.kubectl.context("north-direct").fails(command);
        assert_eq!(through, direct, "{command}");
        assert!(
            through.to_lowercase().contains("forbidden") && through.contains("\"bob\""),
            "{through}"
        );
    }
    let south_refuses = bob.kubectl.context("south").fails("get configmaps -n tenant-rest");
    assert!(south_refuses.to_lowercase().contains("forbidden"), "{south_refuses}");
    // Through the view.
    for command in [
        "get pods -n kube-system",
        "get secrets -n tenant-rest",
        "get nodes",
        "delete configmap settings@north -n tenant-rest",
        "delete configmap settings@south -n tenant-rest",
        "label configmap settings@north -n tenant-rest a=b",
        "get configmap settings@south -n tenant-rest",
    ] {
        let refused = view.fails(command);
        assert!(refused.to_lowercase().contains("forbidden"), "{command}: {refused}");
    }
    for child in [&north, &south] {
        assert_eq!(
            child.path("configmap settings -n tenant-rest", "{.metadata.labels}{.data.a}"),
            "b"
        );
    }
    item.pass(&format!("{} of {} in the child's words", refused.len(), refused.len()));
}

#[test]
fn a_tenant_cannot_use_the_hub_to_get_more() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.no-more");
    namespace_everywhere(&world, "tenant-more");
    let mallory = world.user("mallory", &["team"]);
    let_in(&world, "mallory");
    grant(world.children[0].kubectl(), "tenant-more", "mallory");
    let mut refused = 0;
    let mut expect_refusal = |kubectl: &Kubectl, command: &str| {
        let error = kubectl.fails(command);
        assert!(error.to_lowercase().contains("forbidden"), "{command}: {error}");
        refused += 1;
    };
    let of = |context: &str| mallory.kubectl.context(context);

    // As somebody else.
    for context in ["hub", "view", "north", "south", "fleet"] {
        for flags in [
            vec!["--as=umbra-admin"],
            vec!["--as=mallory", "--as-group=umbra:admins"],
            vec!["--as=mallory", "--as-group=system:masters"],
        ] {
            let kubectl = flags.iter().fold(of(context), |kubectl, flag| kubectl.with(flag));
            expect_refusal(&kubectl, "get secrets -A");
        }
    }
    // The hub's own.
    for command in [
        "get managedclusters",
        "get secrets -n umbra-system",
        "get clusterroles",
        "create clusterrolebinding mine --clusterrole=cluster-admin --user=mallory",
        "delete managedcluster north",
        "create namespace mine",
    ] {
        expect_refusal(&of("hub"), command);
    }
    // Another root, a child's secrets, rights over rights.
    expect_refusal(&of("fleet"), "get deployments -A");
    for context in ["view", "north"] {
        expect_refusal(&of(context), "get secrets -A");
        expect_refusal(&of(context), "get serviceaccounts -A");
        expect_refusal(&of(context), "get clusterroles");
    }
    expect_refusal(&of("north"), "create token default -n kube-system");
    expect_refusal(
        &of("north"),
        "create rolebinding more -n tenant-more --clusterrole=admin --user=mallory",
    );

    // Headers that kubectl does not send.
    let authority = identity::authority(world.hub.folder());
    let roots = [
        ("/api/v1/secrets".to_owned(), "hub"),
        (
            "/apis/umbra.dev/v1alpha1/views/all/proxy/api/v1/secrets".to_owned(),
            "view",
        ),
        (
            "/apis/umbra.dev/v1alpha1/managedclusters/north/proxy/api/v1/secrets".to_owned(),
            "north",
        ),
        (
            "/apis/umbra.dev/v1alpha1/managedclusters/south/proxy/api/v1/secrets".to_owned(),
            "south",
        ),
        (
            "/apis/umbra.dev/v1alpha1/managedclusters/north/proxy/../../../../../../api/v1/secrets".to_owned(),
            "out of a root",
        ),
        (
            "/apis/umbra.dev/v1alpha1/managedclusters/north/proxy/%2e%2e/south/proxy/api/v1/secrets".to_owned(),
            "over to a root",
        ),
    ];
    let headers: [&[(&str, &str)]; 5] = [
        &[],
        &[
            ("Impersonate-User", "umbra-admin"),
            ("Impersonate-Group", "umbra:admins"),
        ],
        &[("Impersonate-Group", "system:masters")],
        &[("X-Remote-User", "umbra-admin"), ("X-Remote-Group", "system:masters")],
        &[
            ("Connection", "Impersonate-User"),
            ("Impersonate-Extra-Scopes", "all"),
            ("Impersonate-Uid", "0"),
        ],
    ];
    for (path, root) in &roots {
        for headers in headers {
            for certificate in [None, Some(&mallory.certificate)] {
                let request = format!("GET {path}");
                let answer = http::request(
                    world.hub.port(),
                    authority.certificate_pem(),
                    certificate,
                    &request,
                    headers,
                );
                assert!(
                    [400, 401, 403, 404].contains(&answer.status),
                    "{root} with {headers:?}: {}",
                    answer.text
                );
                assert!(
                    !answer.text.contains("\"items\""),
                    "{root} with {headers:?}: {}",
                    answer.text
                );
                refused += 1;
            }
        }
    }
    item.pass(&format!("{refused} of {refused} attempts refused"));
}
