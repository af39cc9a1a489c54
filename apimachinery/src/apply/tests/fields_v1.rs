//! From `fieldpath/serialize_test.go` and `serialize-pe_test.go`.

use super::super::fields_v1::{element_name, from_json, from_value, to_json, to_value};
use super::{path, set};
use serde_json::json;

#[test]
fn writes_what_go_writes() {
    for text in [
        r#"{}"#,
        r#"{"f:aaa":{},"f:aab":{},"k:{\"name\":\"first\"}":{},"k:{\"name\":\"second\"}":{},"k:{\"port\":443,\"protocol\":\"tcp\"}":{},"k:{\"port\":443,\"protocol\":\"udp\"}":{},"v:1":{},"v:2":{},"v:3":{},"v:\"aa\"":{},"v:\"ab\"":{},"v:true":{},"i:1":{},"i:2":{},"i:3":{},"i:4":{}}"#,
        r#"{"f:aaa":{"k:{\"name\":\"second\"}":{"v:3":{"f:aab":{}}},"v:3":{},"v:true":{}},"f:aad":{"f:aac":{"v:1":{}},"i:1":{"i:1":{},"i:3":{"v:true":{}}}}}"#,
        r#"{"f:spec":{".":{},"f:apps":{".":{},"k:{\"name\":\" app-💻\"}":{".":{},"f:name":{}},"k:{\"name\":\" app-🚀\"}":{".":{},"f:ports":{".":{},"k:{\"name\":\"port-✅ \"}":{".":{},"f:name":{}}}}}}}"#,
        // Numbers compare as numbers, not as text.
        r#"{"k:{\"port\":80}":{},"k:{\"port\":443}":{}}"#,
        // The values of keys are escaped for HTML, twice in all.
        r#"{"f:<a>":{},"k:{\"name\":\"\\u003ca\\u003e \\\"b\\\" \\n\"}":{}}"#,
        r#"{"v:0.000001":{},"v:1.5":{},"v:1e+21":{}}"#,
    ] {
        let set = from_json(text).unwrap();
        assert_eq!(to_json(&set), text);
        assert_eq!(from_value(&to_value(&set)).unwrap(), set);
    }
}

#[test]
fn reads_what_is_not_normal() {
    for (text, normal) in [
        (
            r#"{"f:b": {}, "f:a" : {}, "k:{ \"protocol\":\"udp\",\"port\":443.0}": {}, "v: 3": {}, "i:1": {}}"#,
            r#"{"f:a":{},"f:b":{},"k:{\"port\":443,\"protocol\":\"udp\"}":{},"v:3":{},"i:1":{}}"#,
        ),
        // Elements of unknown kinds are skipped.
        (
            r#"{"f:a":{"r:x":{}},"r:b":{"f:c":{}},"f:d":null}"#,
            r#"{"f:a":{},"f:d":{}}"#,
        ),
        (r#"{".":{},"f:a":{".":{}}}"#, r#"{"f:a":{}}"#),
        ("null", "{}"),
    ] {
        assert_eq!(to_json(&from_json(text).unwrap()), normal);
    }
}

#[test]
fn refuses_what_cannot_be_read() {
    for name in [
        "",
        "f",
        "no-colon",
        "i:index is not a number",
        "i:1.23",
        "i:",
        "i: 0",
        "i:0 ",
        "v:",
        "v:invalid json",
        r#"v:{"a":"b""#,
        r#"v:{"some":" \x41"}"#,
        r#"v:{"some":"json"} garbage"#,
        "k:invalid json",
        r#"k:{"name":invalid}"#,
        r#"k:{"a":"b"} {"a":"b"}"#,
    ] {
        assert!(from_value(&json!({name: {}})).is_err(), "{name:?}");
    }
    assert!(from_value(&json!({"f:a": 1})).is_err());
    assert!(from_value(&json!([])).is_err());
    assert!(from_json("{").is_err());
}

#[test]
fn names_round_trip() {
    for name in [
        "i:0",
        "i:1234",
        "f:",
        "f: string-with-spaces   ",
        r"f:spec-\n",
        r#"k:{"name":"   name with spaces   "}"#,
        r#"k:{"port":"8080","protocol":"TCP"}"#,
        r#"k:{"optionalField":null}"#,
        r#"k:{"jsonField":{"A":1,"B":null,"C":"D","E":{"F":"G"}}}"#,
        r#"k:{"listField":["1","2","3"]}"#,
        "v:null",
        "v:1234",
        r#"v:{"some":" some  with spaces  "}"#,
        r#"k:{"name":"app with-unicøde 你好世界 👋"}"#,
    ] {
        let set = from_value(&json!({name: {}})).unwrap();
        assert_eq!(element_name(&set.paths()[0].0[0]), name);
    }
}

#[test]
fn prints_as_kubectl_shows() {
    let text = |elements| path(elements).to_string();
    assert_eq!(text(json!(["spec", "replicas"])), ".spec.replicas");
    assert_eq!(
        text(json!(["spec", "containers", {"name": "app"}, "ports", {"protocol": "TCP", "port": 80}, "name"])),
        r#".spec.containers[name="app"].ports[port=80,protocol="TCP"].name"#
    );
    assert_eq!(text(json!(["tags", ["a"], 3])), r#".tags[="a"][3]"#);
    assert_eq!(set(json!([["b"], ["a", "c"]])).to_string(), ".b\n.a.c");
}
