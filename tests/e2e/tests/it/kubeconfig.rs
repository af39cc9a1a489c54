//! `umbra kubeconfig`: contexts that lead to roots, in the user's own kubeconfig, with the user's own credentials.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::{Hub, umbra};
use umbra_e2e::identity;
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::namespace_everywhere;

/// `umbra kubeconfig` with these files as `$KUBECONFIG`.
#[track_caller]
fn run(programs: &Programs, files: &OsStr, arguments: &str) -> Outcome {
    let mut command = umbra(programs);
    command
        .env("KUBECONFIG", files)
        .arg("kubeconfig")
        .args(arguments.split_whitespace());
    Outcome::of(command, "")
}

/// A kubeconfig as kubectl reads it.
#[track_caller]
fn content(kubectl: &Kubectl) -> Value {
    serde_json::from_str(&kubectl.ok("config view --raw -o json")).expect("JSON")
}

/// Every entry of `before` is in `after`, unchanged.
#[track_caller]
fn assert_kept(before: &Value, after: &Value) {
    for list in ["clusters", "users", "contexts"] {
        for entry in before[list].as_array().into_iter().flatten() {
            assert!(
                after[list].as_array().expect("a list").contains(entry),
                "{entry} is not in {after}"
            );
        }
    }
    assert_eq!(before["extensions"], after["extensions"]);
}

/// Runs the commands that an error advises.
#[track_caller]
fn follow_advice(administrator: &Kubectl, error: &str) {
    let commands: Vec<&str> = error
        .lines()
        .filter_map(|line| line.trim().strip_prefix("kubectl "))
        .collect();
    assert_eq!(commands.len(), 2, "{error}");
    for command in commands {
        administrator.ok(command);
    }
}

/// A person's files: in one the context, in another, beside its certificates, cluster and user. Names are such that YAML has to
/// quote them.
fn files(hub: &Aggregated, folder: &Path, user: &str) -> std::ffi::OsString {
    let authority = identity::authority(hub.cluster.folder());
    let issued = identity::certificate(&authority, user, &[]);
    std::fs::create_dir_all(folder.join("second/pki")).expect("a folder");
    for (file, pem) in [
        ("ca.crt", authority.certificate_pem()),
        ("me.crt", &issued.certificate_pem),
        ("me.key", &issued.key_pem),
    ] {
        std::fs::write(folder.join("second/pki").join(file), pem).expect("written");
    }
    let first = json!({"apiVersion": "v1", "kind": "Config", "current-context": "007", "extensions":
        [{"name": "mine", "extension": {"kind": "Odd", "apiVersion": "v1", "on": "yes", "number": "1e3"}}],
        "contexts": [{"name": "007", "context": {"cluster": "no", "user": "~", "namespace": "default"}}]});
    let second = json!({"clusters": [{"name": "no", "cluster":
            {"server": hub.cluster.server(), "certificate-authority": "pki/ca.crt"}}],
        "users": [{"name": "~", "user": {"client-certificate": "pki/me.crt", "client-key": "./pki/me.key"}}]});
    let (first_file, second_file) = (folder.join("first"), folder.join("second/config"));
    std::fs::write(&first_file, first.to_string()).expect("written");
    std::fs::write(&second_file, second.to_string()).expect("written");
    std::env::join_paths([first_file, folder.join("missing"), second_file]).expect("a list")
}

#[test]
fn a_user_of_the_hub_gets_contexts_with_the_credentials_that_are_there() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.kubeconfig");
    let programs = environment::programs().expect("the world has them");
    let namespace = "kubeconfig";
    namespace_everywhere(&world, namespace);
    for child in &world.children {
        child
            .kubectl()
            .ok("create rolebinding kim --clusterrole=view --user=kim -n kubeconfig");
    }
    let administrator = hub.cluster.kubectl();
    let folder = environment::folder("kubeconfig-of-kim");
    let files = files(&hub, &folder, "kim");
    let kim = Kubectl::new(programs, &folder.join("first"));

    // Nobody gets a context that is of no use, and everybody hears what would make it so.
    let nothing = run(programs, &files, "--all").expect_failure();
    assert!(nothing.contains("may not enter any"), "{nothing}");
    let refused = run(programs, &files, "--view all --merge").expect_failure();
    assert!(refused.contains("kim may not enter the view all"), "{refused}");
    follow_advice(administrator, &refused);
    let before = content(&kim);
    wait::until("kim may enter", wait::DEADLINE, || {
        let outcome = run(
            programs,
            &files,
            "--view all --merge --set-current --namespace kubeconfig",
        );
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    let first = folder.join("first");
    assert_eq!(
        std::fs::metadata(&first).expect("there").permissions().mode() & 0o777,
        0o600
    );
    assert_kept(&before, &content(&kim));

    // kubectl reads all three files as one, and the certificates are still found.
    let path = folder.join("all-in-one");
    let (table, _) = wait::for_text(
        "the ConfigMaps of both children",
        || run_kubectl(programs, &files, "get configmaps").to_string(),
        |table| table.contains("kube-root-ca.crt@north") && table.contains("kube-root-ca.crt@south"),
    );
    assert!(table.contains("CLUSTER"), "{table}");

    // Again is the same, byte for byte; what somebody else locks is left alone.
    let bytes = std::fs::read(&first).expect("read");
    run(programs, &files, "--view all --merge").expect_success();
    assert_eq!(std::fs::read(&first).expect("read"), bytes);
    std::fs::write(folder.join("first.lock"), "").expect("written");
    let locked = run(programs, &files, "--view all --merge").expect_failure();
    assert!(locked.contains("first.lock"), "{locked}");
    std::fs::remove_file(folder.join("first.lock")).expect("removed");
    let taken = run(programs, &files, "--view all --merge --name 007 --context 007").expect_failure();
    assert!(taken.contains("--name"), "{taken}");

    // A file of its own, with paths that hold; found without being named, by what the permissions name.
    let output = format!("--all --context 007 --output {}", path.display());
    let said = run(programs, &files, &output);
    assert!(said.stderr.contains("you may not list fleets.umbra.dev"), "{said}");
    assert!(said.clone().expect_success().contains("007-view-all"), "{said}");
    let own = Kubectl::new(programs, &path).namespace(namespace);
    assert!(own.ok("get configmaps").contains("@south"));
    let again = run(programs, &files, &output).expect_failure();
    assert!(again.contains("not overwritten"), "{again}");
    item.pass(&format!(
        "2 files merged, certificates by path; {} ways with tokens, programs and standalone",
        other_credentials(&hub, programs) + standalone(programs)
    ));
}

/// kubectl with `$KUBECONFIG` alone.
#[track_caller]
fn run_kubectl(programs: &Programs, files: &OsStr, arguments: &str) -> Outcome {
    let mut command = std::process::Command::new(&programs.kubectl);
    command
        .env("HOME", environment::home())
        .env("KUBECONFIG", files)
        .args(arguments.split_whitespace());
    Outcome::of(command, "")
}

/// The administrator with a token that a program prints: printed, all roots at once, and children, each of which is entered.
#[track_caller]
fn other_credentials(hub: &Aggregated, programs: &Programs) -> usize {
    let kubectl = hub.cluster.kubectl();
    kubectl.ok("create serviceaccount kubeconfig -n kube-system");
    kubectl.ok("create clusterrolebinding kubeconfig --clusterrole=umbra-administrator --serviceaccount=kube-system:kubeconfig");
    wait::until("the service account may list views", wait::DEADLINE, || {
        let outcome = kubectl.run("auth can-i list views.umbra.dev --as=system:serviceaccount:kube-system:kubeconfig");
        outcome.succeeded().then_some(()).ok_or_else(|| outcome.to_string())
    });
    let token = kubectl.ok("create token kubeconfig -n kube-system");
    let printed = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token.trim()}});
    let authority = identity::authority(hub.cluster.folder());
    let config = json!({"current-context": "hub", "clusters": [{"name": "hub", "cluster": {
            "server": format!("{}/apis/umbra.dev/v1alpha1/views/all/proxy", hub.cluster.server()),
            "certificate-authority-data": BASE64.encode(authority.certificate_pem())}}],
        "users": [{"name": "robot", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo",
            "args": [printed.to_string()], "interactiveMode": "Never"}}}],
        "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "robot"}}]});
    let folder = environment::folder("kubeconfig-exec");
    let file = folder.join("config");
    std::fs::write(&file, config.to_string()).expect("written");

    let missing = run(programs, file.as_os_str(), "--view nonesuch").expect_failure();
    assert!(
        missing.contains("there is no view nonesuch on the hub; it has all"),
        "{missing}"
    );
    let offline = run(programs, file.as_os_str(), "--view nonesuch --no-check").expect_success();
    assert!(
        offline.contains("views/nonesuch/proxy") && !offline.contains("views/all"),
        "{offline}"
    );

    let printed = run(programs, file.as_os_str(), "--all").expect_success();
    let all = folder.join("all");
    std::fs::write(&all, printed).expect("written");
    let robot = Kubectl::new(programs, &all);
    let contexts = robot.ok("config get-contexts -o name");
    for expected in [
        "hub-view-all",
        "hub-fleet-all",
        "hub-cluster-north",
        "hub-cluster-south",
    ] {
        assert!(
            contexts.lines().any(|context| context == expected),
            "{expected}: {contexts}"
        );
    }
    for child in ["north", "south"] {
        let me = robot
            .context(&format!("hub-cluster-{child}"))
            .ok("auth whoami -o jsonpath={.status.userInfo.username}");
        assert_eq!(me, "hub:system:serviceaccount:kube-system:kubeconfig");
    }
    robot.context("hub-fleet-all").ok("get placements -A");
    contexts.lines().count()
}

/// The kubeconfig of `umbra up`, from the context of a view.
#[track_caller]
fn standalone(programs: &Programs) -> usize {
    let hub = Hub::start(programs, &[]);
    let file = hub.folder().join("kubeconfig");
    let before = content(&Kubectl::new(programs, &file));
    let arguments = "--view all --fleet all --context umbra-view --merge --name mine --set-current";
    run(programs, file.as_os_str(), arguments).expect_success();
    let kubectl = Kubectl::new(programs, &file);
    assert_kept(&before, &content(&kubectl));
    assert_eq!(kubectl.ok("config current-context").trim(), "mine-view-all");
    // Without children the view has no resources.
    kubectl.ok("get --raw /apis");
    kubectl.context("mine-fleet-all").ok("get placements -A");
    let missing = run(programs, file.as_os_str(), "--cluster east --context umbra").expect_failure();
    assert!(
        missing.contains("there is no cluster east on the hub; there is none at all"),
        "{missing}"
    );
    2
}
