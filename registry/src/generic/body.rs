//! Reading what clients send: JSON or YAML, with duplicate fields found on the way.

use bytes::Bytes;
use serde_json::{Map, Value};
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::number;
use umbra_apimachinery::status::{Reason, Status};
use umbra_openapi::strict;

use crate::request::{FieldValidation, RequestContext};

/// At most so many faults of a body are named.
const MOST_FAULTS: usize = 20;

/// A parsed body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The document, with numbers as Go keeps them.
    pub value: Value,
    /// Fields that occur more than once in one object, such as `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// Reads a body of that media type; an empty one is JSON.
///
/// # Errors
/// 415 for other media types, 400 for what cannot be read.
pub fn decode(body: &Bytes, content_type: &str) -> Result<Decoded, Status> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let mut decoded = match media_type.to_ascii_lowercase().as_str() {
        "" | "application/json" => decode_json(body)?,
        "application/yaml" | "application/apply-patch+yaml" => decode_yaml(body)?,
        _ => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json, application/yaml";
            return Err(Status::failure(Reason::UnsupportedMediaType, message));
        }
    };
    number::normalise(&mut decoded.value);
    Ok(decoded)
}

fn decode_json(body: &[u8]) -> Result<Decoded, Status> {
    let value = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}")))?;
    Ok(Decoded {
        value,
        duplicates: strict::duplicate_fields(body),
    })
}

/// YAML contains JSON, which is what most clients send where YAML is allowed; it is then read as JSON, faster.
fn decode_yaml(body: &[u8]) -> Result<Decoded, Status> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = decode_json(body)
    {
        return Ok(decoded);
    }
    let text =
        std::str::from_utf8(body).map_err(|error| Status::bad_request(format!("the body is no UTF-8: {error}")))?;
    let value = serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

/// Refuses or warns of faults of a body, as asked (`k8s.io/apiserver/pkg/endpoints/handlers/rest.go`).
///
/// # Errors
/// 400 where the request asked for strictness.
pub fn report(context: &RequestContext, validation: FieldValidation, faults: &[String]) -> Result<(), Status> {
    if faults.is_empty() || validation == FieldValidation::Ignore {
        return Ok(());
    }
    let shown = &faults[..faults.len().min(MOST_FAULTS)];
    if validation == FieldValidation::Strict {
        return Err(Status::bad_request(format!(
            "strict decoding error: {}",
            shown.join(", ")
        )));
    }
    for fault in shown {
        context.warnings.add(fault.as_str());
    }
    Ok(())
}

/// Fills in or checks apiVersion and kind.
///
/// # Errors
/// 400 where the body is of another kind, or no object.
pub fn check_kind(value: &mut Value, expected: &GroupVersionKind) -> Result<(), Status> {
    let Some(object) = value.as_object_mut() else {
        return Err(Status::bad_request("the body of the request is no object"));
    };
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let expected_version = expected.api_version();
    if !kind.is_empty() && kind != expected.kind {
        let found = GroupVersionKind::parse(api_version, kind);
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {found}",
            expected.kind
        )));
    }
    if !api_version.is_empty() && api_version != expected_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected_version})"
        )));
    }
    object.insert("apiVersion".to_owned(), expected_version.into());
    object.insert("kind".to_owned(), expected.kind.as_str().into());
    if object.get("metadata").is_none_or(Value::is_null) {
        object.insert("metadata".to_owned(), Value::Object(Map::new()));
    }
    if !object["metadata"].is_object() {
        return Err(Status::bad_request("metadata is no object"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &'static str, content_type: &str) -> Result<Decoded, Status> {
        decode(&Bytes::from_static(body.as_bytes()), content_type)
    }

    #[test]
    fn duplicates_are_found_and_the_last_wins() {
        let decoded = read(r#"{"a":{"b":1,"b":2},"c":[{"d":0,"d":"x"}],"a2":1.0}"#, "").unwrap();
        assert_eq!(decoded.value, json!({"a": {"b": 2}, "c": [{"d": "x"}], "a2": 1}));
        assert_eq!(decoded.duplicates, ["a.b", "c[0].d"]);
    }

    #[test]
    fn yaml_and_json_are_read_and_nothing_else() {
        assert_eq!(
            read("a: {b: [1, x]}", "application/yaml").unwrap().value,
            json!({"a": {"b": [1, "x"]}})
        );
        assert_eq!(read("{\"a\": 1}", "application/yaml").unwrap().value, json!({"a": 1}));
        assert_eq!(read("a: 1", "application/json; charset=utf-8").unwrap_err().code, 400);
        assert_eq!(read("{} {}", "application/json").unwrap_err().code, 400);
        assert_eq!(read("", "application/vnd.kubernetes.protobuf").unwrap_err().code, 415);
    }

    #[test]
    fn the_kind_is_filled_in_or_has_to_fit() {
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let mut value = json!({});
        check_kind(&mut value, &kind).unwrap();
        assert_eq!(
            value,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}})
        );
        for mut wrong in [
            json!([]),
            json!({"kind": "Pod"}),
            json!({"apiVersion": "apps/v2"}),
            json!({"metadata": []}),
        ] {
            assert_eq!(check_kind(&mut wrong, &kind).unwrap_err().code, 400);
        }
    }
}
