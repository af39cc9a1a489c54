//! Watches.

use std::collections::BTreeMap;

use super::{TestStore, assert_increasing, changes_until, entry, next, next_change, put};
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

/// Progress that was asked for reaches the revision of the store, though nothing happens under the prefix.
pub async fn progress_comes_on_request(store: TestStore) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/watches/progress/", start).await.unwrap();
    let other = put(&store, "/watches/elsewhere/a", "1").await;
    assert_eq!(changes_until(&mut watch, other).await.unwrap(), []);
    let own = put(&store, "/watches/progress/a", "1").await;
    let after = put(&store, "/watches/elsewhere/a", "2").await;
    let changes = changes_until(&mut watch, after).await.unwrap();
    assert_eq!(
        changes.iter().map(WatchEvent::revision).collect::<Vec<_>>(),
        [own],
        "changes come before the progress"
    );
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

/// Watchers that start at any time while several writers write see the same changes, each once and in order.
pub async fn every_watcher_sees_every_change_once(store: TestStore) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 40;
    let prefix = "/watches/every/";
    let start = store.current_revision().await.unwrap();
    let writers = futures::future::join_all((0..WRITERS).map(|writer| {
        let store = &store;
        async move {
            for round in 0..ROUNDS {
                let key = format!("{prefix}{}", (writer + round) % 7);
                let value = format!("{writer}/{round}");
                store
                    .batch(vec![Operation::put(key, value, Precondition::None)])
                    .await
                    .pop()
                    .unwrap()
                    .unwrap();
            }
        }
    }));
    let watchers = async {
        let mut watches = Vec::new();
        for _ in 0..8 {
            watches.push(store.watch(prefix, start).await.unwrap());
            store.get(prefix).await.unwrap();
        }
        watches
    };
    let (_, watches) = futures::future::join(writers, watchers).await;
    let end = store.current_revision().await.unwrap();
    for mut watch in watches {
        let changes = changes_until(&mut watch, end).await.unwrap();
        let revisions: Vec<u64> = changes.iter().map(|change| change.revision().0).collect();
        assert_eq!(revisions, (start.0 + 1..=end.0).collect::<Vec<_>>());
        let mut state = BTreeMap::new();
        for change in changes {
            let WatchEvent::Put { entry, previous } = change else {
                panic!("nothing was deleted")
            };
            assert_eq!(
                state.insert(entry.key.clone(), entry.clone()),
                previous,
                "previous is what was there"
            );
        }
    }
}

/// However many changes wait for a watcher, it gets a gapless run of them, and all of them unless it gets an error.
pub async fn a_slow_watcher_misses_nothing_unnoticed(store: TestStore) {
    let prefix = "/watches/slow/";
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch(prefix, start).await.unwrap();
    for _ in 0..30 {
        let operations = (0..1_000).map(|index| Operation::put(format!("{prefix}{index}"), "x", Precondition::None));
        for outcome in store.batch(operations.collect()).await {
            outcome.unwrap();
        }
    }
    let end = store.current_revision().await.unwrap();
    let mut seen = Vec::new();
    watch.request_progress();
    let complete = loop {
        match next(&mut watch).await {
            Ok(WatchEvent::Progress { revision }) if revision >= end => break true,
            Ok(WatchEvent::Progress { .. }) => watch.request_progress(),
            Ok(change) => seen.push(change),
            Err(Error::SlowWatcher { .. } | Error::Compacted { .. }) => break false,
            Err(error) => panic!("{error}"),
        }
    };
    assert_increasing(&seen);
    let expected = if complete { end.0 - start.0 } else { seen.len() as u64 };
    assert_eq!(seen.len() as u64, expected);
    assert_eq!(
        seen.last().map(|change| change.revision().0 - start.0),
        Some(expected),
        "gapless from the start"
    );
}
