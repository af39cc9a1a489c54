//! The algebra of overrides.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use OverrideKind::{ClusterOverride, Override as Tenant};

/// An override that sets and removes fields, or fails, in all combinations of what decides the order.
fn any_override() -> impl Strategy<Value = Override> {
    any_override_of(&[ClusterOverride, Tenant], &["shop", "shop", "shop", "bank"])
}

fn any_override_of(
    kinds: &'static [OverrideKind],
    namespaces: &'static [&'static str],
) -> impl Strategy<Value = Override> {
    let change = prop_oneof![
        4 => proptest::collection::btree_map("[a-d]", proptest::option::of(0..4), 1..4)
            .prop_map(|fields| merge(json!({"spec": {"x": fields}}))),
        2 => ("[a-d]", 0..4).prop_map(|(field, value)| {
            let path = format!("/spec/x/{field}");
            json!([{"type": "JSONPatch", "optional": true, "value": [{"op": "replace", "path": path, "value": value}]}])
        }),
        1 => "[a-d]".prop_map(|field| operations(json!([{"op": "remove", "path": format!("/spec/x/{field}")}]))),
        1 => Just(merge(json!({"spec": {"x": {"n": "${cluster.name}"}}}))),
    ];
    let kind = proptest::sample::select(kinds);
    let namespace = proptest::sample::select(namespaces);
    (kind, any::<bool>(), 0i64..4, 0..2, namespace, change).prop_map(
        |(kind, is_final, priority, second, namespace, patches)| {
            let created = format!("2026-01-01T00:00:0{second}Z");
            let metadata = json!({"creationTimestamp": created, "namespace": namespace});
            made(
                kind,
                "x",
                json!({"metadata": metadata, "final": is_final, "priority": priority, "patches": patches}),
            )
        },
    )
}

/// Overrides with names of their own, so that their order is total.
fn any_overrides() -> impl Strategy<Value = Vec<Override>> {
    proptest::collection::vec(any_override(), 0..8).prop_map(|all| {
        let rename = |(index, one): (usize, Override)| one.named(format!("o{index}"));
        all.into_iter().enumerate().map(rename).collect()
    })
}

fn start() -> Value {
    let mut object = template();
    object["spec"]["x"] = json!({"a": 0, "b": 0, "c": 0});
    object
}

/// The result or the message, and the records.
fn outcome(overrides: &[Override]) -> Result<(Value, Vec<AppliedOverride>), String> {
    let request = admit(start(), overrides).map_err(|error| error.to_string())?;
    Ok((request.object, request.applied))
}

/// Whether `path` is `around` or inside of it.
fn within(path: &str, around: &str) -> bool {
    path.strip_prefix(around)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

proptest! {
    #[test]
    fn the_order_of_the_list_does_not_matter(
        (all, shuffled) in any_overrides().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        prop_assert_eq!(outcome(&all), outcome(&shuffled));
    }

    #[test]
    fn a_final_override_of_the_highest_priority_wins(all in any_overrides()) {
        let last = json!({"priority": 1000, "final": true, "patches": merge(json!({"spec": {"x": {"a": "mine"}}}))});
        let mut all = all;
        all.push(made(ClusterOverride, "zz", last));
        if let Ok((object, _)) = outcome(&all) {
            prop_assert_eq!(&object["spec"]["x"]["a"], "mine");
        }
    }

    #[test]
    fn passes_run_one_after_the_other(all in any_overrides()) {
        // One pass at a time, with nothing but what belongs to it, gives the same.
        if let Ok((object, applied)) = outcome(&all) {
            let mut request = AdmissionRequest::new(start(), cluster());
            for stage in [Stage::Cluster, Stage::Namespace, Stage::Final] {
                let of_stage: Vec<_> = all.iter().filter(|one| one.is_of(stage)).cloned().map(Arc::new).collect();
                OverridePlugin::new(stage, of_stage).admit(&mut request).unwrap();
            }
            prop_assert_eq!(request.object, object);
            let numbers: Vec<_> = applied.iter().map(|one| match one.stage {
                Stage::Cluster => 1,
                Stage::Namespace => 2,
                Stage::Final => 3,
            }).collect();
            prop_assert!(numbers.is_sorted());
        }
    }

    #[test]
    fn deleting_an_override_is_never_having_had_it(all in any_overrides(), one in any_override()) {
        let before = outcome(&all);
        let mut more = all;
        more.push(one.named("extra".to_owned()));
        let _ = outcome(&more);
        more.pop();
        prop_assert_eq!(outcome(&more), before);
    }

    #[test]
    fn overrides_of_other_namespaces_do_nothing(all in any_overrides(), one in any_override_of(&[Tenant], &["bank"])) {
        let before = outcome(&all);
        let mut more = all;
        more.push(one.named("extra".to_owned()));
        prop_assert_eq!(outcome(&more), before);
    }

    #[test]
    fn records_cover_every_difference(all in any_overrides()) {
        if let Ok((object, applied)) = outcome(&all) {
            let mut differences = Vec::new();
            crate::overrides::record::compare(&start(), &object, 0, &mut differences);
            let recorded: Vec<_> = applied.iter().flat_map(|one| &one.changes).map(|change| &change.path).collect();
            for difference in differences {
                let covered = recorded.iter().any(|path| within(&difference.path, path) || within(path, &difference.path));
                prop_assert!(covered, "{} is not in {:?}", difference.path, recorded);
            }
        }
    }
}
