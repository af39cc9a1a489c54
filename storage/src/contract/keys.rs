//! What keys and values may be.

use bytes::Bytes;

use super::{TestStore, changes_until, entry, put};
use crate::{Entry, Error, Operation, Precondition, RangeRequest, WatchEvent};

/// Just under what etcd takes in one request by default (1.5 MiB with everything around the value), which is what
/// Kubernetes objects are bounded by.
const LARGE: usize = 1_500_000;

/// Keys that begin with another key are keys of their own, with or without a slash between.
pub async fn a_key_is_not_a_directory(store: TestStore) {
    let keys = [
        "/keys/tree/a",
        "/keys/tree/a b",
        "/keys/tree/a/",
        "/keys/tree/a/b",
        "/keys/tree/ab",
    ];
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(entry(&store, key).await, None, "{key} is not there yet");
        store
            .put(key, index.to_string().into(), Precondition::Absent)
            .await
            .unwrap();
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(entry(&store, key).await.unwrap().value, index.to_string());
    }
    for (prefix, expected) in [
        ("/keys/tree/a", &keys[..]),
        ("/keys/tree/a/", &keys[2..4]),
        ("/keys/tree/ab", &keys[4..]),
        ("/keys/tree/a/b/", &[]),
    ] {
        let response = store.range(RangeRequest::prefix(prefix)).await.unwrap();
        let found: Vec<_> = response.entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!(found, expected, "under {prefix}");
    }
    store.delete("/keys/tree/a", Precondition::None).await.unwrap();
    assert_eq!(entry(&store, "/keys/tree/a").await, None);
    assert_eq!(entry(&store, "/keys/tree/a/b").await.unwrap().value, "3");
}

/// Keys are any UTF-8 and values any bytes, none of which means anything to the store.
pub async fn keys_and_values_are_opaque(store: TestStore) {
    let prefix = "/keys/opaque/";
    let long = "long".repeat(250);
    let mut names = vec![
        "e\u{301}",
        "\u{e9}",
        "name@cluster",
        "Zeile\nzwei",
        "..",
        "%2F",
        "name",
        "NAME",
        "*",
        "\u{7f}",
        "\u{10ffff}",
        "\u{10ffff}x",
        "名前",
        &long,
    ];
    let values: [&[u8]; 5] = [b"", b"\0\0", b"\xff\xfe", b"{\"a\":1}", b"\n"];
    let start = store.current_revision().await.unwrap();
    let operations = names.iter().zip(values.iter().cycle()).map(|(name, value)| {
        Operation::put(
            format!("{prefix}{name}"),
            Bytes::from_static(value),
            Precondition::Absent,
        )
    });
    let operations: Vec<_> = operations.collect();
    let mut expected = Vec::new();
    for (operation, outcome) in operations.iter().zip(store.batch(operations.clone()).await) {
        let Operation::Put { key, value, .. } = operation else {
            unreachable!("only puts were made")
        };
        let revision = outcome.unwrap();
        let (key, value) = (key.clone(), value.clone());
        let put = Entry {
            key,
            value,
            create_revision: revision,
            revision,
        };
        assert_eq!(store.get(&put.key).await.unwrap().entry.as_ref(), Some(&put));
        let again = store.put(&put.key, "again".into(), Precondition::Absent).await;
        assert!(matches!(again, Err(Error::Conflict { .. })), "{:?} is there", put.key);
        expected.push(put);
    }
    let mut watch = store.watch(prefix, start).await.unwrap();
    let end = store.current_revision().await.unwrap();
    let mut watched = Vec::new();
    for change in changes_until(&mut watch, end).await.unwrap() {
        let WatchEvent::Put { entry, previous: None } = change else {
            panic!("expected new entries, got {change:?}")
        };
        watched.push(entry);
    }
    expected.sort_by_key(|entry| entry.revision);
    assert_eq!(watched, expected);
    expected.sort_by(|one, other| one.key.as_bytes().cmp(other.key.as_bytes()));
    assert_eq!(
        store.range(RangeRequest::prefix(prefix)).await.unwrap().entries,
        expected
    );
    assert_eq!(
        store.range(RangeRequest::prefix(prefix).at(end)).await.unwrap().entries,
        expected
    );
    names.sort_unstable_by_key(|name| name.as_bytes());
    let mut request = RangeRequest::prefix(prefix).limit(1);
    for name in names {
        let page = store.range(request.clone()).await.unwrap();
        assert_eq!(
            *page.entries[0].key,
            format!("{prefix}{name}"),
            "every key can be continued from"
        );
        request = request.after(&*page.entries[0].key);
    }
}

/// The largest values that Kubernetes writes come back whole, one by one, together and from the past.
pub async fn large_values_are_kept_whole(store: TestStore) {
    let prefix = "/keys/large/";
    let value = |seed: usize| -> Bytes { (0..LARGE).map(|index| ((index * 31 + seed) % 251) as u8).collect() };
    for index in 0..4 {
        let key = format!("{prefix}{index}");
        store.put(&key, value(index), Precondition::Absent).await.unwrap();
        assert!(
            entry(&store, &key).await.unwrap().value == value(index),
            "{key} is as it was put"
        );
    }
    let past = store.current_revision().await.unwrap();
    let conflict = store.put(&format!("{prefix}0"), value(9), Precondition::Absent).await;
    assert!(
        matches!(&conflict, Err(Error::Conflict { current: Some(current), .. }) if current.value == value(0)),
        "a conflict carries the whole value"
    );
    put(&store, &format!("{prefix}0"), "small").await;
    for (request, first) in [
        (RangeRequest::prefix(prefix), Bytes::from("small")),
        (RangeRequest::prefix(prefix).at(past), value(0)),
    ] {
        let response = store.range(request).await.unwrap();
        assert_eq!(response.entries.len(), 4);
        assert!(
            response.entries[0].value == first,
            "the first value is that of the revision"
        );
        for (index, entry) in response.entries.iter().enumerate().skip(1) {
            assert!(entry.value == value(index), "{} is as it was put", entry.key);
        }
    }
}

/// The empty prefix reads all there is, in order, and watches it.
pub async fn the_empty_prefix_means_everything(store: TestStore) {
    let start = store.current_revision().await.unwrap();
    let keys = ["/keys/empty/a", "/keys/empty2/b", "/zzz"];
    for key in keys {
        put(&store, key, "1").await;
    }
    let present = store.range(RangeRequest::default()).await.unwrap();
    assert!(
        present
            .entries
            .is_sorted_by(|one, next| one.key.as_bytes() < next.key.as_bytes())
    );
    let put_here: Vec<_> = present.entries.iter().filter(|entry| entry.revision > start).collect();
    assert!(put_here.iter().map(|entry| &*entry.key).eq(keys), "{put_here:?}");
    let past = store.range(RangeRequest::default().at(start)).await.unwrap();
    assert_eq!(past.entries.len(), present.entries.len() - keys.len());
    let mut watch = store.watch("", start).await.unwrap();
    let changes = changes_until(&mut watch, present.revision).await.unwrap();
    assert!(
        changes.iter().map(|change| &**change.key().unwrap()).eq(keys),
        "{changes:?}"
    );
}
