//! The persistent map against an ordinary one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::objects::Objects;
use super::*;

const FIELD: &str = "spec.of";

/// An object whose field has one of a few values, or none.
fn object(key: u16, version: usize) -> Arc<CachedObject<usize>> {
    let value = (usize::from(key) / 3 + version) % 5;
    Arc::new(CachedObject {
        key: format!("/{key:05}").into(),
        revision: Revision(0),
        bytes: Bytes::new(),
        namespace: "".into(),
        name: "".into(),
        labels: StringMap::default(),
        fields: (value > 0).then(|| (FIELD, value.to_string())).into_iter().collect(),
        extra: version,
    })
}

fn contents(map: &Objects<usize>) -> Vec<(String, usize)> {
    let snapshot = Snapshot::new(Revision(0), map.clone());
    snapshot
        .iter()
        .map(|object| (object.key.to_string(), object.extra))
        .collect()
}

/// Runs of neighbouring keys, put or removed, so that chunks fill, split, drain and merge.
fn runs() -> impl Strategy<Value = Vec<(u16, u16, bool)>> {
    prop::collection::vec((0..2_000_u16, 1..500_u16, prop::bool::weighted(0.6)), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_like_an_ordered_map(runs in runs()) {
        let mut map = Objects::new(Arc::from([Box::from(FIELD)]));
        let mut model = BTreeMap::new();
        let mut kept = Vec::new();
        for (version, (start, length, put)) in runs.into_iter().enumerate() {
            for key in start..start + length {
                let name = format!("/{key:05}");
                let (found, expected) = if put {
                    (map.insert(&object(key, version)), model.insert(name, version))
                } else {
                    (map.remove(&name), model.remove(&name))
                };
                prop_assert_eq!(found.map(|object| object.extra), expected);
            }
            prop_assert_eq!(map.len(), model.len());
            kept.push((map.clone(), model.clone()));
        }
        for (map, model) in kept {
            let snapshot = Snapshot::new(Revision(0), map.clone());
            for (value, prefix, after) in [("", "/", None), ("1", "/", None), ("4", "/01", Some("/01200")), ("9", "/", None)] {
                let indexed = snapshot.range_of_field(FIELD, value, prefix, after).unwrap();
                let length = indexed.len();
                let indexed: Vec<_> = indexed.map(|object| &object.key).collect();
                let scanned = snapshot.range(prefix, after).filter(|object| object.field(FIELD) == value);
                prop_assert_eq!(&indexed, &scanned.map(|object| &object.key).collect::<Vec<_>>());
                prop_assert_eq!(indexed.len(), length);
            }
            prop_assert!(snapshot.range_of_field("spec.other", "", "/", None).is_none());
            for key in (0..2_500).step_by(97) {
                let name = format!("/{key:05}");
                prop_assert_eq!(map.get(&name).map(|object| object.extra), model.get(&name).copied());
                let after = Snapshot::new(Revision(0), map.clone()).range("/", Some(&name)).len();
                prop_assert_eq!(after, model.keys().filter(|key| **key > name).count());
            }
            prop_assert_eq!(contents(&map), model.into_iter().collect::<Vec<_>>());
        }
    }
}
