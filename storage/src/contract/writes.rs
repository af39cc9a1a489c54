//! Puts, deletes and batches.

use super::{TestStore, assert_conflict, entry, put, row};
use crate::{Error, Guard, Operation, Precondition, Revision};

/// Each change has the next revision, and the store is at it.
pub async fn put_raises_the_revision_by_one(store: TestStore) {
    let first = put(&store, "/writes/raise/a", "1").await;
    let second = put(&store, "/writes/raise/a", "1").await;
    assert_eq!(second, first.next(), "the same value again is a change too");
    assert_eq!(store.current_revision().await.unwrap(), second);
    let read = store.get("/writes/raise/a").await.unwrap();
    assert_eq!(read.revision, second);
    assert_eq!(
        row(&read.entry.unwrap()),
        ("/writes/raise/a".into(), "1".into(), first, second)
    );
}

/// A write that fails leaves the revision alone.
pub async fn failed_writes_raise_nothing(store: TestStore) {
    let revision = put(&store, "/writes/failed/a", "1").await;
    store
        .put("/writes/failed/a", "2".into(), Precondition::Absent)
        .await
        .unwrap_err();
    store.delete("/writes/failed/b", Precondition::None).await.unwrap_err();
    assert_eq!(store.current_revision().await.unwrap(), revision);
    assert_eq!(put(&store, "/writes/failed/a", "3").await, revision.next());
}

/// `Absent` holds for a key that does not exist, also after a deletion.
pub async fn put_of_an_absent_key_conflicts_with_an_existing_one(store: TestStore) {
    let key = "/writes/absent/a";
    store.put(key, "1".into(), Precondition::Absent).await.unwrap();
    let existing = entry(&store, key).await;
    assert_conflict(
        store.put(key, "2".into(), Precondition::Absent).await,
        existing.as_ref(),
    );
    store.delete(key, Precondition::None).await.unwrap();
    store.put(key, "3".into(), Precondition::Absent).await.unwrap();
}

/// `Revision` holds for the revision of the last put and for no other.
pub async fn put_at_a_revision_conflicts_with_any_other(store: TestStore) {
    let key = "/writes/at/a";
    assert_conflict(
        store.put(key, "0".into(), Precondition::Revision(Revision(1))).await,
        None,
    );
    let first = put(&store, key, "1").await;
    let second = store.put(key, "2".into(), Precondition::Revision(first)).await.unwrap();
    let existing = entry(&store, key).await;
    assert_conflict(
        store.put(key, "3".into(), Precondition::Revision(first)).await,
        existing.as_ref(),
    );
    put(&store, "/writes/at/b", "1").await;
    store
        .put(key, "3".into(), Precondition::Revision(second))
        .await
        .unwrap();
}

/// The create revision stays through updates; a key that was deleted and put again has a new one.
pub async fn the_create_revision_lasts_until_deletion(store: TestStore) {
    let key = "/writes/create/a";
    let first = put(&store, key, "1").await;
    let second = put(&store, key, "2").await;
    assert_eq!(
        row(&entry(&store, key).await.unwrap()),
        (key.into(), "2".into(), first, second)
    );
    store.delete(key, Precondition::None).await.unwrap();
    let third = put(&store, key, "3").await;
    assert_eq!(
        row(&entry(&store, key).await.unwrap()),
        (key.into(), "3".into(), third, third)
    );
}

/// A delete needs its key, and its revision if it asks for one.
pub async fn delete_honours_its_precondition(store: TestStore) {
    let key = "/writes/delete/a";
    assert!(
        matches!(store.delete(key, Precondition::None).await, Err(Error::NotFound { key: missing }) if *missing == *key)
    );
    assert_conflict(store.delete(key, Precondition::Revision(Revision(1))).await, None);
    let first = put(&store, key, "1").await;
    let second = put(&store, key, "2").await;
    let existing = entry(&store, key).await;
    assert_conflict(
        store.delete(key, Precondition::Revision(first)).await,
        existing.as_ref(),
    );
    let deletion = store.delete(key, Precondition::Revision(second)).await.unwrap();
    assert_eq!(deletion, second.next());
    assert_eq!(entry(&store, key).await, None);
}

/// Operations of a batch succeed and fail on their own, in order, and see what earlier ones did.
pub async fn a_batch_has_an_outcome_per_operation(store: TestStore) {
    assert!(store.batch(Vec::new()).await.is_empty());
    let before = put(&store, "/writes/batch/a", "1").await;
    let outcomes = store
        .batch(vec![
            Operation::put("/writes/batch/a", "2", Precondition::Revision(before)),
            Operation::put("/writes/batch/a", "3", Precondition::Revision(before)),
            Operation::put("/writes/batch/b", "1", Precondition::Absent),
            Operation::delete("/writes/batch/b", Precondition::None),
            Operation::delete("/writes/batch/b", Precondition::None),
        ])
        .await;
    let [first, second, third, fourth, fifth] = <[_; 5]>::try_from(outcomes).unwrap();
    let first = first.unwrap();
    assert!(matches!(second, Err(Error::Conflict { current: Some(current), .. }) if current.revision == first));
    let (third, fourth) = (third.unwrap(), fourth.unwrap());
    // Operations of different keys may overtake each other.
    assert!(
        third < fourth && first != third && first != fourth,
        "{first}, {third}, {fourth}"
    );
    assert!(matches!(fifth, Err(Error::NotFound { .. })));
    assert_eq!(store.current_revision().await.unwrap(), first.max(fourth));
    assert_eq!(entry(&store, "/writes/batch/b").await, None);
}

/// A revision that a key had before it was deleted is not one that it has after it was put again.
pub async fn revisions_of_an_earlier_life_are_stale(store: TestStore) {
    let key = "/writes/lives/a";
    let first = put(&store, key, "1").await;
    let deletion = store.delete(key, Precondition::Revision(first)).await.unwrap();
    for stale in [first, deletion] {
        assert_conflict(store.put(key, "2".into(), Precondition::Revision(stale)).await, None);
        assert_conflict(store.delete(key, Precondition::Revision(stale)).await, None);
    }
    let second = store.put(key, "2".into(), Precondition::Absent).await.unwrap();
    let current = entry(&store, key).await;
    for stale in [first, deletion] {
        assert_conflict(
            store.put(key, "3".into(), Precondition::Revision(stale)).await,
            current.as_ref(),
        );
        assert_conflict(store.delete(key, Precondition::Revision(stale)).await, current.as_ref());
    }
    assert_conflict(store.delete(key, Precondition::Absent).await, current.as_ref());
    assert_eq!(entry(&store, key).await, current);
    store.delete(key, Precondition::Revision(second)).await.unwrap();
}

/// Hundreds of operations in one batch, on few keys and many: each sees what the ones before it did to its key.
pub async fn a_large_batch_keeps_its_order(store: TestStore) {
    let prefix = "/writes/large/";
    let start = store.current_revision().await.unwrap();
    let operations = (0..400).map(|index| {
        let key = format!("{prefix}{}", if index % 2 == 0 { index } else { index % 5 });
        match index % 10 {
            9 => Operation::delete(key, Precondition::None),
            _ => Operation::put(key, index.to_string(), Precondition::None),
        }
    });
    let operations: Vec<_> = operations.collect();
    let outcomes = store.batch(operations.clone()).await;
    assert_eq!(outcomes.len(), operations.len());
    let mut last = std::collections::BTreeMap::new();
    let mut done = Vec::new();
    for (operation, outcome) in operations.iter().zip(outcomes) {
        let exists = last.get(operation.key()).is_some_and(|(put, _)| *put);
        let is_put = matches!(operation, Operation::Put { .. });
        match outcome {
            Ok(revision) => {
                assert!(is_put || exists, "{operation:?} cannot succeed");
                if let Some((_, earlier)) = last.insert(operation.key().clone(), (is_put, revision)) {
                    assert!(earlier < revision, "{operation:?} is done in its turn");
                }
                done.push(revision);
            }
            Err(Error::NotFound { .. }) => assert!(!is_put && !exists, "{operation:?} cannot fail"),
            Err(error) => panic!("{operation:?}: {error}"),
        }
    }
    done.sort();
    assert!(
        done.into_iter()
            .eq((start.0 + 1..=store.current_revision().await.unwrap().0).map(Revision))
    );
    for (key, (exists, revision)) in last {
        assert_eq!(
            entry(&store, &key).await.map(|entry| entry.revision),
            exists.then_some(revision),
            "{key}"
        );
    }
}

/// A batch under a guard is done while the guard's key is as it was, and not at all once it has changed, is gone, or has
/// come back.
pub async fn a_guarded_batch_needs_its_guard(store: TestStore) {
    let (fence, key) = ("/writes/guard/fence", "/writes/guard/a");
    let revision = put(&store, fence, "1").await;
    let guard = Guard {
        key: fence.into(),
        revision,
    };
    let operations = |value: &'static str| {
        vec![
            Operation::put(key, value, Precondition::None),
            Operation::delete("/writes/guard/missing", Precondition::None),
        ]
    };
    let outcomes = store.batch_while(&guard, operations("1")).await;
    let [done, missing] = <[_; 2]>::try_from(outcomes).unwrap();
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let done = done.unwrap();
    put(&store, fence, "2").await;
    let changed = entry(&store, fence).await;
    for outcome in store.batch_while(&guard, operations("2")).await {
        assert_conflict(outcome, changed.as_ref());
    }
    store.delete(fence, Precondition::None).await.unwrap();
    for outcome in store.batch_while(&guard, operations("3")).await {
        assert_conflict(outcome, None);
    }
    put(&store, fence, "1").await;
    let back = entry(&store, fence).await;
    for outcome in store.batch_while(&guard, operations("4")).await {
        assert_conflict(outcome, back.as_ref());
    }
    assert_eq!(entry(&store, key).await.unwrap().revision, done);
}
