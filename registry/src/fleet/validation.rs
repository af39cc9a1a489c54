//! What the schemas of `umbra.dev` cannot say: selectors that parse, patches that parse, numbers that go together.

use serde::de::DeserializeOwned;
use serde_json::Value;
use umbra_admission::overrides::{InvalidOverride, Override};
use umbra_api::overrides::{self, Rollout};
use umbra_api::placement::{ClusterPlacement, Placement, PlacementSpec};
use umbra_apimachinery::status::Cause;

use crate::directory::to_selector;
use crate::generic::strategy::Behavior;

/// What `OnNextUpdate` is answered with.
const NO_PINNING: &str = "Unsupported value: \"OnNextUpdate\": supported values: \"Immediate\"; pinned revisions are not kept \
                          yet";

/// Checks placements.
#[derive(Debug, Clone, Copy)]
pub struct CheckPlacement {
    /// Whether it is a `ClusterPlacement`.
    pub cluster_scoped: bool,
}

/// Checks overrides.
#[derive(Debug, Clone, Copy)]
pub struct CheckOverride {
    /// Whether it is a `ClusterOverride`.
    pub cluster_scoped: bool,
}

impl Behavior for CheckPlacement {
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let spec = if self.cluster_scoped {
            read::<ClusterPlacement>(object).map(|read| read.spec.placement)
        } else {
            read::<Placement>(object).map(|read| read.spec)
        };
        match spec {
            Ok(spec) => placement_faults(&spec),
            Err(cause) => vec![cause],
        }
    }
}

impl Behavior for CheckOverride {
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let checked = if self.cluster_scoped {
            read::<overrides::ClusterOverride>(object)
                .map(|read| (Override::from_cluster_override(&read).err(), read.spec.rollout))
        } else {
            read::<overrides::Override>(object).map(|read| (Override::from_override(&read).err(), read.spec.rollout))
        };
        match checked {
            Ok((fault, rollout)) => {
                let pinning = (rollout == Rollout::OnNextUpdate)
                    .then(|| cause("FieldValueNotSupported", "spec.rollout", NO_PINNING));
                fault
                    .map(|fault| invalid_override(&fault))
                    .into_iter()
                    .chain(pinning)
                    .collect()
            }
            Err(cause) => vec![cause],
        }
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Cause> {
    serde_json::from_value(object.clone()).map_err(|error| invalid("spec", error))
}

fn invalid_override(fault: &InvalidOverride) -> Cause {
    invalid(&fault.field, &fault.reason)
}

fn invalid(field: &str, why: impl std::fmt::Display) -> Cause {
    cause("FieldValueInvalid", field, &format!("Invalid value: {why}"))
}

fn cause(reason: &str, field: &str, message: &str) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message: message.to_owned(),
        field: field.to_owned(),
    }
}

fn placement_faults(spec: &PlacementSpec) -> Vec<Cause> {
    let mut faults = Vec::new();
    if spec.resources.is_empty() {
        let why = "names no resources, so the placement would place nothing";
        faults.push(cause(
            "FieldValueRequired",
            "spec.resources",
            &format!("Required value: {why}"),
        ));
    }
    for (index, resource) in spec.resources.iter().enumerate() {
        let at = |field: &str| format!("spec.resources[{index}].{field}");
        if resource.api_version.is_empty() {
            faults.push(cause("FieldValueRequired", &at("apiVersion"), "Required value"));
        }
        if resource.kind.is_empty() {
            faults.push(cause("FieldValueRequired", &at("kind"), "Required value"));
        }
        if resource.name.is_some() && resource.label_selector.is_some() {
            faults.push(invalid(&at("labelSelector"), "may not be set together with name"));
        }
        if let Some(Err(error)) = resource.label_selector.as_ref().map(to_selector) {
            faults.push(invalid(&at("labelSelector"), error));
        }
    }
    if let Some(Err(error)) = spec.cluster_selector.as_ref().map(to_selector) {
        faults.push(invalid("spec.clusterSelector", error));
    }
    if let (Some(min), Some(max)) = (spec.clusters.min, spec.clusters.max)
        && min > max
    {
        faults.push(invalid("spec.clusters", format!("min {min} is more than max {max}")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(causes: &[Cause]) -> Vec<&str> {
        causes.iter().map(|cause| cause.field.as_str()).collect()
    }

    #[test]
    fn placements_say_what_is_wrong_with_which_field() {
        let placement = |spec: Value| {
            json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "Placement",
            "metadata": {"name": "a", "namespace": "shop"}, "spec": spec})
        };
        let check = |spec: Value| CheckPlacement { cluster_scoped: false }.validate(&placement(spec));
        assert!(check(json!({"resources": [{"apiVersion": "v1", "kind": "ConfigMap"}]})).is_empty());
        let faults = check(json!({
            "resources": [{"apiVersion": "v1", "kind": "", "name": "a",
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}],
            "clusterSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
            "clusters": {"min": 3, "max": 2},
        }));
        assert_eq!(
            fields(&faults),
            [
                "spec.resources[0].kind",
                "spec.resources[0].labelSelector",
                "spec.resources[0].labelSelector",
                "spec.clusterSelector",
                "spec.clusters"
            ]
        );
        assert_eq!(fields(&check(json!({"resources": []}))), ["spec.resources"]);
        assert_eq!(fields(&check(json!({"resources": 1}))), ["spec"]);
        let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterPlacement", "metadata": {"name": "a"},
            "spec": {"resources": [{"apiVersion": "v1", "kind": "Namespace"}]}});
        assert!(CheckPlacement { cluster_scoped: true }.validate(&cluster).is_empty());
    }

    #[test]
    fn overrides_say_what_is_wrong_with_which_field() {
        let check = |changes: Value| {
            let mut object = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "Override",
                "metadata": {"name": "a", "namespace": "shop"},
                "spec": {"resources": [{"apiVersion": "v1", "kind": "ConfigMap"}],
                    "patches": [{"type": "MergePatch", "value": {"data": {}}}]}});
            for (field, value) in changes.as_object().unwrap() {
                object["spec"][field] = value.clone();
            }
            CheckOverride { cluster_scoped: false }.validate(&object)
        };
        assert!(check(json!({})).is_empty());
        assert_eq!(fields(&check(json!({"priority": 1001}))), ["spec.priority"]);
        assert_eq!(fields(&check(json!({"rollout": "OnNextUpdate"}))), ["spec.rollout"]);
        let patches =
            json!({"patches": [{"type": "JSONPatch", "value": [{"op": "replace", "path": "a", "value": 1}]}]});
        assert_eq!(fields(&check(patches)), ["spec.patches[0].value"]);
    }
}
