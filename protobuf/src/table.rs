//! What is known about the built-in kinds: which message a kind is, and which fields messages have.

use std::collections::HashMap;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// See `generate/messages.go` for what the letters in it mean.
static FILE: &[u8] = include_bytes!("fields.json.gz");

/// Under which apiVersion the table has the kinds that every group version has, such as `DeleteOptions`.
const ANY_GROUP: &str = "*";

/// The table, read at the first call.
pub(crate) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let table: Table = serde_json::from_reader(GzDecoder::new(FILE)).expect("the table was checked by a test");
        table
    });
    &TABLE
}

/// Kinds and messages.
#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    kinds: HashMap<String, HashMap<String, usize>>,
    messages: Vec<Message>,
}

impl Table {
    /// The message that a kind is.
    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let named = |version: &str| self.kinds.get(version)?.get(kind);
        named(api_version)
            .or_else(|| named(ANY_GROUP))
            .map(|&index| &self.messages[index])
    }

    /// The message of a [`Shape::Message`].
    pub(crate) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }
}

/// One message: a struct of Go.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    /// As in Go, such as `v1.Pod`; for messages to users.
    #[serde(rename = "n")]
    pub(crate) name: String,
    /// How it is printed.
    #[serde(rename = "f", default)]
    pub(crate) form: Form,
    /// In the order in which they are printed.
    #[serde(rename = "p", default)]
    pub(crate) fields: Vec<Field>,
}

/// How a message is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Form {
    /// As object of its fields.
    #[default]
    Object,
    /// A list that protobuf wraps into a message, as its one field.
    Items,
    /// `metav1.Time`.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// `metav1.Duration`.
    Duration,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Raw JSON: `runtime.RawExtension`, `metav1.FieldsV1`, `apiextensions.JSON`.
    Raw,
    /// `apiextensions.JSONSchemaPropsOrArray`.
    SchemaOrArray,
    /// `apiextensions.JSONSchemaPropsOrBool`.
    SchemaOrBool,
    /// `apiextensions.JSONSchemaPropsOrStringArray`.
    SchemaOrStrings,
}

/// One field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its number in protobuf.
    pub(crate) number: u32,
    /// Its name in JSON.
    pub(crate) name: String,
    /// Dropped where it is the zero value and no struct.
    pub(crate) omit_empty: bool,
    /// Dropped where it is the zero time.
    pub(crate) omit_zero: bool,
    /// Printed as if its fields were those of the message.
    pub(crate) inline: bool,
    /// Behind a pointer: absent is not the same as the zero value.
    pub(crate) pointer: bool,
    /// What it holds.
    pub(crate) shape: Shape,
}

/// What a field, an element or the value of a map holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// UTF-8.
    String,
    /// Base64 in JSON.
    Bytes,
    /// `false` or `true`.
    Bool,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// 64 bits.
    Double,
    /// The message with that index.
    Message(usize),
    /// Many of them.
    List(Box<Shape>),
    /// Many of them, by strings.
    Map(Box<Shape>),
}

impl Shape {
    fn parse(text: &str) -> Option<Self> {
        let mut letters = text.chars();
        let shape = match (letters.next()?, letters.as_str()) {
            ('s', "") => Self::String,
            ('y', "") => Self::Bytes,
            ('b', "") => Self::Bool,
            ('i', "") => Self::Int32,
            ('l', "") => Self::Int64,
            ('d', "") => Self::Double,
            ('m', index) => Self::Message(index.parse().ok()?),
            ('[', element) => Self::List(Box::new(Self::parse(element)?)),
            ('{', value) => Self::Map(Box::new(Self::parse(value)?)),
            _ => return None,
        };
        Some(shape)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, name, text) = <(u32, String, String)>::deserialize(deserializer)?;
        let shape = text.trim_start_matches(['?', '!', '.', '*']);
        let flags = &text[..text.len() - shape.len()];
        Ok(Self {
            number,
            name,
            omit_empty: flags.contains('?'),
            omit_zero: flags.contains('!'),
            inline: flags.contains('.'),
            pointer: flags.contains('*'),
            shape: Shape::parse(shape).ok_or_else(|| D::Error::custom(format!("no shape is written {shape:?}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every index that occurs leads somewhere, so that none has to be checked later.
    #[test]
    fn the_table_is_closed() {
        fn check(shape: &Shape, messages: usize) {
            match shape {
                Shape::Message(index) => assert!(*index < messages),
                Shape::List(inner) | Shape::Map(inner) => check(inner, messages),
                _ => {}
            }
        }
        let table = table();
        let messages = table.messages.len();
        assert!(messages > 800, "{messages}");
        for field in table.messages.iter().flat_map(|message| &message.fields) {
            check(&field.shape, messages);
            assert!(
                !field.inline || matches!(field.shape, Shape::Message(_)),
                "{}",
                field.name
            );
        }
        assert!(
            table
                .kinds
                .values()
                .flat_map(HashMap::values)
                .all(|&index| index < messages)
        );
        for message in &table.messages {
            let fields = message.fields.len();
            match message.form {
                Form::Items => assert_eq!(fields, 1),
                Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => assert_eq!(fields, 2),
                Form::Object => {}
                _ => assert_eq!(fields, 0, "{}", message.name),
            }
        }
    }

    #[test]
    fn kinds_by_version() {
        let name = |version, kind| table().kind(version, kind).map(|message| message.name.as_str());
        assert_eq!(name("v1", "Pod"), Some("v1.Pod"));
        assert_eq!(name("apps/v1", "Deployment"), Some("v1.Deployment"));
        assert_eq!(name("apps/v1beta1", "Scale"), Some("v1beta1.Scale"));
        assert_eq!(name("example.com/v7", "DeleteOptions"), Some("v1.DeleteOptions"));
        assert_eq!(name("example.com/v7", "Pod"), None);
    }
}
