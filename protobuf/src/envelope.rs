//! What every object is wrapped in: a prefix, and a message that names the kind.

use crate::WireError;
use crate::error::ProtobufError;
use crate::object::Place;
use crate::wire::{Fields, Value};

/// What every body begins with (`protoEncodingPrefix`).
pub(crate) const PREFIX: &[u8] = b"k8s\0";

/// The message that the prefix is followed by.
pub(crate) const UNKNOWN: &str = "runtime.Unknown";

/// `runtime.Unknown`, which every object is wrapped in.
#[derive(Debug, Default)]
pub(crate) struct Unknown<'a> {
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) raw: &'a [u8],
    pub(crate) content_encoding: &'a str,
    pub(crate) content_type: &'a str,
}

impl<'a> Unknown<'a> {
    /// Reads what stands behind the prefix.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, ProtobufError> {
        let encoding = body.strip_prefix(PREFIX).ok_or(ProtobufError::NoPrefix)?;
        let mut unknown = Self::default();
        for field in Fields::new(encoding) {
            match field.map_err(in_unknown)? {
                (1, Value::Bytes(type_meta)) => unknown.read_type_meta(type_meta)?,
                (2, Value::Bytes(raw)) => unknown.raw = raw,
                (3, Value::Bytes(text)) => unknown.content_encoding = unknown_text("contentEncoding", text)?,
                (4, Value::Bytes(text)) => unknown.content_type = unknown_text("contentType", text)?,
                (1..=4, _) => return Err(unknown_place("raw").wire_type()),
                _ => {}
            }
        }
        Ok(unknown)
    }

    fn read_type_meta(&mut self, encoding: &'a [u8]) -> Result<(), ProtobufError> {
        for field in Fields::new(encoding) {
            match field.map_err(in_unknown)? {
                (1, Value::Bytes(text)) => self.api_version = unknown_text("apiVersion", text)?,
                (2, Value::Bytes(text)) => self.kind = unknown_text("kind", text)?,
                (1 | 2, _) => return Err(unknown_place("typeMeta").wire_type()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is said about contents that are neither plain protobuf nor JSON.
    pub(crate) fn unreadable(&self) -> ProtobufError {
        ProtobufError::Content {
            content_type: self.content_type.to_owned(),
            content_encoding: self.content_encoding.to_owned(),
        }
    }
}

fn unknown_place(field: &'static str) -> Place {
    Place {
        message: UNKNOWN,
        field,
    }
}

fn unknown_text<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    unknown_place(field).text(bytes)
}

fn in_unknown(source: WireError) -> ProtobufError {
    ProtobufError::Wire {
        message: UNKNOWN,
        source,
    }
}
