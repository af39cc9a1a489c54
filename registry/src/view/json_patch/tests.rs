use super::*;

fn revision(text: &str) -> Option<String> {
    (text == "99").then(|| "7".to_owned())
}

fn translated(operations: Value) -> Result<Value, BodyError> {
    let Value::Array(mut operations) = operations else {
        panic!("no operations")
    };
    let translator = BodyTranslator {
        cluster: "east",
        child_revision: &revision,
    };
    translator.json_patch(&mut operations)?;
    Ok(Value::Array(operations))
}

fn owner(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "o"})
}

#[test]
fn what_the_view_shows_otherwise_becomes_the_childs() {
    for (op, path, sent, wanted) in [
        ("test", "/metadata/resourceVersion", json!("99"), json!("7")),
        ("replace", "/metadata/resourceVersion", json!("0"), json!("0")),
        ("test", "/metadata/name", json!("web@east"), json!("web")),
        ("replace", "/metadata/name", json!("web@east"), json!("web")),
        ("replace", "/spec/replicas", json!(3), json!(3)),
        ("add", "/metadata/annotations/a", json!("web@east"), json!("web@east")),
        (
            "add",
            "/metadata/labels",
            json!({"umbra.dev/cluster": "east", "a": "b"}),
            json!({"a": "b"}),
        ),
        (
            "test",
            "/metadata/labels",
            json!({"umbra.dev/cluster": "east"}),
            Value::Null,
        ),
        (
            "add",
            "/metadata/ownerReferences",
            json!([owner("set@east"), owner("other")]),
            json!([owner("set"), owner("other")]),
        ),
        ("add", "/metadata/ownerReferences/-", owner("set@east"), owner("set")),
        (
            "replace",
            "/metadata/ownerReferences/0",
            owner("set@east"),
            owner("set"),
        ),
        ("test", "/metadata/ownerReferences/0", owner("set@east"), owner("set")),
        (
            "replace",
            "/metadata/ownerReferences/-1/name",
            json!("set@east"),
            json!("set"),
        ),
        (
            "replace",
            "x/metadata/ownerReferences/0/name",
            json!("set@east"),
            json!("set"),
        ),
        (
            "replace",
            "/metadata",
            json!({"name": "web@east", "resourceVersion": "99", "ownerReferences": [owner("set@east")]}),
            json!({"name": "web", "resourceVersion": "7", "ownerReferences": [owner("set")]}),
        ),
        (
            "replace",
            "",
            json!({"kind": "Pod", "metadata": {"name": "web@east", "labels": {"umbra.dev/cluster": "east"}}}),
            json!({"kind": "Pod", "metadata": {"name": "web", "labels": {}}}),
        ),
    ] {
        let operations = |value: Value| json!([{"op": op, "path": path, "value": value}]);
        assert_eq!(translated(operations(sent)), Ok(operations(wanted)), "{op} {path}");
    }
}

#[test]
fn the_label_of_the_cluster_stays_with_the_view() {
    let label = "/metadata/labels/umbra.dev~1cluster";
    let moved = json!({"op": "move", "from": label, "path": "/metadata/labels/here"});
    for (operation, wanted) in [
        (json!({"op": "test", "path": label, "value": "east"}), Ok(json!([]))),
        (json!({"op": "add", "path": label, "value": "east"}), Ok(json!([]))),
        (
            json!({"op": "copy", "from": label, "path": "/metadata/labels/here"}),
            Ok(json!([{"op": "add", "path": "/metadata/labels/here", "value": "east"}])),
        ),
        (
            json!({"op": "add", "path": label, "value": "west"}),
            Err(BodyError::LabelChanged),
        ),
        (
            json!({"op": "remove", "path": label, "value": "east"}),
            Err(BodyError::LabelChanged),
        ),
        (
            json!({"op": "copy", "from": "/a", "path": label}),
            Err(BodyError::LabelChanged),
        ),
        (moved, Err(BodyError::LabelChanged)),
    ] {
        assert_eq!(translated(json!([operation])), wanted, "{operation}");
    }
}

#[test]
fn a_test_of_everything_is_one_of_what_it_names() {
    let metadata = json!({"name": "web@east", "resourceVersion": "99", "labels": {"umbra.dev/cluster": "east"},
        "a/b": 1});
    let tests = json!([
        {"op": "test", "path": "/metadata/a~1b", "value": 1},
        {"op": "test", "path": "/metadata/labels", "value": null},
        {"op": "test", "path": "/metadata/name", "value": "web"},
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
    ]);
    let sorted = |operations: Value| {
        let operations = translated(operations).unwrap();
        let mut operations: Vec<Value> = serde_json::from_value(operations).unwrap();
        operations.sort_by_key(|one| one["path"].as_str().unwrap().to_owned());
        Value::Array(operations)
    };
    assert_eq!(
        sorted(json!([{"op": "test", "path": "/metadata", "value": metadata}])),
        tests
    );
    let whole = json!([{"op": "test", "path": "", "value": {"metadata": metadata, "spec": {"a": 1}}}]);
    let mut wanted = tests.as_array().unwrap().clone();
    wanted.push(json!({"op": "test", "path": "/spec", "value": {"a": 1}}));
    assert_eq!(sorted(whole), Value::Array(wanted));
}

#[test]
fn what_the_child_cannot_be_told_is_refused() {
    let refused =
        |op: &str, path: &str, value: Value| translated(json!([{"op": op, "path": path, "value": value}])).unwrap_err();
    let stale = json!({"name": "web", "resourceVersion": "98"});
    assert_eq!(
        refused("test", "/metadata/resourceVersion", json!("98")),
        BodyError::Modified
    );
    assert_eq!(refused("replace", "/metadata", stale), BodyError::Modified);
    assert_eq!(
        refused("replace", "/metadata/name", json!("web@west")),
        BodyError::NameChanged
    );
    for (path, value) in [
        ("/metadata/ownerReferences", json!([owner("set@west")])),
        ("/metadata/ownerReferences/-", owner("set@west")),
        ("/metadata/ownerReferences/0/name", json!("set@west")),
        ("/metadata/labels", json!({"umbra.dev/cluster": "west"})),
        ("", json!({"metadata": {"name": "web@west"}})),
    ] {
        let refused = refused("add", path, value);
        assert!(matches!(refused, BodyError::OtherCluster { .. }), "{path}: {refused}");
    }
    let copy = |from: &str, path: &str| translated(json!([{"op": "copy", "from": from, "path": path}]));
    for (from, path) in [
        ("/metadata/annotations/owner", "/metadata/ownerReferences/0/name"),
        ("/spec/owner", "/metadata/ownerReferences/-"),
        ("/spec/template/metadata", "/metadata"),
        ("/metadata/annotations/revision", "/metadata/resourceVersion"),
    ] {
        assert!(matches!(copy(from, path), Err(BodyError::Taken { .. })), "{from}");
    }
    let kept = copy("/metadata/ownerReferences/0", "/metadata/ownerReferences/-");
    assert_eq!(kept.unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn what_makes_no_sense_is_the_childs_to_refuse() {
    let nonsense = json!([1, "a", null, {}, {"op": "add"}, {"path": "/metadata"}, {"op": "test", "path": "/metadata"},
        {"op": "copy", "path": "/a"}, {"op": "remove", "path": "/metadata/name"},
        {"op": "replace", "path": "/metadata/ownerReferences", "value": "set@east"}]);
    assert_eq!(translated(nonsense.clone()), Ok(nonsense));
}
