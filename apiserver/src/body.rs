//! Reading request bodies: size, media types, YAML, protobuf.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use umbra_apimachinery::status::{Reason, Status};
use umbra_protobuf::ProtobufError;
use umbra_registry::resource::Body;

/// Reads a body to its end, as far as it has no more than `limit` bytes.
///
/// # Errors
/// 413 for one that is too large, 400 for one that breaks off.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Status> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(too_large(limit));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("the request body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if read.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

fn too_large(limit: usize) -> Status {
    Status::failure(
        Reason::RequestEntityTooLarge,
        format!("Request entity too large: limit is {limit}"),
    )
}

/// The media type of a request's body in lower case, without parameters; `application/json` where none is given.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() {
        "application/json".to_owned()
    } else {
        media_type.to_ascii_lowercase()
    }
}

/// What objects may come in, for messages.
const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// An object as JSON, whichever of the three it came in.
///
/// # Errors
/// 415 for other media types and for kinds that have no protobuf form, 400 for YAML or protobuf that cannot be read.
pub(crate) fn object_to_json(media_type: &str, body: Bytes) -> Result<Bytes, Status> {
    match media_type {
        "application/json" => Ok(body),
        "application/yaml" => yaml_to_json(&body),
        umbra_protobuf::MEDIA_TYPE => protobuf_to_json(&body),
        _ => Err(unsupported(media_type, OBJECT_TYPES)),
    }
}

/// 415, as kube-apiserver words it, and what to do about it where the client speaks a binary form.
pub(crate) fn unsupported(media_type: &str, accepted: &str) -> Status {
    let mut message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    if matches!(
        media_type,
        "application/vnd.kubernetes.protobuf" | "application/cbor" | "application/apply-patch+cbor"
    ) {
        message.push_str(&format!(
            "; {media_type} is not served here, set the client's content type to application/json"
        ));
    }
    Status::failure(Reason::UnsupportedMediaType, message)
}

fn protobuf_to_json(body: &[u8]) -> Result<Bytes, Status> {
    let json = umbra_protobuf::to_json(body).map_err(|error| match error {
        ProtobufError::UnknownKind { .. } => Status::failure(
            Reason::UnsupportedMediaType,
            format!("the body of the request was in an unknown format: {error}"),
        ),
        ProtobufError::TooLarge => Status::failure(Reason::RequestEntityTooLarge, error.to_string()),
        error => Status::bad_request(format!("the object provided is unrecognized: {error}")),
    })?;
    Ok(Bytes::from(json))
}

fn yaml_to_json(body: &[u8]) -> Result<Bytes, Status> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "the object provided is unrecognized: error converting YAML to JSON: {error}"
        ))
    };
    let value: serde_json::Value = serde_saphyr::from_slice(body).map_err(|error| unreadable(&error))?;
    let json = serde_json::to_vec(&value).map_err(|error| unreadable(&error))?;
    Ok(Bytes::from(json))
}
