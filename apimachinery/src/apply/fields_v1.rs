//! `FieldsV1`: the JSON form of a [`Set`].
//!
//! A path element is a name with a prefix (`f:`, `k:`, `v:`, `i:`), its value is what is below it, and `.` beside other
//! names says that the element is a member itself. The text is byte for byte what Go writes: integral floats without
//! a fraction, `<`, `>` and `&` escaped inside the values of keys.
//!
//! Source: `structured-merge-diff/v6/fieldpath/serialize.go` and `serialize-pe.go`; the escapes are jsoniter's.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::path::{KeyField, PathElement};
use super::set::Set;
use super::value::{PathValue, sorted};

/// What is wrong with a `FieldsV1`.
#[derive(Debug, thiserror::Error)]
pub enum FieldsV1Error {
    /// The text is not JSON.
    #[error("fieldsV1 is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// Something other than a JSON object where the fields below an element belong.
    #[error("fieldsV1 has {found} where an object belongs")]
    NotAnObject {
        /// What is there.
        found: String,
    },
    /// A name without prefix.
    #[error("fieldsV1 has the name {name:?} without a prefix such as \"f:\"")]
    NoPrefix {
        /// The name.
        name: String,
    },
    /// A name whose rest does not fit its prefix.
    #[error("fieldsV1 has the name {name:?} that cannot be read: {reason}")]
    Unreadable {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Reads a set from text.
///
/// # Errors
///
/// Where the text is not JSON, or not `FieldsV1`. Elements of unknown kinds are skipped.
pub fn from_json(text: &str) -> Result<Set, FieldsV1Error> {
    let value = serde_json::from_str(text).map_err(FieldsV1Error::NotJson)?;
    from_value(&value)
}

/// Reads a set.
///
/// # Errors
///
/// Where the value is not `FieldsV1`. Elements of unknown kinds are skipped.
pub fn from_value(value: &Value) -> Result<Set, FieldsV1Error> {
    read(value).map(|(set, _)| set)
}

/// What is below an element, and whether it is a member.
fn read(value: &Value) -> Result<(Set, bool), FieldsV1Error> {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok((Set::new(), true)),
        other => {
            return Err(FieldsV1Error::NotAnObject {
                found: other.to_string(),
            });
        }
    };
    let mut set = Set::new();
    let mut is_member = false;
    for (name, value) in map {
        if name == "." {
            is_member = true;
            continue;
        }
        let Some(element) = read_element(name)? else {
            continue;
        };
        let (below, member) = read(value)?;
        if member {
            set.insert_member(element.clone());
        }
        set.insert_children(element, below);
    }
    is_member |= set.is_empty();
    Ok((set, is_member))
}

/// Reads one name; `None` where its kind is unknown.
fn read_element(name: &str) -> Result<Option<PathElement>, FieldsV1Error> {
    let unreadable = |reason: String| FieldsV1Error::Unreadable {
        name: name.to_owned(),
        reason,
    };
    let mut prefix = name.chars();
    let (Some(kind), Some(':')) = (prefix.next(), prefix.next()) else {
        return Err(FieldsV1Error::NoPrefix { name: name.to_owned() });
    };
    let rest = prefix.as_str();
    let element = match kind {
        'f' => PathElement::field(rest),
        'v' => PathElement::value(serde_json::from_str(rest).map_err(|error| unreadable(error.to_string()))?),
        'k' => {
            let keys: Option<Map<String, Value>> =
                serde_json::from_str(rest).map_err(|error| unreadable(error.to_string()))?;
            let mut fields: Vec<KeyField> = keys
                .into_iter()
                .flatten()
                .map(|(name, value)| KeyField {
                    name: Arc::from(name),
                    value: PathValue(value),
                })
                .collect();
            fields.sort_by(|left, right| left.name.cmp(&right.name));
            PathElement::Key(fields.into())
        }
        'i' => PathElement::Index(rest.parse().map_err(|_| unreadable("not an index".to_owned()))?),
        _ => return Ok(None),
    };
    Ok(Some(element))
}

/// The set as a JSON value. A JSON map has no order of its own; [`to_json`] writes Go's.
#[must_use]
pub fn to_value(set: &Set) -> Value {
    Value::Object(to_map(set, false))
}

fn to_map(set: &Set, is_member: bool) -> Map<String, Value> {
    let mut map = Map::new();
    if is_member {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for (element, is_member, below) in set.entries() {
        let below = below.map_or_else(Map::new, |below| to_map(below, is_member));
        map.insert(element_name(element), Value::Object(below));
    }
    map
}

/// The set as the text that Go writes.
#[must_use]
pub fn to_json(set: &Set) -> String {
    let mut out = String::new();
    write_set(&mut out, set, false);
    out
}

fn write_set(out: &mut String, set: &Set, is_member: bool) {
    out.push('{');
    let mut first = true;
    if is_member {
        out.push_str("\".\":{}");
        first = false;
    }
    for (element, is_member, below) in set.entries() {
        if !first {
            out.push(',');
        }
        first = false;
        write_string(out, &element_name(element), false);
        out.push(':');
        match below {
            Some(below) => write_set(out, below, is_member),
            None => out.push_str("{}"),
        }
    }
    out.push('}');
}

/// The name of an element in `FieldsV1`.
pub(super) fn element_name(element: &PathElement) -> String {
    let mut name = String::new();
    match element {
        PathElement::Field(field) => {
            name.reserve(field.len() + 2);
            name.push_str("f:");
            name.push_str(field);
        }
        PathElement::Key(fields) => {
            name.push_str("k:{");
            for (index, field) in fields.iter().enumerate() {
                if index > 0 {
                    name.push(',');
                }
                write_string(&mut name, &field.name, false);
                name.push(':');
                write_value(&mut name, &field.value.0);
            }
            name.push('}');
        }
        PathElement::Value(value) => {
            name.push_str("v:");
            write_value(&mut name, &value.0);
        }
        PathElement::Index(index) => write!(name, "i:{index}").expect("writing to a string does not fail"),
    }
    name
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => match number.as_i64() {
            Some(number) => write!(out, "{number}").expect("writing to a string does not fail"),
            None => write_float(out, number.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => write_string(out, text, true),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (name, value)) in sorted(map).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, name, true);
                out.push(':');
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

/// A float as Go's `strconv` writes it for JSON: exponents only below 1e-6 and from 1e21 on, with their sign.
fn write_float(out: &mut String, number: f64) {
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        write!(out, "{number}").expect("writing to a string does not fail");
        return;
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            write!(out, "{digits}e+{exponent:0>2}").expect("writing to a string does not fail");
        }
        Some((digits, exponent)) => {
            write!(out, "{digits}e-{:0>2}", &exponent[1..]).expect("writing to a string does not fail");
        }
        None => out.push_str(&text),
    }
}

/// A JSON string with the escapes of Go's encoders.
fn write_string(out: &mut String, text: &str, escape_html: bool) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => write_escape(out, character),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escape_html => write_escape(out, character),
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn write_escape(out: &mut String, character: char) {
    write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a string does not fail");
}
