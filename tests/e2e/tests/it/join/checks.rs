//! What keeps a cluster from joining is found before anything is changed; what fails later is taken back.

use rustix::process::Signal;
use umbra_e2e::altered::Alteration;
use umbra_e2e::environment;
use umbra_e2e::hub::umbra;
use umbra_e2e::identity::Credential;
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::scene::{GUEST, Scene, says};
use super::token;

/// More than the test's own clock can be off.
const ANOTHER_AGE: &str = "Tue, 01 Jan 2069 00:00:00 GMT";

#[test]
fn what_fails_leaves_nothing_behind() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.join");
    let mut scene = Scene::start(&world);
    let checks = cluster_checks(&scene) + permission_checks(&mut scene) + name_checks(&mut scene);
    let failures = failures_in_the_middle(&scene);
    let tunnel = tunnel_checks(&mut scene);
    item.pass(&format!(
        "{checks} checks, {failures} failures in the middle, {tunnel} with --tunnel; 0 objects left"
    ));
}

/// The cluster itself is not as it should be.
fn cluster_checks(scene: &Scene<'_>) -> usize {
    let folder = scene.cluster.folder();
    let administrator = Credential::Token(token(&scene.cluster));
    let nobody = format!("https://127.0.0.1:{}", environment::free_port());
    let away = scene.kubeconfig("away", &nobody, folder, &administrator);
    scene.refused(&away, &[], &["cannot reach the cluster", "Is it running"]);
    let distrusted = scene.kubeconfig("distrusted", scene.cluster.server(), scene.hub.folder(), &administrator);
    scene.refused(&distrusted, &[], &["is not trusted", "Check certificate-authority"]);
    let expired = Credential::Token("expired".to_owned());
    let expired = scene.kubeconfig("expired", scene.cluster.server(), folder, &expired);
    scene.refused(&expired, &[], &["does not accept the credential", "get namespaces"]);
    let unknown = scene.join(&scene.altered_kubeconfig(), &["--context", "nobody"]);
    assert!(!unknown.succeeded(), "{unknown}");

    let altered = scene.altered_kubeconfig();
    scene.alter(Alteration {
        date: Some(ANOTHER_AGE),
        ..Alteration::default()
    });
    scene.refused(&altered, &[], &["clock is", "ahead of", "Set the clocks"]);
    scene.alter(Alteration {
        version: Some((0, String::new())),
        ..Alteration::default()
    });
    scene.refused(&altered, &[], &["answers 503"]);
    scene.alter(Alteration::default());
    // A program that prints a credential, which a hub behind a kube-apiserver does not run unless it is told to.
    if scene.hub.aggregated().is_some() {
        let exec = Credential::Exec {
            command: "true".to_owned(),
            args: Vec::new(),
        };
        let exec = scene.kubeconfig("exec", scene.cluster.server(), folder, &exec);
        scene.refused(&exec, &[], &["the program true", "--allow-exec-credentials"]);
        return 7;
    }
    6
}

/// Waits until a user may read namespaces: kube-apiserver judges by what its informers have seen.
fn may_get_namespaces(kubectl: &Kubectl, user: &str) {
    wait::until(&format!("{user} may get namespaces"), wait::DEADLINE, || {
        let outcome = kubectl.run(["auth", "can-i", "get", "namespaces", "--as", user]);
        outcome.succeeded().then_some(()).ok_or_else(|| outcome.to_string())
    });
}

/// Whoever joins may not what is needed, in the cluster or on the hub.
fn permission_checks(scene: &mut Scene<'_>) -> usize {
    let child = scene.cluster.kubectl().clone();
    scene.refused(
        &scene.kubeconfig_of("join-nobody"),
        &[],
        &["may not read the namespace kube-system", "an administrator"],
    );
    child.ok("create clusterrolebinding join-viewer --clusterrole=view --user=join-viewer");
    // May bind, but not give away more than is theirs.
    child.ok(
        "create clusterrole join-binder --verb=create,get --resource=clusterrolebindings.rbac.authorization.k8s.io,namespaces",
    );
    child.ok("create clusterrolebinding join-binder --clusterrole=join-binder --user=join-binder");
    for user in ["join-viewer", "join-binder"] {
        may_get_namespaces(&child, user);
    }
    scene.begin_anew();
    for user in ["join-viewer", "join-binder"] {
        scene.refused(
            &scene.kubeconfig_of(user),
            &[],
            &[
                "the ClusterRoleBinding umbra:admins cannot be created",
                "--no-admin-binding",
            ],
        );
    }
    child.ok("delete clusterrolebinding join-viewer join-binder");
    child.ok("delete clusterrole join-binder");

    let root = scene.hub.root();
    let hub_of = |scene: &Scene<'_>, user: &str| scene.hub_kubeconfig_of(user).to_string_lossy().into_owned();
    root.ok("create clusterrole join-looks --verb=get,list --resource=managedclusters.umbra.dev");
    root.ok("create clusterrolebinding join-looks --clusterrole=join-looks --user=join-looks");
    root.ok("create clusterrole join-registers --verb=get,list,create --resource=managedclusters.umbra.dev");
    root.ok("create clusterrolebinding join-registers --clusterrole=join-registers --user=join-registers");
    scene.begin_anew();
    let kubeconfig = scene.cluster.kubeconfig();
    let cases = [
        ("join-stranger", "cannot be listed"),
        ("join-looks", "umbra-administrator"),
        ("join-registers", "the Role umbra-administrator"),
    ];
    for (user, expected) in cases {
        wait::until("the permissions count", wait::DEADLINE, || {
            let may = scene.kubectl_on_hub_as(user).run("get managedclusters");
            match may.succeeded() == (user != "join-stranger") {
                true => Ok(()),
                false => Err(may.to_string()),
            }
        });
        let mut command = umbra(scene.world.programs);
        command
            .args(["join", GUEST, "--context", &scene.cluster.name, "--kubeconfig"])
            .arg(&kubeconfig)
            .args(["--hub-kubeconfig", &hub_of(scene, user), "--no-admin-binding"]);
        scene.was_refused(Outcome::of(command, ""), &[expected]);
    }
    6
}

/// The name, or the cluster, is somebody else's.
fn name_checks(scene: &mut Scene<'_>) -> usize {
    let root = scene.hub.root();
    root.ok("create secret generic guest-kubeconfig -n umbra-system --from-literal=mine=yes");
    scene.begin_anew();
    let altered = scene.altered_kubeconfig();
    scene.refused(&altered, &[], &["a Secret umbra-system/guest-kubeconfig already"]);
    assert!(
        !root
            .path("secret guest-kubeconfig -n umbra-system", "{.data.mine}")
            .is_empty()
    );
    root.ok("delete secret guest-kubeconfig -n umbra-system");

    let north = &scene.world.children[0];
    scene.hub.join(GUEST, &north.name, &north.kubeconfig()).expect_success();
    scene.begin_anew();
    scene.refused(
        &altered,
        &[],
        &["the name guest is taken by the cluster at", "umbra leave guest"],
    );
    let twice = scene.hub.join("twice", &north.name, &north.kubeconfig());
    scene.was_refused(twice, &["already joined, as guest", "umbra leave guest"]);
    let again = scene.hub.join(GUEST, &north.name, &north.kubeconfig());
    scene.was_refused(again, &["already joined as guest", "umbra leave guest"]);
    scene.was_refused(tunnel(scene, &[]), &["is taken by a cluster that the hub dials"]);
    scene.hub.leave(GUEST).expect_success();
    scene.begin_anew();
    if let Some(aggregated) = scene.hub.aggregated() {
        let own = &aggregated.cluster;
        let own = scene.hub.join("own", &own.name, &own.kubeconfig());
        scene.was_refused(own, &["leads to the hub itself"]);
    }
    5
}

/// Everything could be written, and then something fails.
fn failures_in_the_middle(scene: &Scene<'_>) -> usize {
    let altered = scene.altered_kubeconfig();
    scene.alter(Alteration {
        refuses_writes: true,
        ..Alteration::default()
    });
    scene.refused(&altered, &[], &["writes are not wanted here", "--no-admin-binding"]);

    // The checks ask for the version twice; the hub gets another answer.
    scene.alter(Alteration {
        version: Some((2, "v1.23.17".to_owned())),
        ..Alteration::default()
    });
    scene.refused(
        &altered,
        &[],
        &["the hub cannot use cluster guest", "v1.23.17", "1.24 or newer"],
    );
    let unusable = Alteration {
        version: Some((2, String::new())),
        ..Alteration::default()
    };
    scene.alter(unusable.clone());
    scene.refused(&altered, &["--timeout", "3s"], &["is not ready after 3 s"]);
    for signal in [Signal::INT, Signal::TERM] {
        scene.alter(unusable.clone());
        let mut joining = Process::start(scene.command(&altered, &[]), Some(""));
        says(&joining, "copying guest");
        joining.signal(signal);
        let status = joining.wait(wait::DEADLINE);
        assert!(
            !status.success() && joining.stderr().contains("interrupted"),
            "{}",
            joining.output()
        );
        scene.nothing_is_left("interrupted");
    }
    scene.alter(Alteration::default());
    scene.join(&altered, &[]).expect_success();
    scene.hub.leave(GUEST).expect_success();
    scene.nothing_is_left("joined and left");
    5
}

fn tunnel(scene: &Scene<'_>, flags: &[&str]) -> Outcome {
    let mut command = umbra(scene.world.programs);
    command
        .args(["join", GUEST, "--tunnel", "--hub-kubeconfig"])
        .arg(scene.hub.kubeconfig())
        .args(flags);
    if scene.hub.aggregated().is_some() {
        command.args(["--agent-hub", "https://umbra.example.com"]);
    }
    Outcome::of(command, "")
}

fn tunnel_checks(scene: &mut Scene<'_>) -> usize {
    let missing = scene.hub.umbra(&[
        "join",
        GUEST,
        "--tunnel",
        "--agent-hub-ca-file",
        "/nonexistent",
        "--agent-hub",
        "https://umbra.example.com",
        "--hub-kubeconfig",
        &scene.hub.kubeconfig().to_string_lossy(),
    ]);
    scene.was_refused(missing, &["cannot read /nonexistent"]);
    let mut stranger = umbra(scene.world.programs);
    stranger
        .args([
            "join",
            GUEST,
            "--tunnel",
            "--no-admin-binding",
            "--agent-hub",
            "https://umbra.example.com",
        ])
        .arg("--agent-hub-ca-file")
        .arg(scene.hub.folder().join("ca.crt"))
        .arg("--hub-kubeconfig")
        .arg(scene.hub_kubeconfig_of("join-looks"));
    scene.was_refused(
        Outcome::of(stranger, ""),
        &["you may not register clusters", "umbra-administrator"],
    );
    // What cannot be printed is of no use to anybody.
    let mut full = umbra(scene.world.programs);
    full.args([
        "join",
        GUEST,
        "--tunnel",
        "--agent-hub",
        "https://umbra.example.com",
        "--hub-kubeconfig",
    ])
    .arg(scene.hub.kubeconfig());
    let mut shell = std::process::Command::new("sh");
    shell
        .arg("-c")
        .arg("exec \"$@\" > /dev/full")
        .arg("sh")
        .arg(full.get_program())
        .args(full.get_args());
    for (name, value) in full.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    scene.was_refused(Outcome::of(shell, ""), &["cannot be printed"]);

    // Registered again: labels and who approves stay, unless they are given.
    tunnel(scene, &["--manual-approval", "--label", "region=eu"]).expect_success();
    tunnel(scene, &["--token-only"]).expect_success();
    let root = scene.hub.root();
    let kept = root.path(
        "managedcluster guest",
        "{.metadata.labels.region} {.spec.connection.tunnel.approval}",
    );
    assert_eq!(kept, "eu Manual");
    let left = scene.hub.leave(GUEST).expect_success();
    assert!(
        left.contains("clusterrole,clusterrolebinding umbra:agent:read"),
        "{left}"
    );
    root.ok("delete clusterrolebinding join-looks join-registers");
    root.ok("delete clusterrole join-looks join-registers");
    scene.nothing_is_left("a cluster that never came");
    4
}
