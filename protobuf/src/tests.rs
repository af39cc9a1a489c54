//! Whole bodies: pairs that Kubernetes' own encoders made, and bodies that nobody would send.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{DEPTH_LIMIT, ProtobufError, to_json};

/// One object in both forms, from `generate/fixtures.go`.
#[derive(Deserialize)]
struct Pair {
    name: String,
    protobuf: String,
    json: Value,
}

fn pairs() -> Vec<Pair> {
    serde_json::from_str(include_str!("tests/fixtures.json")).unwrap()
}

fn body(pair: &Pair) -> Vec<u8> {
    STANDARD.decode(&pair.protobuf).unwrap()
}

fn parsed(body: &[u8]) -> Result<Value, ProtobufError> {
    to_json(body).map(|json| serde_json::from_slice(&json).expect("what is printed is JSON"))
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut length = content.len();
    let mut encoded = vec![number << 3 | 2];
    while length >= 0x80 {
        encoded.push(length as u8 | 0x80);
        length >>= 7;
    }
    encoded.push(length as u8);
    encoded.extend_from_slice(content);
    encoded
}

/// A body of that kind.
fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &type_meta), field(2, raw)].concat()
}

#[test]
fn common_kinds_become_what_go_prints() {
    let pairs = pairs();
    assert!(pairs.len() > 15);
    for pair in &pairs {
        assert_eq!(parsed(&body(pair)).unwrap(), pair.json, "{}", pair.name);
    }
}

#[test]
fn broken_bodies_are_refused() {
    for pair in pairs() {
        let whole = body(&pair);
        // The last four bytes say that contentEncoding and contentType are empty.
        for end in 0..whole.len() - 4 {
            // A cut between two fields of the envelope leaves an object without a part.
            if let Ok(cut) = parsed(&whole[..end]) {
                assert_ne!(cut, pair.json, "{} cut at {end}", pair.name);
            }
        }
    }
    assert!(matches!(to_json(b"{}"), Err(ProtobufError::NoPrefix)));
    assert!(matches!(to_json(b"k8s\0"), Err(ProtobufError::NoKind)));
    let wrong_wire_type = envelope("v1", "ConfigMap", &[0x08, 1]);
    assert!(matches!(
        to_json(&wrong_wire_type),
        Err(ProtobufError::WireType { field: "metadata", .. })
    ));
    let latin1 = envelope("v1", "Namespace", &field(1, &field(1, b"\xe9")));
    assert!(matches!(
        to_json(&latin1),
        Err(ProtobufError::NotUtf8 { field: "name", .. })
    ));
    let group = envelope("v1", "ConfigMap", &[0x7b, 0x7c]);
    assert!(matches!(to_json(&group), Err(ProtobufError::Wire { .. })));
    let not_json = envelope("v1", "List", &field(2, &field(1, b"{")));
    assert!(matches!(to_json(&not_json), Err(ProtobufError::NotJson { .. })));
}

#[test]
fn kinds_that_are_not_known_are_named() {
    let error = to_json(&envelope("example.com/v1", "Toy", &[])).unwrap_err();
    assert!(matches!(error, ProtobufError::UnknownKind { .. }));
    let message = error.to_string();
    assert!(
        message.contains("Toy of example.com/v1") && message.contains("application/json"),
        "{message}"
    );
}

#[test]
fn json_inside_is_passed_on() {
    let inner = br#"{"kind":"Toy","apiVersion":"example.com/v1"}"#;
    let wrapped = [b"k8s\0".to_vec(), field(2, inner), field(4, b"application/json")].concat();
    assert_eq!(to_json(&wrapped).unwrap(), inner);
    let gzipped = [&wrapped[..], &field(3, b"gzip")].concat();
    assert!(matches!(to_json(&gzipped), Err(ProtobufError::Content { .. })));
    let cbor = [b"k8s\0".to_vec(), field(2, inner), field(4, b"application/cbor")].concat();
    assert!(matches!(to_json(&cbor), Err(ProtobufError::Content { .. })));
    let nested = envelope("v1", "List", &field(2, &field(1, &envelope("v1", "Binding", &[]))));
    assert_eq!(parsed(&nested).unwrap()["items"][0]["kind"], "Binding");
}

#[test]
fn later_fields_win_and_messages_merge() {
    let metadata = |name: u8, value: &[u8]| field(1, &field(name, value));
    let raw = [
        metadata(1, b"a"),
        metadata(3, b"shop"),
        metadata(1, b"b"),
        field(15, b"unknown"),
    ]
    .concat();
    let got = parsed(&envelope("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(got["metadata"], json!({"name": "b", "namespace": "shop"}));
    let entry = |value: &[u8]| field(2, &[field(1, b"key"), field(2, value)].concat());
    let raw = [entry(b"1"), entry(b"2"), field(2, &[])].concat();
    let got = parsed(&envelope("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(got["data"], json!({"": "", "key": "2"}));
}

#[test]
fn lists_of_numbers_may_be_packed() {
    // PodSpec.securityContext.supplementalGroups: 1, 300 packed, then 5 on its own.
    let groups = [field(4, &[1, 0xac, 2]), vec![0x20, 5]].concat();
    let pod = field(2, &field(14, &groups));
    let got = parsed(&envelope("v1", "Pod", &pod)).unwrap();
    assert_eq!(got["spec"]["securityContext"]["supplementalGroups"], json!([1, 300, 5]));
}

#[test]
fn nesting_has_a_limit() {
    // JSONSchemaProps.not is field 28, whose tag takes two bytes; schema, versions and spec lead there.
    let nest = |levels: usize| {
        let mut schema = Vec::new();
        for _ in 0..levels {
            let inner = field(0, &schema);
            schema = [&[0xe2, 0x01][..], &inner[1..]].concat();
        }
        let version = field(4, &field(1, &schema));
        envelope(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &field(2, &field(7, &version)),
        )
    };
    assert!(parsed(&nest(20)).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["not"].is_object());
    assert!(matches!(to_json(&nest(DEPTH_LIMIT)), Err(ProtobufError::TooDeep)));
}

#[test]
fn zero_values_have_a_limit() {
    // Every two bytes are a container, whose zero value takes ten times as much.
    let containers: Vec<u8> = [0x12, 0].repeat(1 << 20);
    let error = to_json(&envelope("v1", "Pod", &field(2, &containers))).unwrap_err();
    assert!(matches!(error, ProtobufError::TooLarge), "{error}");
}

/// What the folder has besides: discovery documents and events of watches, which servers send and never read.
const ANSWERS: [&str; 3] = [
    "apidiscovery.k8s.io.v2.APIGroupDiscovery",
    "apidiscovery.k8s.io.v2beta1.APIGroupDiscovery",
    "core.v1.WatchEvent",
];

/// Pairs of every kind, from the module `k8s.io/api`: `K8S_API_TESTDATA=$(go list -m -f '{{.Dir}}' k8s.io/api)/testdata/HEAD`.
#[test]
#[ignore = "needs K8S_API_TESTDATA, the folder testdata/HEAD of the Go module k8s.io/api"]
fn every_kind_becomes_what_go_prints() {
    let folder = PathBuf::from(std::env::var_os("K8S_API_TESTDATA").expect("K8S_API_TESTDATA is set"));
    let mut failures = Vec::new();
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let is_answer = ANSWERS
            .iter()
            .any(|answer| path.file_stem().is_some_and(|stem| stem == *answer));
        if path.extension().is_some_and(|extension| extension == "pb") && !is_answer {
            compared += 1;
            failures.extend(compare(&path).err());
        }
    }
    assert!(compared > 180, "{compared}");
    assert!(
        failures.is_empty(),
        "{} of {compared}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn compare(path: &Path) -> Result<(), String> {
    let mut want: Value = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let got = parsed(&std::fs::read(path).unwrap()).map_err(|error| format!("{name}: {error}"))?;
    drop_inner_types(&mut want, true);
    if got == want {
        return Ok(());
    }
    Err(format!("{name}:\n{got}\n{want}"))
}

/// Protobuf transmits apiVersion and kind of the whole alone: claim templates, which have them in JSON, lose theirs.
fn drop_inner_types(value: &mut Value, is_root: bool) {
    match value {
        Value::Object(fields) => {
            if !is_root && fields.contains_key("metadata") {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            fields.values_mut().for_each(|inner| drop_inner_types(inner, false));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| drop_inner_types(inner, false)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = to_json(&bytes);
        let _ = parsed(&envelope("v1", "Pod", &bytes));
    }

    /// Bytes that are nearly right get further than random ones.
    #[test]
    fn no_mutation_panics(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let pairs = pairs();
        let mut bytes = body(which.get(&pairs));
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = parsed(&bytes);
    }
}
