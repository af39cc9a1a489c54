//! Roles and bindings (`pkg/apis/rbac/validation`).

use serde_json::Value;
use umbra_apimachinery::status::Cause;

use super::{child, default, text};
use crate::generic::metadata::{immutable, invalid, required};
use crate::generic::strategy::Behavior;

/// The API group of these kinds.
const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) struct Roles;

impl Behavior for Roles {
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let namespaced = object["kind"] == "Role";
        let rules = object["rules"].as_array().into_iter().flatten().enumerate();
        rules
            .flat_map(|(index, rule)| validate_rule(rule, &format!("rules[{index}]"), namespaced))
            .collect()
    }
}

fn validate_rule(rule: &Value, field: &str, namespaced: bool) -> Vec<Cause> {
    let empty = |name: &str| rule[name].as_array().is_none_or(Vec::is_empty);
    let mut causes = Vec::new();
    if empty("verbs") {
        causes.push(required(
            format!("{field}.verbs"),
            "verbs must contain at least one value",
        ));
    }
    if !empty("nonResourceURLs") {
        if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            causes.push(invalid(
                format!("{field}.nonResourceURLs"),
                &rule["nonResourceURLs"],
                why,
            ));
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            causes.push(invalid(
                format!("{field}.nonResourceURLs"),
                &rule["nonResourceURLs"],
                why,
            ));
        }
        return causes;
    }
    if empty("apiGroups") {
        let why = "resource rules must supply at least one api group";
        causes.push(required(format!("{field}.apiGroups"), why));
    }
    if empty("resources") {
        let why = "resource rules must supply at least one resource";
        causes.push(required(format!("{field}.resources"), why));
    }
    causes
}

pub(crate) struct Bindings;

impl Behavior for Bindings {
    fn set_defaults(&self, object: &mut Value) {
        default(child(object, "roleRef"), "apiGroup", GROUP);
        for subject in object
            .get_mut("subjects")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let is_person = matches!(text(subject, "kind"), "User" | "Group");
            if let Some(subject) = subject.as_object_mut().filter(|_| is_person) {
                default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let namespaced = object["kind"] == "RoleBinding";
        let mut causes = validate_role_ref(&object["roleRef"], namespaced);
        let subjects = object["subjects"].as_array().into_iter().flatten().enumerate();
        causes.extend(
            subjects.flat_map(|(index, subject)| validate_subject(subject, &format!("subjects[{index}]"), namespaced)),
        );
        causes
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        // Who may bind a role was checked for that role.
        immutable(object, old, "/roleRef").into_iter().collect()
    }
}

fn validate_role_ref(role: &Value, namespaced: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    if text(role, "apiGroup") != GROUP {
        causes.push(invalid(
            "roleRef.apiGroup",
            &role["apiGroup"],
            "must be rbac.authorization.k8s.io",
        ));
    }
    match text(role, "kind") {
        "ClusterRole" => {}
        "Role" if namespaced => {}
        _ => causes.push(invalid(
            "roleRef.kind",
            &role["kind"],
            "must be ClusterRole, or Role in a RoleBinding",
        )),
    }
    if text(role, "name").is_empty() {
        causes.push(required("roleRef.name", ""));
    }
    causes
}

fn validate_subject(subject: &Value, field: &str, namespaced: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    if text(subject, "name").is_empty() {
        causes.push(required(format!("{field}.name"), ""));
    }
    let expected = match text(subject, "kind") {
        "ServiceAccount" => {
            if !namespaced && text(subject, "namespace").is_empty() {
                causes.push(required(format!("{field}.namespace"), ""));
            }
            ""
        }
        "User" | "Group" => GROUP,
        _ => {
            let why = "supported values: \"ServiceAccount\", \"User\", \"Group\"";
            causes.push(invalid(format!("{field}.kind"), &subject["kind"], why));
            return causes;
        }
    };
    if text(subject, "apiGroup") != expected {
        let why = format!("must be {expected:?}");
        causes.push(invalid(format!("{field}.apiGroup"), &subject["apiGroup"], &why));
    }
    causes
}
