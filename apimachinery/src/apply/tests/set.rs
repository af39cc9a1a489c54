//! From `fieldpath/set_test.go`.

use serde_json::json;

use super::super::{Node, Set};
use super::{path, set, thing};

#[test]
fn has_what_was_inserted() {
    let set = set(json!([
        ["foo", {"name": "first"}],
        ["foo", 0, "bar", "baz"],
        ["foo", "bar"],
        ["qux", {"name": "first"}, "bar"],
        ["qux", ["hi"]],
    ]));
    assert_eq!(set.len(), 5);
    for (elements, expected) in [
        (json!(["foo", {"name": "first"}]), true),
        (json!(["foo", {"name": "second"}]), false),
        (json!(["foo"]), false),
        (json!(["foo", 0, "bar"]), false),
        (json!(["foo", 0, "bar", "baz"]), true),
        (json!(["qux", {"name": "first"}, "bar"]), true),
        (json!(["qux", ["hi"]]), true),
        (json!(["qux", ["ho"]]), false),
        (json!([]), false),
    ] {
        assert_eq!(set.has(&path(elements.clone()).0), expected, "{elements}");
    }
}

#[test]
fn differences_of_parents_and_children() {
    let of = |left, right| set(left).difference(&set(right));
    assert_eq!(of(json!([["a"]]), json!([["a", "b"]])), set(json!([["a"]])));
    assert_eq!(of(json!([["a", "b"]]), json!([["a"]])), set(json!([["a", "b"]])));
    let recursive = |left, right| set(left).recursive_difference(&set(right));
    assert_eq!(
        recursive(json!([["a"], ["a", "b", "c"], ["a", "d"], ["e"]]), json!([["a", "b"]])),
        set(json!([["a"], ["a", "d"], ["e"]]))
    );
    assert_eq!(recursive(json!([["a", "b"]]), json!([["a"], ["a", "c"]])), Set::new());
    assert_eq!(
        recursive(json!([["a", "b"]]), json!([["a", "b", "c"]])),
        set(json!([["a", "b"]]))
    );
}

#[test]
fn leaves_are_no_parents() {
    let all = set(json!([["a"], ["a", "b"], ["a", "b", "c"], ["d"], ["e", {"k": 1}], ["e", {"k": 1}, "k"]]));
    assert_eq!(all.leaves(), set(json!([["a", "b", "c"], ["d"], ["e", {"k": 1}, "k"]])));
}

#[test]
fn declared_parents_come_in_and_entries_do_not() {
    let schema = thing();
    let own = set(json!([
        ["spec", "containers", {"name": "a"}, "ports", {"port": 1, "protocol": "TCP"}, "name"],
        ["metadata", "labels", "x"],
        ["spec", "free", "a", "b"],
    ]));
    assert_eq!(
        own.with_declared_parents(Node::root(Some(&schema))),
        own.union(&set(json!([
            ["spec"],
            ["spec", "containers"],
            ["spec", "containers", {"name": "a"}, "ports"],
            ["spec", "free"],
            ["metadata"],
            ["metadata", "labels"],
        ])))
    );
    assert_eq!(own.with_declared_parents(Node::Deduced), own);
}

#[test]
fn numbers_are_what_they_amount_to() {
    let keyed = set(json!([["ports", {"port": 80}]]));
    assert!(keyed.has(&path(json!(["ports", {"port": 80.0}])).0));
    assert_eq!(keyed, set(json!([["ports", {"port": 80.0}]])));
}
