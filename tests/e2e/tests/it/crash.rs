//! A hub that is killed while it places to three children ends in the same state as one that is not.

use serde_json::{Value, json};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::fleet::{placement, wait_for_condition};

/// How many config maps are placed.
const TEMPLATES: usize = 12;

/// Templates, a placement to all clusters, and an override of each stage.
fn manifest(namespace: &str) -> String {
    let mut manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    for number in 0..TEMPLATES {
        manifest.push_str(&format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: item-{number:02}, namespace: {namespace}}}\ndata: {{number: '{number}', cluster: none}}\n"
        ));
    }
    for (kind, name, patch) in [
        (
            "ClusterOverride",
            format!("{namespace}-cluster"),
            "data: {cluster: '${cluster.name}'}",
        ),
        ("Override", "owner".to_owned(), "metadata: {labels: {owner: tenant}}"),
    ] {
        let place = if kind == "Override" {
            format!(", namespace: {namespace}")
        } else {
            String::new()
        };
        manifest.push_str(&format!(
            "---
apiVersion: umbra.dev/v1alpha1
kind: {kind}
metadata: {{name: {name}{place}}}
spec:
  resources: [{{apiVersion: v1, kind: ConfigMap, labelSelector: {{matchExpressions: [{{key: skip, operator: DoesNotExist}}]}}}}]
  patches: [{{type: MergePatch, value: {{{patch}}}}}]
"
        ));
    }
    let placement = placement("everything", "ConfigMap", "");
    manifest.push_str(&format!(
        "---\n{}",
        placement.replace(
            "{name: everything}",
            &format!("{{name: everything, namespace: {namespace}}}")
        )
    ));
    manifest
}

/// What a child has: names, labels, data, and the names of annotations, whose values hold UIDs.
fn state(child: &Kubectl, namespace: &str) -> Vec<Value> {
    let outcome = child.namespace(namespace).run("get configmaps -l owner=tenant -o json");
    let list: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let keys = |map: &Value| {
        map.as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect::<Vec<_>>()
    };
    let mut objects: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    objects.sort_by_key(|object| object["metadata"]["name"].to_string());
    let outline = |object: &Value| {
        let metadata = &object["metadata"];
        json!([
            metadata["name"],
            metadata["labels"],
            keys(&metadata["annotations"]),
            object["data"]
        ])
    };
    objects.iter().map(outline).collect()
}

#[test]
fn a_hub_that_is_killed_while_it_places_ends_where_it_would_have() {
    let Some(world) = World::exclusive() else { return };
    let item = Item::open("crash");
    let spare = World::spare();
    world
        .hub
        .join("third", &spare.name, &spare.kubeconfig())
        .expect_success();
    world.hub.wait_for_child("third");
    let mut children: Vec<(&str, Kubectl)> = vec![("third", spare.kubectl().clone())];
    children.extend(
        ["north", "south"]
            .into_iter()
            .zip(world.children.iter().map(|child| child.kubectl().clone())),
    );

    let reference = place(&world, &children, "crash-never", None);
    for (name, objects) in ["third", "north", "south"].iter().zip(&reference) {
        assert_eq!(objects.len(), TEMPLATES, "{name}");
        assert!(
            objects[0].to_string().contains(&format!("\"cluster\":\"{name}\"")),
            "{name}: {}",
            objects[0]
        );
    }
    // At once, in the middle, and near the end.
    let rounds = [
        ("crash-early", 0),
        ("crash-middle", TEMPLATES),
        ("crash-late", 3 * TEMPLATES - 2),
    ];
    for (namespace, written) in rounds {
        let state = place(&world, &children, namespace, Some(written));
        assert_eq!(state, reference, "{namespace}");
    }

    // Withdrawing is interrupted too, and nothing is left.
    world
        .hub
        .fleet()
        .ok("delete placement everything -n crash-late --wait=false");
    world.hub.crash();
    world.hub.recover();
    wait::until("everything is withdrawn", wait::DEADLINE, || {
        let left: usize = children.iter().map(|(_, child)| state(child, "crash-late").len()).sum();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} objects"))
        }
    });

    for namespace in ["crash-never", "crash-early", "crash-middle"] {
        world
            .hub
            .fleet()
            .ok(["delete", "placement", "everything", "-n", namespace]);
    }
    for namespace in ["crash-never", "crash-early", "crash-middle", "crash-late"] {
        world
            .hub
            .fleet()
            .ok(["delete", "clusteroverride", &format!("{namespace}-cluster")]);
    }
    world.hub.leave("third").expect_success();
    item.pass(&format!(
        "{} kills, {TEMPLATES} objects in each of 3 children",
        rounds.len() + 1
    ));
}

/// Places, kills the hub once the children have so many objects together, starts it again, and waits for the end.
fn place(world: &World, children: &[(&str, Kubectl)], namespace: &str, kill_at: Option<usize>) -> Vec<Vec<Value>> {
    let fleet = world.hub.fleet();
    fleet.apply(&manifest(namespace));
    let count = || {
        children
            .iter()
            .map(|(_, child)| state(child, namespace).len())
            .sum::<usize>()
    };
    if let Some(written) = kill_at {
        wait::until(&format!("{written} objects"), wait::DEADLINE, || {
            let count = count();
            if count >= written {
                Ok(())
            } else {
                Err(format!("{count} objects"))
            }
        });
        world.hub.crash();
        world.hub.recover();
    }
    wait_for_condition(&fleet.namespace(namespace), "placement everything", "Applied", "True");
    wait::until("all objects", wait::DEADLINE, || {
        let count = count();
        if count == children.len() * TEMPLATES {
            Ok(())
        } else {
            Err(format!("{count} objects"))
        }
    });
    children.iter().map(|(_, child)| state(child, namespace)).collect()
}
