//! What a child sees of a request that comes through the hub, what the hub lets through, and what it writes down of it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::Hub;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

const NAMESPACE: &str = "proxying";

/// A pod whose process copies its input to its output.
const ECHO: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec: {containers: [{name: main, image: busybox, stdin: true}]}
";

/// Lets a user into the roots of clusters, and no further.
const ENTRY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: proxying}
rules:
- {apiGroups: [umbra.dev], resources: [managedclusters/proxy], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: proxying}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: proxying}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "jörg@пример"}
"#;

const REVIEW: &str = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;

#[test]
fn requests_to_a_child_are_judged_told_and_written_down() {
    let Some(world) = World::shared() else { return };
    let (audit, identity, read_only) = (
        Item::open("children.audit"),
        Item::open("children.identity"),
        Item::open("children.readonly"),
    );
    let spare = World::spare();
    let log = environment::folder("audit").join("logs/audit.log");
    let hub = Hub::start(world.programs, &["--audit-log-path", &log.to_string_lossy()]);
    hub.join("proxied", &spare.name, &spare.kubeconfig()).expect_success();
    hub.wait_for_child("proxied");
    let direct = spare.kubectl();
    direct.ok(["create", "namespace", NAMESPACE]);
    let kubectl = hub.child("proxied").namespace(NAMESPACE);

    requests(&kubectl);
    who_it_is(&hub, &kubectl);
    identity
        .pass("plain and with prefixes: a name that is not ASCII, 300 groups, UID, extras; system groups held back");
    only_reads(&hub, &kubectl);
    read_only.pass("3 reads and questions pass, 7 writes and connections do not");
    too_large(&hub);

    hub.leave("proxied").expect_success();
    direct.ok(["delete", "namespace", NAMESPACE, "--wait=false"]);
    let (status, _) = hub.stop();
    assert!(status.success(), "{status}");
    let mode = log.metadata().expect("the log is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    let events = written(&std::fs::read_to_string(&log).expect("the log is text"));
    audit.pass(&format!("{} requests", events.len()));
}

fn requests(kubectl: &Kubectl) {
    kubectl.ok("create configmap seen --from-literal=a=b");
    kubectl.ok("get configmap seen -o name");
    kubectl.fails("get configmap absent");
    // Once the namespace has its service account.
    wait::until("a pod", wait::DEADLINE, || {
        let outcome = kubectl.run_with(ECHO, "apply -f -");
        outcome.succeeded().then_some(()).ok_or_else(|| outcome.to_string())
    });
    kubectl.ok("wait pod/echo --for=condition=Ready --timeout=90s");
    assert_eq!(kubectl.ok_with("through", "exec -i echo -- cat"), "through");
    let refused = kubectl.fails("get secrets --as=nobody-proxying");
    assert!(refused.contains("orbidden"), "{refused}");
}

/// The child's word on who somebody is that the administrator acts as.
fn seen_by_the_child(kubectl: &Kubectl) -> Value {
    let mut flags = vec![
        "create".to_owned(),
        "--raw".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters/proxied/proxy/apis/authentication.k8s.io/v1/selfsubjectreviews"
            .to_owned(),
        "-f".to_owned(),
        "-".to_owned(),
        "--as=jörg@пример".to_owned(),
        "--as-uid=42".to_owned(),
        "--as-group=system:masters".to_owned(),
        "--as-group=system:nodes".to_owned(),
        "--as-user-extra=example.com/scope%=a b".to_owned(),
    ];
    flags.extend((0..300).map(|number| format!("--as-group=group-{number:050}")));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let text = kubectl.ok_with(REVIEW, &flags[..]);
    let review: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    review["status"]["userInfo"].clone()
}

fn who_it_is(hub: &Hub, kubectl: &Kubectl) {
    let root = hub.root();
    root.apply(ENTRY);
    for prefix in ["", "corp:"] {
        let change = json!({"spec": {"identity": {"userPrefix": prefix, "groupPrefix": prefix}}}).to_string();
        root.ok(["patch", "managedcluster", "proxied", "--type=merge", "-p", &change]);
        let wanted = format!("{prefix}umbra-admin");
        wait::for_text(
            "the prefix is in force",
            || kubectl.run("auth whoami -o json").to_string(),
            |text| text.contains(&format!("\"{wanted}\"")),
        );
        let user = seen_by_the_child(&root);
        assert_eq!(user["username"], format!("{prefix}jörg@пример"), "{user}");
        assert_eq!(user["uid"], "42");
        assert_eq!(user["extra"], json!({"example.com/scope%": ["a b"]}));
        let groups: Vec<&str> = user["groups"]
            .as_array()
            .map(|groups| groups.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        assert_eq!(groups.len(), 301, "{groups:?}");
        assert!(groups.contains(&"system:authenticated"));
        assert!(groups.contains(&format!("{prefix}group-{:050}", 299).as_str()));
        let system = groups.iter().filter(|group| group.contains("system:")).count();
        assert_eq!(system, 1, "{groups:?}");
    }
    let back = json!({"spec": {"identity": {"userPrefix": "", "groupPrefix": ""}}}).to_string();
    root.ok(["patch", "managedcluster", "proxied", "--type=merge", "-p", &back]);
    wait::for_text(
        "the prefix is gone",
        || kubectl.run("auth whoami -o json").to_string(),
        |text| text.contains("\"umbra-admin\""),
    );
}

fn only_reads(hub: &Hub, kubectl: &Kubectl) {
    let access = |access: &str| {
        let change = json!({"spec": {"access": access}}).to_string();
        hub.root()
            .ok(["patch", "managedcluster", "proxied", "--type=merge", "-p", &change]);
    };
    access("ReadOnly");
    wait::for_text(
        "the cluster is only read",
        || kubectl.run("label configmap seen tried=yes --overwrite").to_string(),
        |text| text.contains("ReadOnly"),
    );
    assert!(kubectl.ok("get configmap seen -o name").contains("seen"));
    assert_eq!(
        kubectl.ok("auth can-i delete pods").trim(),
        "yes",
        "asking changes nothing"
    );
    kubectl.ok("logs echo");
    for refused in [
        "delete configmap seen",
        "create configmap other",
        "annotate configmap seen a=b",
        r#"patch configmap seen --type=merge -p {"data":{"c":"d"}}"#,
        "create token default",
        "exec echo -- true",
        "get --raw /apis/umbra.dev/v1alpha1/managedclusters/proxied/proxy/api/v1/namespaces/proxying/pods/echo/proxy/",
    ] {
        let why = if refused.contains("--raw") {
            hub.root().fails(refused)
        } else {
            kubectl.fails(refused)
        };
        assert!(why.contains("ReadOnly"), "{refused}: {why}");
    }
    access("ReadWrite");
    wait::for_text(
        "the cluster is written to",
        || kubectl.run("label configmap seen tried=yes --overwrite").to_string(),
        |text| text.contains("labeled") || text.contains("not labeled"),
    );
}

fn too_large(hub: &Hub) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"},
        "data": {"a": "x".repeat(4 << 20)}});
    let refused = hub.root().run_with(&object.to_string(), "create -f -");
    let said = refused.to_string();
    assert!(
        !refused.succeeded() && said.contains("Request entity too large"),
        "{said:.500}"
    );
}

/// The events by request; every one has ended exactly once.
fn written(text: &str) -> BTreeMap<String, Vec<Value>> {
    let mut requests: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(
            (&event["kind"], &event["apiVersion"]),
            (&json!("Event"), &json!("audit.k8s.io/v1"))
        );
        requests
            .entry(event["auditID"].as_str().expect("every request has an id").to_owned())
            .or_default()
            .push(event);
    }
    for events in requests.values() {
        let ended = events
            .iter()
            .filter(|event| event["stage"] == "ResponseComplete")
            .count();
        // kubectl names no id of its own, so that each is of one request.
        assert_eq!(ended, 1, "{events:?}");
    }
    let find = |what: &str, holds: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        let found = requests.values().find(|events| {
            events
                .last()
                .is_some_and(|event| event["annotations"]["umbra.dev/cluster"] == "proxied" && holds(event))
        });
        found.unwrap_or_else(|| panic!("{what} is not in the log")).clone()
    };
    let is = |event: &Value, verb: &str, resource: &str, name: &str| {
        let object = &event["objectRef"];
        event["verb"] == verb && object["resource"] == resource && object["name"].as_str().unwrap_or_default() == name
    };
    let read = find("a read", &|event| {
        is(event, "get", "configmaps", "seen") && event["responseStatus"]["code"] == 200
    });
    assert_eq!(read[0]["objectRef"]["namespace"], NAMESPACE);
    assert_eq!(
        (&read[0]["user"]["username"], &read[0]["sourceIPs"]),
        (&json!("umbra-admin"), &json!(["127.0.0.1"]))
    );
    find("a create", &|event| {
        is(event, "create", "configmaps", "") && event["responseStatus"]["code"] == 201
    });
    find("a miss", &|event| {
        is(event, "get", "configmaps", "absent") && event["responseStatus"]["code"] == 404
    });
    let exec = find("an exec", &|event| {
        event["objectRef"]["subresource"] == "exec" && event["responseStatus"]["code"] == 101
    });
    let stages: Vec<&str> = exec.iter().filter_map(|event| event["stage"].as_str()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    let as_other = find("what somebody did as another", &|event| {
        event["impersonatedUser"]["username"] == "nobody-proxying"
    });
    assert_eq!(as_other[0]["user"]["username"], "umbra-admin");
    assert_eq!(as_other[0]["responseStatus"]["code"], 403);
    let refused = find("a refused write", &|event| {
        is(event, "delete", "configmaps", "seen") && event["responseStatus"]["code"] == 403
    });
    let message = refused[0]["responseStatus"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("ReadOnly"), "{message}");
    requests
}
