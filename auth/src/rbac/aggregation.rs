//! Aggregated cluster roles (`pkg/controller/clusterroleaggregation`).
//!
//! In a child a controller has written the collected rules into the object, and they are used as they are. On a hub that
//! runs without that controller the index collects them itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use umbra_apimachinery::selector::Selector;

use super::types::{ClusterRole, PolicyRule};

/// A cluster role and the rules in force.
#[derive(Debug, Clone)]
pub(super) struct StoredClusterRole {
    pub(super) object: Arc<ClusterRole>,
    pub(super) rules: Arc<[PolicyRule]>,
}

/// Collects the rules of every aggregated role until nothing changes, so that a role may aggregate aggregated ones.
/// Rules are only ever added within one call, which is why it ends: each round before the last adds a rule to some role.
pub(super) fn aggregate(roles: &mut BTreeMap<String, StoredClusterRole>) {
    let aggregated: Vec<String> = roles
        .iter()
        .filter(|(_, role)| role.object.aggregation_rule.is_some())
        .map(|(name, _)| name.clone())
        .collect();
    for name in &aggregated {
        if let Some(role) = roles.get_mut(name) {
            role.rules = Arc::from([]);
        }
    }
    loop {
        let mut changed = false;
        for name in &aggregated {
            let rules = collect(roles, name);
            let role = roles.get_mut(name).expect("the name was taken from this map");
            if rules.len() != role.rules.len() {
                role.rules = rules.into();
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// The distinct rules of all roles that the role's selectors match, in the order of their names.
fn collect(roles: &BTreeMap<String, StoredClusterRole>, name: &str) -> Vec<PolicyRule> {
    let Some(rule) = roles.get(name).and_then(|role| role.object.aggregation_rule.as_ref()) else {
        return Vec::new();
    };
    // A selector that cannot be read selects nothing: fail closed.
    let selectors = rule.cluster_role_selectors.iter();
    let selectors: Vec<Selector> = selectors.filter_map(|selector| selector.to_selector().ok()).collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for (other, role) in roles {
        let label = |key: &str| role.object.metadata.labels.get(key).map(String::as_str);
        if other == name || !selectors.iter().any(|selector| selector.matches(label)) {
            continue;
        }
        for one in role.rules.iter() {
            if !rules.contains(one) {
                rules.push(one.clone());
            }
        }
    }
    rules
}
