//! Compaction.

use super::{TestStore, changes_until, entry, next, put, row};
use crate::{Error, Precondition, RangeRequest, Revision};

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
    assert_eq!(
        changes.iter().map(crate::WatchEvent::revision).collect::<Vec<_>>(),
        [fourth]
    );
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
    store.compact(first).await.unwrap();
    store.compact(second).await.unwrap();
    let error = store
        .range(RangeRequest::prefix("/compaction/again/").at(first))
        .await
        .unwrap_err();
    assert_compacted(&error, second);
    assert!(matches!(
        store.compact(second.next()).await,
        Err(Error::FutureRevision { .. })
    ));
}
