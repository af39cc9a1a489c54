//! What schemas cannot say of the hub's own kinds.

use serde_json::Value;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::names::is_dns1123_label;
use umbra_apimachinery::status::Cause;

use crate::generic::metadata::invalid;
use crate::generic::strategy::Behavior;

/// Checks ManagedClusters.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckCluster;

impl Behavior for CheckCluster {
    /// The name of a cluster is the value of the label `umbra.dev/cluster` and part of qualified names.
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let name = object.name();
        if name.is_empty() || is_dns1123_label(name) {
            return Vec::new();
        }
        let why = "the name of a cluster has at most 63 characters of a-z, 0-9 and '-', and begins and ends with one of \
                   a-z and 0-9";
        vec![invalid("metadata.name", &name.into(), why)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_clusters_fit_a_label() {
        let faults = |name: &str| CheckCluster.validate(&json!({"metadata": {"name": name}})).len();
        assert_eq!((faults("east"), faults("east.eu"), faults(&"a".repeat(64))), (0, 1, 1));
    }
}
