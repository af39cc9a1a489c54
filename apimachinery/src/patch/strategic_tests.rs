use proptest::prelude::*;
use serde_json::json;

use super::super::merge;
use super::*;
use crate::schema::{Schema, SchemaSet, SchemaType};

fn list(merge_key: Option<&str>, merge: bool, items: Schema) -> Schema {
    Schema {
        schema_type: SchemaType::Array,
        items: Some(Box::new(items)),
        patch_strategy: PatchStrategy {
            merge,
            merge_key: merge_key.map(str::to_owned),
            ..PatchStrategy::default()
        },
        ..Schema::default()
    }
}

fn reference(name: &str) -> Schema {
    Schema {
        reference: Some(name.into()),
        ..Schema::default()
    }
}

/// A recursive kind with every sort of list and map.
fn schema() -> SchemaSet {
    let item = Schema {
        schema_type: SchemaType::Object,
        properties: [
            ("items".to_owned(), list(Some("name"), true, reference("Item"))),
            ("plain".to_owned(), list(None, false, reference("Item"))),
            ("scalars".to_owned(), list(None, true, Schema::default())),
            ("keyless".to_owned(), list(None, true, reference("Item"))),
            ("map".to_owned(), reference("Item")),
            (
                "replaced".to_owned(),
                Schema {
                    patch_strategy: PatchStrategy {
                        replace: true,
                        ..PatchStrategy::default()
                    },
                    ..reference("Item")
                },
            ),
        ]
        .into(),
        additional_properties: Some(Box::default()),
        ..Schema::default()
    };
    let mut set = SchemaSet::new();
    set.insert("Item", item);
    set
}

fn patched(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let set = schema();
    let mut result = document.clone();
    match apply(&mut result, patch, set.cursor("Item").unwrap()) {
        Ok(()) => Ok(result),
        Err(error) => {
            assert_eq!(&result, document, "a failing patch changed the document");
            Err(error)
        }
    }
}

fn check(cases: impl IntoIterator<Item = (Value, Value, Value)>) {
    for (document, patch, expected) in cases {
        assert_eq!(
            patched(&document, &patch),
            Ok(expected),
            "{document} patched with {patch}"
        );
    }
}

#[test]
fn maps_merge() {
    check([
        (json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2})),
        (json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2})),
        (
            json!({}),
            json!({"a": null, "map": {"b": null, "c": [{"d": null}]}}),
            json!({"map": {"c": [{}]}}),
        ),
        (
            json!({"map": {"a": 1}}),
            json!({"map": {"b": 2}}),
            json!({"map": {"a": 1, "b": 2}}),
        ),
        (
            json!({"map": {"a": 1, "b": 2}}),
            json!({"map": {"$patch": "replace", "b": 3}}),
            json!({"map": {"b": 3}}),
        ),
        (
            json!({"map": {"a": 1}}),
            json!({"map": {"$patch": "delete"}}),
            json!({"map": {}}),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!({"$patch": "replace", "c": 3}),
            json!({"c": 3}),
        ),
        // A directive for what is not there leaves nothing.
        (
            json!({"a": 1}),
            json!({"map": {"$patch": "replace", "b": 3}}),
            json!({"a": 1}),
        ),
        (json!({"a": 1}), json!({"a": {"$patch": "delete"}}), json!({})),
        (
            json!({"a": 1}),
            json!({"map": {"$retainKeys": ["b"], "b": 3}}),
            json!({"a": 1, "map": {"b": 3}}),
        ),
        (
            json!({"replaced": {"a": 1}}),
            json!({"replaced": {"b": 2}}),
            json!({"replaced": {"b": 2}}),
        ),
        // Types differ: the patch wins.
        (json!({"a": {"b": 1}}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
    ]);
}

#[test]
fn retain_keys_drops_the_others() {
    check([
        (
            json!({"map": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"map": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"map": {"type": "Recreate"}}),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!({"$retainKeys": ["a"], "b": null}),
            json!({"a": 1}),
        ),
    ]);
    for patch in [json!({"$retainKeys": ["a"], "b": 1}), json!({"$retainKeys": "a"})] {
        let error = patched(&json!({"a": 1}), &patch).unwrap_err();
        assert_eq!(error.http_status(), 400, "{error}");
    }
}

#[test]
fn lists_without_strategy_are_replaced() {
    check([
        (
            json!({"plain": [{"name": "a"}]}),
            json!({"plain": [{"name": "b", "x": null}]}),
            json!({"plain": [{"name": "b"}]}),
        ),
        (
            json!({"unknown": [1]}),
            json!({"unknown": [2]}),
            json!({"unknown": [2]}),
        ),
    ]);
}

#[test]
fn lists_of_scalars_are_sets() {
    check([
        (
            json!({"scalars": ["a", "b"]}),
            json!({"scalars": ["c", "a"]}),
            json!({"scalars": ["c", "a", "b"]}),
        ),
        (
            json!({"scalars": ["a", "b"]}),
            json!({"scalars": []}),
            json!({"scalars": ["a", "b"]}),
        ),
        (json!({}), json!({"scalars": ["a"]}), json!({"scalars": ["a"]})),
        (
            json!({"scalars": ["a", "b", "c"]}),
            json!({"$deleteFromPrimitiveList/scalars": ["a", "x"], "scalars": ["d"]}),
            json!({"scalars": ["d", "b", "c"]}),
        ),
        (json!({}), json!({"$deleteFromPrimitiveList/scalars": ["a"]}), json!({})),
        (
            json!({"scalars": ["a", "b", "c"]}),
            json!({"$setElementOrder/scalars": ["c", "d", "a"], "scalars": ["d"]}),
            json!({"scalars": ["b", "c", "d", "a"]}),
        ),
        (
            json!({"scalars": ["a", "b", "c"]}),
            json!({"$setElementOrder/scalars": ["c", "a"], "$deleteFromPrimitiveList/scalars": ["b"]}),
            json!({"scalars": ["c", "a"]}),
        ),
    ]);
}

#[test]
fn lists_of_objects_merge_by_key() {
    let two = || json!({"items": [{"name": "a", "x": 1}, {"name": "b", "x": 2}]});
    check([
        (
            two(),
            json!({"items": [{"name": "b", "y": 3}]}),
            json!({"items": [{"name": "a", "x": 1}, {"name": "b", "x": 2, "y": 3}]}),
        ),
        (
            two(),
            json!({"items": [{"name": "c", "z": null}]}),
            json!({"items": [{"name": "c"}, {"name": "a", "x": 1}, {"name": "b", "x": 2}]}),
        ),
        (
            two(),
            json!({"items": [{"name": "a", "$patch": "delete"}]}),
            json!({"items": [{"name": "b", "x": 2}]}),
        ),
        (
            two(),
            json!({"items": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"items": [{"name": "c"}]}),
        ),
        (two(), json!({"items": [{"$patch": "replace"}]}), json!({"items": []})),
        (two(), json!({"items": []}), two()),
        (
            two(),
            json!({"$setElementOrder/items": [{"name": "b"}, {"name": "a"}]}),
            json!({"items": [{"name": "b", "x": 2}, {"name": "a", "x": 1}]}),
        ),
        (
            two(),
            json!({
                "$setElementOrder/items": [{"name": "a"}, {"name": "c"}, {"name": "b"}],
                "items": [{"name": "c"}, {"name": "b", "x": 9}],
            }),
            json!({"items": [{"name": "a", "x": 1}, {"name": "c"}, {"name": "b", "x": 9}]}),
        ),
        // The server's own element keeps its place between the ordered ones.
        (
            json!({"items": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}),
            json!({"$setElementOrder/items": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "items": [{"name": "c"}]}),
            json!({"items": [{"name": "a"}, {"name": "server"}, {"name": "b"}, {"name": "c"}]}),
        ),
        (
            two(),
            json!({"$setElementOrder/items": [{"name": "a"}], "items": [{"name": "b", "$patch": "delete"}]}),
            json!({"items": [{"name": "a", "x": 1}]}),
        ),
        // Lists inside elements merge by the schema of the element.
        (
            json!({"items": [{"name": "a", "items": [{"name": "n", "x": 1}]}]}),
            json!({"items": [{"name": "a", "items": [{"name": "n", "y": 2}]}]}),
            json!({"items": [{"name": "a", "items": [{"name": "n", "x": 1, "y": 2}]}]}),
        ),
        // Keys are compared with their types; two elements with one key: the first is merged into.
        (
            json!({"items": [{"name": 53, "p": "TCP"}, {"name": 53, "p": "UDP"}]}),
            json!({"items": [{"name": 53, "q": 1}]}),
            json!({"items": [{"name": 53, "p": "TCP", "q": 1}, {"name": 53, "p": "UDP"}]}),
        ),
    ]);
}

#[test]
fn errors_say_where_and_whose() {
    for (document, patch, status, expected) in [
        (
            json!({}),
            json!({"$patch": "frob"}),
            400,
            "invalid patch: unknown patch type: \"frob\"",
        ),
        (
            json!({"map": {}}),
            json!({"map": {"$patch": "merge"}}),
            400,
            "invalid patch: map: unknown patch type: \"merge\"",
        ),
        (
            json!({"items": [{"name": "a"}]}),
            json!({"items": [{"x": 1}]}),
            400,
            "invalid patch: items: an element does not contain declared merge key: name",
        ),
        (
            json!({"items": [{"x": "a"}]}),
            json!({"items": [{"name": "b"}]}),
            422,
            "the patch does not apply: items: an element of the list does not contain declared merge key: name",
        ),
        (
            json!({"items": [{"name": "a", "map": {"keyless": [{"b": 1}]}}]}),
            json!({"items": [{"name": "a", "map": {"keyless": [{"c": 1}]}}]}),
            422,
            "the patch does not apply: items.\"a\".map.keyless: cannot merge lists without merge key",
        ),
        (
            json!({"scalars": [1]}),
            json!({"scalars": ["a"]}),
            422,
            "the patch does not apply: scalars: list element types are not identical",
        ),
        (
            json!({"scalars": [[1]]}),
            json!({"scalars": [[1]]}),
            422,
            "the patch does not apply: scalars: lists of lists are not supported",
        ),
        (
            json!({"scalars": ["a", "b"]}),
            json!({"$setElementOrder/scalars": ["a"], "scalars": ["c"]}),
            400,
            "invalid patch: scalars: The order in patch list doesn't match $setElementOrder list: \"c\"",
        ),
        (
            json!({}),
            json!({"$deleteFromPrimitiveList": ["a"]}),
            400,
            "invalid patch: invalid patch format of primitive list",
        ),
        (
            json!({}),
            json!({"$setElementOrder/scalars": "a"}),
            400,
            "invalid patch: scalars: invalid patch format of setElementOrder list",
        ),
        (
            json!({"items": [{"name": "a"}]}),
            json!({"items": [{"name": "a", "$patch": "merge"}]}),
            400,
            "invalid patch: items: merging lists cannot yet be specified in the patch",
        ),
    ] {
        let error = patched(&document, &patch).expect_err(&patch.to_string());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.http_status(), status, "{error}");
    }
}

/// Documents of the kind above.
fn document() -> impl Strategy<Value = Value> {
    let name = || proptest::sample::select(vec!["a", "b", "c", "d"]);
    let leaf = proptest::collection::btree_map("[x-z]", 0..3, 0..3).prop_map(|fields| json!(fields));
    leaf.prop_recursive(2, 12, 3, move |inner| {
        let items = proptest::collection::btree_map(name(), inner.clone(), 0..4).prop_shuffle_values();
        let scalars = proptest::sample::subsequence(vec!["p", "q", "r"], 0..=3).prop_shuffle();
        (items, scalars, inner)
            .prop_map(|(items, scalars, map)| json!({"items": items, "scalars": scalars, "map": map}))
    })
}

/// Named elements in any order.
trait Shuffled {
    fn prop_shuffle_values(self) -> BoxedStrategy<Vec<Value>>;
}

impl<S: Strategy<Value = std::collections::BTreeMap<&'static str, Value>> + 'static> Shuffled for S {
    fn prop_shuffle_values(self) -> BoxedStrategy<Vec<Value>> {
        let named = |items: std::collections::BTreeMap<&'static str, Value>| {
            let with_name = |(name, mut item): (&str, Value)| {
                item["name"] = json!(name);
                item
            };
            items.into_iter().map(with_name).collect::<Vec<_>>()
        };
        self.prop_map(named).prop_shuffle().boxed()
    }
}

/// Everything that merges is there already, in whatever order.
fn contains(document: &Value, patch: &Value) -> bool {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => patch
            .iter()
            .all(|(name, change)| document.get(name).is_some_and(|field| contains(field, change))),
        (Value::Array(document), Value::Array(patch)) => patch
            .iter()
            .all(|change| document.iter().any(|element| contains(element, change))),
        _ => document == patch,
    }
}

proptest! {
    #[test]
    fn what_is_patched_is_there_and_patching_again_changes_nothing(document in document(), patch in document()) {
        let once = patched(&document, &patch).unwrap();
        prop_assert!(contains(&once, &patch), "{} lacks {}", once, patch);
        prop_assert_eq!(patched(&once, &patch), Ok(once));
    }

    #[test]
    fn without_merged_lists_it_is_a_merge_patch(document in merge::tests::value(false), patch in merge::tests::value(true)) {
        let document = json!({"map": {"value": document}});
        let patch = json!({"map": {"value": patch}});
        let mut merged = document.clone();
        merge::apply(&mut merged, &patch);
        // Nulls in lists in the place of objects are the one difference.
        let strategic = patched(&document, &patch).unwrap();
        let mut pruned = json!({});
        merge::apply(&mut pruned, &merged);
        prop_assert_eq!(strategic, pruned);
    }
}
