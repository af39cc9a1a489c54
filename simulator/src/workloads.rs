//! What runs in the clusters of the demo.
//!
//! | namespace | what | in |
//! |---|---|---|
//! | `shop` | `web`, with a service and a config map | all, with other replicas and settings |
//! | `shop` | `cart` | east, west |
//! | `billing` | `api`, stateful `ledger` | west |
//! | `sensors` | `collector` | edge |
//! | `monitoring` | `agent` on every node | all |
//!
//! In east the user `tina` may read what is in `shop`, and nothing else anywhere.

use serde_json::{Value, json};

/// The clusters of the demo.
pub const CLUSTERS: [&str; 3] = ["east", "west", "edge"];

/// A user who may read the namespace `shop` of east, and nothing else.
pub const TENANT: &str = "tina";

/// The objects of a cluster of the demo, in the order in which they can be created. A cluster of another name gets what
/// all have.
#[must_use]
pub fn objects(cluster: &str) -> Vec<Value> {
    let mut objects = vec![namespace("shop"), namespace("monitoring")];
    objects.extend(web(cluster));
    if matches!(cluster, "east" | "west") {
        objects.extend(application("shop", "cart", "backend", "redis:7.4", 2, 6379));
    }
    match cluster {
        "west" => objects.extend(billing()),
        "edge" => {
            objects.push(namespace("sensors"));
            objects.extend(application(
                "sensors",
                "collector",
                "backend",
                "eclipse-mosquitto:2",
                1,
                1883,
            ));
        }
        _ => {}
    }
    objects.push(agent());
    if cluster == "east" {
        objects.extend(tenant());
    }
    objects
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn labels(app: &str, tier: &str) -> Value {
    json!({"app": app, "tier": tier})
}

fn pod_template(labels: &Value, image: &str, port: Option<u16>) -> Value {
    let mut container = json!({
        "name": labels["app"],
        "image": image,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    });
    if let Some(port) = port {
        container["ports"] = json!([{"name": "main", "containerPort": port}]);
    }
    json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}})
}

/// A Deployment and its Service.
fn application(namespace: &str, app: &str, tier: &str, image: &str, replicas: u32, port: u16) -> [Value; 2] {
    let labels = labels(app, tier);
    let metadata = json!({"name": app, "namespace": namespace, "labels": labels});
    [
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": app}},
                "template": pod_template(&labels, image, Some(port)),
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": app}, "ports": [{"name": "main", "port": port, "targetPort": "main"}]},
        }),
    ]
}

fn web(cluster: &str) -> Vec<Value> {
    let (replicas, log_level) = match cluster {
        "east" => (3, "info"),
        "west" => (2, "debug"),
        _ => (1, "warn"),
    };
    let settings = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "web-config", "namespace": "shop", "labels": labels("web", "frontend")},
        "data": {
            "settings.yaml": format!("region: {cluster}\nlogLevel: {log_level}\n"),
            "banner": format!("Welcome to the shop in {cluster}"),
        },
    });
    let mut objects = vec![settings];
    objects.extend(application("shop", "web", "frontend", "nginx:1.29", replicas, 8080));
    objects
}

fn billing() -> Vec<Value> {
    let ledger = labels("ledger", "database");
    let mut objects = vec![namespace("billing")];
    objects.extend(application(
        "billing",
        "api",
        "backend",
        "ghcr.io/example/billing:2.4.1",
        2,
        9090,
    ));
    objects.push(json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "ledger", "namespace": "billing", "labels": ledger},
        "spec": {
            "serviceName": "ledger",
            "replicas": 2,
            "selector": {"matchLabels": {"app": "ledger"}},
            "template": pod_template(&ledger, "postgres:18", Some(5432)),
        },
    }));
    objects
}

fn agent() -> Value {
    let labels = labels("agent", "infrastructure");
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "monitoring", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": pod_template(&labels, "prom/node-exporter:v1.10.2", None),
        },
    })
}

fn tenant() -> [Value; 2] {
    let metadata = json!({"name": "shop-reader", "namespace": "shop"});
    let read = json!(["get", "list", "watch"]);
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                {"apiGroups": [""], "resources": ["pods", "pods/log", "services", "configmaps"], "verbs": read},
                {"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": read},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": TENANT}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "shop-reader"},
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cluster: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            format!(
                "{} {}/{}",
                text(&object["kind"]),
                text(&metadata["namespace"]),
                text(&metadata["name"])
            )
        };
        objects(cluster).iter().map(name).collect()
    }

    #[test]
    fn clusters_share_some_objects_and_not_others() {
        for cluster in CLUSTERS {
            assert!(names(cluster).contains(&"Deployment shop/web".to_owned()), "{cluster}");
            assert!(
                names(cluster).contains(&"DaemonSet monitoring/agent".to_owned()),
                "{cluster}"
            );
            let cart = names(cluster).contains(&"Deployment shop/cart".to_owned());
            assert_eq!(cart, cluster != "edge");
            let billing = names(cluster).contains(&"Deployment billing/api".to_owned());
            assert_eq!(billing, cluster == "west");
            let tenant = names(cluster).contains(&"RoleBinding shop/shop-reader".to_owned());
            assert_eq!(tenant, cluster == "east");
        }
    }
}
