//! The cluster root: kubectl's whole repertoire against one child through the hub, as the calling user.

use std::io::{Read as _, Write as _};

use umbra_e2e::environment;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

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

    read(&kubectl, &direct);
    write(&kubectl, &direct);
    connect(&kubectl);
    kubectl.ok("delete deployment web --timeout=60s");
    assert!(direct.fails("get deployment web").contains("NotFound"));
    item.pass("23 commands, WebSocket and SPDY");
}

fn read(kubectl: &Kubectl, direct: &Kubectl) {
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
    assert!(me.contains("umbra-admin") && !me.contains("system:masters"), "{me}");
    assert_eq!(kubectl.ok("auth can-i create deployments").trim(), "yes");
}

fn write(kubectl: &Kubectl, direct: &Kubectl) {
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

fn connect(kubectl: &Kubectl) {
    kubectl.apply(TALKER);
    kubectl.ok("rollout status deploy/talker --timeout=90s");
    let talker = pod_of(kubectl, "talker");

    let mut logs = kubectl.start(["logs", "-f", &talker]);
    let seen = logs.wait_for("the third line", |text| text.contains("tick 3\n"));
    assert!(seen.starts_with("tick 1\n"), "{seen}");
    logs.stop();

    // A container without a command idles and copies its input to its output.
    kubectl.apply(ECHO);
    kubectl.ok("wait pod/echo --for=condition=Ready --timeout=90s");
    let protocols = [("WebSocket", "true"), ("SPDY", "false")];
    for (protocol, websockets) in protocols {
        let kubectl = kubectl
            .variable("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
            .variable("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        assert_eq!(
            kubectl.ok(["exec", &talker, "--", "echo", "hello"]),
            "hello\n",
            "{protocol}"
        );
        assert_eq!(
            kubectl.ok_with("through", ["exec", "-i", &talker, "--", "cat"]),
            "through",
            "{protocol}"
        );
        let code = kubectl.run(["exec", &talker, "--", "sh", "-c", "echo no >&2; exit 7"]);
        assert!(
            code.code == Some(7) && code.stderr.contains("no\n"),
            "{protocol}: {code}"
        );
        copy(&kubectl, &talker);
        forward(&kubectl, protocol);
        let mut attached = kubectl.start("attach --quiet -i echo");
        attached.write(&format!("over {protocol}\n"));
        attached.wait_for("the echo", |text| text.contains(&format!("over {protocol}")));
    }
}

/// There and back: the pod's processes see the files of this machine.
fn copy(kubectl: &Kubectl, pod: &str) {
    let folder = environment::folder("copy");
    let [from, inside, back] = ["from", "inside", "back"].map(|name| folder.join(name).to_string_lossy().into_owned());
    let content: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&from, &content).expect("the folder is there");
    kubectl.ok(["cp", &from, &format!("{pod}:{inside}")]);
    kubectl.ok(["cp", &format!("{pod}:{inside}"), &back]);
    assert!(
        std::fs::read_to_string(&back).expect("kubectl cp has written it") == content,
        "the copy differs"
    );
}

fn forward(kubectl: &Kubectl, protocol: &str) {
    let mut forward = kubectl.start("port-forward deploy/web :80");
    let line = forward.wait_for("the port", |text| text.contains("Forwarding from 127.0.0.1:"));
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in {line}"));
    let answer = wait::until(&format!("{protocol}: an answer"), wait::DEADLINE, || {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        let request = b"GET /here HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
        socket.write_all(request).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.is_empty() {
            Err(forward.output())
        } else {
            Ok(answer)
        }
    });
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("/here"),
        "{protocol}: {answer}"
    );
    forward.stop();
}
