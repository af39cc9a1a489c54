use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn cluster(name: &str, region: &str, taints: Value, ready: bool) -> (String, FleetCluster) {
    let info = Cluster {
        name: name.to_owned(),
        labels: [("region".to_owned(), region.to_owned())].into(),
        ..Cluster::default()
    };
    let taints = serde_json::from_value(taints).unwrap();
    let cluster = FleetCluster {
        info: Arc::new(info),
        taints,
        ready,
    };
    (name.to_owned(), cluster)
}

fn fleet() -> BTreeMap<String, FleetCluster> {
    [
        cluster("east", "eu", json!([]), true),
        cluster(
            "edge",
            "eu",
            json!([{"key": "edge", "value": "yes", "effect": "NoSchedule"}]),
            true,
        ),
        cluster("south", "us", json!([{"key": "old", "effect": "NoExecute"}]), true),
        cluster("west", "us", json!([]), false),
        cluster(
            "zero",
            "us",
            json!([{"key": "slow", "effect": "PreferNoSchedule"}]),
            true,
        ),
    ]
    .into()
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn spec(changes: Value) -> PlacementSpec {
    let mut spec = json!({"resources": []});
    for (field, value) in changes.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

#[test]
fn clusters_are_selected_by_label_name_taint_and_number() {
    for (changes, current, expected) in [
        (json!({}), &[][..], &["east", "west", "zero"][..]),
        (
            json!({"clusterSelector": {"matchLabels": {"region": "eu"}}}),
            &[],
            &["east"],
        ),
        (json!({"clusterNames": ["west", "nowhere"]}), &[], &["west"]),
        (
            json!({"tolerations": [{"key": "edge", "value": "yes", "effect": "NoSchedule"}]}),
            &[],
            &["east", "edge", "west", "zero"],
        ),
        (
            json!({"tolerations": [{"key": "edge", "value": "no"}]}),
            &[],
            &["east", "west", "zero"],
        ),
        (
            json!({"tolerations": [{"operator": "Exists"}]}),
            &[],
            &["east", "edge", "south", "west", "zero"],
        ),
        // A taint does not take away what is there, unless it says so.
        (json!({}), &["edge", "south"], &["east", "edge", "west", "zero"]),
        // What is there first, then what is not avoided, then what is ready, then by name.
        (json!({"clusters": {"max": 1}}), &[], &["east"]),
        (json!({"clusters": {"max": 2}}), &[], &["east", "west"]),
        (json!({"clusters": {"max": 2}}), &["zero"], &["east", "zero"]),
        (
            json!({"clusters": {"min": 3, "max": 9}}),
            &[],
            &["east", "west", "zero"],
        ),
    ] {
        let current: BTreeSet<String> = current.iter().map(|name| (*name).to_owned()).collect();
        let selected = select(&spec(changes.clone()), "all", &fleet(), &current).unwrap();
        assert_eq!(selected, expected, "{changes}");
    }
}

#[test]
fn what_cannot_be_scheduled_says_why() {
    let fail = |changes: Value, fleet: &BTreeMap<String, FleetCluster>| {
        select(&spec(changes), "all", fleet, &BTreeSet::new()).unwrap_err()
    };
    let error = fail(
        json!({"clusterSelector": {"matchLabels": {"region": "mars"}}}),
        &fleet(),
    );
    assert_eq!(error.reason, "NoClusters");
    assert!(
        error.message.contains("clusters: east, edge, south, west, zero"),
        "{error}"
    );
    let error = fail(json!({}), &BTreeMap::new());
    assert!(error.message.contains("fleet all has no clusters"), "{error}");
    let error = fail(json!({"clusterNames": ["edge"]}), &fleet());
    assert!(error.message.contains("spec.tolerations"), "{error}");
    let error = fail(json!({"clusters": {"min": 4}}), &fleet());
    assert_eq!(error.reason, "TooFewClusters");
    assert!(error.message.contains("asks for 4"), "{error}");
    assert_eq!(fail(json!({"clusters": {"max": 0}}), &fleet()).reason, "NoClusters");
    let selector = json!({"clusterSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
    assert_eq!(fail(selector, &fleet()).reason, "InvalidSelector");
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number:02}")).collect()
}

#[test]
fn replicas_are_divided_by_weight() {
    let weighted = |weights: &[(&str, u32)]| Replicas {
        strategy: ReplicaStrategy::Weighted,
        weights: weights
            .iter()
            .map(|(name, weight)| ((*name).to_owned(), *weight))
            .collect(),
    };
    let clusters = names(3);
    for (replicas, how, expected) in [
        (7, Replicas::default(), [7, 7, 7]),
        (7, weighted(&[]), [3, 2, 2]),
        (2, weighted(&[]), [1, 1, 0]),
        (10, weighted(&[("c00", 1), ("c02", 1)]), [5, 0, 5]),
        (10, weighted(&[("c00", 3), ("c01", 2), ("c02", 1)]), [5, 3, 2]),
        (1, weighted(&[("c01", 1), ("elsewhere", 5)]), [0, 1, 0]),
        (0, weighted(&[("c01", 0)]), [0, 0, 0]),
    ] {
        let divided = divide(replicas, &clusters, &how).unwrap();
        assert_eq!(
            divided.into_values().collect::<Vec<_>>(),
            expected,
            "{replicas} {how:?}"
        );
    }
    assert_eq!(
        divide(1, &clusters, &weighted(&[("c00", 0)])).unwrap_err().reason,
        "NoWeights"
    );
}

proptest! {
    #[test]
    fn nothing_is_lost_and_shares_are_fair(replicas in 0_i64..100_000, weights in prop::collection::vec(0_u32..1000, 1..12)) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let clusters = names(weights.len());
        let how = Replicas {
            strategy: ReplicaStrategy::Weighted,
            weights: clusters.iter().cloned().zip(weights.iter().copied()).collect(),
        };
        let divided = divide(replicas, &clusters, &how).unwrap();
        prop_assert_eq!(divided.values().sum::<i64>(), replicas);
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        for (share, weight) in divided.values().zip(&weights) {
            // Quota rule: a share is the exact quota, rounded down or up.
            let quota = replicas * i64::from(*weight);
            prop_assert!(*share == quota / total || *share == quota / total + 1);
            prop_assert!(*weight > 0 || *share == 0);
        }
        prop_assert_eq!(divided, divide(replicas, &clusters, &how).unwrap());
    }

    #[test]
    fn the_choice_is_stable_and_within_bounds(
        present in prop::collection::btree_set(0_usize..12, 1..12),
        current in prop::collection::btree_set(0_usize..12, 0..6),
        max in 1_u32..8,
    ) {
        let all = names(12);
        let clusters: BTreeMap<String, FleetCluster> =
            present.iter().map(|index| cluster(&all[*index], "eu", json!([]), index % 2 == 0)).collect();
        let current: BTreeSet<String> = current.iter().map(|index| all[*index].clone()).collect();
        let spec = spec(json!({"clusters": {"max": max}}));
        let selected = select(&spec, "all", &clusters, &current).unwrap();
        prop_assert!(selected.len() <= max as usize && selected.iter().all(|name| clusters.contains_key(name)));
        // What is there stays before anything new comes.
        let kept = selected.iter().filter(|name| current.contains(*name)).count();
        let could_stay = current.iter().filter(|name| clusters.contains_key(*name)).count();
        prop_assert_eq!(kept, could_stay.min(max as usize));
        // And once it is there, it is chosen again.
        let now: BTreeSet<String> = selected.iter().cloned().collect();
        prop_assert_eq!(select(&spec, "all", &clusters, &now).unwrap(), selected);
    }
}
