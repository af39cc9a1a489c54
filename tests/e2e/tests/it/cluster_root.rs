//! The cluster root: kubectl's whole repertoire against one child through the hub, as the calling user.

use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::streams::{self, Protocol};
use crate::{deploy, pod_of, sorted_lines};

/// A Deployment whose pods say something every now and then.
const TALKER: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: talker}
spec:
  selector: {matchLabels: {app: talker}}
  template:
    metadata: {labels: {app: talker}}
    spec:
      containers:
      - {name: main, image: busybox, command: [sh, -c, "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done"]}
"#;

/// A pod whose process copies its input to its output.
const ECHO: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec: {containers: [{name: main, image: busybox, stdin: true}]}
";

#[test]
fn the_whole_repertoire_works_through_the_hub() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("cluster");
    let direct = world.children[0].kubectl().namespace("repertoire");
    direct.ok("create namespace repertoire");
    let kubectl = world.hub.child("north").namespace("repertoire");

    read(&kubectl, &direct, world.hub.administrator());
    write(&kubectl, &direct);
    connect(&kubectl);
    kubectl.ok("delete deployment web --timeout=60s");
    assert!(direct.fails("get deployment web").contains("NotFound"));
    item.pass("23 commands, WebSocket and SPDY");
}

pub(crate) fn read(kubectl: &Kubectl, direct: &Kubectl, administrator: &str) {
    let names = |kubectl: &Kubectl| sorted_lines(&kubectl.ok("get clusterroles -o name"));
    assert_eq!(names(kubectl), names(direct));
    let resources = |kubectl: &Kubectl| sorted_lines(&kubectl.ok("api-resources --no-headers"));
    assert_eq!(resources(kubectl), resources(direct));
    assert_eq!(kubectl.ok("api-versions"), direct.ok("api-versions"));
    assert_eq!(
        kubectl.ok("explain pod.spec.containers"),
        direct.ok("explain pod.spec.containers")
    );
    let version = kubectl.ok("version");
    assert!(version.contains("Server Version: v1.36"), "{version}");
    // The caller is known by name in the child, and by no group that would be above its RBAC.
    let me = kubectl.ok("auth whoami -o json");
    assert!(me.contains(administrator) && !me.contains("system:masters"), "{me}");
    assert_eq!(kubectl.ok("auth can-i create deployments").trim(), "yes");
}

pub(crate) fn write(kubectl: &Kubectl, direct: &Kubectl) {
    deploy(kubectl, "web", 2);
    assert_eq!(direct.path("deploy web", "{.spec.replicas}"), "2");
    kubectl.ok("scale deploy/web --replicas=1");
    kubectl.ok("set image deploy/web main=nginx:2");
    assert!(
        kubectl
            .ok("rollout status deploy/web --timeout=90s")
            .contains("successfully")
    );
    assert!(kubectl.ok("rollout history deploy/web").contains('2'));
    kubectl.ok("rollout undo deploy/web");
    assert_eq!(
        direct.path("deploy web", "{.spec.template.spec.containers[0].image}"),
        "nginx"
    );
    kubectl.ok("rollout status deploy/web --timeout=90s");
    kubectl.ok("label deploy web tier=front");
    kubectl.ok(["patch", "deploy", "web", "-p", r#"{"spec":{"minReadySeconds":1}}"#]);
    kubectl
        .variable(
            "KUBE_EDITOR",
            "sed -i s/revisionHistoryLimit:.*/revisionHistoryLimit:\\ 4/",
        )
        .ok("edit deploy web");
    assert_eq!(
        direct.path("deploy web", "{.spec.revisionHistoryLimit} {.spec.minReadySeconds}"),
        "4 1"
    );
    kubectl.ok("expose deploy/web --port=80");
    kubectl.ok("create token default --duration=10m");
    let diff = kubectl.run_with(&crate::deployment("web", 3), "diff -f -");
    assert!(diff.code == Some(1) && diff.stdout.contains("replicas: 3"), "{diff}");
    kubectl.ok("wait deploy/web --for=condition=Available --timeout=60s");
}

pub(crate) fn connect(kubectl: &Kubectl) {
    kubectl.apply(TALKER);
    kubectl.ok("rollout status deploy/talker --timeout=90s");
    let talker = pod_of(kubectl, "talker");
    streams::logs(kubectl, &talker);
    // A container without a command idles and copies its input to its output.
    kubectl.apply(ECHO);
    kubectl.ok("wait pod/echo --for=condition=Ready --timeout=90s");
    for protocol in Protocol::ALL {
        let kubectl = protocol.of(kubectl);
        streams::exec(&kubectl, &talker);
        streams::terminal(&kubectl, &talker);
        streams::copy(&kubectl, &talker);
        streams::forward(&kubectl, "deploy/web");
        let mut attached = kubectl.start("attach --quiet -i echo");
        attached.write(&format!("over {protocol:?}\n"));
        attached.wait_for("the echo", |text| text.contains(&format!("over {protocol:?}")));
    }
}
