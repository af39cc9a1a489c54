//! Reads of one key and of ranges, now and in the past.

use super::{TestStore, put, row};
use crate::{Error, Precondition, RangeRequest, RangeResponse};

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

/// Pages read at the revision of the first one do not see later changes, and say how much is left.
pub async fn pages_are_of_one_state(store: TestStore) {
    let prefix = "/reads/pages/";
    for index in 0..7 {
        put(&store, &format!("{prefix}{index}"), "old").await;
    }
    let request = RangeRequest::prefix(prefix).limit(3).counting();
    let first = store.range(request.clone()).await.unwrap();
    assert_eq!((first.entries.len(), first.more, first.remaining), (3, true, Some(4)));
    put(&store, &format!("{prefix}4"), "new").await;
    put(&store, &format!("{prefix}44"), "new").await;
    store.delete(&format!("{prefix}5"), Precondition::None).await.unwrap();
    let request = request.at(first.revision).after(&*first.entries[2].key);
    let second = store.range(request.clone()).await.unwrap();
    assert_eq!(keys(&second), ["/reads/pages/3", "/reads/pages/4", "/reads/pages/5"]);
    assert_eq!(
        (second.more, second.remaining, second.revision),
        (true, Some(1), first.revision)
    );
    let third = store.range(request.after(&*second.entries[2].key)).await.unwrap();
    assert_eq!(keys(&third), ["/reads/pages/6"]);
    assert_eq!((third.more, third.remaining), (false, Some(0)));
    assert!(second.entries.iter().all(|entry| entry.value == "old"));
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

/// A start before the prefix is no start, and one after it leaves nothing.
pub async fn start_after_need_not_lie_under_the_prefix(store: TestStore) {
    put(&store, "/reads/start/a", "1").await;
    let revision = put(&store, "/reads/start/b", "1").await;
    put(&store, "/reads/start/b", "2").await;
    for request in [
        RangeRequest::prefix("/reads/start/"),
        RangeRequest::prefix("/reads/start/").at(revision),
    ] {
        for (start_after, found) in [
            ("/a", 2),
            ("/reads/start/", 2),
            ("/reads/start/a", 1),
            ("/reads/start/aa", 1),
            ("/z", 0),
        ] {
            let response = store.range(request.clone().after(start_after)).await.unwrap();
            assert_eq!(response.entries.len(), found, "after {start_after}");
        }
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
