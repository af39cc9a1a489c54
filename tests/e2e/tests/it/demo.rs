//! `umbra up`, with and without `--demo`: what a newcomer runs first.

use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::{Hub, umbra};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_show::Item;

use crate::errors::says;
use crate::fleet::{examples, wait_for_path};
use crate::sorted_lines;

/// The simulated children.
const CHILDREN: [&str; 3] = ["east", "west", "edge"];

#[test]
fn the_demo_comes_up_and_everything_it_suggests_works() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let (up, list, watch, select) = (
        Item::open("demo.up"),
        Item::open("demo.list"),
        Item::open("demo.watch"),
        Item::open("demo.select"),
    );
    let (places, returns) = (Item::open("demo.fleet"), Item::open("demo.return"));
    let start = std::time::Instant::now();
    let hub = Hub::start(programs, &["--demo"]);
    for child in CHILDREN {
        hub.wait_for_child(child);
    }
    let took = start.elapsed();
    let suggested = || {
        hub.output()
            .lines()
            .filter(|line| line.contains("kubectl --context umbra"))
            .count()
    };
    wait::until("five lines worth trying", wait::DEADLINE, || {
        if suggested() == 5 { Ok(()) } else { Err(hub.output()) }
    });
    up.pass(&format!("3 children ready, 5 lines, {:.1} s", took.as_secs_f64()));

    let view = hub.view();
    let (pods, _) = wait::for_text(
        "pods of all three",
        || view.ok("get pods -A"),
        |pods| CHILDREN.iter().all(|child| pods.contains(&format!("@{child}"))) && pods.contains("Running"),
    );
    assert!(
        pods.lines().next().is_some_and(|header| header.contains("CLUSTER")),
        "{pods}"
    );
    list.pass(&format!(
        "{} pods of {} clusters",
        pods.lines().count() - 1,
        CHILDREN.len()
    ));

    watch_a_deletion(&view, watch);

    let west = sorted_lines(&view.ok("get deploy -A -l umbra.dev/cluster=west -o name"));
    assert!(
        !west.is_empty() && west.iter().all(|name| name.ends_with("@west")),
        "{west:?}"
    );
    select.pass(&format!("{} Deployments, all @west", west.len()));

    let fleet = hub.fleet();
    fleet.ok(["apply", "-f", &examples()]);
    let replicas = |child: &str, count: &str| {
        let kubectl = hub.child(child).namespace("default");
        wait_for_path(&kubectl, "deploy web", "{.status.readyReplicas}", count)
    };
    let took = [("east", "2"), ("west", "4"), ("edge", "2")].map(|(child, count)| replicas(child, count));
    for child in CHILDREN {
        let path = "{.spec.template.spec.containers[0].env[?(@.name==\"CLUSTER\")].value}";
        wait_for_path(&hub.child(child).namespace("default"), "deploy web", path, child);
    }
    let slowest = took.iter().max().copied().unwrap_or_default();
    places.pass(&format!("2, 4 and 2 replicas, {:.1} s", slowest.as_secs_f64()));
    fleet.ok(["delete", "-f", &format!("{}/override.yaml", examples())]);
    let took = replicas("west", "2");
    returns.pass(&format!("west back to 2 after {:.1} s", took.as_secs_f64()));

    // A second start finds everything again.
    let deployments = || sorted_lines(&hub.view().ok("get deploy -A -o name"));
    let before = deployments();
    let again = Item::open("up.again");
    let (status, process) = hub.stop();
    assert!(status.success(), "SIGTERM: {status}\n{}", process.output());
    hub.start_again();
    for child in CHILDREN {
        hub.wait_for_child(child);
    }
    wait::until("the same Deployments", wait::DEADLINE, || {
        let after = sorted_lines(&hub.view().ok("get deploy -A -o name"));
        if after == before { Ok(()) } else { Err(after.join("\n")) }
    });
    again.pass(&format!("{} Deployments before and after", before.len()));
}

fn watch_a_deletion(view: &Kubectl, item: Item) {
    let (found, _) = wait::for_text(
        "a pod of east",
        || {
            let columns = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
            view.ok(["get", "pods", "-A", "-l", "umbra.dev/cluster=east", "-o", columns])
        },
        |text| !text.is_empty(),
    );
    let (namespace, pod) = found
        .lines()
        .next()
        .and_then(|line| line.split_once(' '))
        .expect("a pod with a namespace");
    let mut watch = view.start("get pods -A -w --output-watch-events");
    watch.wait_for("the pod is listed", |text| text.contains(pod));
    let start = std::time::Instant::now();
    assert!(view.ok(["delete", "pod", pod, "-n", namespace]).contains("deleted"));
    watch.wait_for("DELETED", |text| {
        text.lines()
            .any(|line| line.starts_with("DELETED") && line.contains(pod))
    });
    item.pass(&format!("DELETED after {:.1} s", start.elapsed().as_secs_f64()));
    watch.stop();
}

#[test]
fn a_hub_writes_contexts_stops_on_ctrl_c_and_finds_its_data_again() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let item = Item::open("up.merge");
    let own = environment::folder("own").join("config");
    let theirs = r#"{"apiVersion":"v1","kind":"Config","current-context":"mine","clusters":[{"name":"mine","cluster":{"server":"https://127.0.0.1:1"}}],"users":[{"name":"mine","user":{"token":"t"}}],"contexts":[{"name":"mine","context":{"cluster":"mine","user":"mine"}}]}"#;
    std::fs::write(&own, theirs).unwrap();
    let path = own.to_string_lossy().into_owned();
    let hub = Hub::start_with(programs, &["--merge-kubeconfig"], &[("KUBECONFIG", &path)]);
    let mine = Kubectl::new(programs, &own);
    let contexts = || sorted_lines(&mine.ok("config get-contexts -o name"));
    wait::until("the contexts are merged", wait::DEADLINE, || {
        let contexts = contexts();
        if contexts == ["mine", "umbra", "umbra-fleet", "umbra-view"] {
            Ok(())
        } else {
            Err(contexts.join("\n"))
        }
    });
    assert_eq!(
        mine.ok("config current-context").trim(),
        "mine",
        "the current context stays"
    );
    assert!(mine.context("umbra").ok("get managedclusters").is_empty());
    let kubectl = hub.root();
    kubectl.ok("create namespace kept");

    let mut process = hub.interrupt();
    let status = process.wait(wait::DEADLINE);
    assert!(status.success(), "Ctrl-C: {status}\n{}", process.output());
    hub.start_again();
    assert_eq!(hub.root().path("namespace kept", "{.status.phase}"), "Active");
    // The credentials that were written at the first start are still good.
    assert!(
        mine.context("umbra")
            .ok("get namespaces -o name")
            .contains("namespace/kept")
    );
    assert_eq!(contexts(), ["mine", "umbra", "umbra-fleet", "umbra-view"]);
    item.pass("3 contexts beside the user's own, data found again");
}

#[test]
fn a_port_and_a_data_directory_that_are_in_use_are_named() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let item = Item::open("errors.port");
    let hub = Hub::start(programs, &[]);
    let up = |folder: &std::path::Path, port: u16| {
        let mut command = umbra(programs);
        command
            .arg("up")
            .arg("--data-dir")
            .arg(folder)
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"));
        Outcome::of(command, "").expect_failure()
    };
    let port = hub.port();
    says(
        &up(&environment::folder("second"), port),
        &[&port.to_string(), "in use", "choose another address"],
    );
    says(
        &up(hub.folder(), environment::free_port()),
        &["choose another data directory"],
    );
    item.pass("names the port and what to do");
}
