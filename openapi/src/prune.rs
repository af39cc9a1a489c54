//! Dropping what a schema does not know.
//!
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning`, which for kinds that are compiled in is what decoding
//! into Go types amounts to. Where a schema says nothing at all of a value, the value stays.

use serde_json::Value;
use umbra_apimachinery::schema::{SchemaCursor, SchemaType, TypeSchema};

use crate::path::{Path, Step};

/// Drops unknown fields; returns their paths, sorted.
pub fn prune(object: &mut Value, schema: &TypeSchema) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, Some(schema.cursor()), false, Path::ROOT, &mut |path| {
        unknown.push((path.to_string(), path.steps()));
    });
    for (_, steps) in &unknown {
        remove(object, steps);
    }
    let mut paths: Vec<String> = unknown.into_iter().map(|(path, _)| path).collect();
    paths.sort();
    paths
}

/// The paths of unknown fields, sorted.
#[must_use]
pub fn unknown_fields(object: &Value, schema: &TypeSchema) -> Vec<String> {
    let mut paths = Vec::new();
    walk(object, Some(schema.cursor()), false, Path::ROOT, &mut |path| {
        paths.push(path.to_string());
    });
    paths.sort();
    paths
}

/// An owned step.
#[derive(Debug, Clone)]
enum Key {
    Field(String),
    Index(usize),
}

impl Path<'_> {
    fn steps(&self) -> Vec<Key> {
        let mut steps = self.parent().map(Path::steps).unwrap_or_default();
        match self.step() {
            Some(Step::Field(name)) => steps.push(Key::Field(name.to_owned())),
            Some(Step::Index(index)) => steps.push(Key::Index(index)),
            None => {}
        }
        steps
    }
}

fn remove(object: &mut Value, steps: &[Key]) {
    let Some((Key::Field(last), parents)) = steps.split_last() else {
        return;
    };
    let mut value = object;
    for step in parents {
        let next = match step {
            Key::Field(name) => value.get_mut(name.as_str()),
            Key::Index(index) => value.get_mut(*index),
        };
        let Some(next) = next else { return };
        value = next;
    }
    if let Value::Object(fields) = value {
        fields.remove(last);
    }
}

/// Reports every unknown field. `schema` is `None` where nothing is known but that no field is; `preserve` is inherited
/// by the lists of a place that preserves what it does not declare.
fn walk(
    value: &Value,
    schema: Option<SchemaCursor<'_>>,
    preserve: bool,
    path: Path<'_>,
    report: &mut dyn FnMut(&Path<'_>),
) {
    let preserve =
        preserve || schema.is_some_and(|at| at.schema().preserve_unknown_fields || at.site().preserve_unknown_fields);
    match value {
        Value::Object(_) if schema.is_some_and(says_nothing) => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = path.field(name);
                match schema.and_then(|schema| schema.field(name)) {
                    Some(field) => walk(value, Some(field), false, path, report),
                    None if preserve => {}
                    None => report(&path),
                }
            }
        }
        Value::Array(_) if schema.is_some_and(says_nothing) => {}
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items());
            if schema.is_none() && preserve {
                return;
            }
            for (index, item) in items.iter().enumerate() {
                walk(item, schema, preserve, path.index(index), report);
            }
        }
        _ => {}
    }
}

fn says_nothing(schema: SchemaCursor<'_>) -> bool {
    schema.schema().schema_type == SchemaType::Any
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use umbra_apimachinery::gvk::GroupVersionKind;

    use super::*;
    use crate::{CustomResource, Document, builtin};

    fn custom(schema: &Value) -> TypeSchema {
        let kind = GroupVersionKind::new("example.com", "v1", "A");
        let resource = CustomResource {
            kind: kind.clone(),
            list_kind: "AList",
            schema: Some(schema),
        };
        Document::custom_resources(&[resource])
            .unwrap()
            .type_schema(&kind)
            .unwrap()
    }

    #[test]
    fn unknown_fields_go_wherever_they_are() {
        let schema = builtin::type_schema(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}, "nope": 1},
            "spec": {"containers": [{"name": "c", "imag": "x", "resources": {"limits": {"cpu": "1", "any": "2"}}}]},
            "extra": {"a": 1},
        });
        let expected = ["extra", "metadata.nope", "spec.containers[0].imag"];
        assert_eq!(unknown_fields(&pod, &schema), expected);
        assert_eq!(prune(&mut pod, &schema), expected);
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
                "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "any": "2"}}}]},
            })
        );
        assert!(unknown_fields(&pod, &schema).is_empty());
    }

    #[test]
    fn what_is_to_be_preserved_stays() {
        let schema = custom(&json!({"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                         "properties": {"spec": {"type": "object"}}},
            "empty": {"type": "object"},
        }}));
        let mut object = json!({
            "free": {"x": {"y": [{"z": 1}]}, "known": {"a": "b", "c": 1}},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {"a": 1}, "b": 2},
            "empty": {"a": 1},
        });
        assert_eq!(
            prune(&mut object, &schema),
            [
                "embedded.b",
                "embedded.metadata.odd",
                "embedded.spec.a",
                "empty.a",
                "free.known.c"
            ]
        );
        assert_eq!(object["free"], json!({"x": {"y": [{"z": 1}]}, "known": {"a": "b"}}));
    }

    #[test]
    fn schemas_within_schemas() {
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let schema = builtin::type_schema(&kind).unwrap();
        let mut definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "string"}, "default": [{"b": 1}], "odd": 1}},
        }}}]}});
        assert_eq!(
            prune(&mut definition, &schema),
            ["spec.versions[0].schema.openAPIV3Schema.properties.a.odd"]
        );
    }
}
