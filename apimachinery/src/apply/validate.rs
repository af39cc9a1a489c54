//! Whether a value fits its schema as far as merging depends on it.
//!
//! This is not validation of the API: it knows types, declared fields and items of lists, nothing more.
//!
//! Source: `structured-merge-diff/v6/typed/validate.go`.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::node::{ListRule, Node, Shape};
use super::path::{Path, PathElement};
use crate::schema::SchemaType;

/// Whether items of an associative list may be there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// As objects that are stored may have them: they came through a plain write.
    Allowed,
    /// As configurations that are applied may not.
    Refused,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationError {
    /// Where.
    pub path: Path,
    /// What.
    pub message: String,
}

/// All that does not fit. Never empty where it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValidationErrors(pub Vec<ValidationError>);

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.0.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ValidationErrors {}

/// Checks a value against its place.
///
/// # Errors
///
/// With everything that does not fit.
pub fn validate(value: &Value, node: Node<'_>, duplicates: Duplicates) -> Result<(), ValidationErrors> {
    let mut walker = Walker {
        duplicates,
        errors: Vec::new(),
    };
    walker.walk(value, node);
    if walker.errors.is_empty() {
        return Ok(());
    }
    let errors = walker.errors.into_iter().map(|(mut path, message)| {
        path.reverse();
        ValidationError {
            path: Path(path),
            message,
        }
    });
    Err(ValidationErrors(errors.collect()))
}

struct Walker {
    duplicates: Duplicates,
    /// Paths are kept from the inside out and grow only on the way back from an error.
    errors: Vec<(Vec<PathElement>, String)>,
}

impl Walker {
    fn fail(&mut self, message: impl Into<String>) {
        self.errors.push((Vec::new(), message.into()));
    }

    /// Walks into an element; what fails there gets the element into its path.
    fn descend(&mut self, value: &Value, node: Node<'_>, element: impl FnOnce() -> PathElement) {
        let before = self.errors.len();
        self.walk(value, node);
        if self.errors.len() > before {
            let element = element();
            for (path, _) in &mut self.errors[before..] {
                path.push(element.clone());
            }
        }
    }

    fn walk(&mut self, value: &Value, node: Node<'_>) {
        // Below what is untyped, anything goes; null fits everywhere.
        if value.is_null() || matches!(node, Node::Untyped | Node::Deduced) {
            return;
        }
        match (node.shape_for(value), value) {
            (Some(Shape::Scalar), value) => self.walk_scalar(value, node),
            (Some(Shape::Map), Value::Object(map)) => self.walk_map(map, node),
            (Some(Shape::List), Value::Array(items)) => self.walk_list(items, node),
            (Some(Shape::Map), other) => self.fail(format!("expected map, got {other}")),
            (Some(Shape::List), other) => self.fail(format!("expected list, got {other}")),
            (None, _) => self.fail("field not declared in schema"),
        }
    }

    fn walk_scalar(&mut self, value: &Value, node: Node<'_>) {
        let expected = match node {
            Node::Typed { cursor, .. } => {
                let schema = cursor.schema();
                match schema.schema_type {
                    SchemaType::Integer | SchemaType::Number if !value.is_number() => "numeric (int or float)",
                    SchemaType::Boolean if !value.is_boolean() => "boolean",
                    // Strings with a format of their own may be written otherwise, as `int-or-string`.
                    SchemaType::String
                        if matches!(schema.format.as_deref(), None | Some("" | "byte")) && !value.is_string() =>
                    {
                        "string"
                    }
                    _ if value.is_object() || value.is_array() => "any scalar",
                    _ => return,
                }
            }
            _ if value.is_object() || value.is_array() => "any scalar",
            _ => return,
        };
        self.fail(format!("expected {expected}, got {value}"));
    }

    fn walk_map(&mut self, map: &serde_json::Map<String, Value>, node: Node<'_>) {
        for (name, value) in map {
            match node.field(name) {
                Node::Nothing => {
                    let path = vec![PathElement::field(name)];
                    self.errors.push((path, "field not declared in schema".to_owned()));
                }
                field => self.descend(value, field, || PathElement::field(name)),
            }
        }
    }

    fn walk_list(&mut self, items: &[Value], node: Node<'_>) {
        let below = node.items();
        if node.list_rule() == ListRule::Atomic {
            for (index, item) in items.iter().enumerate() {
                let index = i64::try_from(index).unwrap_or(i64::MAX);
                self.descend(item, below, || PathElement::Index(index));
            }
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match node.item_element(item) {
                Ok(element) => element,
                Err(reason) => {
                    self.fail(format!("element {index}: {reason}"));
                    return;
                }
            };
            if self.duplicates == Duplicates::Refused && !seen.insert(element.clone()) {
                self.fail(format!("duplicate entries for key {element}"));
            }
            self.descend(item, below, || element);
        }
    }
}
