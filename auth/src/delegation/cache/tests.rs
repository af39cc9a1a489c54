use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio_util::task::TaskTracker;

use super::*;

const LIFETIME: u64 = 10;
const CAPACITY: usize = 3;

fn retention() -> Retention {
    Retention {
        lifetime: Duration::from_secs(LIFETIME),
        capacity: CAPACITY,
    }
}

proptest! {
    /// Whatever is put in and whenever: what is found is the last that was put, not expired, and among the last few;
    /// and with room for it, it is found.
    #[test]
    fn answers_are_found_until_they_expire_or_make_room(
        steps in prop::collection::vec((0u64..6, 0u8..5, any::<bool>()), 1..60),
    ) {
        let mut expiring = Expiring::new(retention());
        let start = Instant::now();
        // When each key was put last, and as which of all that were put.
        let mut put: BTreeMap<u8, (u64, usize)> = BTreeMap::new();
        let mut puts = 0;
        let mut now = 0;
        for (passed, key, insert) in steps {
            now += passed;
            let instant = start + Duration::from_secs(now);
            if insert {
                expiring.insert([key; 32], puts, instant);
                put.insert(key, (now, puts));
                puts += 1;
            }
            prop_assert!(expiring.answers.len() <= CAPACITY && expiring.order.len() <= CAPACITY);
            for key in 0..5 {
                let found = expiring.get(&[key; 32], instant).copied();
                let last = put.get(&key).filter(|(at, _)| now < at + LIFETIME).map(|(_, number)| *number);
                prop_assert!(found.is_none() || found == last);
                if last.is_some_and(|last| puts - last <= CAPACITY) {
                    prop_assert_eq!(found, last);
                }
            }
        }
    }
}

#[test]
fn nothing_is_kept_for_no_time() {
    let mut expiring = Expiring::new(Retention {
        lifetime: Duration::ZERO,
        ..retention()
    });
    let now = Instant::now();
    expiring.insert([0; 32], (), now);
    assert!(expiring.get(&[0; 32], now).is_none() && expiring.answers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_that_comes_and_goes_leaves_nothing_behind() {
    let nothing = Retention {
        lifetime: Duration::ZERO,
        capacity: 0,
    };
    let cache = Arc::new(ReviewCache::new(nothing, nothing));
    let tracker = TaskTracker::new();
    for _ in 0..2_000 {
        let cache = Arc::clone(&cache);
        tracker.spawn(async move {
            let (question, patience, thought) = {
                let mut random = rand::rng();
                (
                    random.random_range(0..3),
                    random.random_range(0..6),
                    random.random_range(0..6),
                )
            };
            let asked = cache.get(
                |hasher| _ = hasher.count(question),
                || async move {
                    for _ in 0..thought {
                        tokio::task::yield_now().await;
                    }
                    (question, Keep::Favourable)
                },
            );
            let impatient = async {
                for _ in 0..patience {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                answer = asked => assert_eq!(answer, question),
                () = impatient, if patience > 0 => {}
            }
        });
    }
    tracker.close();
    tokio::time::timeout(Duration::from_secs(60), tracker.wait())
        .await
        .expect("everyone who waits is answered");
    assert_eq!(cache.sizes(), (0, 0, 0));
    let statistics = cache.statistics();
    assert_eq!(statistics.asked + statistics.shared, 2_000);
}
