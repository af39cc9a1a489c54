//! The stored form of an object: its JSON with an empty `metadata.resourceVersion`, the first field of `metadata`, which
//! comes right after `apiVersion` and `kind`.
//!
//! The place of the revision is therefore found in the first bytes, before anything a user wrote, and an object is served
//! by copying its bytes around the revision; nothing is parsed.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::raw::RawObjectWriter;

const MARKER: &[u8] = br#""metadata":{"resourceVersion":""#;

/// Longer `apiVersion`s and `kind`s do not occur (253 and 63 bytes), so the marker ends before this byte.
const LONGEST_HEAD: usize = 512;

/// A stored value that is no object.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The place of the revision was not found.
    #[error("the stored value has no place for the revision")]
    NoMarker,
    /// The value is no JSON.
    #[error("the stored value is no JSON")]
    Json(#[source] serde_json::Error),
}

/// Serializes an object for the store; its resourceVersion is left out.
#[must_use]
pub fn encode(object: &Value) -> Bytes {
    let mut writer = RawObjectWriter::with_capacity(1024);
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field) {
            writer.member(field, value);
        }
    }
    let mut metadata = RawObjectWriter::with_capacity(512);
    metadata.raw("resourceVersion", b"\"\"");
    for (field, value) in object["metadata"].as_object().into_iter().flatten() {
        if field != "resourceVersion" {
            metadata.member(field, value);
        }
    }
    writer.raw("metadata", &metadata.finish());
    for (field, value) in object.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            writer.member(field, value);
        }
    }
    writer.finish().into()
}

/// The object's JSON with `revision` as its resourceVersion. `stored` is as [`encode`] or this function writes it.
///
/// # Errors
/// [`CodecError::NoMarker`] where it is not.
pub fn present(stored: &[u8], revision: u64) -> Result<Bytes, CodecError> {
    let head = &stored[..stored.len().min(LONGEST_HEAD)];
    let start = head
        .windows(MARKER.len())
        .position(|window| window == MARKER)
        .ok_or(CodecError::NoMarker)?;
    let (before, after) = stored.split_at(start + MARKER.len());
    let end = after
        .iter()
        .position(|byte| *byte == b'"')
        .ok_or(CodecError::NoMarker)?;
    let after = &after[end..];
    let revision = revision.to_string();
    let mut json = BytesMut::with_capacity(stored.len() + revision.len());
    json.put_slice(before);
    json.put_slice(revision.as_bytes());
    json.put_slice(after);
    Ok(json.freeze())
}

/// The parsed object with `revision` as its resourceVersion.
///
/// # Errors
/// [`CodecError::Json`].
pub fn decode(stored: &[u8], revision: u64) -> Result<Value, CodecError> {
    let mut object: Value = serde_json::from_slice(stored).map_err(CodecError::Json)?;
    object.set_metadata("resourceVersion", revision.to_string());
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_is_put_into_the_bytes() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": r#"{"metadata":{"resourceVersion":"#},
            "metadata": {"name": "a", "annotations": {"x": "\"metadata\":{\"resourceVersion\":\""}, "resourceVersion": "3"},
        });
        let stored = encode(&object);
        let presented: Value = serde_json::from_slice(&present(&stored, 42).unwrap()).unwrap();
        assert_eq!(presented, decode(&stored, 42).unwrap());
        assert_eq!(presented["metadata"]["resourceVersion"], "42");
        assert_eq!(presented["data"], object["data"]);
        assert_eq!(encode(&presented), stored);
        assert_eq!(
            present(&present(&stored, 7).unwrap(), 42).unwrap(),
            present(&stored, 42).unwrap()
        );
        assert!(matches!(present(b"{}", 1), Err(CodecError::NoMarker)));
        assert!(matches!(decode(b"{", 1), Err(CodecError::Json(_))));
    }
}
