//! What no schema says of the built-in kinds: defaults filled in by code (`pkg/apis/*/v1/defaults.go`), strategies
//! (`pkg/registry/*/*/strategy.go`), validation (`pkg/apis/*/validation`).
//!
//! Only what clients and controllers rely on is here; the schema does the rest.

pub(super) mod core;
pub(super) mod rbac;
pub(super) mod workload;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

/// The object at `field` of an object, made where it is missing.
fn child<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object[field].is_object() {
        object[field] = Value::Object(Map::new());
    }
    object[field].as_object_mut().expect("made an object above")
}

/// Sets `field` where it is absent or null.
fn default(fields: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if fields.get(field).is_none_or(Value::is_null) {
        fields.insert(field.to_owned(), value.into());
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
