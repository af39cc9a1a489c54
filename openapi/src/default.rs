//! Filling in what is absent.
//!
//! The algorithm is that of structural schemas (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting`):
//! defaults apply from the outside in, so that a default may bring fields that get defaults of their own; `null` where
//! `null` is no value counts as absent.

use serde_json::Value;
use umbra_apimachinery::schema::{SchemaCursor, TypeSchema};

use crate::Dialect;

/// Fills in the defaults of a kind.
///
/// For [`Dialect::BuiltIn`] that is what its document says, such as `protocol: TCP`; what Kubernetes fills in by code,
/// such as `restartPolicy`, no document tells.
pub fn apply_defaults(object: &mut Value, schema: &TypeSchema, dialect: Dialect) {
    apply(object, schema.cursor(), dialect);
}

fn apply(value: &mut Value, schema: SchemaCursor<'_>, dialect: Dialect) {
    let dialect = dialect.at(schema);
    match value {
        Value::Object(fields) => {
            for name in schema.schema().properties.keys() {
                let Some(property) = schema.property(name) else {
                    continue;
                };
                let absent = fields
                    .get(name)
                    .is_none_or(|value| value.is_null() && !property.nullable());
                match default_of(property, dialect) {
                    Some(default) if absent => {
                        fields.insert(name.clone(), default.clone());
                    }
                    None if absent => {
                        fields.remove(name);
                    }
                    _ => {}
                }
            }
            for (name, value) in fields {
                if let Some(field) = schema.field(name) {
                    replace_null(value, field, dialect);
                    apply(value, field, dialect);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items() {
                for item in items {
                    replace_null(item, schema, dialect);
                    apply(item, schema, dialect);
                }
            }
        }
        _ => {}
    }
}

/// `null` in a map or a list has a place that stays, so only a default can take it.
fn replace_null(value: &mut Value, schema: SchemaCursor<'_>, dialect: Dialect) {
    if value.is_null()
        && !schema.nullable()
        && let Some(default) = default_of(schema, dialect)
    {
        *value = default.clone();
    }
}

fn default_of<'a>(schema: SchemaCursor<'a>, dialect: Dialect) -> Option<&'a Value> {
    let default = schema.default()?;
    (dialect == Dialect::CustomResource || !is_zero(default)).then_some(default)
}

/// Whether a value is what Go leaves in a field that nobody sets.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use umbra_apimachinery::gvk::GroupVersionKind;

    use super::*;
    use crate::{CustomResource, Document, builtin};

    #[test]
    fn defaults_reach_into_defaults() {
        let kind = GroupVersionKind::new("example.com", "v1", "A");
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "default": {},
            "properties": {
                "replicas": {"type": "integer", "default": 1},
                "note": {"type": "string", "nullable": true, "default": "n"},
                "plain": {"type": "string"},
                "tags": {"type": "object", "additionalProperties": {"type": "string", "default": "t"}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"default": "TCP", "type": "string"}}}},
            },
        }}});
        let resource = CustomResource {
            kind: kind.clone(),
            list_kind: "AList",
            schema: Some(&schema),
        };
        let schema = Document::custom_resources(&[resource])
            .unwrap()
            .type_schema(&kind)
            .unwrap();
        let defaulted = |mut object: Value| {
            apply_defaults(&mut object, &schema, Dialect::CustomResource);
            object
        };
        assert_eq!(
            defaulted(json!({"metadata": {"creationTimestamp": null, "ownerReferences": [{}]}, "spec": {"note": ""}})),
            json!({"metadata": {"ownerReferences": [{}]}, "spec": {"replicas": 1, "note": ""}})
        );
        assert_eq!(defaulted(json!({})), json!({"spec": {"replicas": 1, "note": "n"}}));
        assert_eq!(
            defaulted(json!({"spec": {
                "replicas": null, "note": null, "plain": null, "tags": {"a": null, "b": "c"}, "list": [{}, {"p": "UDP"}],
            }})),
            json!({"spec": {
                "replicas": 1, "note": null, "tags": {"a": "t", "b": "c"}, "list": [{"p": "TCP"}, {"p": "UDP"}],
            }})
        );
    }

    #[test]
    fn zero_values_of_built_in_kinds_are_no_defaults() {
        let schema = builtin::type_schema(&GroupVersionKind::new("", "v1", "Service")).unwrap();
        let mut service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
        apply_defaults(&mut service, &schema, Dialect::BuiltIn);
        assert_eq!(
            service,
            json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
        );
    }
}
