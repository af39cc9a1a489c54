//! What becomes of a fleet's objects in a cluster that leaves the hub.
//!
//! Who takes a cluster out marks its ManagedCluster with [`LEAVING_ANNOTATION`] while the hub still reaches it. It is then in no
//! fleet any more: nothing is placed there again, and its renderings go as their `onRemove` says; once they are gone, so is what
//! they had placed. What others may have put something into stays ([`why_kept`]). A ManagedCluster that is deleted without
//! the mark takes its renderings with it and nothing out of the cluster.

use serde_json::{Value, json};
use umbra_api::cluster::ManagedCluster;
use umbra_api::placement::OnRemove;
use umbra_api::rendering::Rendering;
use umbra_registry::fleet::names::{FLEET_LABEL, RENDERING_ANNOTATION, RENDERING_UID_ANNOTATION};

use super::dispatch;

/// The annotation of a ManagedCluster that fleets withdraw from, whatever its value.
pub const LEAVING_ANNOTATION: &str = "umbra.dev/leaving";

/// Whether fleets withdraw from a cluster.
#[must_use]
pub fn is_leaving(cluster: &ManagedCluster) -> bool {
    let annotations = cluster.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(LEAVING_ANNOTATION))
}

/// Why a rendering's object stays in a cluster that leaves, without marks of ownership; `None` where it is deleted.
#[must_use]
pub fn why_kept(rendering: &Rendering) -> Option<&'static str> {
    match rendering.spec.template.resource.as_str() {
        "namespaces" => Some("which a fleet made; delete it if nothing in it is needed"),
        "customresourcedefinitions.apiextensions.k8s.io" => {
            Some("which a fleet made; delete it if no object of its kind is needed")
        }
        _ if rendering.spec.on_remove == OnRemove::Orphan => Some("as onRemove of its placement says"),
        _ => None,
    }
}

/// Whether there is an object that the rendering's cluster could have.
#[must_use]
pub fn has_object(rendering: &Rendering) -> bool {
    dispatch::has_object(rendering)
}

/// Whether an object of the cluster was put there for this rendering: by the marks and UIDs that dispatching goes by.
#[must_use]
pub fn is_ours(rendering: &Rendering, live: &Value) -> bool {
    dispatch::is_ours(rendering, live)
}

/// The merge patch that takes the marks of ownership off the object with this UID.
#[must_use]
pub fn unmark(uid: &str) -> Value {
    json!({"metadata": {
        "uid": uid,
        "labels": {FLEET_LABEL: null},
        "annotations": {RENDERING_ANNOTATION: null, RENDERING_UID_ANNOTATION: null},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_objects_of_others_stays_and_so_does_what_is_to_be_orphaned() {
        let kept = |resource: &str, on_remove: &str| {
            let rendering = json!({"apiVersion": umbra_api::API_VERSION, "kind": "Rendering", "metadata": {},
                "spec": {"cluster": "east", "onRemove": on_remove, "object": {},
                    "template": {"apiVersion": "v1", "kind": "K", "resource": resource, "name": "n"}}});
            why_kept(&serde_json::from_value(rendering).unwrap()).is_some()
        };
        for resource in ["namespaces", "customresourcedefinitions.apiextensions.k8s.io"] {
            assert!(kept(resource, "Delete"), "{resource}");
        }
        for resource in ["configmaps", "namespaces.example.org"] {
            assert!(!kept(resource, "Delete") && kept(resource, "Orphan"), "{resource}");
        }
    }
}
