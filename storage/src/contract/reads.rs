//! Reads of one key and of ranges, now and in the past.

use super::{TestStore, put, row};
use crate::{Error, Precondition, RangeRequest, RangeResponse, Revision};

fn keys(response: &RangeResponse) -> Vec<&str> {
    response.entries.iter().map(|entry| &*entry.key).collect()
}

/// That a key is missing is an answer, with a revision.
pub async fn a_missing_key_is_read_as_absent(store: TestStore) {
    let revision = put(&store, "/reads/missing/a", "1").await;
    let read = store.get("/reads/missing/b").await.unwrap();
    assert_eq!((read.entry, read.revision), (None, revision));
}

/// Byte order, and a prefix is a prefix: neighbours stay out.
pub async fn a_range_has_the_keys_of_its_prefix_in_order(store: TestStore) {
    for key in [
        "/reads/order/b",
        "/reads/order/a/z",
        "/reads/order/ä",
        "/reads/order/B",
        "/reads/order2/a",
        "/reads/ordeq/a",
    ] {
        put(&store, key, "1").await;
    }
    let response = store.range(RangeRequest::prefix("/reads/order/")).await.unwrap();
    assert_eq!(
        keys(&response),
        ["/reads/order/B", "/reads/order/a/z", "/reads/order/b", "/reads/order/ä"]
    );
    assert_eq!(
        (response.more, response.revision),
        (false, store.current_revision().await.unwrap())
    );
    let response = store
        .range(RangeRequest::prefix("/reads/nothing/").counting())
        .await
        .unwrap();
    assert_eq!(
        (response.entries.len(), response.more, response.remaining),
        (0, false, Some(0))
    );
}

/// Every state between is read as it was: before a key, with it, updated, deleted, put again.
pub async fn past_states_stay_readable(store: TestStore) {
    let (prefix, key) = ("/reads/past/", "/reads/past/a");
    let before = put(&store, "/reads/past/b", "x").await;
    let created = put(&store, key, "1").await;
    let updated = put(&store, key, "2").await;
    let deleted = store.delete(key, Precondition::None).await.unwrap();
    let again = put(&store, key, "3").await;
    let other = ("/reads/past/b".to_owned(), "x".to_owned(), before, before);
    let expected = [
        (before, None),
        (created, Some(("1", created, created))),
        (updated, Some(("2", created, updated))),
        (deleted, None),
        (again, Some(("3", again, again))),
    ];
    for (revision, state) in expected {
        let response = store.range(RangeRequest::prefix(prefix).at(revision)).await.unwrap();
        let state = state.map(|(value, create, put)| (key.to_owned(), value.to_owned(), create, put));
        let expected: Vec<_> = state.into_iter().chain([other.clone()]).collect();
        assert_eq!(
            response.entries.iter().map(row).collect::<Vec<_>>(),
            expected,
            "at {revision}"
        );
        assert_eq!(response.revision, revision);
    }
}

/// A state that does not exist yet is an error that names the present.
pub async fn the_future_cannot_be_read(store: TestStore) {
    let current = put(&store, "/reads/future/a", "1").await;
    let request = RangeRequest::prefix("/reads/future/").at(current.next());
    match store.range(request).await {
        Err(Error::FutureRevision {
            requested,
            current: found,
        }) => {
            assert_eq!((requested, found), (current.next(), current));
        }
        other => panic!("expected FutureRevision, got {other:?}"),
    }
}

/// The present is the state of its revision.
pub async fn the_present_can_be_read_by_its_revision(store: TestStore) {
    let prefix = "/reads/present/";
    for key in ["a", "b", "a"] {
        put(&store, &format!("{prefix}{key}"), "1").await;
    }
    store.delete(&format!("{prefix}b"), Precondition::None).await.unwrap();
    let present = store.range(RangeRequest::prefix(prefix)).await.unwrap();
    assert_eq!(keys(&present), ["/reads/present/a"]);
    let same = store
        .range(RangeRequest::prefix(prefix).at(present.revision))
        .await
        .unwrap();
    assert_eq!(same, present);
    let elsewhere = put(&store, "/reads/elsewhere/a", "1").await;
    let later = store.range(RangeRequest::prefix(prefix).at(elsewhere)).await.unwrap();
    assert_eq!((later.entries, later.revision), (present.entries, elsewhere));
}

/// A range never shows one key as of a later revision than another: here one key is always put before the other.
pub async fn ranges_are_snapshots(store: TestStore) {
    const ROUNDS: u64 = 60;
    let prefix = "/reads/snapshots/";
    let (first, second) = ("/reads/snapshots/z", "/reads/snapshots/a");
    for key in [first, second] {
        put(&store, key, "0").await;
    }
    let writer = async {
        for round in 1..=ROUNDS {
            put(&store, first, &round.to_string()).await;
            put(&store, second, &round.to_string()).await;
        }
    };
    let reader = async {
        let mut newest = Revision(0);
        loop {
            let read = store.range(RangeRequest::prefix(prefix)).await.unwrap();
            let values: Vec<u64> = read
                .entries
                .iter()
                .map(|entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
                .collect();
            let (before, after) = (values[1], values[0]);
            assert!(
                after <= before && before <= after + 1,
                "{first} is {before} and {second} is {after}"
            );
            assert!(read.revision >= newest, "reads never go back");
            assert!(read.entries.iter().all(|entry| entry.revision <= read.revision));
            newest = read.revision;
            if after == ROUNDS {
                break;
            }
            // A store may answer at once: let the writer have its turn.
            tokio::task::yield_now().await;
        }
    };
    futures::join!(writer, reader);
}

/// Whoever has been told that a write is done reads it, whatever others do at the same time.
pub async fn acknowledged_writes_are_read(store: TestStore) {
    let clients = (0..4).map(|client| {
        let store = &store;
        async move {
            let key = format!("/reads/own/{client}");
            for round in 0..25 {
                let revision = put(store, &key, &round.to_string()).await;
                assert!(store.current_revision().await.unwrap() >= revision);
                let read = store.get(&key).await.unwrap();
                assert!(read.revision >= revision, "{} is older than {revision}", read.revision);
                assert_eq!(read.entry.unwrap().revision, revision);
                let read = store.range(RangeRequest::prefix(&*key)).await.unwrap();
                assert!(read.revision >= revision, "{} is older than {revision}", read.revision);
                assert_eq!(read.entries[0].revision, revision);
                if round % 5 == 4 {
                    let deletion = store.delete(&key, Precondition::None).await.unwrap();
                    let read = store.get(&key).await.unwrap();
                    assert!(read.entry.is_none() && read.revision >= deletion);
                }
            }
        }
    });
    futures::future::join_all(clients).await;
}
