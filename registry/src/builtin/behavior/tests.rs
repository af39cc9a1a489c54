use serde_json::{Value, json};

use super::core::{ConfigMaps, Namespaces, Secrets};
use super::rbac::{Bindings, Roles};
use super::workload::{Deployments, Jobs, Pods};
use crate::generic::strategy::Behavior;

fn faults(behavior: &dyn Behavior, object: &Value) -> Vec<String> {
    behavior.validate(object).into_iter().map(|cause| cause.field).collect()
}

#[test]
fn deployments_get_the_defaults_of_kubernetes() {
    let mut object = json!({"spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }});
    Deployments.set_defaults(&mut object);
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(
        spec["template"]["spec"]["containers"][0]["imagePullPolicy"],
        "IfNotPresent"
    );
    let again = object.clone();
    Deployments.set_defaults(&mut object);
    assert_eq!(object, again);
    assert!(faults(&Deployments, &object).is_empty());
    object["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"});
    object["spec"]["replicas"] = (-1).into();
    assert_eq!(
        faults(&Deployments, &object),
        ["spec.template.metadata.labels", "spec.replicas"]
    );
}

#[test]
fn pods_change_little() {
    let old = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "j".into();
    new["spec"]["nodeName"] = "n".into();
    assert!(Pods.validate_update(&new, &old).is_empty());
    let bound = new.clone();
    new["spec"]["nodeName"] = "m".into();
    assert_eq!(Pods.validate_update(&new, &bound).len(), 1);
    assert_eq!(faults(&Pods, &json!({"spec": {"containers": []}})), ["spec.containers"]);
}

#[test]
fn secrets_and_config_maps_keep_their_promises() {
    let mut secret = json!({"stringData": {"a": "x"}, "data": {"b": "eQ=="}});
    Secrets.set_defaults(&mut secret);
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
    let fixed = json!({"immutable": true, "data": {"a": "x"}});
    let changed = json!({"immutable": true, "data": {"a": "y"}});
    assert_eq!(ConfigMaps.validate_update(&changed, &fixed).len(), 1);
    assert!(ConfigMaps.validate_update(&fixed, &fixed).is_empty());
    assert_eq!(faults(&ConfigMaps, &json!({"data": {"a/b": ""}})), ["data[a/b]"]);
}

#[test]
fn namespaces_begin_with_a_finalizer() {
    let mut namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": []}});
    Namespaces.prepare_for_create(&mut namespace);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
}

#[test]
fn roles_and_bindings_are_checked() {
    let role = json!({"kind": "Role", "rules": [{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    assert_eq!(
        faults(&Roles, &role),
        [
            "rules[0].verbs",
            "rules[0].apiGroups",
            "rules[0].resources",
            "rules[1].nonResourceURLs"
        ]
    );
    let mut binding = json!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [
        {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}, {"kind": "Pod", "name": "p"}]});
    Bindings.set_defaults(&mut binding);
    assert_eq!(
        faults(&Bindings, &binding),
        ["subjects[1].namespace", "subjects[2].kind"]
    );
    let mut other = binding.clone();
    other["roleRef"]["name"] = "q".into();
    assert_eq!(Bindings.validate_update(&other, &binding).len(), 1);
}

#[test]
fn jobs_select_their_own_pods() {
    let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    Jobs.set_defaults(&mut job);
    Jobs.prepare_for_create(&mut job);
    assert!(faults(&Jobs, &job).is_empty(), "{job}");
    assert_eq!(job["spec"]["completions"], 1);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
}
