//! Random steps for as long as one likes.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{Expect, KEYS, Model, Read, Step, Write};
use crate::contract::TestStore;

/// What is read and watched: everything, subtrees, single keys, and what lies between.
const PREFIXES: [&str; 8] = [
    "",
    "/",
    "/model/",
    "/model",
    "/model/a",
    "/model/a/",
    "/model2/",
    "/model/none/",
];

/// Watches that go on at the same time, at most.
const WATCHES: usize = 8;

/// Counts of what was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    /// Writes, reads, compactions and watches.
    pub operations: usize,
    /// How often the store was opened again.
    pub reopened: usize,
}

/// Makes up steps from `seed` until there were `operations` of them, and compares after each. Now and then the store is
/// closed and `reopen` is asked for it again.
///
/// # Panics
/// Where the store differs from the model; the seed is printed before.
pub async fn random(
    store: TestStore,
    seed: u64,
    operations: usize,
    mut reopen: impl AsyncFnMut(TestStore) -> TestStore,
) -> Done {
    let told = Told(seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::new(&store).await;
    let (mut store, mut done) = (store, Done::default());
    while done.operations < operations {
        let step = make_up(&mut random, model.watches.len());
        done.operations += match &step {
            Step::Batch(writes) => writes.len(),
            Step::Follow => 0,
            Step::Compact(_) | Step::Read(_) | Step::Watch(..) => 1,
        };
        model.step(&store, &step).await;
        if random.random_range(0..2_000) == 0 {
            store = reopen(store).await;
            done.reopened += 1;
            model.watch_again(&store).await;
        }
        if random.random_range(0..500) == 0 {
            model.finish(&store).await;
        }
    }
    model.finish(&store).await;
    std::mem::forget(told);
    done
}

/// Says the seed if it is dropped, which a panic does.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the seed of the random steps is {}", self.0);
    }
}

fn make_up(random: &mut StdRng, watches: usize) -> Step {
    let prefix = PREFIXES.choose(random).expect("there are prefixes");
    match random.random_range(0..100) {
        0..48 => Step::Batch((0..random.random_range(1..6)).map(|_| write(random)).collect()),
        48..85 => Step::Read(Read {
            back: random.random_bool(0.7).then(|| random.random_range(0..30)),
            prefix,
            start_after: random
                .random_bool(0.3)
                .then(|| *KEYS.choose(random).expect("there are keys")),
            limit: random.random_range(0..5),
        }),
        85..90 if watches < WATCHES => Step::Watch(prefix, random.random_range(0..20)),
        90..93 => Step::Compact(random.random_range(0..25)),
        _ => Step::Follow,
    }
}

fn write(random: &mut StdRng) -> Write {
    let expect = match random.random_range(0..10) {
        0..5 => Expect::Anything,
        5 => Expect::Absent,
        6..9 => Expect::Current,
        _ => Expect::Other,
    };
    Write {
        key: random.random_range(0..KEYS.len()),
        delete: random.random_bool(0.3),
        expect,
    }
}
