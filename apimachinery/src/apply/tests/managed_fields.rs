//! From `managedfields_test.go` and `capmanagers_test.go`.

use serde_json::{Value, json};

use super::super::ManagedFields;

fn entry(manager: &str, operation: &str, version: &str, time: Option<&str>, fields: Value) -> Value {
    let mut entry = json!({
        "manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    if let Some(time) = time {
        entry["time"] = json!(time);
    }
    entry
}

#[test]
fn round_trips_in_order() {
    let sorted = json!([
        entry("b", "Apply", "v1", None, json!({"f:a": {}})),
        entry("a", "Apply", "v1", Some("2001-05-13T01:23:45Z"), json!({"f:a": {}})),
        entry("c", "Update", "v1", Some("2000-05-13T01:23:45Z"), json!({"f:a": {}})),
        entry("a", "Update", "v1", Some("2001-05-13T01:23:45Z"), json!({"f:a": {".": {}, "f:b": {}}})),
        entry("a", "Update", "v2", Some("2001-05-13T01:23:45Z"), json!({"f:a": {}})),
        {
            "manager": "a", "operation": "Update", "apiVersion": "v2", "time": "2001-05-13T01:23:45Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}, "subresource": "scale",
        },
        entry("b", "Update", "v1", Some("2001-05-13T01:23:45Z"), json!({"f:a": {}})),
    ]);
    let mut reversed = sorted.clone();
    reversed.as_array_mut().unwrap().reverse();
    assert_eq!(ManagedFields::decode(&reversed).unwrap().encode(), sorted);
}

#[test]
fn refuses_broken_entries() {
    for (entry, expected) in [
        (
            entry("a", "", "v1", None, json!({})),
            "operation must be `Apply` or `Update`",
        ),
        (
            entry("a", "Update", "", None, json!({})),
            "apiVersion must not be empty",
        ),
        (
            json!({"operation": "Update", "apiVersion": "v1"}),
            r#"invalid fieldsType "" in managed fields entry 0"#,
        ),
        (
            entry("a", "Update", "v1", Some("yesterday"), json!({})),
            r#"invalid time "\"yesterday\"" in managed fields entry 0"#,
        ),
        (
            entry("a", "Update", "v1", None, json!({"x": {}})),
            r#"error decoding managed fields of "a": fieldsV1 has the name "x" without a prefix such as "f:""#,
        ),
    ] {
        let error = ManagedFields::decode(&json!([entry])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(ManagedFields::decode(&json!({})).is_err());
    assert!(ManagedFields::decode(&json!(["a"])).is_err());
}

#[test]
fn the_oldest_updaters_become_one() {
    let updater = |index: usize, version: &str| {
        let time = format!("2000-01-01T00:00:{index:02}Z");
        let field = format!("f:{index}");
        entry(
            &format!("updater-{index}"),
            "Update",
            version,
            Some(&time),
            json!({field: {}}),
        )
    };
    let capped = |entries: Vec<Value>, most| {
        let mut managed = ManagedFields::decode(&Value::Array(entries)).unwrap();
        managed.cap_updaters(most);
        managed.encode()
    };
    let entries: Vec<Value> = (0..5).map(|index| updater(index, "v1")).collect();
    assert_eq!(capped(entries.clone(), 5), Value::Array(entries.clone()));
    assert_eq!(
        capped(entries, 3),
        json!([
            entry(
                "ancient-changes",
                "Update",
                "v1",
                Some("2000-01-01T00:00:02Z"),
                json!({"f:0": {}, "f:1": {}, "f:2": {}})
            ),
            updater(3, "v1"),
            updater(4, "v1"),
        ])
    );
    // Each version has its own; appliers are left alone; what is there already is joined.
    let applier = entry("x", "Apply", "v1", None, json!({"f:x": {}}));
    let ancient = entry(
        "ancient-changes",
        "Update",
        "v1",
        Some("1999-01-01T00:00:00Z"),
        json!({"f:y": {}}),
    );
    assert_eq!(
        capped(
            vec![
                applier.clone(),
                ancient,
                updater(0, "v2"),
                updater(1, "v1"),
                updater(2, "v2")
            ],
            2
        ),
        json!([
            applier,
            entry(
                "ancient-changes",
                "Update",
                "v1",
                Some("2000-01-01T00:00:01Z"),
                json!({"f:1": {}, "f:y": {}})
            ),
            entry(
                "ancient-changes",
                "Update",
                "v2",
                Some("2000-01-01T00:00:02Z"),
                json!({"f:0": {}, "f:2": {}})
            ),
        ])
    );
}
