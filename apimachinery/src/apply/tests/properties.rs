//! What holds for any sets and any objects.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    FieldManager, ManagedFields, Node, Path, PathElement, Set, compare, fields_v1, merge, remove_items, to_field_set,
};
use super::thing;

fn any_element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        "[a-c]".prop_map(|name| PathElement::field(&name)),
        (0..3_i64).prop_map(|port| PathElement::key([("port", json!(port)), ("protocol", json!("T"))])),
        prop_oneof![
            any::<i32>().prop_map(Value::from),
            any::<i16>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
            "[ -~\u{e9}\u{2028}]{0,3}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
        .prop_map(PathElement::value),
        (0..3_i64).prop_map(PathElement::Index),
    ]
}

fn any_set() -> impl Strategy<Value = Set> {
    let path = prop::collection::vec(any_element(), 1..4).prop_map(Path);
    prop::collection::vec(path, 0..12).prop_map(|paths| paths.into_iter().collect())
}

/// A `spec` that fits [`thing`]; items of lists once each.
fn any_spec() -> impl Strategy<Value = Value> {
    let port = (
        1..3_i64,
        prop::option::of(prop_oneof!["TCP", "UDP"]),
        prop::option::of("[xy]"),
    );
    let ports = prop::collection::vec(port, 0..3).prop_map(|ports| {
        let mut seen = std::collections::BTreeSet::new();
        let ports = ports
            .into_iter()
            .filter(|(port, protocol, _)| seen.insert((*port, protocol.clone().unwrap_or_else(|| "TCP".to_owned()))));
        ports
            .map(|(port, protocol, name)| without_nulls(json!({"port": port, "protocol": protocol, "name": name})))
            .collect::<Value>()
    });
    let container = (prop::option::of("[ij]"), prop::option::of(ports))
        .prop_map(|(image, ports)| without_nulls(json!({"image": image, "ports": ports})));
    let containers = prop::collection::btree_map("[a-c]", container, 0..3).prop_map(|containers| {
        containers
            .into_iter()
            .map(|(name, mut container)| {
                container["name"] = json!(name);
                container
            })
            .collect::<Value>()
    });
    let tags = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..4).prop_shuffle();
    let labels = prop::collection::btree_map("[a-c]", "[12]", 0..3);
    let free = prop::collection::btree_map(
        "[a-b]",
        prop_oneof![
            Just(json!(1)),
            Just(json!({"x": 1})),
            Just(json!({"y": {"z": [1, 2]}})),
            Just(json!([])),
            Just(json!({})),
        ],
        0..3,
    );
    (
        prop::option::of(0..3_i64),
        prop::option::of(containers),
        prop::option::of(tags),
        prop::option::of(labels.clone()),
        prop::option::of(labels),
        prop::option::of(free),
        prop::option::of((prop::option::of("[vw]"), prop::option::of("[vw]"))),
    )
        .prop_map(|(replicas, containers, tags, limits, selector, free, nested)| {
            without_nulls(json!({
                "replicas": replicas,
                "containers": containers,
                "tags": tags,
                "limits": limits,
                "selector": selector.map(|labels| json!({"matchLabels": labels})),
                "free": free,
                "nested": nested.map(|(value, other)| {
                    json!({"inner": without_nulls(json!({"value": value, "other": other}))})
                }),
            }))
        })
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    value
}

fn config(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

fn managers() -> [FieldManager; 2] {
    [Some(thing()), None].map(|schema| FieldManager::new(schema, "v1", "", Set::new()))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

proptest! {
    #[test]
    fn fields_v1_round_trips(set in any_set()) {
        prop_assert_eq!(&fields_v1::from_json(&fields_v1::to_json(&set)).unwrap(), &set);
        prop_assert_eq!(&fields_v1::from_value(&fields_v1::to_value(&set)).unwrap(), &set);
    }

    #[test]
    fn sets_obey_the_algebra(a in any_set(), b in any_set(), c in any_set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.intersection(&b), a.difference(&a.difference(&b)));
        prop_assert_eq!(a.union(&b).difference(&c), a.difference(&c).union(&b.difference(&c)));
        prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a);
        prop_assert!(a.difference(&a).is_empty());
        prop_assert!(a.recursive_difference(&b).difference(&a.difference(&b)).is_empty());
        prop_assert_eq!(a.union(&b).len() + a.intersection(&b).len(), a.len() + b.len());
        let paths = a.paths();
        prop_assert_eq!(paths.len(), a.len());
        prop_assert!(paths.iter().all(|path| a.has(&path.0)));
        prop_assert_eq!(&paths.into_iter().rev().collect::<Set>(), &a);
        for path in a.paths() {
            prop_assert_eq!(a.difference(&b).has(&path.0), !b.has(&path.0));
        }
    }

    #[test]
    fn merging_is_idempotent_and_says_what_was_applied(live in any_spec(), applied in any_spec()) {
        let schema = thing();
        for node in [Node::root(Some(&schema)), Node::Deduced] {
            let (live, applied) = (config(&live), config(&applied));
            let merged = merge(live.clone(), &applied, node);
            prop_assert_eq!(&merge(merged.clone(), &applied, node), &merged);
            prop_assert_eq!(&merge(live.clone(), &live, node), &live);
            let said = to_field_set(&applied, node);
            prop_assert!(compare(&applied, &merged, node).removed.intersection(&said).is_empty());
            prop_assert!(compare(&live, &live, node).is_same());
            prop_assert_eq!(remove_items(&live, node, &Set::new()), Some(live));
        }
    }

    #[test]
    fn applying_is_idempotent(first in any_spec(), second in any_spec(), third in any_spec()) {
        for manager in managers() {
            let mut object = manager.apply(None, &config(&first), "a", false, at(1)).unwrap();
            for (who, spec) in [("b", &second), ("a", &third)] {
                object = manager.apply(Some(&object), &config(spec), who, true, at(2)).unwrap();
                let again = manager.apply(Some(&object), &config(spec), who, false, at(3)).unwrap();
                prop_assert_eq!(&again, &object);
            }
        }
    }

    #[test]
    fn withdrawing_removes_only_what_nobody_else_owns(first in any_spec(), second in any_spec()) {
        let schema = thing();
        for (manager, node) in managers().iter().zip([Node::root(Some(&schema)), Node::Deduced]) {
            let one = manager.apply(None, &config(&first), "a", false, at(1)).unwrap();
            // An empty list alone is nobody's: the next apply would be the first.
            prop_assume!(!ManagedFields::of_object(&one).unwrap().entries.is_empty());
            let both = manager.apply(Some(&one), &config(&second), "b", true, at(2)).unwrap();
            let nothing = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}});
            let left = manager.apply(Some(&both), &nothing, "a", true, at(3)).unwrap();
            // All that b applied is there as b said it; what else there is, is what b's items are in.
            let said = to_field_set(&config(&second), node);
            let comparison = compare(&config(&second), &left, node);
            prop_assert!(comparison.modified.intersection(&said).is_empty(), "{}", comparison.modified);
            prop_assert!(comparison.removed.intersection(&said).is_empty(), "{}", comparison.removed);
            let managed = ManagedFields::of_object(&left).unwrap();
            let owners: Vec<&str> = managed.entries.keys().map(|identifier| identifier.manager.as_str()).collect();
            prop_assert!(owners.iter().all(|owner| *owner == "b"), "{:?}", owners);
            let present = to_field_set(&left, node).below_field("spec").cloned().unwrap_or_default();
            let of_b = managed.all_fields().below_field("spec").cloned().unwrap_or_default();
            prop_assert!(present.difference(&of_b).is_empty(), "{}", present.difference(&of_b));
        }
    }

    #[test]
    fn updating_records_exactly_what_changed(first in any_spec(), second in any_spec()) {
        for manager in managers() {
            let created = manager.apply(None, &config(&first), "a", false, at(1)).unwrap();
            let updated = manager.update(&created, config(&second), "u", at(2));
            let mut bare = updated.clone();
            bare["metadata"].as_object_mut().unwrap().remove("managedFields");
            prop_assert_eq!(&bare, &config(&second));
            prop_assert_eq!(&manager.update(&updated, updated.clone(), "v", at(3)), &updated);
            // Nothing is owned by both: an update takes.
            let managed = ManagedFields::of_object(&updated).unwrap();
            let sets: Vec<&Set> = managed.entries.values().map(|entry| &entry.set).collect();
            if let [one, other] = sets.as_slice() {
                prop_assert!(one.intersection(other).is_empty());
            }
        }
    }
}
