use proptest::prelude::*;
use serde_json::json;

use super::super::PatchErrorKind;
use super::*;

fn apply_as(missing: MissingPath, document: &Value, patch: Value) -> Result<Value, PatchError> {
    let mut document = document.clone();
    let before = document.clone();
    let result = JsonPatch::from_value(patch)?.apply(&mut document, missing, &mut PatchBudget::new());
    match result {
        Ok(_) => Ok(document),
        Err(error) => {
            assert_eq!(document, before, "a failing patch changed the document");
            Err(error)
        }
    }
}

fn apply(document: &Value, patch: Value) -> Result<Value, PatchError> {
    apply_as(MissingPath::Fails, document, patch)
}

#[test]
fn rfc_examples_and_go_extensions() {
    for (document, patch, expected) in [
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/b", "value": 2}]),
            json!({"a": 1, "b": 2}),
        ),
        (
            json!({"a": [1, 3]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            json!({"a": [1, 2, 3]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-", "value": 2}]),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "remove", "path": "/a/0"}]),
            json!({"a": [2]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": null}]),
            json!({"a": null}),
        ),
        (
            json!({"a": {"b": 1}, "c": {}}),
            json!([{"op": "move", "from": "/a/b", "path": "/c/d"}]),
            json!({"a": {}, "c": {"d": 1}}),
        ),
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]),
            json!({"a": [2, 3, 1]}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!([{"op": "copy", "from": "/a", "path": "/c"}]),
            json!({"a": {"b": 1}, "c": {"b": 1}}),
        ),
        (
            json!({"a/b": 1, "m~n": 2}),
            json!([{"op": "remove", "path": "/a~1b"}, {"op": "test", "path": "/m~0n", "value": 2}]),
            json!({"m~n": 2}),
        ),
        (
            json!({"": 1}),
            json!([{"op": "replace", "path": "/", "value": 2}]),
            json!({"": 2}),
        ),
        // Negative indices: the last element; where something is added, the place after it.
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "remove", "path": "/a/-1"}]),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "replace", "path": "/a/-3", "value": 0}]),
            json!({"a": [0, 2, 3]}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "add", "path": "/a/-1", "value": 3}]),
            json!({"a": [1, 2, 3]}),
        ),
        (
            json!({"a": [1, 3]}),
            json!([{"op": "add", "path": "/a/-2", "value": 2}]),
            json!({"a": [1, 2, 3]}),
        ),
        (
            json!({"a": [{"b": 1}, {"b": 2}]}),
            json!([{"op": "replace", "path": "/a/-1/b", "value": 3}]),
            json!({"a": [{"b": 1}, {"b": 3}]}),
        ),
        // Each operation counts from the end of the list that it finds.
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "remove", "path": "/a/-1"}, {"op": "remove", "path": "/a/-1"}]),
            json!({"a": [1]}),
        ),
        // An absent field equals null; a missing value is null.
        (
            json!({"a": 1}),
            json!([{"op": "test", "path": "/b", "value": null}]),
            json!({"a": 1}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/b"}]),
            json!({"a": 1, "b": null}),
        ),
    ] {
        assert_eq!(
            apply(&document, patch.clone()),
            Ok(expected),
            "{document} patched with {patch}"
        );
    }
}

#[test]
fn failures_name_the_operation() {
    for (patch, expected) in [
        (
            json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/x"}]),
            r#"operation 1 (remove "/x"): the path does not exist: the document has no "x""#,
        ),
        (
            json!([{"op": "replace", "path": "/l/3", "value": 1}]),
            r#"operation 0 (replace "/l/3"): the path does not exist: "/l" has no "3""#,
        ),
        (
            json!([{"op": "add", "path": "/l/-5", "value": 1}]),
            r#"operation 0 (add "/l/-5"): the path does not exist: "/l" has no "-5""#,
        ),
        (
            json!([{"op": "remove", "path": "/l/-"}]),
            r#"operation 0 (remove "/l/-"): "/l" is a list, and "-" is not an index of a list"#,
        ),
        (
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            r#"operation 0 (add "/a/b"): the path does not exist: "/a" is neither an object nor a list"#,
        ),
        (
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            r#"operation 0 (add "/x/y"): the path does not exist: the document has no "x""#,
        ),
        (
            json!([{"op": "test", "path": "/a", "value": 2}]),
            r#"operation 0 (test "/a"): testing the value failed: it is another one"#,
        ),
        (
            json!([{"op": "test", "path": "/a", "value": 1.0}]),
            r#"operation 0 (test "/a"): testing the value failed: it is another one"#,
        ),
        (
            json!([{"op": "move", "from": "/o", "path": "/o/p"}]),
            r#"operation 0 (move "/o/p"): a value cannot be moved into itself"#,
        ),
        (
            json!([{"op": "remove", "path": ""}]),
            r#"operation 0 (remove ""): the whole document cannot be removed"#,
        ),
        (
            json!([{"op": "frob", "path": "/a"}]),
            r#"invalid patch: operation 0: unknown op "frob", expected add, remove, replace, move, copy or test"#,
        ),
        (
            json!([{"op": "copy", "path": "/a"}]),
            r#"invalid patch: operation 0: copy needs the field "from""#,
        ),
        (
            json!([{"op": "add", "path": "a", "value": 1}]),
            r#"invalid patch: operation 0: path "a" is not a JSON pointer (RFC 6901)"#,
        ),
        (
            json!([{"op": "add"}]),
            "invalid patch: operation 0: missing field `path`",
        ),
        (
            json!({"op": "add"}),
            "invalid patch: a JSON patch is a list of operations",
        ),
    ] {
        let error = apply(&json!({"a": 1, "l": [1, 2, 3], "o": {}}), patch.clone()).expect_err(&patch.to_string());
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn kinds_tell_whose_mistake_it_is() {
    let kind = |patch| apply(&json!({"a": 1}), patch).unwrap_err().kind();
    assert_eq!(kind(json!({})), PatchErrorKind::Invalid);
    assert_eq!(kind(json!([{"op": "remove", "path": "/b"}])), PatchErrorKind::Failed);
    assert_eq!(
        kind(json!([{"op": "test", "path": "/a", "value": 2}])),
        PatchErrorKind::TestFailed
    );
    let many = vec![json!({"op": "test", "path": "/a", "value": 1}); PatchBudget::OPERATIONS + 1];
    assert_eq!(kind(Value::Array(many.clone())), PatchErrorKind::TooLarge);
    apply(&json!({"a": 1}), Value::Array(many[1..].to_vec())).expect("the limit itself is allowed");
}

#[test]
fn missing_fields_as_kubernetes_treats_them() {
    let lenient = |patch| apply_as(MissingPath::LikeKubernetes, &json!({"a": {}}), patch);
    assert_eq!(
        lenient(json!([{"op": "replace", "path": "/a/b", "value": 1}])),
        Ok(json!({"a": {"b": 1}}))
    );
    assert_eq!(
        lenient(json!([{"op": "copy", "from": "/x", "path": "/y"}])),
        Ok(json!({"a": {}, "y": null}))
    );
    assert!(lenient(json!([{"op": "remove", "path": "/a/b"}])).is_err());
    assert!(lenient(json!([{"op": "replace", "path": "/x/y", "value": 1}])).is_err());
    assert!(lenient(json!([{"op": "test", "path": "/x", "value": 1}])).is_err());
}

#[test]
fn skipping_leaves_out_operations_and_a_test_the_whole_patch() {
    let run = |patch| {
        let mut document = json!({"a": 1});
        let skipped = JsonPatch::from_value(patch)
            .unwrap()
            .apply(&mut document, MissingPath::Skips, &mut PatchBudget::new())
            .unwrap();
        (document, skipped)
    };
    let remove = json!({"op": "remove", "path": "/x"});
    let add = json!({"op": "add", "path": "/b", "value": 2});
    assert_eq!(run(json!([remove, add])), (json!({"a": 1, "b": 2}), vec![0]));
    let test = json!({"op": "test", "path": "/x/y", "value": 2});
    assert_eq!(run(json!([add, test])), (json!({"a": 1}), vec![0, 1]));
}

#[test]
fn copies_are_limited_in_total() {
    let big = "x".repeat(1024 * 1024);
    let copies = |count: usize| {
        let copy = |n| json!({"op": "copy", "from": "/big", "path": format!("/copy{n}")});
        apply(&json!({ "big": big }), (0..count).map(copy).collect())
    };
    assert!(copies(2).is_ok());
    assert!(matches!(copies(3), Err(PatchError::CopiesTooLarge { index: 2, .. })));
    // A bomb: each operation doubles the document.
    let bomb = (0..10_000).map(|n| json!({"op": "copy", "from": "", "path": format!("/copy{n}")}));
    let error = apply(&json!({"a": 1}), bomb.collect()).unwrap_err();
    assert_eq!(error.kind(), PatchErrorKind::TooLarge);
}

fn pointer() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab012-]|-1|-2", 0..4)
        .prop_map(|tokens| tokens.iter().map(|t| format!("/{t}")).collect())
}

fn operation() -> impl Strategy<Value = Value> {
    (
        proptest::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]),
        pointer(),
        pointer(),
        super::super::merge::tests::value(true),
    )
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

proptest! {
    #[test]
    fn all_or_nothing_and_never_a_panic(
        document in super::super::merge::tests::value(true),
        patch in proptest::collection::vec(operation(), 0..6),
    ) {
        for missing in [MissingPath::Fails, MissingPath::LikeKubernetes, MissingPath::Skips] {
            let patch = JsonPatch::from_value(Value::Array(patch.clone())).unwrap();
            let mut patched = document.clone();
            if patch.apply(&mut patched, missing, &mut PatchBudget::new()).is_err() {
                prop_assert_eq!(&patched, &document);
            }
        }
    }

    #[test]
    fn skipping_does_what_failing_does_where_nothing_is_missing(
        document in super::super::merge::tests::value(true),
        patch in proptest::collection::vec(operation(), 0..4),
    ) {
        let patch = JsonPatch::from_value(Value::Array(patch)).unwrap();
        let mut strict = document.clone();
        if patch.apply(&mut strict, MissingPath::Fails, &mut PatchBudget::new()).is_ok() {
            let mut skipping = document;
            let skipped = patch.apply(&mut skipping, MissingPath::Skips, &mut PatchBudget::new()).unwrap();
            prop_assert!(skipped.is_empty());
            prop_assert_eq!(skipping, strict);
        }
    }
}
