//! A tenant with a Role in one namespace of one child: sees that in the view, gets the child's 403 for the rest, and cannot
//! get more through the hub.

use umbra_e2e::http;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::user::{Proof, User};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::{deploy, namespace_everywhere, sorted_lines};

/// Directly in the child: may read pods and deployments, and their logs, of one namespace.
fn grant(child: &Kubectl, namespace: &str, user: &User) {
    let child = child.namespace(namespace);
    let (name, there) = (user.short_name.as_str(), &user.name_on_children);
    child.ok([
        "create",
        "role",
        name,
        "--verb=get,list,watch",
        "--resource=pods,pods/log,deployments.apps,configmaps",
    ]);
    child.ok([
        "create",
        "rolebinding",
        name,
        &format!("--role={name}"),
        &format!("--user={there}"),
    ]);
}

#[test]
fn a_tenant_sees_exactly_what_the_children_let_it_see() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.sees");
    let figure = sees_its_own(&world, &world.user(Proof::Certificate, "alice", &["team"]));
    item.pass(&figure);
}

#[test]
fn the_rest_is_the_childs_403() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.forbidden");
    let figure = gets_the_childs_403(&world, &world.user(Proof::Certificate, "bob", &["team"]));
    item.pass(&figure);
}

#[test]
fn a_tenant_cannot_use_the_hub_to_get_more() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.no-more");
    let figure = gets_no_more(&world, &world.user(Proof::Certificate, "mallory", &["team"]));
    item.pass(&figure);
}

#[test]
fn a_tenant_with_a_token_of_the_hub_is_treated_alike() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("tenant.token");
    sees_its_own(&world, &world.user(Proof::Token, "alice-robot", &[]));
    gets_the_childs_403(&world, &world.user(Proof::Token, "bob-robot", &[]));
    let figure = gets_no_more(&world, &world.user(Proof::Token, "mallory-robot", &[]));
    item.pass(&format!("sees its own, the child's 403, {figure}"));
}

/// Pods and deployments of one namespace of one child, as long as they are granted.
fn sees_its_own(world: &World, alice: &User) -> String {
    let (own, other) = (
        format!("{}-own", alice.short_name),
        format!("{}-other", alice.short_name),
    );
    let [north, south] = world.children.each_ref().map(|child| child.kubectl().clone());
    for namespace in [&own, &other] {
        namespace_everywhere(world, namespace);
        for child in [&north, &south] {
            deploy(&child.namespace(namespace), "web", 1);
        }
    }
    alice.let_in(world);
    let view = alice.kubectl.context("view");
    // Nothing yet.
    assert!(view.fails("get pods -A").contains("Forbidden"));

    grant(&north, &own, alice);
    let expected: Vec<String> = sorted_lines(&north.ok(format!("get pods -n {own} -o name")))
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
    assert_eq!(sorted_lines(&view.ok(format!("get pods -n {own} -o name"))), expected);
    assert_eq!(
        view.ok(format!("get deploy web -n {own} -o name")).trim(),
        "deployment.apps/web@north",
        "bare: alice has one"
    );
    let pod = expected[0].trim_start_matches("pod/").to_owned();
    assert!(view.ok(["logs", "-n", &own, &pod]).contains("nginx"));

    // A watch shows the same.
    let mut watch = view.start("get pods -A -w -o name");
    watch.wait_for("her pods", |text| text.contains(&expected[0]));
    north.ok(format!("delete pods --all -n {other}"));
    north.ok(format!("rollout restart deploy/web -n {own}"));
    let seen = watch.wait_for("her new pod", |text| text.lines().any(|line| line != expected[0]));
    let pods = north.ok(format!("get pods -n {own} -o name"));
    for line in sorted_lines(&seen).iter().filter(|line| **line != expected[0]) {
        let name = line.trim_end_matches("@north");
        assert!(
            pods.contains(name) || line.ends_with("@north") && name.contains("web-"),
            "{line}\n{pods}"
        );
    }
    watch.stop();

    // What is taken away is gone from the view.
    north.ok(format!("delete rolebinding {} -n {own}", alice.short_name));
    wait::until("alice sees nothing", wait::DEADLINE, || {
        let outcome = view.run("get pods -A");
        if outcome.stderr.contains("Forbidden") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    format!("1 namespace of 1 child, {:.1} s after the grant", took.as_secs_f64())
}

/// For everything else, in the same words as without the hub.
fn gets_the_childs_403(world: &World, bob: &User) -> String {
    let namespace = format!("{}-rest", bob.short_name);
    namespace_everywhere(world, &namespace);
    let [north, south] = world.children.each_ref().map(|child| child.kubectl().clone());
    for child in [&north, &south] {
        child.ok(format!("create configmap settings -n {namespace} --from-literal=a=b"));
    }
    bob.let_in(world);
    grant(&north, &namespace, bob);
    let view = bob.kubectl.context("view");
    wait::for_text(
        "bob sees his config maps",
        || {
            let outcome = view.run(format!("get configmaps -n {namespace} -o name"));
            format!("{}{}", outcome.stdout, outcome.stderr)
        },
        |text| text.contains("settings@north"),
    );
    // The same words as without the hub, but for the user's own certificate.
    let refused = [
        "get pods -n kube-system",
        &format!("get secrets -n {namespace}"),
        "get nodes",
        "get configmaps -A",
        &format!("delete configmap settings -n {namespace}"),
        &format!("create configmap more -n {namespace}"),
    ];
    for command in refused {
        let through = bob.kubectl.context("north").fails(command);
        let direct = bob.kubectl.context("north-direct").fails(command);
        assert_eq!(through, direct, "{command}");
        assert!(
            through.to_lowercase().contains("forbidden") && through.contains(&format!("\"{}\"", bob.name_on_children)),
            "{through}"
        );
    }
    let south_refuses = bob
        .kubectl
        .context("south")
        .fails(format!("get configmaps -n {namespace}"));
    assert!(south_refuses.to_lowercase().contains("forbidden"), "{south_refuses}");
    // Through the view.
    for command in [
        "get pods -n kube-system",
        &format!("get secrets -n {namespace}"),
        "get nodes",
        &format!("delete configmap settings@north -n {namespace}"),
        &format!("delete configmap settings@south -n {namespace}"),
        &format!("label configmap settings@north -n {namespace} a=b"),
        &format!("get configmap settings@south -n {namespace}"),
    ] {
        let refused = view.fails(command);
        assert!(refused.to_lowercase().contains("forbidden"), "{command}: {refused}");
    }
    for child in [&north, &south] {
        assert_eq!(
            child.path(
                format!("configmap settings -n {namespace}"),
                "{.metadata.labels}{.data.a}"
            ),
            "b"
        );
    }
    format!("{} of {} in the child's words", refused.len(), refused.len())
}

/// By kubectl, and by headers and paths that kubectl does not send.
fn gets_no_more(world: &World, mallory: &User) -> String {
    let namespace = format!("{}-more", mallory.short_name);
    namespace_everywhere(world, &namespace);
    mallory.let_in(world);
    grant(world.children[0].kubectl(), &namespace, mallory);
    let administrator = world.hub.administrator();
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
            vec![format!("--as={administrator}")],
            vec![format!("--as={}", mallory.name), "--as-group=umbra:admins".to_owned()],
            vec![format!("--as={}", mallory.name), "--as-group=system:masters".to_owned()],
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
        &format!(
            "create clusterrolebinding mine --clusterrole=cluster-admin --user={}",
            mallory.name
        ),
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
        &format!(
            "create rolebinding more -n {namespace} --clusterrole=admin --user={}",
            mallory.name_on_children
        ),
    );

    refused += unusual_requests(world, mallory);
    format!("{refused} of {refused} attempts refused")
}

/// Sends what kubectl does not send, to everything that answers; how many attempts were refused.
fn unusual_requests(world: &World, mallory: &User) -> usize {
    let api = "/apis/umbra.dev/v1alpha1";
    let paths = [
        ("hub", "/api/v1/secrets".to_owned()),
        ("view", format!("{api}/views/all/proxy/api/v1/secrets")),
        ("north", format!("{api}/managedclusters/north/proxy/api/v1/secrets")),
        ("south", format!("{api}/managedclusters/south/proxy/api/v1/secrets")),
        (
            "out of a root",
            format!("{api}/managedclusters/north/proxy/../../../../../../api/v1/secrets"),
        ),
        (
            "over to a root",
            format!("{api}/managedclusters/north/proxy/%2e%2e/south/proxy/api/v1/secrets"),
        ),
    ];
    let administrator = world.hub.administrator();
    let headers: [&[(&str, &str)]; 5] = [
        &[],
        &[
            ("Impersonate-User", administrator),
            ("Impersonate-Group", "umbra:admins"),
        ],
        &[("Impersonate-Group", "system:masters")],
        &[("X-Remote-User", administrator), ("X-Remote-Group", "system:masters")],
        &[
            ("Connection", "Impersonate-User"),
            ("Impersonate-Extra-Scopes", "all"),
            ("Impersonate-Uid", "0"),
        ],
    ];
    let authorization = mallory.authorization();
    let authorization = authorization.as_deref().map(|value| ("Authorization", value));
    let mut refused = 0;
    for door in world.hub.doors() {
        for (root, path) in &paths {
            for headers in headers {
                for known in [false, true] {
                    let certificate = mallory.certificate().filter(|_| known);
                    let mut headers = headers.to_vec();
                    headers.extend(authorization.filter(|_| known));
                    let request = format!("GET {path}");
                    let answer = http::request(door.port, &door.authority_pem, certificate, &request, &headers);
                    let seen = format!("{}, {root} with {headers:?}: {}", door.name, answer.text);
                    assert!([400, 401, 403, 404].contains(&answer.status), "{seen}");
                    assert!(!answer.text.contains("\"items\""), "{seen}");
                    refused += 1;
                }
            }
        }
    }
    refused
}
