//! The store against the model, with steps that proptest makes up and can shrink, and with random ones for as long as
//! `UMBRA_STORAGE_MODEL_OPERATIONS` says.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Embedded, Options};
use crate::Store;
use crate::contract::model::random::random;
use crate::contract::model::{Expect, KEYS, Read, Step, Write, check};

/// Operations of the random run, unless the environment says otherwise.
const DEFAULT_OPERATIONS: usize = 5_000;

fn write() -> impl Strategy<Value = Write> {
    let expect = prop_oneof![
        6 => Just(Expect::Anything),
        1 => Just(Expect::Absent),
        2 => Just(Expect::Current),
        1 => Just(Expect::Other),
    ];
    (0..KEYS.len(), prop::bool::weighted(0.3), expect).prop_map(|(key, delete, expect)| Write { key, delete, expect })
}

fn prefix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "/model", "/model/", "/model/a", "/model/a/"])
}

fn read() -> impl Strategy<Value = Read> {
    let start_after = prop::option::of(prop::sample::select(KEYS.to_vec()));
    (prop::option::of(0..15_u64), prefix(), start_after, 0..4_usize).prop_map(|(back, prefix, start_after, limit)| {
        Read {
            back,
            prefix,
            start_after,
            limit,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(write(), 1..6).prop_map(Step::Batch),
        1 => (0..12_u64).prop_map(Step::Compact),
        2 => read().prop_map(Step::Read),
        1 => (prefix(), 0..10_u64).prop_map(|(prefix, back)| Step::Watch(prefix, back)),
        1 => Just(Step::Follow),
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

#[tokio::test]
async fn random_operations_are_those_of_the_model() {
    let item = umbra_show::Item::open("storage.model.embedded");
    let operations = std::env::var("UMBRA_STORAGE_MODEL_OPERATIONS")
        .map_or(DEFAULT_OPERATIONS, |operations| operations.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let open = || async {
        let options = Options {
            history: None,
            watch_buffer: 5,
            ..Options::default()
        };
        Embedded::open(directory.path(), options).await.unwrap()
    };
    let mut opened = open().await;
    let store: Arc<dyn Store> = Arc::new(opened.clone());
    let done = random(store, rand::random(), operations, async |_| {
        opened.close().await;
        opened = open().await;
        Arc::new(opened.clone()) as Arc<dyn Store>
    })
    .await;
    opened.close().await;
    item.pass(&format!(
        "{} operations, opened again {} times",
        done.operations, done.reopened
    ));
}
