//! Ranges in pages.

use super::{TestStore, put};
use crate::{Error, Precondition, RangeRequest, RangeResponse};

fn keys(response: &RangeResponse) -> Vec<&str> {
    response.entries.iter().map(|entry| &*entry.key).collect()
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

/// A start before the prefix is no start, and one after it leaves nothing.
pub async fn start_after_need_not_lie_under_the_prefix(store: TestStore) {
    put(&store, "/reads/start2/a", "1").await;
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

/// A limit that is just enough leaves nothing over, now and in the past.
pub async fn a_page_that_is_just_full_is_the_last(store: TestStore) {
    let prefix = "/pages/full/";
    for key in ["a", "b", "c"] {
        put(&store, &format!("{prefix}{key}"), "1").await;
    }
    let past = store.current_revision().await.unwrap();
    put(&store, "/pages/full2/d", "1").await;
    for request in [RangeRequest::prefix(prefix), RangeRequest::prefix(prefix).at(past)] {
        for (limit, found, remaining) in [
            (1, 1, 2),
            (2, 2, 1),
            (3, 3, 0),
            (4, 3, 0),
            (0, 3, 0),
            (usize::MAX, 3, 0),
        ] {
            let response = store.range(request.clone().limit(limit).counting()).await.unwrap();
            assert_eq!(
                (response.entries.len(), response.more, response.remaining),
                (found, remaining > 0, Some(remaining)),
                "limit {limit}"
            );
            let response = store.range(request.clone().limit(limit)).await.unwrap();
            assert_eq!(
                (response.entries.len(), response.more),
                (found, remaining > 0),
                "limit {limit}"
            );
        }
    }
}

/// Pages of every size make up the state of the first one, whatever is put, deleted and put again between them.
pub async fn pages_go_on_while_keys_change(store: TestStore) {
    let prefix = "/pages/change/";
    for index in 0..9 {
        put(&store, &format!("{prefix}{index}"), "old").await;
    }
    for size in [1, 2, 4, 8, 9] {
        let whole = store.range(RangeRequest::prefix(prefix)).await.unwrap();
        let mut paged = Vec::new();
        let mut request = RangeRequest::prefix(prefix).limit(size);
        for page in 0.. {
            let response = store.range(request.clone()).await.unwrap();
            assert_eq!(response.revision, whole.revision);
            paged.extend(response.entries);
            if !response.more {
                break;
            }
            let last: &str = &paged.last().unwrap().key;
            request = request.at(whole.revision).after(last);
            // Before, at and after where the pages are.
            put(&store, &format!("{prefix}0{page}"), "new").await;
            let _ = store.delete(last, Precondition::None).await;
            put(&store, last, "again").await;
            put(&store, &format!("{prefix}8"), "changed").await;
            let _ = store
                .delete(&format!("{prefix}0{}", page / 2), Precondition::None)
                .await;
        }
        assert_eq!(paged, whole.entries, "pages of {size}");
    }
}

/// A page of a state that has been given up is an error that names the oldest one left; reading on in the present works.
pub async fn a_page_at_a_compacted_revision_is_refused(store: TestStore) {
    let prefix = "/pages/compacted/";
    for key in ["a", "b", "c"] {
        put(&store, &format!("{prefix}{key}"), "old").await;
    }
    let first = store.range(RangeRequest::prefix(prefix).limit(1)).await.unwrap();
    put(&store, &format!("{prefix}b"), "new").await;
    let oldest = put(&store, &format!("{prefix}aa"), "new").await;
    store.compact(oldest).await.unwrap();
    let request = RangeRequest::prefix(prefix).limit(1).after(&*first.entries[0].key);
    match store.range(request.clone().at(first.revision)).await {
        Err(Error::Compacted {
            requested,
            oldest: found,
        }) => assert_eq!((requested, found), (first.revision, oldest)),
        other => panic!("expected Compacted, got {other:?}"),
    }
    let response = store.range(request).await.unwrap();
    assert_eq!((keys(&response), response.more), (vec!["/pages/compacted/aa"], true));
}
