//! Many watchers.

use std::collections::BTreeMap;

use super::{TestStore, assert_increasing, changes_until, next, put};
use crate::{Error, Operation, Precondition, RangeRequest, WatchEvent};

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

/// Watchers of a tree's every node, with and without a slash at the end, see what happens below their node.
pub async fn nested_prefixes_are_told_apart(store: TestStore) {
    const BRANCHES: [&str; 3] = ["a", "aa", "b"];
    let root = "/watchers/nested";
    let start = store.current_revision().await.unwrap();
    let mut prefixes = vec![root.to_owned()];
    for _ in 0..3 {
        let nodes: Vec<_> = prefixes.iter().filter(|node| !node.ends_with('/')).cloned().collect();
        for node in nodes {
            prefixes.push(format!("{node}/"));
            prefixes.extend(BRANCHES.map(|branch| format!("{node}/{branch}")));
        }
        prefixes.sort();
        prefixes.dedup();
    }
    let mut watches = Vec::new();
    for prefix in &prefixes {
        watches.push((prefix, store.watch(prefix, start).await.unwrap()));
    }
    let mut written = Vec::new();
    for one in BRANCHES {
        for two in BRANCHES {
            put(&store, &format!("{root}/{one}/{two}"), "1").await;
            written.push(format!("{root}/{one}/{two}"));
            for three in BRANCHES {
                put(&store, &format!("{root}/{one}/{two}/{three}"), "1").await;
                written.push(format!("{root}/{one}/{two}/{three}"));
            }
        }
    }
    let end = store.current_revision().await.unwrap();
    for (prefix, mut watch) in watches {
        let changes = changes_until(&mut watch, end).await.unwrap();
        let seen: Vec<&str> = changes.iter().map(|change| &**change.key().unwrap()).collect();
        let expected: Vec<&String> = written.iter().filter(|key| key.starts_with(prefix.as_str())).collect();
        assert_eq!(seen, expected, "under {prefix}");
    }
}

/// What every client does: read, then watch from the revision that was read. While others write, the watched changes turn
/// the state that was read into the present one.
pub async fn reading_then_watching_misses_nothing(store: TestStore) {
    let prefix = "/watchers/then/";
    put(&store, &format!("{prefix}0"), "start").await;
    let writers = (0..3).map(|writer| {
        let store = &store;
        async move {
            for round in 0..40 {
                let key = format!("{prefix}{}", (writer * 5 + round) % 9);
                let operation = if round % 4 == 3 {
                    Operation::delete(key, Precondition::None)
                } else {
                    Operation::put(key, format!("{writer}/{round}"), Precondition::None)
                };
                match store.batch(vec![operation]).await.remove(0) {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    let readers = (0..10).map(|reader| {
        let store = &store;
        async move {
            for _ in 0..reader * 3 {
                store.get(prefix).await.unwrap();
            }
            let read = store.range(RangeRequest::prefix(prefix)).await.unwrap();
            let watch = store.watch(prefix, read.revision).await.unwrap();
            (read, watch)
        }
    });
    let (_, readers) = futures::join!(futures::future::join_all(writers), futures::future::join_all(readers));
    let present = store.range(RangeRequest::prefix(prefix)).await.unwrap();
    for (read, mut watch) in readers {
        let mut state: BTreeMap<_, _> = read
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        for change in changes_until(&mut watch, present.revision).await.unwrap() {
            assert!(change.revision() > read.revision, "what was read is not watched again");
            match change {
                WatchEvent::Put { entry, previous } => assert_eq!(state.insert(entry.key.clone(), entry), previous),
                WatchEvent::Delete { key, previous, .. } => assert_eq!(state.remove(&key), Some(previous)),
                WatchEvent::Progress { .. } => unreachable!("only changes are returned"),
            }
        }
        assert!(
            state.into_values().eq(present.entries.iter().cloned()),
            "read at {}",
            read.revision
        );
    }
}
