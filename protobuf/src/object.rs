//! Prints messages as `encoding/json` prints the structs of Go that they are made from.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::envelope::{PREFIX, UNKNOWN, Unknown};
use crate::error::ProtobufError;
use crate::table::{Field, Form, Message, Shape, Table};
use crate::wire::{Fields, Value, packed_varints};
use crate::{DEPTH_LIMIT, MEDIA_TYPE, SIZE_LIMIT};

/// One occurrence of a field: where the field stands in its message, and what was sent.
pub(crate) type Found<'a> = (usize, Value<'a>);

/// A field, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The name of the message.
    pub(crate) message: &'static str,
    /// The name of the field.
    pub(crate) field: &'static str,
}

impl Place {
    pub(crate) fn new(message: &'static Message, field: &'static Field) -> Self {
        Self {
            message: &message.name,
            field: &field.name,
        }
    }

    pub(crate) fn wire_type(self) -> ProtobufError {
        ProtobufError::WireType {
            message: self.message,
            field: self.field,
        }
    }

    pub(crate) fn text(self, bytes: &[u8]) -> Result<&str, ProtobufError> {
        str::from_utf8(bytes).map_err(|_| ProtobufError::NotUtf8 {
            message: self.message,
            field: self.field,
        })
    }
}

/// Prints one body.
#[derive(Debug)]
pub(crate) struct Printer {
    table: &'static Table,
    pub(crate) out: Vec<u8>,
    depth: usize,
}

impl Printer {
    pub(crate) fn new(table: &'static Table) -> Self {
        Self {
            table,
            out: Vec::new(),
            depth: 0,
        }
    }

    pub(crate) fn into_json(self) -> Vec<u8> {
        self.out
    }

    /// Prints the object that is in a `runtime.Unknown` behind the prefix.
    pub(crate) fn envelope(&mut self, body: &[u8]) -> Result<(), ProtobufError> {
        let unknown = Unknown::read(body)?;
        if !unknown.content_encoding.is_empty() {
            return Err(unknown.unreadable());
        }
        match unknown.content_type {
            "" | MEDIA_TYPE => {}
            "application/json" => return self.raw(UNKNOWN, unknown.raw),
            _ => return Err(unknown.unreadable()),
        }
        if unknown.api_version.is_empty() || unknown.kind.is_empty() {
            return Err(ProtobufError::NoKind);
        }
        let message = self.table.kind(unknown.api_version, unknown.kind);
        let message = message.ok_or_else(|| ProtobufError::UnknownKind {
            api_version: unknown.api_version.to_owned(),
            kind: unknown.kind.to_owned(),
        })?;
        self.nested(|printer| {
            printer.out.extend_from_slice(b"{\"kind\":");
            printer.string(unknown.kind);
            printer.out.extend_from_slice(b",\"apiVersion\":");
            printer.string(unknown.api_version);
            printer.fields(message, &[unknown.raw], &mut false)?;
            printer.out.push(b'}');
            Ok(())
        })
    }

    /// Prints a message from all of its encodings, of which later ones add to earlier ones.
    fn message(&mut self, message: &'static Message, encodings: &[&[u8]]) -> Result<(), ProtobufError> {
        self.nested(|printer| match message.form {
            Form::Object => {
                printer.out.push(b'{');
                printer.fields(message, encodings, &mut true)?;
                printer.out.push(b'}');
                Ok(())
            }
            Form::Items => {
                let field = &message.fields[0];
                let items = find(message, encodings)?;
                printer.list(Place::new(message, field), element_of(field), &items)
            }
            _ => printer.form(message, encodings),
        })
    }

    /// Runs something one level deeper.
    fn nested(&mut self, print: impl FnOnce(&mut Self) -> Result<(), ProtobufError>) -> Result<(), ProtobufError> {
        if self.depth == DEPTH_LIMIT {
            return Err(ProtobufError::TooDeep);
        }
        self.depth += 1;
        print(self)?;
        self.depth -= 1;
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ProtobufError> {
        if self.out.len() > SIZE_LIMIT {
            return Err(ProtobufError::TooLarge);
        }
        Ok(())
    }

    /// Prints the fields of a message without braces; `first` says whether no field stands in front of them.
    fn fields(
        &mut self,
        message: &'static Message,
        encodings: &[&[u8]],
        first: &mut bool,
    ) -> Result<(), ProtobufError> {
        let found = find(message, encodings)?;
        let mut rest = &found[..];
        for (position, field) in message.fields.iter().enumerate() {
            let count = rest.iter().take_while(|(of, _)| *of == position).count();
            let (values, others) = rest.split_at(count);
            rest = others;
            self.field(message, field, values, first)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: &'static Message,
        field: &'static Field,
        values: &[Found<'_>],
        first: &mut bool,
    ) -> Result<(), ProtobufError> {
        let place = Place::new(message, field);
        if field.inline
            && let Shape::Message(index) = field.shape
        {
            if field.pointer && values.is_empty() {
                return Ok(());
            }
            let inner = self.table.message(index);
            let encodings = encodings_of(place, values)?;
            return self.nested(|printer| printer.fields(inner, &encodings, first));
        }
        if self.is_dropped(place, field, values)? {
            return Ok(());
        }
        if !*first {
            self.out.push(b',');
        }
        *first = false;
        self.string(&field.name);
        self.out.push(b':');
        self.value(place, field, values)?;
        self.check_size()
    }

    /// The rules of `omitempty` and `omitzero`.
    fn is_dropped(&self, place: Place, field: &Field, values: &[Found<'_>]) -> Result<bool, ProtobufError> {
        if field.omit_zero && crate::form::is_zero_time(place.message, &encodings_of(place, values)?)? {
            return Ok(true);
        }
        if !field.omit_empty {
            return Ok(false);
        }
        let Some((_, last)) = values.last() else {
            // A struct is never empty.
            return Ok(field.pointer || !matches!(field.shape, Shape::Message(_)) || self.is_items(&field.shape));
        };
        if field.pointer {
            return Ok(false);
        }
        Ok(match (&field.shape, last) {
            (Shape::String | Shape::Bytes, Value::Bytes(bytes)) => bytes.is_empty(),
            (Shape::Int32, Value::Varint(number)) => *number as i32 == 0,
            (Shape::Bool | Shape::Int64, Value::Varint(number)) => *number == 0,
            (Shape::Double, Value::Fixed64(bits)) => f64::from_bits(*bits) == 0.0,
            (Shape::List(element), _) if is_packable(element) => {
                values.iter().all(|(_, value)| *value == Value::Bytes(&[]))
            }
            (Shape::Message(index), _) if self.is_items(&field.shape) => {
                find(self.table.message(*index), &encodings_of(place, values)?)?.is_empty()
            }
            _ => false,
        })
    }

    fn is_items(&self, shape: &Shape) -> bool {
        matches!(shape, Shape::Message(index) if self.table.message(*index).form == Form::Items)
    }

    /// Prints what a field holds; `null` for pointers, lists and maps that are absent.
    pub(crate) fn value(
        &mut self,
        place: Place,
        field: &'static Field,
        values: &[Found<'_>],
    ) -> Result<(), ProtobufError> {
        let can_be_nil = match &field.shape {
            Shape::List(_) | Shape::Map(_) | Shape::Bytes => true,
            shape => field.pointer || self.is_items(shape),
        };
        if can_be_nil && values.is_empty() {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        match &field.shape {
            Shape::List(element) => self.list(place, element, values),
            Shape::Map(element) => self.map(place, element, values),
            shape => self.element(place, shape, values),
        }
    }

    fn list(&mut self, place: Place, element: &'static Shape, values: &[Found<'_>]) -> Result<(), ProtobufError> {
        self.out.push(b'[');
        let mut separator: &[u8] = b"";
        for found in values {
            if let (position, Value::Bytes(packed)) = found
                && is_packable(element)
            {
                for number in packed_varints(packed) {
                    let number = number.map_err(|source| ProtobufError::Wire {
                        message: place.message,
                        source,
                    })?;
                    self.out.extend_from_slice(std::mem::replace(&mut separator, b","));
                    self.element(place, element, &[(*position, Value::Varint(number))])?;
                }
            } else {
                self.out.extend_from_slice(std::mem::replace(&mut separator, b","));
                self.element(place, element, std::slice::from_ref(found))?;
            }
            self.check_size()?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// In protobuf, a map is a list of pairs, of which later ones replace earlier ones; Go prints them sorted.
    fn map(&mut self, place: Place, element: &'static Shape, values: &[Found<'_>]) -> Result<(), ProtobufError> {
        let mut entries = BTreeMap::new();
        for encoding in encodings_of(place, values)? {
            let (mut key, mut value) = ("", None);
            for field in Fields::new(encoding) {
                let field = field.map_err(|source| ProtobufError::Wire {
                    message: place.message,
                    source,
                })?;
                match field {
                    (1, Value::Bytes(bytes)) => key = place.text(bytes)?,
                    (1, _) => return Err(place.wire_type()),
                    (2, sent) => value = Some((0, sent)),
                    _ => {}
                }
            }
            entries.insert(key, value);
        }
        let mut separator = b'{';
        for (key, value) in &entries {
            self.out.push(separator);
            separator = b',';
            self.string(key);
            self.out.push(b':');
            self.element(place, element, value.as_slice())?;
            self.check_size()?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Prints one value that is neither list nor map: the last that was sent, or else the zero value.
    pub(crate) fn element(
        &mut self,
        place: Place,
        shape: &'static Shape,
        values: &[Found<'_>],
    ) -> Result<(), ProtobufError> {
        let last = values.last().map(|(_, value)| *value);
        match (shape, last) {
            (Shape::Message(index), _) => {
                let encodings = encodings_of(place, values)?;
                self.message(self.table.message(*index), &encodings)?;
            }
            (Shape::String, Some(Value::Bytes(bytes))) => self.string(place.text(bytes)?),
            (Shape::Bytes, Some(Value::Bytes(bytes))) => self.string(&STANDARD.encode(bytes)),
            (Shape::String | Shape::Bytes, None) => self.string(""),
            (Shape::Bool, None) => self.literal(false),
            (Shape::Bool, Some(Value::Varint(number))) => self.literal(number != 0),
            (Shape::Int32 | Shape::Int64 | Shape::Double, None) => self.literal(0),
            // Longer numbers lose their upper bits, as in Go.
            (Shape::Int32, Some(Value::Varint(number))) => self.literal(number as i32),
            (Shape::Int64, Some(Value::Varint(number))) => self.literal(number as i64),
            (Shape::Double, Some(Value::Fixed64(bits))) => self.double(place, f64::from_bits(bits))?,
            _ => return Err(place.wire_type()),
        }
        Ok(())
    }

    pub(crate) fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.out, text).expect("a string has a JSON form, and a vector takes it");
    }

    /// A number or a boolean, which are written in JSON as they are in Rust.
    pub(crate) fn literal(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "{value}").expect("a vector takes everything");
    }

    fn double(&mut self, place: Place, number: f64) -> Result<(), ProtobufError> {
        if !number.is_finite() {
            return Err(ProtobufError::OutOfRange {
                message: place.message,
                value: format!("the number {number} of {}", place.field),
            });
        }
        // Without a fraction where there is none, so that it stays a whole number for those who tell them apart.
        self.literal(number);
        Ok(())
    }

    /// Prints JSON as it is; an object in protobuf, which may stand in its place, in JSON.
    pub(crate) fn raw(&mut self, message: &'static str, raw: &[u8]) -> Result<(), ProtobufError> {
        if raw.starts_with(PREFIX) {
            return self.nested(|printer| printer.envelope(raw));
        }
        let not_json = |source| ProtobufError::NotJson { message, source };
        // Through a string, because a parser that skips does not look at what is in strings.
        let text = str::from_utf8(raw).map_err(|error| not_json(serde::de::Error::custom(error)))?;
        let _: serde::de::IgnoredAny = serde_json::from_str(text).map_err(not_json)?;
        self.out.extend_from_slice(raw);
        Ok(())
    }
}

/// All occurrences of fields that are known, by position, those of one field as they were sent.
pub(crate) fn find<'a>(message: &'static Message, encodings: &[&'a [u8]]) -> Result<Vec<Found<'a>>, ProtobufError> {
    let mut found = Vec::new();
    for encoding in encodings {
        for field in Fields::new(encoding) {
            let (number, value) = field.map_err(|source| ProtobufError::Wire {
                message: &message.name,
                source,
            })?;
            if let Some(position) = message.fields.iter().position(|field| field.number == number) {
                found.push((position, value));
            }
        }
    }
    found.sort_by_key(|(position, _)| *position);
    Ok(found)
}

pub(crate) fn encodings_of<'a>(place: Place, values: &[Found<'a>]) -> Result<Vec<&'a [u8]>, ProtobufError> {
    let encoding = |(_, value): &Found<'a>| match value {
        Value::Bytes(bytes) => Ok(*bytes),
        _ => Err(place.wire_type()),
    };
    values.iter().map(encoding).collect()
}

/// Whether lists of it may be packed. Those of doubles may, too, but Kubernetes has none.
fn is_packable(element: &Shape) -> bool {
    matches!(element, Shape::Bool | Shape::Int32 | Shape::Int64)
}

fn element_of(field: &'static Field) -> &'static Shape {
    match &field.shape {
        Shape::List(element) => element,
        other => other,
    }
}
