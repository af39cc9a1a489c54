//! Whether an object has the shape that its kind asks for.
//!
//! Errors are worded as kube-apiserver words them for custom resources
//! (`k8s.io/apiextensions-apiserver/pkg/apiserver/validation`, `…/schema/listtype`, and the messages of
//! `k8s.io/kube-openapi/pkg/validation/errors`). For [`Dialect::BuiltIn`] the rules are those of decoding; what Kubernetes
//! checks by code beyond the shape is left to the server that owns the kind.
//!
//! Not checked: CEL rules (`x-kubernetes-validations`), and what [`crate::document`] does not model. Formats that are
//! checked are `date-time`, `int32` and `quantity`.

mod lists;
mod scalars;

use std::fmt;

use serde_json::Value;
use umbra_apimachinery::schema::{Limits, SchemaCursor, SchemaType, TypeSchema};
use umbra_apimachinery::status::Cause;

use crate::Dialect;
use crate::path::Path;
use crate::reader::QUANTITY_FORMAT;

/// What kind of fault a field has: `metav1.CauseType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldErrorReason {
    /// It is not there.
    Required,
    /// Its value is of another type.
    TypeInvalid,
    /// Its value breaks a rule.
    Invalid,
    /// Its value is none of those allowed.
    NotSupported,
    /// The same value is there twice.
    Duplicate,
    /// Too many characters.
    TooLong,
    /// Too many elements.
    TooMany,
}

impl FieldErrorReason {
    /// As a `StatusCause` carries it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    /// As a message starts.
    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::TypeInvalid | Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// A field with a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where: `spec.containers[0].name`; empty for the object itself.
    pub path: String,
    /// What kind of fault.
    pub reason: FieldErrorReason,
    /// What is wrong, without the path: `Invalid value: "x": …`.
    pub message: String,
}

impl fmt::Display for FieldError {
    /// `spec.replicas: Invalid value: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What Go prints for the path of the object itself.
        let path = if self.path.is_empty() { "<nil>" } else { &self.path };
        write!(f, "{path}: {}", self.message)
    }
}

impl From<FieldError> for Cause {
    fn from(error: FieldError) -> Self {
        Self {
            reason: error.reason.as_str().to_owned(),
            message: error.message,
            field: error.path,
        }
    }
}

/// All faults of an object, in the order of its schema. Empty means valid.
#[must_use]
pub fn validate(object: &Value, schema: &TypeSchema, dialect: Dialect) -> Vec<FieldError> {
    let mut validation = Validation {
        dialect,
        errors: Vec::new(),
    };
    validation.value(object, schema.cursor(), Path::ROOT);
    validation.errors
}

struct Validation {
    dialect: Dialect,
    errors: Vec<FieldError>,
}

impl Validation {
    fn add(&mut self, path: &Path<'_>, reason: FieldErrorReason, value: Option<&Value>, detail: &str) {
        let mut message = reason.title().to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&shown(value));
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        self.errors.push(FieldError {
            path: path.to_string(),
            reason,
            message,
        });
    }

    /// A rule that the value breaks; `rule` follows "in body".
    fn invalid(&mut self, path: &Path<'_>, value: &Value, rule: &str) {
        let detail = format!("{path} in body {rule}");
        self.add(path, FieldErrorReason::Invalid, Some(value), &detail);
    }

    fn wrong_type(&mut self, path: &Path<'_>, expected: &str, found: &str) {
        let detail = format!("{path} in body must be of type {expected}: \"{found}\"");
        let shown = Value::String(found.to_owned());
        self.add(path, FieldErrorReason::TypeInvalid, Some(&shown), &detail);
    }

    /// Judges a value by the dialect of its place.
    fn value(&mut self, value: &Value, schema: SchemaCursor<'_>, path: Path<'_>) {
        let outer = self.dialect;
        self.dialect = outer.at(schema);
        self.value_here(value, schema, path);
        self.dialect = outer;
    }

    fn value_here(&mut self, value: &Value, schema: SchemaCursor<'_>, path: Path<'_>) {
        let node = schema.schema();
        if value.is_null() {
            let accepted = self.dialect == Dialect::BuiltIn || schema.nullable() || node.schema_type == SchemaType::Any;
            if !accepted {
                self.wrong_type(&path, expected(node.schema_type), "null");
            }
            return;
        }
        let is_quantity = node.format.as_deref() == Some(QUANTITY_FORMAT);
        if !has_type(value, node.schema_type) || (is_quantity && !(value.is_string() || value.is_number())) {
            let expected = if is_quantity {
                "string,number"
            } else {
                expected(node.schema_type)
            };
            self.wrong_type(&path, expected, type_name(value));
            return;
        }
        self.enumeration(value, &node.enumeration, &path);
        match value {
            Value::Object(fields) => self.object(fields, schema, path),
            Value::Array(items) => self.array(items, schema, path),
            Value::String(text) => self.string(text, value, node, &path),
            Value::Number(_) => self.number(value, node, &path),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn enumeration(&mut self, value: &Value, allowed: &[Value], path: &Path<'_>) {
        if allowed.is_empty() || allowed.contains(value) {
            return;
        }
        let allowed: Vec<String> = allowed
            .iter()
            .map(|one| match one {
                Value::String(text) => format!("{text:?}"),
                other => format!("{:?}", other.to_string()),
            })
            .collect();
        let detail = format!("supported values: {}", allowed.join(", "));
        self.add(path, FieldErrorReason::NotSupported, Some(value), &detail);
    }

    fn object(&mut self, fields: &serde_json::Map<String, Value>, schema: SchemaCursor<'_>, path: Path<'_>) {
        let node = schema.schema();
        for name in &node.required {
            if !fields.contains_key(name) && self.is_missed(schema, name, &path) {
                self.add(&path.field(name), FieldErrorReason::Required, None, "");
            }
        }
        if let Some(limits) = node.limits.as_deref() {
            self.object_size(fields, limits, &path);
        }
        for (name, value) in fields {
            if let Some(field) = schema.field(name) {
                self.value(value, field, path.field(name));
            }
        }
    }

    /// Whether a required field that is absent is a fault: see [`Dialect::BuiltIn`].
    fn is_missed(&self, schema: SchemaCursor<'_>, name: &str, path: &Path<'_>) -> bool {
        if self.dialect == Dialect::CustomResource {
            return true;
        }
        let is_zero_value_enough = schema.property(name).is_some_and(|field| {
            matches!(
                field.schema().schema_type,
                SchemaType::Array | SchemaType::Integer | SchemaType::Number | SchemaType::Boolean
            )
        });
        !is_zero_value_enough && !path.is_within("status") && !path.is_within("metadata")
    }

    fn object_size(&mut self, fields: &serde_json::Map<String, Value>, limits: &Limits, path: &Path<'_>) {
        let count = fields.len() as u64;
        if let Some(most) = limits.max_properties.filter(|most| count > *most) {
            self.too_many(path, count, most);
        }
        if let Some(least) = limits.min_properties.filter(|least| count < *least) {
            let value = Value::Object(fields.clone());
            self.invalid(path, &value, &format!("should have at least {least} properties"));
        }
    }

    fn too_many(&mut self, path: &Path<'_>, count: u64, most: u64) {
        let items = if most == 1 { "item" } else { "items" };
        let detail = format!("must have at most {most} {items}");
        self.add(path, FieldErrorReason::TooMany, Some(&Value::from(count)), &detail);
    }
}

/// A value as error messages show it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

fn has_type(value: &Value, expected: SchemaType) -> bool {
    match expected {
        SchemaType::Any => true,
        SchemaType::Object => value.is_object(),
        SchemaType::Array => value.is_array(),
        SchemaType::String => value.is_string(),
        SchemaType::Boolean => value.is_boolean(),
        SchemaType::Number => value.is_number(),
        SchemaType::Integer => is_integer(value),
        SchemaType::IntOrString => value.is_string() || is_integer(value),
    }
}

/// `1.0` is an integer too, as everywhere in JSON.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn expected(expected: SchemaType) -> &'static str {
    match expected {
        SchemaType::Object => "object",
        SchemaType::Array => "array",
        SchemaType::String => "string",
        SchemaType::Integer => "integer",
        SchemaType::Number => "number",
        SchemaType::Boolean => "boolean",
        SchemaType::IntOrString => "integer,string",
        SchemaType::Any => "any",
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
