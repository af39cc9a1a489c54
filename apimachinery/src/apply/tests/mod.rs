//! Tables of tests, ported from `structured-merge-diff` and `managedfields`, and properties.

#![allow(
    clippy::needless_pass_by_value,
    reason = "tables are read best with `json!` right where it is needed"
)]

mod fields_v1;
mod managed_fields;
mod manager;
mod ownership;
mod properties;
mod set;
mod walks;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Path, PathElement, Set};
use crate::schema::{ListType, MapType, Schema, SchemaSet, SchemaType, TypeSchema};

/// Reads definitions as OpenAPI has them, as far as the tests need.
fn schema(definitions: &Value, root: &str) -> TypeSchema {
    let mut set = SchemaSet::new();
    for (name, definition) in definitions.as_object().unwrap() {
        set.insert(name.as_str(), node(definition));
    }
    TypeSchema::new(Arc::new(set), root).unwrap()
}

fn node(source: &Value) -> Schema {
    let text = |name: &str| source.get(name).and_then(Value::as_str);
    Schema {
        reference: text("$ref").map(Arc::from),
        schema_type: match text("type") {
            Some("object") => SchemaType::Object,
            Some("array") => SchemaType::Array,
            Some("string") => SchemaType::String,
            Some("integer") => SchemaType::Integer,
            Some("number") => SchemaType::Number,
            Some("boolean") => SchemaType::Boolean,
            _ => SchemaType::Any,
        },
        properties: source
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, property)| (name.clone(), node(property)))
            .collect(),
        additional_properties: source
            .get("additionalProperties")
            .map(|entries| Box::new(node(entries))),
        items: source.get("items").map(|items| Box::new(node(items))),
        default: source.get("default").cloned(),
        list_type: match text("listType") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(
                source["keys"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|key| key.as_str().unwrap().to_owned())
                    .collect(),
            ),
            _ => ListType::Atomic,
        },
        map_type: match text("mapType") {
            Some("atomic") => MapType::Atomic,
            _ => MapType::Granular,
        },
        preserve_unknown_fields: source.get("preserve").is_some(),
        ..Schema::default()
    }
}

/// A kind with one of everything: what the tables of Go have in many small schemas.
fn thing() -> TypeSchema {
    let definitions = json!({
        "ObjectMeta": {"type": "object", "properties": {
            "name": {"type": "string"}, "namespace": {"type": "string"}, "uid": {"type": "string"},
            "resourceVersion": {"type": "string"}, "generation": {"type": "integer"},
            "creationTimestamp": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}, "listType": "set"},
            "managedFields": {"type": "array", "items": {"type": "object"}},
        }},
        "Port": {"type": "object", "properties": {
            "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"},
        }},
        "Container": {"type": "object", "properties": {
            "name": {"type": "string"}, "image": {"type": "string"},
            "ports": {"type": "array", "items": {"$ref": "Port"}, "listType": "map", "keys": ["port", "protocol"]},
            "args": {"type": "array", "items": {"type": "string"}},
        }},
        "Selector": {"type": "object", "mapType": "atomic", "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
        }},
        "Spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "paused": {"type": "boolean"},
            "text": {"type": "string"},
            "selector": {"$ref": "Selector"},
            "containers": {"type": "array", "items": {"$ref": "Container"}, "listType": "map", "keys": ["name"]},
            "tags": {"type": "array", "items": {"type": "string"}, "listType": "set"},
            "numbers": {"type": "array", "items": {"type": "number"}, "listType": "set"},
            "limits": {"type": "object", "additionalProperties":
                {"$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"}},
            "raw": {"$ref": "io.k8s.apimachinery.pkg.runtime.RawExtension"},
            "free": {"type": "object", "preserve": true},
            "nested": {"type": "object", "properties": {
                "inner": {"type": "object", "properties": {"value": {"type": "string"}, "other": {"type": "string"}}},
            }},
        }},
        "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
        "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object"},
        "Status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        "Thing": {"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"$ref": "ObjectMeta"}, "spec": {"$ref": "Spec"}, "status": {"$ref": "Status"},
        }},
    });
    schema(&definitions, "Thing")
}

/// A path from field names (strings), keys (objects), values of sets (one-item lists) and indices (numbers).
fn path(elements: Value) -> Path {
    let elements = elements.as_array().unwrap().iter();
    Path(
        elements
            .map(|element| match element {
                Value::String(name) => PathElement::field(name),
                Value::Object(keys) => {
                    PathElement::key(keys.iter().map(|(name, value)| (name.as_str(), value.clone())))
                }
                Value::Array(value) => PathElement::value(value[0].clone()),
                index => PathElement::Index(index.as_i64().unwrap()),
            })
            .collect(),
    )
}

/// A set from a list of such paths.
fn set(paths: Value) -> Set {
    paths.as_array().unwrap().iter().cloned().map(path).collect()
}
