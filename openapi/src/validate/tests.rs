use serde_json::json;
use umbra_apimachinery::gvk::GroupVersionKind;

use super::*;
use crate::{CustomResource, Document, builtin};

fn custom(properties: &Value) -> TypeSchema {
    let kind = GroupVersionKind::new("example.com", "v1", "A");
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "properties": properties},
    }});
    let resource = CustomResource {
        kind: kind.clone(),
        list_kind: "AList",
        schema: Some(&schema),
    };
    Document::custom_resources(&[resource])
        .unwrap()
        .type_schema(&kind)
        .unwrap()
}

fn faults(properties: &Value, spec: &Value) -> Vec<String> {
    let errors = validate(&json!({"spec": spec}), &custom(properties), Dialect::CustomResource);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn types() {
    let properties = json!({
        "replicas": {"type": "integer", "format": "int32"},
        "port": {"x-kubernetes-int-or-string": true},
        "names": {"type": "array", "items": {"type": "string"}},
        "tags": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "maybe": {"type": "string", "nullable": true},
        "time": {"type": "string", "format": "date-time"},
    });
    let valid = json!({"replicas": 3.0, "port": "http", "names": ["a"], "tags": {"a": true}, "maybe": null,
        "time": "2026-01-02T03:04:05.000006Z"});
    assert_eq!(faults(&properties, &valid), Vec::<String>::new());
    let wrong = json!({"replicas": "x", "port": 1.5, "names": ["a", 1], "tags": {"a": "b"}, "time": "today"});
    assert_eq!(
        faults(&properties, &wrong),
        [
            r#"spec.names[1]: Invalid value: "integer": spec.names[1] in body must be of type string: "integer""#,
            r#"spec.port: Invalid value: "number": spec.port in body must be of type integer,string: "number""#,
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
            r#"spec.tags.a: Invalid value: "string": spec.tags.a in body must be of type boolean: "string""#,
            r#"spec.time: Invalid value: "today": spec.time in body must be of type date-time: "today""#,
        ]
    );
    assert_eq!(
        faults(&properties, &json!({"replicas": 3_000_000_000_i64, "names": null})),
        [
            r#"spec.names: Invalid value: "null": spec.names in body must be of type array: "null""#,
            r#"spec.replicas: Invalid value: "int64": spec.replicas in body must be of type int32: "int64""#,
        ]
    );
}

#[test]
fn bounds() {
    let properties = json!({
        "n": {"type": "integer", "minimum": 1, "maximum": 5, "exclusiveMaximum": true, "multipleOf": 2},
        "s": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]+$"},
        "e": {"type": "string", "enum": ["a", "b"]},
        "l": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
        "o": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
    });
    assert_eq!(
        faults(&properties, &json!({"n": 4, "s": "abc", "e": "a", "l": [1], "o": {}})),
        Vec::<String>::new()
    );
    assert_eq!(
        faults(
            &properties,
            &json!({"n": 5, "s": "ABCD", "e": "c", "l": [1, 2, 3], "o": {"a": "b", "c": "d"}})
        ),
        [
            r#"spec.e: Unsupported value: "c": supported values: "a", "b""#,
            "spec.l: Too many: 3: must have at most 2 items",
            "spec.n: Invalid value: 5: spec.n in body should be less than 5",
            "spec.n: Invalid value: 5: spec.n in body should be a multiple of 2",
            "spec.o: Too many: 2: must have at most 1 item",
            "spec.s: Too long: may not be more than 3 bytes",
            r#"spec.s: Invalid value: "ABCD": spec.s in body should match '^[a-z]+$'"#,
        ]
    );
    assert_eq!(
        faults(&properties, &json!({"n": 0, "s": "é", "l": []})),
        [
            "spec.l: Invalid value: []: spec.l in body should have at least 1 items",
            "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
            r#"spec.s: Invalid value: "é": spec.s in body should be at least 2 chars long"#,
            r#"spec.s: Invalid value: "é": spec.s in body should match '^[a-z]+$'"#,
        ]
    );
}

#[test]
fn sets_and_maps() {
    let properties = json!({
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {"type": "object", "properties": {
                "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"},
            }},
        },
    });
    let spec = json!({
        "set": ["a", "b", "a", "a"],
        "map": [{"port": 1}, {"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP"}],
    });
    assert_eq!(
        faults(&properties, &spec),
        [
            r#"spec.map[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#,
            r#"spec.set[2]: Duplicate value: "a""#,
        ]
    );
}

#[test]
fn required_fields_and_causes() {
    let errors = validate(&json!({}), &custom(&json!({})), Dialect::CustomResource);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "spec: Required value");
    let cause = Cause::from(errors[0].clone());
    assert_eq!(cause.reason, "FieldValueRequired");
    assert_eq!(
        (cause.field.as_str(), cause.message.as_str()),
        ("spec", "Required value")
    );
    let from_go = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {}});
    assert!(validate(&from_go, &custom(&json!({})), Dialect::CustomResource).is_empty());
    let errors = validate(&json!([]), &custom(&json!({})), Dialect::CustomResource);
    assert!(errors[0].to_string().starts_with("<nil>: Invalid value: \"array\""));
}

#[test]
fn built_in_kinds_are_judged_as_go_decodes_them() {
    let faults = |kind: &str, object: &Value| {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let schema = builtin::type_schema(&GroupVersionKind::new(group, "v1", kind)).unwrap();
        let errors = validate(object, &schema, Dialect::BuiltIn);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let pod = json!({
        "metadata": {"name": "a", "creationTimestamp": null},
        "spec": {"containers": [{
            "name": "c", "image": "i", "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}},
            "ports": [{"containerPort": 80}, {"containerPort": 80}],
        }], "volumes": null},
        "status": {"containerStatuses": [{"name": "c"}], "conditions": [{}]},
    });
    assert_eq!(faults("Pod", &pod), Vec::<String>::new());
    let deployment = json!({"spec": {"replicas": "x", "template": {"spec": {"containers": [{"image": true}]}}}});
    assert_eq!(
        faults("Deployment", &deployment),
        [
            "spec.selector: Required value",
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
            "spec.template.spec.containers[0].name: Required value",
            r#"spec.template.spec.containers[0].image: Invalid value: "boolean": spec.template.spec.containers[0].image in body must be of type string: "boolean""#,
        ]
    );
    let quantity = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": true}}}]}});
    assert_eq!(faults("Pod", &quantity).len(), 1);
}
