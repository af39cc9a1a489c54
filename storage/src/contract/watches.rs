//! Watches.

use bytes::Bytes;

use super::{TestStore, changes_until, entry, next, next_change, put};
use crate::{Error, Operation, Precondition, Revision, WatchEvent};

/// A watch after a past revision delivers what has happened since, with what was there before.
pub async fn a_watch_begins_in_the_past(store: TestStore) {
    let key = "/watches/past/a";
    let start = put(&store, key, "1").await;
    let first = entry(&store, key).await;
    put(&store, key, "2").await;
    let second = entry(&store, key).await.unwrap();
    let deletion = store.delete(key, Precondition::None).await.unwrap();
    put(&store, key, "3").await;
    let third = entry(&store, key).await.unwrap();
    let mut watch = store.watch("/watches/past/", start).await.unwrap();
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Put {
            entry: second.clone(),
            previous: first
        }
    );
    let deleted = WatchEvent::Delete {
        key: key.into(),
        previous: second,
        revision: deletion,
    };
    assert_eq!(next_change(&mut watch).await, deleted);
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Put {
            entry: third,
            previous: None
        }
    );
}

/// A watch after the present delivers what comes.
pub async fn a_watch_goes_on_live(store: TestStore) {
    let key = "/watches/live/a";
    let start = put(&store, key, "1").await;
    let first = entry(&store, key).await;
    let mut watch = store.watch("/watches/live/", start).await.unwrap();
    let revision = put(&store, key, "2").await;
    let second = entry(&store, key).await.unwrap();
    assert_eq!(second.revision, revision);
    assert_eq!(
        next_change(&mut watch).await,
        WatchEvent::Put {
            entry: second.clone(),
            previous: first
        }
    );
    let deletion = store.delete(key, Precondition::None).await.unwrap();
    let deleted = WatchEvent::Delete {
        key: key.into(),
        previous: second,
        revision: deletion,
    };
    assert_eq!(next_change(&mut watch).await, deleted);
}

/// Changes of other keys are not delivered, neither from the past nor live; an empty prefix means all.
pub async fn a_watch_sees_its_prefix_only(store: TestStore) {
    let start = store.current_revision().await.unwrap();
    let keys = [
        "/watches/only/a",
        "/watches/only2/a",
        "/watches/onl/a",
        "/watches/only/b/c",
    ];
    let mut watches = Vec::new();
    for round in 0..2 {
        for key in keys {
            put(&store, key, "1").await;
        }
        if round == 0 {
            for (prefix, count) in [
                ("/watches/only/", 2),
                ("/watches/only", 3),
                ("/watches/only/b/", 1),
                ("", 4),
            ] {
                watches.push((store.watch(prefix, start).await.unwrap(), prefix, count));
            }
        }
    }
    let end = store.current_revision().await.unwrap();
    for (mut watch, prefix, count) in watches {
        let changes = changes_until(&mut watch, end).await.unwrap();
        assert!(changes.iter().all(|change| change.key().unwrap().starts_with(prefix)));
        assert_eq!(changes.len(), 2 * count, "under {prefix:?}");
    }
}

/// A watch after a revision that does not exist yet would miss the changes up to it.
pub async fn the_future_cannot_be_watched(store: TestStore) {
    let current = put(&store, "/watches/future/a", "1").await;
    let error = match store.watch("/watches/future/", Revision(current.0 + 100)).await {
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::FutureRevision { .. }), "{error}");
}

/// A revision that a read has shown is one that the store knows: it can be watched from at once, while others write.
pub async fn what_has_been_read_can_be_watched(store: TestStore) {
    let key = "/watches/read/a";
    put(&store, key, "0").await;
    for _ in 0..100 {
        let read = async {
            let read = store.get(key).await.unwrap();
            assert!(store.current_revision().await.unwrap() >= read.revision);
            drop(store.watch("/watches/read/", read.revision).await.unwrap());
        };
        futures::join!(put(&store, key, "1"), read);
    }
}

/// Deleted and put again, a key is a new one: its create revision is new, and nothing was before it.
pub async fn a_key_comes_back_with_a_new_create_revision(store: TestStore) {
    let (prefix, key) = ("/watches/lives/", "/watches/lives/a");
    let start = store.current_revision().await.unwrap();
    let mut live = store.watch(prefix, start).await.unwrap();
    let mut expected = Vec::new();
    for _ in 0..3 {
        let created = put(&store, key, "1").await;
        let first = entry(&store, key).await.unwrap();
        expected.push(WatchEvent::Put {
            entry: first.clone(),
            previous: None,
        });
        put(&store, key, "2").await;
        let second = entry(&store, key).await.unwrap();
        assert_eq!((first.create_revision, second.create_revision), (created, created));
        expected.push(WatchEvent::Put {
            entry: second.clone(),
            previous: Some(first),
        });
        let revision = store.delete(key, Precondition::None).await.unwrap();
        expected.push(WatchEvent::Delete {
            key: key.into(),
            previous: second,
            revision,
        });
    }
    let end = store.current_revision().await.unwrap();
    assert_eq!(changes_until(&mut live, end).await.unwrap(), expected, "live");
    for skipped in 0..expected.len() {
        let mut watch = store.watch(prefix, Revision(start.0 + skipped as u64)).await.unwrap();
        assert_eq!(
            changes_until(&mut watch, end).await.unwrap(),
            expected[skipped..],
            "from the past, after {skipped} changes"
        );
    }
}

/// A write that fails is no event.
pub async fn failed_writes_are_not_watched(store: TestStore) {
    let (prefix, key) = ("/watches/failed/", "/watches/failed/a");
    let start = put(&store, key, "1").await;
    let mut watch = store.watch(prefix, start).await.unwrap();
    let outcomes = store
        .batch(vec![
            Operation::put(key, "2", Precondition::Absent),
            Operation::put(key, "2", Precondition::Revision(start.next())),
            Operation::delete(key, Precondition::Revision(start.next())),
            Operation::delete("/watches/failed/b", Precondition::None),
            Operation::put(key, "3", Precondition::Revision(start)),
        ])
        .await;
    assert!(outcomes[..4].iter().all(Result::is_err), "{outcomes:?}");
    let done = *outcomes[4].as_ref().unwrap();
    let changes = changes_until(&mut watch, done).await.unwrap();
    assert_eq!(changes.iter().map(WatchEvent::revision).collect::<Vec<_>>(), [done]);
}

/// Every value that a key had is an event, also if it was replaced at once.
pub async fn no_change_is_left_out_for_a_later_one(store: TestStore) {
    let (prefix, key) = ("/watches/each/", "/watches/each/a");
    let start = store.current_revision().await.unwrap();
    let mut live = store.watch(prefix, start).await.unwrap();
    let operations = (0..50).map(|index| Operation::put(key, index.to_string(), Precondition::None));
    for outcome in store.batch(operations.collect()).await {
        outcome.unwrap();
    }
    let end = store.current_revision().await.unwrap();
    let mut past = store.watch(prefix, start).await.unwrap();
    for watch in [&mut live, &mut past] {
        let changes = changes_until(watch, end).await.unwrap();
        let values: Vec<_> = changes
            .iter()
            .map(|change| match change {
                WatchEvent::Put { entry, .. } => std::str::from_utf8(&entry.value).unwrap().to_owned(),
                other => panic!("expected a put, got {other:?}"),
            })
            .collect();
        assert_eq!(values, (0..50).map(|index| index.to_string()).collect::<Vec<_>>());
    }
}

/// Watches that go, unread or half read, take nothing from those that stay.
pub async fn a_dropped_watch_leaves_the_others_alone(store: TestStore) {
    let (prefix, key) = ("/watches/dropped/", "/watches/dropped/a");
    let start = store.current_revision().await.unwrap();
    let mut stays = store.watch(prefix, start).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..10 {
        let unread = store.watch(prefix, start).await.unwrap();
        let mut half_read = store.watch("/watches/", start).await.unwrap();
        expected.push(put(&store, key, &round.to_string()).await);
        assert_eq!(next_change(&mut half_read).await.revision(), expected[0]);
        drop((unread, half_read));
        expected.push(put(&store, key, &round.to_string()).await);
    }
    for revision in expected {
        assert_eq!(next_change(&mut stays).await.revision(), revision);
    }
}

/// Events with the largest values come whole, with what was before, also several at once.
pub async fn large_events_are_delivered(store: TestStore) {
    const LARGE: usize = 1_500_000;
    let (prefix, key) = ("/watches/large/", "/watches/large/a");
    let start = store.current_revision().await.unwrap();
    let mut live = store.watch(prefix, start).await.unwrap();
    let values: Vec<Bytes> = (b'a'..=b'e').map(|byte| vec![byte; LARGE].into()).collect();
    for value in &values {
        store.put(key, value.clone(), Precondition::None).await.unwrap();
    }
    let end = store.delete(key, Precondition::None).await.unwrap();
    let mut past = store.watch(prefix, start).await.unwrap();
    for watch in [&mut live, &mut past] {
        let changes = changes_until(watch, end).await.unwrap();
        assert_eq!(changes.len(), values.len() + 1);
        let mut before: Option<&Bytes> = None;
        for (change, value) in changes.iter().zip(&values) {
            let WatchEvent::Put { entry, previous } = change else {
                panic!("expected a put at {}", change.revision())
            };
            assert!(entry.value == *value, "the value at {}", entry.revision);
            assert!(
                previous.as_ref().map(|entry| &entry.value) == before,
                "before {}",
                entry.revision
            );
            before = Some(value);
        }
        let deleted = changes.last().unwrap();
        assert!(
            matches!(deleted, WatchEvent::Delete { previous, .. } if Some(&previous.value) == before),
            "the deletion has the last value"
        );
    }
}
