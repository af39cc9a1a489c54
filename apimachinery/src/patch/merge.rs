//! JSON merge patch (RFC 7396), as kube-apiserver understands it, and its inverse.
//!
//! Go's `gopkg.in/evanphx/json-patch.v4` differs from the RFC in one point, which is kept: where a list replaces a value
//! that is not an object, `null` fields of objects *inside the list* are dropped too (`pruneAryNulls`); `null` elements
//! of lists stay.

use serde_json::{Map, Value};

use super::PatchError;

/// Decodes a request's body.
///
/// # Errors
/// [`PatchError::Invalid`] for what is no JSON object: objects of the API cannot become anything else.
pub fn parse(body: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(body).map_err(|error| PatchError::invalid(error.to_string()))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(PatchError::invalid(
            "a merge patch of an object has to be an object itself",
        ))
    }
}

/// Merges `patch` into `document`. Every value is a merge patch of every other, so this cannot fail.
pub fn apply(document: &mut Value, patch: &Value) {
    match (&mut *document, patch) {
        (Value::Object(fields), Value::Object(changes)) => merge_fields(fields, changes),
        // A list takes the place of an object as it is; `merge` of the Go package prunes only the other case.
        (Value::Object(_), _) => *document = patch.clone(),
        _ => *document = without_null_fields(patch),
    }
}

fn merge_fields(fields: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else if let Some(field) = fields.get_mut(name) {
            apply(field, change);
        } else {
            fields.insert(name.clone(), without_null_fields(change));
        }
    }
}

/// A copy without fields that are `null`, at any depth.
fn without_null_fields(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name.clone(), without_null_fields(field)))
            .collect(),
        Value::Array(elements) => elements.iter().map(without_null_fields).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The smallest merge patch that turns `from` into `to`; `None` where they are equal.
///
/// `null` fields of objects in `to` cannot be expressed by a merge patch: applying the result leaves them out.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return Some(to.clone());
    };
    let removed = from.keys().filter(|name| !to.contains_key(*name));
    let mut patch: Map<String, Value> = removed.map(|name| (name.clone(), Value::Null)).collect();
    for (name, field) in to {
        let change = match from.get(name) {
            Some(before) => diff(before, field),
            None => Some(field.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Small documents; with `null` fields or without.
    pub(crate) fn value(nulls: bool) -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            if nulls {
                Just(Value::Null).boxed()
            } else {
                Just(json!(1.5)).boxed()
            },
        ];
        scalar.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-d012]", inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    #[test]
    fn rfc_appendix_and_null_pruning() {
        for (document, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            // As Go: null fields inside new lists go, null elements stay.
            (
                json!({}),
                json!({"a": [null, {"b": null, "c": 1}]}),
                json!({"a": [null, {"c": 1}]}),
            ),
            (
                json!({"a": {}}),
                json!({"a": [{"b": null}]}),
                json!({"a": [{"b": null}]}),
            ),
        ] {
            let mut patched = document.clone();
            apply(&mut patched, &patch);
            assert_eq!(patched, expected, "{document} patched with {patch}");
        }
    }

    #[test]
    fn bodies_are_objects() {
        assert!(parse(br#"{"a":1}"#).is_ok());
        for body in ["[]", "1", "null", "{", ""] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().http_status(), 400, "{body}");
        }
    }

    #[test]
    fn diff_is_minimal() {
        let from = json!({"keep": {"a": 1}, "gone": 1, "list": [1, 2], "deep": {"a": {"b": 1, "c": 2}}});
        let to = json!({"keep": {"a": 1}, "list": [1], "deep": {"a": {"b": 1, "c": 3}}, "new": {"x": []}});
        assert_eq!(
            diff(&from, &to),
            Some(json!({"gone": null, "list": [1], "deep": {"a": {"c": 3}}, "new": {"x": []}}))
        );
        assert_eq!(diff(&from, &from), None);
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_other(from in value(true), to in value(false)) {
            let mut patched = from.clone();
            if let Some(patch) = diff(&from, &to) {
                apply(&mut patched, &patch);
            }
            prop_assert_eq!(patched, to);
        }

        #[test]
        fn applying_twice_is_applying_once(document in value(true), patch in value(true)) {
            let mut once = document;
            apply(&mut once, &patch);
            let mut twice = once.clone();
            apply(&mut twice, &patch);
            // Only a list in the place of an object keeps its nulls, and loses them the second time.
            prop_assert_eq!(without_null_fields(&twice), without_null_fields(&once));
        }
    }
}
