//! Compaction.

use super::{TestStore, changes_until, entry, next, next_change, put, row};
use crate::{Error, Precondition, RangeRequest, Revision, WatchEvent};

fn assert_compacted(error: &Error, expected: Revision) {
    assert!(
        matches!(error, Error::Compacted { oldest, .. } if *oldest == expected),
        "{error}"
    );
}

/// Before the compacted revision nothing can be read or watched; at it and after it everything can.
pub async fn compacted_states_are_gone(store: TestStore) {
    let (prefix, key) = ("/compaction/gone/", "/compaction/gone/a");
    let first = put(&store, key, "1").await;
    let second = put(&store, key, "2").await;
    let third = put(&store, key, "3").await;
    let fourth = put(&store, key, "4").await;
    store.compact(third).await.unwrap();
    for revision in [first, second] {
        let error = store
            .range(RangeRequest::prefix(prefix).at(revision))
            .await
            .unwrap_err();
        assert_compacted(&error, third);
    }
    let error = match store.watch(prefix, first).await {
        Ok(mut watch) => next(&mut watch).await.unwrap_err(),
        Err(error) => error,
    };
    assert_compacted(&error, third);
    for (revision, value) in [(third, "3"), (fourth, "4")] {
        let response = store.range(RangeRequest::prefix(prefix).at(revision)).await.unwrap();
        assert_eq!(row(&response.entries[0]), (key.into(), value.into(), first, revision));
    }
    let mut watch = store.watch(prefix, third).await.unwrap();
    let changes = changes_until(&mut watch, fourth).await.unwrap();
    assert_eq!(changes.iter().map(WatchEvent::revision).collect::<Vec<_>>(), [fourth]);
}

/// What is there stays, however old; what was deleted stays deleted and can be put again.
pub async fn compaction_keeps_the_present(store: TestStore) {
    let prefix = "/compaction/present/";
    let (old, deleted) = ("/compaction/present/old", "/compaction/present/deleted");
    let created = put(&store, old, "1").await;
    put(&store, deleted, "1").await;
    // More changes than one step of any clean-up takes.
    for index in 0..25 {
        let operations = (0..100).map(|change| {
            let key = format!("{prefix}{}", change % 10);
            crate::Operation::put(key, format!("{index}/{change}"), Precondition::None)
        });
        for outcome in store.batch(operations.collect()).await {
            outcome.unwrap();
        }
    }
    let deletion = store.delete(deleted, Precondition::None).await.unwrap();
    let before = store.range(RangeRequest::prefix(prefix)).await.unwrap();
    store.compact(deletion).await.unwrap();
    let after = store.range(RangeRequest::prefix(prefix)).await.unwrap();
    assert_eq!(after, before);
    assert_eq!(
        row(&entry(&store, old).await.unwrap()),
        (old.into(), "1".into(), created, created)
    );
    assert_eq!(
        store.current_revision().await.unwrap(),
        deletion,
        "compaction is no change"
    );
    let again = store.put(deleted, "2".into(), Precondition::Absent).await.unwrap();
    store.compact(again).await.unwrap();
    assert_eq!(
        row(&entry(&store, deleted).await.unwrap()),
        (deleted.into(), "2".into(), again, again)
    );
    let response = store.range(RangeRequest::prefix(prefix).at(again)).await.unwrap();
    assert_eq!(response.entries.len(), before.entries.len() + 1);
}

/// Compacting what is compacted changes nothing; compacting the future is an error.
pub async fn compaction_to_the_past_or_future(store: TestStore) {
    let first = put(&store, "/compaction/again/a", "1").await;
    let second = put(&store, "/compaction/again/a", "2").await;
    store.compact(second).await.unwrap();
    // etcd calls it an error to compact again; a backend hides that.
    for again in [first, second] {
        store.compact(again).await.unwrap();
        let error = store
            .range(RangeRequest::prefix("/compaction/again/").at(first))
            .await
            .unwrap_err();
        assert_compacted(&error, second);
    }
    assert!(matches!(
        store.compact(second.next()).await,
        Err(Error::FutureRevision { .. })
    ));
}

/// A watch that is up to date does not notice a compaction.
pub async fn a_live_watch_goes_on_through_compaction(store: TestStore) {
    let (prefix, key) = ("/compaction/live/", "/compaction/live/a");
    let start = put(&store, key, "0").await;
    let mut watch = store.watch(prefix, start).await.unwrap();
    for round in 1..6 {
        let before = entry(&store, key).await;
        let revision = put(&store, key, &round.to_string()).await;
        let change = next_change(&mut watch).await;
        assert!(
            matches!(&change, WatchEvent::Put { entry, previous } if entry.revision == revision && *previous == before),
            "{change:?}"
        );
        store.compact(revision).await.unwrap();
    }
    let last = entry(&store, key).await.unwrap();
    let revision = store.delete(key, Precondition::None).await.unwrap();
    store.compact(revision).await.unwrap();
    let deleted = WatchEvent::Delete {
        key: key.into(),
        previous: last,
        revision,
    };
    assert_eq!(next_change(&mut watch).await, deleted);
}

/// A watch that has not taken its events when they are compacted gets them all the same, or a gapless run of them and then
/// an error; each with what was before it.
pub async fn a_watch_behind_the_compaction_is_told(store: TestStore) {
    let (prefix, key) = ("/compaction/behind/", "/compaction/behind/a");
    let start = put(&store, key, "start").await;
    let mut watch = store.watch(prefix, start).await.unwrap();
    let mut values = vec![(start, "start".to_owned())];
    for round in 0..60 {
        let value = round.to_string();
        values.push((put(&store, key, &value).await, value));
        if round == 40 {
            store.compact(Revision(start.0 + 30)).await.unwrap();
        }
    }
    let end = store.current_revision().await.unwrap();
    let mut position = 0;
    watch.request_progress();
    loop {
        match next(&mut watch).await {
            Ok(WatchEvent::Progress { revision }) if revision >= end => {
                assert_eq!(position, values.len() - 1, "progress comes after every change");
                break;
            }
            Ok(WatchEvent::Progress { .. }) => watch.request_progress(),
            Ok(WatchEvent::Put {
                entry,
                previous: Some(previous),
            }) => {
                for (entry, (revision, value)) in [previous, entry].iter().zip(&values[position..]) {
                    assert_eq!(
                        row(entry),
                        (key.to_owned(), value.clone(), start, *revision),
                        "the changes come without a gap"
                    );
                }
                position += 1;
            }
            Ok(other) => panic!("expected a put over what was there, got {other:?}"),
            Err(Error::Compacted { oldest, .. }) => {
                assert_eq!(oldest, Revision(start.0 + 30));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the first changes after the compacted revision replace and delete is known, however old it is.
pub async fn what_was_before_survives_compaction(store: TestStore) {
    let (prefix, changed, deleted) = ("/compaction/before/", "/compaction/before/a", "/compaction/before/b");
    for value in ["1", "2"] {
        put(&store, changed, value).await;
        put(&store, deleted, value).await;
    }
    let (old, gone) = (entry(&store, changed).await, entry(&store, deleted).await.unwrap());
    let oldest = put(&store, "/compaction/elsewhere/a", "1").await;
    put(&store, changed, "3").await;
    let new = entry(&store, changed).await.unwrap();
    let deletion = store.delete(deleted, Precondition::None).await.unwrap();
    store.compact(oldest).await.unwrap();
    let mut watch = store.watch(prefix, oldest).await.unwrap();
    assert_eq!(
        changes_until(&mut watch, deletion).await.unwrap(),
        [
            WatchEvent::Put {
                entry: new,
                previous: old
            },
            WatchEvent::Delete {
                key: deleted.into(),
                previous: gone,
                revision: deletion
            }
        ]
    );
}
