//! From `typed/merge_test.go`, `symdiff_test.go`, `toset_test.go`, `remove_test.go`, `validate_test.go`,
//! `reconcile_schema_test.go` and `deduced_test.go`.

use serde_json::{Value, json};

use super::super::{
    Comparison, Duplicates, Node, compare, extract_items, merge, reconcile, remove_items, to_field_set, validate,
};
use super::{schema, set, thing};

/// `spec` of a [`thing`].
fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn merges_lists_of_scalars_in_order() {
    let schema = thing();
    let node = Node::root(Some(&schema));
    for (live, applied, expected) in [
        ("abc", "ab", "abc"),
        ("ab", "abc", "abc"),
        ("", "abc", "abc"),
        ("abc", "", "abc"),
        ("ab", "ba", "ba"),
        ("abc", "def", "abcdef"),
        ("abc", "cdef", "abcdef"),
        ("abcgf", "cdef", "abcgdef"),
        ("cdef", "ace", "acdef"),
        ("abcxyz", "def", "abcxyzdef"),
        ("abcxyz", "defxyz", "abcdefxyz"),
        ("cagf", "cfag", "cfag"),
        ("abcd", "defa", "bcdefa"),
        ("cdefghij", "2h3e4kl", "cdfg2hij3e4kl"),
        ("abcdefghij", "1b2h3e4kl", "a1bcdfg2hij3e4kl"),
        // With duplicates in what is live.
        ("abb", "c", "abbc"),
        ("abb", "b", "ab"),
        ("abb", "a", "abb"),
        ("abcdec", "1b2ed", "a1bc2ecd"),
        ("abcdec", "1b2ced", "a1b2ced"),
        ("aabb", "bcd", "aabcd"),
        ("aabb", "", "aabb"),
        ("cagfca", "cfag", "cfag"),
        ("aax", "ab", "abx"),
    ] {
        let list = |text: &str| {
            let items: Vec<String> = text.chars().map(String::from).collect();
            spec(json!({"tags": items}))
        };
        let merged = merge(list(live), &list(applied), node);
        assert_eq!(merged, list(expected), "{live} + {applied}");
    }
}

#[test]
fn merges_values() {
    let schema = thing();
    let node = Node::root(Some(&schema));
    for (live, applied, expected) in [
        (json!({}), json!({"nested": {}}), json!({"nested": {}})),
        (json!({}), json!({"nested": null}), json!({"nested": null})),
        (json!({"nested": null}), json!({"nested": {}}), json!({"nested": {}})),
        (json!({"nested": {}}), json!({"nested": null}), json!({"nested": null})),
        (
            json!({"nested": {"inner": {"value": "a"}}}),
            json!({"nested": {"inner": {"other": "b"}}}),
            json!({"nested": {"inner": {"value": "a", "other": "b"}}}),
        ),
        (
            json!({"nested": {"inner": {"value": "a"}}}),
            json!({"nested": null}),
            json!({"nested": {"inner": {"value": "a"}}}),
        ),
        (json!({"tags": []}), json!({"tags": null}), json!({"tags": null})),
        (
            json!({"numbers": [1, 2, 3.5]}),
            json!({"numbers": [1, 2, 3]}),
            json!({"numbers": [1, 2, 3.5, 3]}),
        ),
        // Atomic: as a whole.
        (
            json!({"selector": {"matchLabels": {"a": "1"}}}),
            json!({"selector": {"matchLabels": {"b": "2"}}}),
            json!({"selector": {"matchLabels": {"b": "2"}}}),
        ),
        (
            json!({"raw": {"a": {"b": 1}}}),
            json!({"raw": {"a": {"c": 1}}}),
            json!({"raw": {"a": {"c": 1}}}),
        ),
        // Deduced: maps granular, lists atomic.
        (
            json!({"free": {"a": {"b": 1}, "l": [1, 2]}}),
            json!({"free": {"a": {"c": 2}, "l": [3]}}),
            json!({"free": {"a": {"b": 1, "c": 2}, "l": [3]}}),
        ),
        (
            json!({"free": {"a": {"b": 1}}}),
            json!({"free": {"a": 1}}),
            json!({"free": {"a": 1}}),
        ),
        // Keys with defaults.
        (
            json!({"containers": [{"name": "a", "ports": [{"port": 1, "protocol": "TCP", "name": "x"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"port": 1, "name": "y"}, {"port": 1, "protocol": "UDP"}]}]}),
            json!({"containers": [{"name": "a", "ports": [
                {"port": 1, "protocol": "TCP", "name": "y"}, {"port": 1, "protocol": "UDP"}]}]}),
        ),
    ] {
        assert_eq!(
            merge(spec(live.clone()), &spec(applied.clone()), node),
            spec(expected),
            "{live} + {applied}"
        );
    }
}

#[test]
fn duplicates_in_live_are_replaced_by_what_is_applied() {
    let schema = thing();
    let live = json!([{"name": "a", "image": "1"}, {"name": "b"}, {"name": "a", "image": "2"}]);
    let applied = json!([{"name": "a", "args": ["x"]}]);
    let merged = merge(
        spec(json!({"containers": live})),
        &spec(json!({"containers": applied})),
        Node::root(Some(&schema)),
    );
    assert_eq!(
        merged,
        spec(json!({"containers": [{"name": "a", "args": ["x"]}, {"name": "b"}]}))
    );
}

#[test]
fn names_the_fields_of_a_configuration() {
    let schema = thing();
    for (value, expected) in [
        (json!({"replicas": 1, "text": null}), json!([["replicas"], ["text"]])),
        (json!({"nested": {}, "tags": [], "containers": []}), json!([["nested"]])),
        (
            json!({"nested": {"inner": {"value": "a"}}}),
            json!([["nested", "inner", "value"]]),
        ),
        (
            json!({"tags": ["a", "b", "a"]}),
            json!([["tags", ["a"]], ["tags", ["b"]]]),
        ),
        (json!({"selector": {"matchLabels": {"a": "1"}}}), json!([["selector"]])),
        (json!({"raw": {"a": 1}}), json!([["raw"]])),
        (
            json!({"limits": {"cpu": 1, "memory": "1Gi"}}),
            json!([["limits", "cpu"], ["limits", "memory"]]),
        ),
        (
            json!({"free": {"a": {"b": [1]}}}),
            json!([["free", "a"], ["free", "a", "b"]]),
        ),
        (
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"port": 1}]}]}),
            json!([
                ["containers", {"name": "a"}], ["containers", {"name": "a"}, "name"],
                ["containers", {"name": "a"}, "image"],
                ["containers", {"name": "a"}, "ports", {"port": 1, "protocol": "TCP"}],
                ["containers", {"name": "a"}, "ports", {"port": 1, "protocol": "TCP"}, "port"],
            ]),
        ),
        // Of duplicates only the item is named.
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a"}]}),
            json!([["containers", {"name": "a"}]]),
        ),
    ] {
        let set_of_spec = to_field_set(&spec(value.clone()), Node::root(Some(&schema)));
        let set_of_spec = set_of_spec.below_field("spec").cloned().unwrap_or_default();
        assert_eq!(set_of_spec, set(expected), "{value}");
    }
}

#[test]
fn compares() {
    let schema = thing();
    for (old, new, removed, modified, added) in [
        (
            json!({"replicas": 1}),
            json!({"replicas": 1.0}),
            json!([]),
            json!([]),
            json!([]),
        ),
        (
            json!({"replicas": 1, "text": "a"}),
            json!({"replicas": 2, "paused": true}),
            json!([["text"]]),
            json!([["replicas"]]),
            json!([["paused"]]),
        ),
        (
            json!({"tags": ["a", "b"]}),
            json!({"tags": ["b", "a"]}),
            json!([]),
            json!([]),
            json!([]),
        ),
        (
            json!({"tags": ["a", "b"]}),
            json!({"tags": ["b", "c"]}),
            json!([["tags", ["a"]]]),
            json!([]),
            json!([["tags", ["c"]]]),
        ),
        (
            json!({}),
            json!({"nested": {"inner": {"value": "a"}}}),
            json!([]),
            json!([]),
            json!([["nested"], ["nested", "inner"], ["nested", "inner", "value"]]),
        ),
        (
            json!({"nested": null}),
            json!({"nested": {}}),
            json!([]),
            json!([["nested"]]),
            json!([]),
        ),
        (
            json!({"selector": {"matchLabels": {"a": "1"}}}),
            json!({"selector": {"matchLabels": {"b": "1"}}}),
            json!([]),
            json!([["selector"]]),
            json!([]),
        ),
        // Another shape: all that was in it is gone.
        (
            json!({"free": {"a": {"b": 1}}}),
            json!({"free": {"a": 1}}),
            json!([["free", "a", "b"]]),
            json!([["free", "a"]]),
            json!([]),
        ),
        // Duplicates come and go as a whole.
        (
            json!({"tags": ["a", "a"]}),
            json!({"tags": ["a", "a", "a"]}),
            json!([]),
            json!([["tags", ["a"]]]),
            json!([]),
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a"}]}),
            json!({"containers": [{"name": "a"}]}),
            json!([["containers", {"name": "a"}]]),
            json!([]),
            json!([["containers", {"name": "a"}], ["containers", {"name": "a"}, "name"]]),
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a"}, {"name": "a"}]}),
            json!([["containers", {"name": "a"}], ["containers", {"name": "a"}, "name"]]),
            json!([]),
            json!([["containers", {"name": "a"}]]),
        ),
    ] {
        let comparison = compare(&spec(old.clone()), &spec(new.clone()), Node::root(Some(&schema)));
        let below = |set: super::Set| set.below_field("spec").cloned().unwrap_or_default();
        let comparison = Comparison {
            removed: below(comparison.removed),
            modified: below(comparison.modified),
            added: below(comparison.added),
        };
        let expected = Comparison {
            removed: set(removed),
            modified: set(modified),
            added: set(added),
        };
        assert_eq!(comparison, expected, "{old} -> {new}");
    }
}

#[test]
fn removes_and_extracts() {
    let schema = thing();
    let node = Node::root(Some(&schema));
    let value = spec(json!({
        "replicas": 1,
        "tags": ["a", "b"],
        "selector": {"matchLabels": {"a": "1"}},
        "nested": {"inner": {"value": "x"}},
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}],
    }));
    let items = set(json!([
        ["spec", "replicas"],
        ["spec", "tags", ["a"]],
        ["spec", "selector"],
        ["spec", "nested", "inner", "value"],
        ["spec", "containers", {"name": "a"}],
        ["spec", "containers", {"name": "b"}, "image"],
    ]));
    assert_eq!(
        remove_items(&value, node, &items),
        Some(spec(json!({"tags": ["b"], "containers": [{"name": "b"}]})))
    );
    assert_eq!(
        extract_items(&value, node, &items),
        Some(spec(json!({
            "replicas": 1,
            "tags": ["a"],
            "selector": {"matchLabels": {"a": "1"}},
            "nested": {"inner": {"value": "x"}},
            "containers": [{"name": "a"}, {"name": "b", "image": "j"}],
        })))
    );
    assert_eq!(remove_items(&value, node, &set(json!([["spec"]]))), None);
    assert_eq!(remove_items(&value, node, &set(json!([["status"]]))), Some(value));
}

#[test]
fn says_what_does_not_fit() {
    let schema = thing();
    let node = Node::root(Some(&schema));
    for (value, expected) in [
        (
            json!({"replicas": "1"}),
            r#".spec.replicas: expected numeric (int or float), got "1""#,
        ),
        (json!({"text": 1}), ".spec.text: expected string, got 1"),
        (json!({"paused": "yes"}), r#".spec.paused: expected boolean, got "yes""#),
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (json!({"nested": []}), ".spec.nested: expected map, got []"),
        (json!({"tags": "a"}), r#".spec.tags: expected list, got "a""#),
        (
            json!({"tags": ["a", "a"]}),
            r#".spec.tags: duplicate entries for key [="a"]"#,
        ),
        (
            json!({"tags": [{}]}),
            ".spec.tags: element 0: associative list without keys has an element that's a map type",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"port": "x"}]}]}),
            r#".spec.containers[name="a"].ports[port="x",protocol="TCP"].port: expected numeric (int or float), got "x""#,
        ),
        (
            json!({"containers": [{"image": "a"}]}),
            r#".spec.containers: element 0: associative list with keys has an element that omits all key fields ["name"] (and doesn't have default values for any key fields)"#,
        ),
    ] {
        let error = validate(&spec(value.clone()), node, Duplicates::Refused).unwrap_err();
        assert_eq!(error.to_string(), expected, "{value}");
    }
    let fits = json!({"tags": ["a", "a"], "limits": {"cpu": 1}, "raw": {"x": [{}]}, "free": {"x": [{}]}, "text": null});
    assert!(validate(&spec(fits), node, Duplicates::Allowed).is_ok());
}

#[test]
fn what_became_atomic_is_owned_as_a_whole() {
    let atomic = |map_type: &str| {
        schema(
            &json!({"Root": {"type": "object", "properties": {
                "struct": {"type": "object", "mapType": map_type, "properties": {"a": {}, "b": {}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"name": {}}}},
                "free": {"type": "object", "preserve": true},
            }}}),
            "Root",
        )
    };
    let before = set(json!([
        ["struct", "a"], ["list", {"name": "x"}], ["list", {"name": "x"}, "name"], ["free", "a", "b"],
    ]));
    assert_eq!(
        reconcile(&before, Node::root(Some(&atomic("atomic")))),
        Some(set(json!([["struct"], ["list"], ["free", "a", "b"]])))
    );
    let after = set(json!([["struct", "a"], ["list"], ["free", "a", "b"]]));
    assert_eq!(reconcile(&after, Node::root(Some(&atomic("granular")))), None);
    assert_eq!(reconcile(&before, Node::Deduced), None);
}
