//! Paths to fields: what a manager owns is a set of these.
//!
//! Source: `structured-merge-diff/v6/fieldpath` (`PathElement`, `Path`, their order and text).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::value::PathValue;

/// One step from a value to a value inside it. The order of the variants is the order of `FieldsV1`.
///
/// Cheap to clone: sets share the text of their elements.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of a struct or an entry of a map (`f:`).
    Field(Arc<str>),
    /// An item of a list that is a map, by its keys in the order of their names (`k:`).
    Key(Arc<[KeyField]>),
    /// An item of a list that is a set, by its value (`v:`).
    Value(Arc<PathValue>),
    /// An item of a list by its position (`i:`). Nothing here makes these; they are kept when they are read.
    Index(i64),
}

/// One key of an item of an associative list, and its value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyField {
    /// The name of the key.
    pub name: Arc<str>,
    /// What the item has there, or the default of the key.
    pub value: PathValue,
}

impl PathElement {
    /// The field `name`.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(Arc::from(name))
    }

    /// The item with these keys, in any order.
    #[must_use]
    pub fn key<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut fields: Vec<KeyField> = fields
            .into_iter()
            .map(|(name, value)| KeyField {
                name: Arc::from(name),
                value: PathValue(value),
            })
            .collect();
        fields.sort_by(|left, right| left.name.cmp(&right.name));
        Self::Key(fields.into())
    }

    /// The item of a set that is `value`.
    #[must_use]
    pub fn value(value: Value) -> Self {
        Self::Value(Arc::new(PathValue(value)))
    }

    /// How this element compares with the field `name`, without making an element of it.
    pub(super) fn compare_field(&self, name: &str) -> Ordering {
        match self {
            Self::Field(own) => (**own).cmp(name),
            _ => Ordering::Greater,
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{}={}", field.name, field.value)?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path from the top of an object, as `kubectl` prints it: `.spec.containers[name="app"].image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<PathElement>);

impl Path {
    /// The path through these field names.
    #[must_use]
    pub fn of_fields(names: &[&str]) -> Self {
        Self(names.iter().map(|name| PathElement::field(name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}
