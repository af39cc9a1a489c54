//! What a cluster has from the start: its own namespaces, and the roles that everything builds on
//! (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`).
//!
//! Only the roles that people bind are here: those of Kubernetes' own components are not, as nothing here runs them. What
//! exists already is left as it is.

use serde_json::{Value, json};
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};

use super::controllers::system_context;
use crate::generic::collection::StoreApi;
use crate::request::WriteOptions;
use crate::resource::{Resource, WriteRequest, WriteVerb};

/// Creates what is missing, of the kinds that `api` serves. The caches need not be filled.
///
/// # Errors
/// Whatever keeps an object from being created, but that it exists.
pub async fn bootstrap(api: &StoreApi) -> Result<(), Status> {
    for object in objects() {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let kind = GroupVersionKind::parse(text("apiVersion"), text("kind"));
        let Some(store) = api.store_of_kind(&kind) else {
            continue;
        };
        let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
        let request = WriteRequest {
            verb: WriteVerb::Create,
            namespace: namespace.map(str::to_owned),
            name: String::new(),
            subresource: String::new(),
            body: serde_json::to_vec(&object)
                .expect("a JSON value has only string keys")
                .into(),
            content_type: "application/json".to_owned(),
            options: WriteOptions {
                field_manager: "umbra".to_owned(),
                ..WriteOptions::default()
            },
            list_options: crate::request::ListOptions::default(),
            query: String::new(),
        };
        match store.write(&system_context("system:bootstrap"), request).await {
            Ok(_) => {}
            Err(status) if status.is(Reason::AlreadyExists) => {}
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";

fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .into_iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    objects.push(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    );
    objects.extend(roles());
    objects.extend(bindings());
    objects
}

fn role(name: &str, labels: &Value, rules: &Value) -> Value {
    let mut all = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for (key, value) in labels.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    json!({
        "apiVersion": RBAC,
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": all, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "rules": rules,
    })
}

fn aggregated(name: &str, label: &str, labels: &Value) -> Value {
    let mut role = role(name, labels, &json!([]));
    let selector = json!({"matchLabels": {(format!("rbac.authorization.k8s.io/{label}")): "true"}});
    role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    role
}

/// Kinds that users of a namespace work with, as `(group, resources)`.
fn namespaced_rules(verbs: &Value, with_secrets: bool) -> Value {
    let mut core = vec![
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
    ];
    if with_secrets {
        core.extend([
            "secrets",
            "pods/attach",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "pods/eviction",
        ]);
    }
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    json!([
        rule("", &core),
        rule(
            "apps",
            &[
                "daemonsets",
                "deployments",
                "deployments/scale",
                "replicasets",
                "replicasets/scale",
                "statefulsets",
                "statefulsets/scale"
            ]
        ),
        rule("autoscaling", &["horizontalpodautoscalers"]),
        rule("batch", &["cronjobs", "jobs"]),
        rule("networking.k8s.io", &["ingresses", "networkpolicies"]),
        rule("policy", &["poddisruptionbudgets"]),
    ])
}

fn roles() -> Vec<Value> {
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "patch", "update"]);
    let aggregate = |to: &str| json!({(format!("rbac.authorization.k8s.io/aggregate-to-{to}")): "true"});
    let mut view = namespaced_rules(&read, false);
    if let Some(rules) = view.as_array_mut() {
        rules.push(json!({
            "apiGroups": [""],
            "resources": ["events", "limitranges", "namespaces", "pods/log", "pods/status", "resourcequotas"],
            "verbs": read,
        }));
        rules.push(json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}));
    }
    let mut edit = namespaced_rules(&write, true);
    if let Some(rules) = edit.as_array_mut() {
        rules.push(json!({
            "apiGroups": [""],
            "resources": ["secrets", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"],
            "verbs": read,
        }));
        let all = json!([
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch"
        ]);
        rules.push(json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": all}));
    }
    let admin = json!([
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["rolebindings", "roles"],
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        },
        {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]},
    ]);
    vec![
        role(
            "cluster-admin",
            &json!({}),
            &json!([
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]),
        ),
        role(
            "system:discovery",
            &json!({}),
            &json!([{
                "nonResourceURLs": [
                    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
                    "/version", "/version/",
                ],
                "verbs": ["get"],
            }]),
        ),
        role(
            "system:public-info-viewer",
            &json!({}),
            &json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]),
        ),
        role(
            "system:basic-user",
            &json!({}),
            &json!([
                {
                    "apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    "verbs": ["create"],
                },
                {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
            ]),
        ),
        role("system:aggregate-to-view", &aggregate("view"), &view),
        role("system:aggregate-to-edit", &aggregate("edit"), &edit),
        role("system:aggregate-to-admin", &aggregate("admin"), &admin),
        aggregated("view", "aggregate-to-view", &aggregate("edit")),
        aggregated("edit", "aggregate-to-edit", &aggregate("admin")),
        aggregated("admin", "aggregate-to-admin", &json!({})),
    ]
}

fn bindings() -> Vec<Value> {
    let binding = |name: &str, groups: &[&str]| {
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}))
            .collect();
        json!({
            "apiVersion": RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": subjects,
        })
    };
    vec![
        binding("cluster-admin", &["system:masters"]),
        binding("system:discovery", &["system:authenticated"]),
        binding("system:basic-user", &["system:authenticated"]),
        binding(
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
    ]
}
