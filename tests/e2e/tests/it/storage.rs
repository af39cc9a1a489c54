//! What a hub on the embedded store does when its data is lost, and when its disk is full.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::Hub;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_show::Item;

/// How many config maps there are at the backup.
const OBJECTS: usize = 30;
/// Room for the hub, a probe of the store, and what the test writes.
const DISK: &str = "size=48m";

/// What is left of it at first: several writes.
const ROOM: u64 = 4 << 20;

fn config_map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{of: storage}}}}\ndata: {{value: '{value}'}}\n"
    )
}

/// What a list says, and the revision that an informer would watch from.
fn listed(root: &Kubectl) -> (Vec<String>, u64) {
    let list = root.ok("get --raw /api/v1/namespaces/default/configmaps?labelSelector=of%3Dstorage");
    let list: serde_json::Value = serde_json::from_str(&list).expect("a list is JSON");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let value = |item: &serde_json::Value| format!("{}={}", item["metadata"]["name"], item["data"]["value"]);
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok());
    (
        items.iter().map(value).collect(),
        revision.expect("a list has a revision"),
    )
}

#[test]
fn a_backup_of_a_running_hub_brings_everything_back() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let item = Item::open("storage.backup.hub");
    let hub = Hub::start(programs, &[]);
    let root = hub.root();
    let manifest: String = (0..OBJECTS)
        .map(|number| config_map(&format!("item-{number:02}"), "kept"))
        .collect();
    root.apply(&manifest);
    root.ok("create secret generic storage --from-literal=password=hunter2");
    let (before, _) = listed(&root);
    assert_eq!(before.len(), OBJECTS);

    let file = environment::folder("backup").with_extension("file");
    let backup = text(&file);
    let folder = text(hub.folder());
    let said = hub
        .umbra(&["backup", "--data-dir", &folder, "--output", &backup])
        .expect_success();
    assert!(said.is_empty(), "standard output is for results: {said}");

    // What happens afterwards is lost.
    root.ok("delete configmaps -l of=storage");
    root.ok("delete secret storage");
    root.apply(&config_map("later", "lost"));
    let (_, lost) = listed(&root);
    let refused = hub
        .umbra(&["restore", &backup, "--data-dir", &folder, "--force"])
        .expect_failure();
    assert!(refused.contains("another umbra process is using"), "{refused}");
    hub.stop();
    let refused = hub.umbra(&["restore", &backup, "--data-dir", &folder]).expect_failure();
    assert!(refused.contains("--force"), "{refused}");
    hub.umbra(&["restore", &backup, "--data-dir", &folder, "--force"])
        .expect_success();
    hub.start_again();

    let root = hub.root();
    let (after, revision) = listed(&root);
    assert_eq!(after, before);
    assert!(revision > lost, "revision {revision} does not follow {lost}");
    let password = root.path("secret storage", "{.data.password}");
    assert_eq!(password, "aHVudGVyMg==", "the keys of encryption came back too");
    // An informer of the lost time is told to list anew.
    let watch = root.run([
        "get",
        "--raw",
        &format!("/api/v1/configmaps?watch=1&timeoutSeconds=5&resourceVersion={lost}"),
    ]);
    let answer = format!("{}{}", watch.stdout, watch.stderr);
    assert!(answer.contains("Expired") || answer.contains("too old"), "{answer}");
    root.apply(&config_map("later", "again"));

    // And of a hub that does not run.
    hub.stop();
    let second = format!("{backup}-2");
    hub.umbra(&["backup", "--data-dir", &folder, "--output", &second])
        .expect_success();
    let elsewhere = text(&environment::folder("restored").join("data"));
    hub.umbra(&["restore", &second, "--data-dir", &elsewhere])
        .expect_success();
    for leftover in [&backup, &second] {
        std::fs::remove_file(leftover).expect("the backup is there");
    }
    item.pass(&format!(
        "{OBJECTS} objects and a Secret back, revision {revision} after {lost}, the lost one expired"
    ));
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}

/// A hub whose data directory is a file system of its own, mounted where only the hub sees it.
struct SmallHub {
    process: Process,
    /// The data directory as this process reaches it.
    folder: PathBuf,
    root: Kubectl,
}

impl SmallHub {
    /// `None` where nothing may be mounted.
    fn start(programs: &Programs) -> Option<Self> {
        let folder = environment::folder("small");
        let script = format!("mount -t tmpfs -o {DISK} small \"$0\" || exit 77; exec \"$@\"");
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(&folder)
            .arg(&programs.umbra)
            .arg("up")
            .arg("--data-dir")
            .arg(&folder)
            .args(["--listen", &format!("127.0.0.1:{}", environment::free_port())])
            .env("HOME", environment::home())
            .env_remove("KUBECONFIG");
        let mut process = Process::start_logged(command, &folder.with_extension("log"));
        let inside = PathBuf::from(format!("/proc/{}/root", process.id())).join(folder.strip_prefix("/").ok()?);
        let kubeconfig = folder.with_extension("kubeconfig");
        let root = Kubectl::new(programs, &kubeconfig).context("umbra");
        let ready = wait::until("the hub is ready", wait::DEADLINE, || {
            if process.ended().is_some() {
                return Ok(false);
            }
            std::fs::copy(inside.join("kubeconfig"), &kubeconfig).map_err(|error| error.to_string())?;
            let outcome = root.run("get --raw /readyz");
            if outcome.succeeded() {
                Ok(true)
            } else {
                Err(outcome.to_string())
            }
        });
        if !ready {
            let said = process.output();
            assert!(
                said.contains("unshare") || said.contains("mount"),
                "the hub has ended: {said}"
            );
            return None;
        }
        Some(Self {
            process,
            folder: inside,
            root,
        })
    }
}

#[test]
fn a_hub_on_a_full_disk_says_so_and_recovers() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let item = Item::open("storage.disk-full.hub");
    let Some(mut hub) = SmallHub::start(programs) else {
        eprintln!("SKIPPED a_hub_on_a_full_disk_says_so_and_recovers: nothing may be mounted here");
        return;
    };
    let root = hub.root.clone();
    let ballast = hub.folder.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("there is room at first");
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    // Room for some writes, but not for the probe that the store makes before it takes writes again.
    let length = file.metadata().expect("the ballast is there").len();
    file.set_len(length - ROOM).expect("a file can be cut");
    drop(file);

    let mut acknowledged = Vec::new();
    let refusal = loop {
        let name = format!("full-{:03}", acknowledged.len());
        let outcome = root.run_with(&config_map(&name, &"x".repeat(200_000)), "create -f -");
        if !outcome.succeeded() {
            break outcome.stderr;
        }
        acknowledged.push(name);
        assert!(acknowledged.len() < 400, "the disk has an end");
    };
    assert!(refusal.contains("No space left on device"), "{refusal}");
    assert!(refusal.contains("free space there"), "{refusal}");
    let (reason, _) = wait::for_text(
        "the hub is not ready",
        || root.run("get --raw /readyz/store").to_string(),
        |text| text.contains("No space left on device"),
    );
    assert!(reason.contains("store.redb"), "{reason}");
    assert!(!root.run("get --raw /readyz").succeeded());
    // What is there can be read.
    for name in &acknowledged {
        root.ok(["get", "configmap", name]);
    }

    std::fs::remove_file(&ballast).expect("the ballast is there");
    wait::until("the hub is ready again", wait::DEADLINE, || {
        let outcome = root.run("get --raw /readyz");
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    root.apply(&config_map("after", "1"));
    let (present, _) = listed(&root);
    for name in &acknowledged {
        assert!(
            present.iter().any(|object| object.contains(name.as_str())),
            "{name} is lost"
        );
    }
    assert!(hub.process.stop().success());
    item.pass(&format!(
        "refused with the reason after {} acknowledged writes, all there; ready again by itself",
        acknowledged.len()
    ));
}
