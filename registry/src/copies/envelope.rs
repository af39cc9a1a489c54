//! The value of a copy: one line of JSON about the object, and the object's JSON with a gap for the revision.
//!
//! The header has what the watch cache indexes, so that loading 10^5 copies reads 10^5 short lines instead of parsing
//! 10^5 objects.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::copies::cells::Cells;

/// What is known of a copy without parsing its object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// The revision the child gave the object.
    #[serde(rename = "r")]
    pub child_revision: String,
    /// The UID.
    #[serde(rename = "u", default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Where in the object's JSON the revision goes.
    #[serde(rename = "g")]
    pub gap: usize,
    /// Labels, as the view shows them.
    #[serde(rename = "l", default)]
    pub labels: BTreeMap<String, String>,
    /// Fields that selectors use, without `metadata.name` and `metadata.namespace`.
    #[serde(rename = "f", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// What the child printed; empty where it printed nothing.
    #[serde(rename = "t", default, skip_serializing_if = "Cells::is_empty")]
    pub cells: Cells,
}

/// A copy whose header has been read.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// What is known of the object.
    pub header: Header,
    /// The object's JSON with a gap.
    json: Bytes,
}

/// A value that is no copy.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// There is no line that could be a header.
    #[error("the value has no header line")]
    NoHeader,
    /// The header makes no sense.
    #[error("the header of the value cannot be read")]
    BadHeader(#[source] serde_json::Error),
    /// The gap is outside the object.
    #[error("the header puts the revision at byte {0}, beyond the object's end")]
    BadGap(usize),
}

impl Envelope {
    /// A copy of an object whose JSON has a gap at `header.gap`.
    #[must_use]
    pub fn new(header: Header, json: Vec<u8>) -> Self {
        Self {
            header,
            json: json.into(),
        }
    }

    /// Reads a stored value. The object's bytes are shared with it.
    ///
    /// # Errors
    /// Where the value is no copy.
    pub fn decode(value: &Bytes) -> Result<Self, EnvelopeError> {
        let line = value
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or(EnvelopeError::NoHeader)?;
        let header: Header = serde_json::from_slice(&value[..line]).map_err(EnvelopeError::BadHeader)?;
        let json = value.slice(line + 1..);
        if header.gap > json.len() {
            return Err(EnvelopeError::BadGap(header.gap));
        }
        Ok(Self { header, json })
    }

    /// The value to store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = serde_json::to_vec(&self.header).expect("a header has only strings and cells");
        value.push(b'\n');
        value.extend_from_slice(&self.json);
        value.into()
    }

    /// The object's JSON with `revision` as its resourceVersion.
    #[must_use]
    pub fn object(&self, revision: u64) -> Bytes {
        let revision = revision.to_string();
        let (before, after) = self.json.split_at(self.header.gap);
        let mut json = BytesMut::with_capacity(self.json.len() + revision.len());
        json.put_slice(before);
        json.put_slice(revision.as_bytes());
        json.put_slice(after);
        json.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_fills_the_gap() {
        let header = Header {
            child_revision: "7".into(),
            gap: 5,
            ..Header::default()
        };
        let envelope = Envelope::new(header, br#"{"r":"#.iter().chain(b"}").copied().collect());
        let stored = envelope.encode();
        let read = Envelope::decode(&stored).unwrap();
        assert_eq!(read.header, envelope.header);
        assert_eq!(&read.object(42)[..], br#"{"r":42}"#);
        assert!(matches!(
            Envelope::decode(&Bytes::from_static(b"{}")),
            Err(EnvelopeError::NoHeader)
        ));
        let beyond = Bytes::from_static(b"{\"r\":\"\",\"g\":9}\n{}");
        assert!(matches!(Envelope::decode(&beyond), Err(EnvelopeError::BadGap(9))));
    }
}
