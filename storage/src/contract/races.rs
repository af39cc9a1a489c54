//! Writers that race each other.

use std::collections::BTreeSet;

use super::{TestStore, assert_conflict, changes_until, entry, put};
use crate::{Error, Operation, Precondition, RangeRequest, Revision};

/// Of many writers that saw the same revision, one gets through.
pub async fn concurrent_puts_at_a_revision_have_one_winner(store: TestStore) {
    let key = "/writes/race/a";
    let revision = put(&store, key, "start").await;
    let puts = (0..32).map(|writer| store.put(key, format!("{writer}").into(), Precondition::Revision(revision)));
    let outcomes = futures::future::join_all(puts).await;
    let winners: Vec<_> = (0..32).filter(|writer| outcomes[*writer].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(entry(&store, key).await.unwrap().value, format!("{}", winners[0]));
}

/// Read, add one, put at the revision read, again if it conflicts: no increment is lost.
pub async fn concurrent_increments_are_all_counted(store: TestStore) {
    const WRITERS: usize = 8;
    const INCREMENTS: usize = 10;
    let key = "/writes/count/a";
    put(&store, key, "0").await;
    let writers = (0..WRITERS).map(|_| async {
        for _ in 0..INCREMENTS {
            loop {
                let current = entry(&store, key).await.unwrap();
                let count: usize = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
                let next = (count + 1).to_string();
                match store
                    .put(key, next.into(), Precondition::Revision(current.revision))
                    .await
                {
                    Ok(_) => break,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(
        entry(&store, key).await.unwrap().value,
        (WRITERS * INCREMENTS).to_string()
    );
}

/// Of many creations of one key, one gets through; the others are told what it has made.
pub async fn concurrent_creations_have_one_winner(store: TestStore) {
    for round in 0..10 {
        let key = format!("/races/create/{round}");
        let puts = (0..16).map(|writer| store.put(&key, format!("{writer}").into(), Precondition::Absent));
        let mut outcomes = futures::future::join_all(puts).await;
        let current = entry(&store, &key).await.unwrap();
        let winners: Vec<_> = (0..16).filter(|writer| outcomes[*writer].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(current.value, format!("{}", winners[0]));
        assert_eq!(outcomes.remove(winners[0]).unwrap(), current.create_revision);
        for loser in outcomes {
            assert_conflict(loser, Some(&current));
        }
    }
}

/// Batches that are made at the same time have revisions of their own for all their writes, without a gap between them, and
/// in the order of the batch.
pub async fn concurrent_batches_share_no_revision(store: TestStore) {
    let start = store.current_revision().await.unwrap();
    let batches = (0..8).map(|writer| {
        let store = &store;
        async move {
            let mut revisions = Vec::new();
            for round in 0..5 {
                let key = |index| format!("/races/batches/{}", (writer + index) % 4);
                let operations =
                    (0..6).map(|index| Operation::put(key(index), format!("{writer}/{round}"), Precondition::None));
                let outcomes = store.batch(operations.collect()).await;
                let batch: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
                // Operations of different keys may overtake each other, those of one key may not.
                for earlier in 0..batch.len() {
                    for later in earlier + 1..batch.len() {
                        assert!(
                            key(earlier) != key(later) || batch[earlier] < batch[later],
                            "{} and {} are in the order of the batch",
                            batch[earlier],
                            batch[later]
                        );
                    }
                }
                revisions.extend(batch);
            }
            revisions
        }
    });
    let revisions: Vec<_> = futures::future::join_all(batches).await.concat();
    let distinct: BTreeSet<_> = revisions.iter().copied().collect();
    let end = store.current_revision().await.unwrap();
    assert_eq!(distinct.len(), revisions.len(), "no revision is given twice");
    assert!(distinct.into_iter().eq((start.0 + 1..=end.0).map(Revision)));
}

/// Whoever gives up waiting for a write leaves it done or not done: every revision has its event, and the events lead to
/// the state.
pub async fn a_cancelled_write_is_never_done_in_part(store: TestStore) {
    let prefix = "/races/cancelled/";
    let start = store.current_revision().await.unwrap();
    for round in 0..40 {
        let operations = (0..3).map(|index| {
            let key = format!("{prefix}{}", (round + index) % 5);
            Operation::put(key, format!("{round}/{index}"), Precondition::None)
        });
        let mut write = store.batch(operations.collect());
        // Given up at a different point each time.
        for _ in 0..round % 5 {
            if futures::poll!(&mut write).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // What was given up may still be under way; the state is that of this revision.
    let end = put(&store, &format!("{prefix}end"), "end").await;
    let mut watch = store.watch(prefix, start).await.unwrap();
    let mut changes = changes_until(&mut watch, end).await.unwrap();
    changes.retain(|change| change.revision() <= end);
    assert!(
        changes
            .iter()
            .map(crate::WatchEvent::revision)
            .eq((start.0 + 1..=end.0).map(Revision)),
        "every revision has an event: {changes:?}"
    );
    let mut state = std::collections::BTreeMap::new();
    let mut values = BTreeSet::new();
    for change in changes {
        let crate::WatchEvent::Put { entry, previous } = change else {
            panic!("nothing was deleted")
        };
        assert!(values.insert(entry.value.clone()), "{:?} was put twice", entry.value);
        assert_eq!(state.insert(entry.key.clone(), entry), previous);
    }
    let read = store.range(RangeRequest::prefix(prefix).at(end)).await.unwrap();
    assert!(state.into_values().eq(read.entries));
}
