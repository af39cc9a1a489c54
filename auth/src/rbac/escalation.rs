//! Nobody grants what they do not hold: the comparison of rules behind the escalation check
//! (`k8s.io/component-helpers/auth/rbac/validation`, `pkg/registry/rbac/validation`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::matching::path_covers;
use super::types::PolicyRule;

/// Somebody tried to grant permissions that they do not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EscalationError {
    message: String,
    /// The permissions that are missing, compacted.
    pub missing: Vec<PolicyRule>,
}

impl EscalationError {
    pub(super) fn new(user: &str, groups: &[String], missing: &[PolicyRule], unresolved: &[String]) -> Self {
        let missing = compact(missing);
        let described: BTreeSet<String> = missing.iter().map(describe).collect();
        let described: Vec<String> = described.into_iter().collect();
        let mut message = format!(
            "user {user:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quoted(groups),
            described.join("\n")
        );
        if !unresolved.is_empty() {
            let _infallible = write!(message, "; resolution errors: [{}]", unresolved.join(", "));
        }
        Self { message, missing }
    }
}

/// Whether the rules of an owner contain everything that `wanted` grants.
///
/// # Errors
/// The rules that they do not contain, broken down to one verb, group, resource and name each.
pub fn covers<'r>(
    owner: impl IntoIterator<Item = &'r PolicyRule>,
    wanted: &[PolicyRule],
) -> Result<(), Vec<PolicyRule>> {
    let owner: Vec<&PolicyRule> = owner.into_iter().collect();
    let mut missing = Vec::new();
    for atom in wanted.iter().flat_map(break_down) {
        if !owner.iter().any(|rule| rule_covers(rule, &atom)) {
            missing.push(atom);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// Joins rules that differ only in verbs and are about one resource each, for messages that people read.
#[must_use]
pub fn compact(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let simple = rule.api_groups.len() == 1
            && rule.resources.len() == 1
            && rule.resource_names.len() <= 1
            && rule.non_resource_urls.is_empty();
        let same = compacted.iter_mut().find(|other| {
            simple
                && other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls.is_empty()
        });
        match same {
            Some(other) => other.verbs.extend(rule.verbs.iter().cloned()),
            None => compacted.push(rule.clone()),
        }
    }
    compacted
}

/// The smallest rules that together say the same.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut atoms = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let atom = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(atom);
                } else {
                    atoms.extend(rule.resource_names.iter().map(|name| PolicyRule {
                        resource_names: vec![name.clone()],
                        ..atom.clone()
                    }));
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        atoms.extend(rule.verbs.iter().map(|verb| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![url.clone()],
            ..PolicyRule::default()
        }));
    }
    atoms
}

/// Whether one rule contains an atom.
fn rule_covers(owner: &PolicyRule, atom: &PolicyRule) -> bool {
    let has = |set: &[String], one: &String| set.contains(one);
    let has_or_all = |set: &[String], wanted: &[String]| {
        set.iter().any(|one| one == "*") || wanted.iter().all(|one| set.contains(one))
    };
    let names = owner.resource_names.is_empty()
        || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|one| has(&owner.resource_names, one)));
    let resources = has_or_all(&owner.resources, &atom.resources)
        || atom.resources.iter().all(|wanted| {
            has(&owner.resources, wanted)
                || wanted
                    .split_once('/')
                    .is_some_and(|(_, subresource)| has(&owner.resources, &format!("*/{subresource}")))
        });
    let urls = atom
        .non_resource_urls
        .iter()
        .all(|wanted| owner.non_resource_urls.iter().any(|held| path_covers(held, wanted)));
    has_or_all(&owner.verbs, &atom.verbs)
        && has_or_all(&owner.api_groups, &atom.api_groups)
        && resources
        && names
        && urls
}

/// A rule on one line, as kube-apiserver's messages show it.
fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(label, values)| format!("{label}:{}", quoted(values)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list as Go's `%q` prints it.
fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", values.join(" "))
}
