//! Umbra as its users have it: the binary, real kube-apiservers as children, an unmodified kubectl. See the library of this
//! crate for what the tests stand on. One module is one part of the promise; each test has namespaces of its own.

mod aggregated;
mod cluster_root;
mod controllers;
mod crash;
mod custom_resources;
mod delegation;
mod demo;
mod doctor;
mod encryption;
mod errors;
mod etcd;
mod faults;
mod fleet;
mod hub_rbac;
mod informer;
mod join;
mod kubeconfig;
mod manifests;
mod proxying;
mod repertoire;
mod specs;
mod storage;
mod streams;
mod tenant;
mod tunnel;
mod view;
mod ways;
mod write;

use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::world::World;

/// Makes a namespace directly in every child.
#[track_caller]
fn namespace_everywhere(world: &World, namespace: &str) {
    for child in &world.children {
        child.kubectl().ok(["create", "namespace", namespace]);
    }
}

/// The lines of a text, sorted, without empty ones.
fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// A Deployment whose pods do nothing.
fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: main, image: nginx, ports: [{{containerPort: 80}}]}}]}}
"
    )
}

/// Applies a Deployment directly in a cluster and waits for its pods.
#[track_caller]
fn deploy(kubectl: &Kubectl, name: &str, replicas: u32) {
    kubectl.apply(&deployment(name, replicas));
    kubectl.ok(["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"]);
}

/// The name of the only pod, or the first, of an app.
#[track_caller]
fn pod_of(kubectl: &Kubectl, app: &str) -> String {
    let name = kubectl.path(["pods", "-l", &format!("app={app}")], "{.items[0].metadata.name}");
    assert!(
        !name.is_empty() && !name.starts_with("error"),
        "no pod of {app}: {name}"
    );
    name
}
