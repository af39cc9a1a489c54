//! The store against the model, with steps that proptest makes up.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::Embedded;
use crate::contract::model::{Expect, KEYS, Step, Write, check};

fn write() -> impl Strategy<Value = Write> {
    let expect = prop_oneof![
        6 => Just(Expect::Anything),
        1 => Just(Expect::Absent),
        2 => Just(Expect::Current),
        1 => Just(Expect::Other),
    ];
    (0..KEYS.len(), prop::bool::weighted(0.3), expect).prop_map(|(key, delete, expect)| Write { key, delete, expect })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(write(), 1..6).prop_map(Step::Batch),
        1 => (0..12_u64).prop_map(Step::Compact),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_store_behaves_like_a_map_per_revision(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Embedded::in_memory_with_buffer(3);
            check(Arc::new(store.clone()), steps).await;
            store.close().await;
        });
    }
}
