//! The rules on `metadata` that hold for all kinds (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`,
//! `k8s.io/apiserver/pkg/registry/rest/{create,update}.go`).

use std::collections::BTreeSet;

use serde_json::Value;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::selector::label_syntax::{label_key_errors, label_value_errors};
use umbra_apimachinery::status::Cause;

use super::strategy::Strategy;

/// Set while dependents are being orphaned (`metav1.FinalizerOrphanDependents`).
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Set while dependents are being deleted first (`metav1.FinalizerDeleteDependents`).
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// 256 KiB of keys and values (`TotalAnnotationSizeLimitB`).
const LARGEST_ANNOTATIONS: usize = 256 * 1024;

/// How many random characters complete a `generateName` (`k8s.io/apiserver/pkg/storage/names`).
const RANDOM_LENGTH: usize = 5;
/// What remains of a DNS label for the base.
const LONGEST_BASE: usize = umbra_apimachinery::names::LONGEST_LABEL - RANDOM_LENGTH;
/// No vowels, so that no words come out, and no characters that are mistaken for others
/// (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name that starts with `base`.
#[must_use]
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(LONGEST_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend((0..RANDOM_LENGTH).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])));
    name
}

/// A value that is not allowed.
#[must_use]
pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {value}: {why}"),
        field: field.into(),
    }
}

/// A value that has to be there.
#[must_use]
pub fn required(field: impl Into<String>, why: &str) -> Cause {
    Cause {
        reason: "FieldValueRequired".to_owned(),
        message: if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        },
        field: field.into(),
    }
}

/// A value that may not be there.
#[must_use]
pub fn forbidden(field: impl Into<String>, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: field.into(),
    }
}

/// A field of the object that changed but may not.
#[must_use]
pub fn immutable(object: &Value, old: &Value, pointer: &str) -> Option<Cause> {
    let null = Value::Null;
    let (new, old) = (
        object.pointer(pointer).unwrap_or(&null),
        old.pointer(pointer).unwrap_or(&null),
    );
    (new != old).then(|| invalid(pointer[1..].replace('/', "."), new, "field is immutable"))
}

/// The finalizers of an object.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    strings(&object["metadata"]["finalizers"])
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether deletion of the object was asked for.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// What is wrong with the metadata of a new object.
#[must_use]
pub fn validate_create(object: &Value, strategy: &Strategy) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    let base = object.metadata_str("generateName");
    if !base.is_empty()
        && let Some(fault) = strategy.names.fault(base, true)
    {
        causes.push(invalid("metadata.generateName", &base.into(), fault));
    }
    let name = object.name();
    if name.is_empty() {
        causes.push(required("metadata.name", "name or generateName is required"));
    } else if let Some(fault) = strategy.names.fault(name, false) {
        causes.push(invalid("metadata.name", &name.into(), fault));
    }
    causes.extend(validate_common(metadata));
    causes
}

/// What is wrong with a change of metadata. Both objects have a resourceVersion.
#[must_use]
pub fn validate_update(object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if is_deleting(old) {
        let known: BTreeSet<&str> = finalizers(old).into_iter().collect();
        let added: Vec<&str> = finalizers(object)
            .into_iter()
            .filter(|one| !known.contains(one))
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            causes.push(forbidden("metadata.finalizers", &why));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        causes.extend(immutable(object, old, &format!("/metadata/{field}")));
    }
    causes.extend(validate_common(&object["metadata"]));
    causes
}

fn validate_common(metadata: &Value) -> Vec<Cause> {
    let mut causes = validate_labels(&metadata["labels"], "metadata.labels");
    causes.extend(validate_annotations(&metadata["annotations"]));
    causes.extend(validate_owners(&metadata["ownerReferences"]));
    causes.extend(validate_finalizers(&metadata["finalizers"]));
    causes
}

/// What is wrong with labels.
#[must_use]
pub fn validate_labels(labels: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        let key_value = Value::from(key.as_str());
        causes.extend(label_key_errors(key).iter().map(|why| invalid(field, &key_value, why)));
        match value.as_str() {
            Some(text) => causes.extend(label_value_errors(text).iter().map(|why| invalid(field, value, why))),
            None => causes.push(invalid(format!("{field}.{key}"), value, "must be a string")),
        }
    }
    causes
}

fn validate_annotations(annotations: &Value) -> Vec<Cause> {
    let field = "metadata.annotations";
    let mut causes = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let key_value = Value::from(key.as_str());
        let faults = label_key_errors(&key.to_lowercase());
        causes.extend(faults.iter().map(|why| invalid(field, &key_value, why)));
        match value.as_str() {
            Some(text) => size += key.len() + text.len(),
            None => causes.push(invalid(format!("{field}.{key}"), value, "must be a string")),
        }
    }
    if size > LARGEST_ANNOTATIONS {
        causes.push(Cause {
            reason: "FieldValueTooLong".to_owned(),
            message: format!("Too long: may not be more than {LARGEST_ANNOTATIONS} bytes"),
            field: field.to_owned(),
        });
    }
    causes
}

fn validate_owners(owners: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut controllers = 0;
    for (index, owner) in owners.as_array().into_iter().flatten().enumerate() {
        let field = format!("metadata.ownerReferences[{index}]");
        for (name, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[name].as_str().unwrap_or_default().is_empty() {
                causes.push(invalid(format!("{field}.{name}"), &owner[name], why));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(invalid("metadata.ownerReferences", owners, why));
    }
    causes
}

fn validate_finalizers(finalizers: &Value) -> Vec<Cause> {
    let field = "metadata.finalizers";
    let names = strings(finalizers);
    let mut causes: Vec<Cause> = names
        .iter()
        .flat_map(|name| {
            let value = Value::from(*name);
            let faults = label_key_errors(name);
            faults.into_iter().map(move |why| invalid(field, &value, &why))
        })
        .collect();
    if names.contains(&ORPHAN_FINALIZER) && names.contains(&FOREGROUND_FINALIZER) {
        let why = format!("finalizer {FOREGROUND_FINALIZER} and {ORPHAN_FINALIZER} cannot be both set");
        causes.push(invalid(field, finalizers, &why));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::strategy::NameRule;
    use serde_json::json;
    use umbra_apimachinery::discovery::ResourceDescriptor;

    #[test]
    fn generated_names_are_valid() {
        for base in ["web-", &"a".repeat(80), "é".repeat(40).as_str()] {
            let name = generate_name(base);
            assert!(name.len() <= 63 && name.len() > RANDOM_LENGTH, "{name}");
        }
        assert!(NameRule::Subdomain.fault(&generate_name("web-"), false).is_none());
        assert!(NameRule::Subdomain.fault("web-", true).is_none());
        assert!(NameRule::ServiceLabel.fault("1a", false).is_some());
        assert!(NameRule::PathSegment.fault("system:node", false).is_none());
    }

    #[test]
    fn faults_of_metadata_are_named() {
        let strategy = Strategy::new(ResourceDescriptor::default());
        let object = json!({"metadata": {
            "name": "A", "generateName": "B-", "labels": {"-": "x", "a": "?"}, "annotations": {"": "x", "b": 1},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}],
            "finalizers": ["orphan", "foregroundDeletion"],
        }});
        let fields: BTreeSet<String> = validate_create(&object, &strategy)
            .into_iter()
            .map(|one| one.field)
            .collect();
        let want = [
            "metadata.annotations",
            "metadata.annotations.b",
            "metadata.finalizers",
            "metadata.generateName",
            "metadata.labels",
            "metadata.name",
            "metadata.ownerReferences[0].uid",
        ];
        assert_eq!(fields.into_iter().collect::<Vec<_>>(), want);
        assert!(validate_create(&json!({"metadata": {"name": "a.b"}}), &strategy).is_empty());
    }

    #[test]
    fn system_metadata_does_not_change() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        assert!(validate_update(&new, &old).is_empty());
        new["metadata"]["uid"] = "v".into();
        new["metadata"]["finalizers"] = json!(["a/b", "a/c"]);
        let fields: Vec<String> = validate_update(&new, &old).into_iter().map(|one| one.field).collect();
        assert_eq!(fields, ["metadata.finalizers", "metadata.uid"]);
    }
}
