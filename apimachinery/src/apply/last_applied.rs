//! The bridge from client-side apply: `kubectl apply` before `kubectl apply --server-side`.
//!
//! An object that was applied by the client carries the configuration as an annotation and its fields belong to an
//! updater. Its first server-side apply by `kubectl` would conflict with that; fields that the annotation vouches for
//! are taken over instead. As long as the annotation is there, it is kept up to date, so that going back works.
//!
//! Source: `apimachinery/pkg/util/managedfields/internal/lastappliedmanager.go` and `lastappliedupdater.go`.

use serde_json::Value;

use super::compare::compare;
use super::field_set::to_field_set;
use super::node::Node;
use super::set::Set;
use super::validate::{Duplicates, validate};

/// The manager for whom all this is done. Whoever does not want it takes another name.
pub(super) const KUBECTL: &str = "kubectl";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The size of all annotations of an object together, as `TotalAnnotationSizeLimitB`.
const LONGEST_ANNOTATIONS: usize = 256 * 1024;

/// The fields that the client-side configuration in the annotation of `live` named and that still are as it said;
/// `None` where there is no such configuration of this version.
pub(super) fn fields_of_last_applied(live: &Value, node: Node<'_>, api_version: &str) -> Option<Set> {
    let text = annotation(live).filter(|text| !text.is_empty())?;
    let last_applied: Value = serde_json::from_str(text).ok()?;
    if last_applied.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    // Neither may have duplicates, as in Go: what the annotation says of them cannot be told apart.
    validate(&last_applied, node, Duplicates::Refused).ok()?;
    validate(live, node, Duplicates::Refused).ok()?;
    let comparison = compare(&last_applied, live, node);
    let fields = to_field_set(&last_applied, node)
        .difference(&comparison.modified)
        .difference(&comparison.added)
        .difference(&comparison.removed);
    Some(fields)
}

/// Writes the applied configuration into the annotation of `object`, if it has that annotation. Where the annotations
/// would become too long, it is taken away.
pub(super) fn refresh(object: &mut Value, config: &Value) {
    if annotation(object).is_none_or(str::is_empty) {
        return;
    }
    let Some(annotations) = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let mut config = config.clone();
    if let Some(annotations) = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    // Go's encoder ends every document with a newline.
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{config}\n")));
    let length: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if length > LONGEST_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}
