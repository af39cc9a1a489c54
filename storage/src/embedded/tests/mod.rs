use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::*;
use crate::{Error, Precondition, RangeRequest, WatchEvent};

mod crash;
mod damage;
mod faults;
mod model;

/// The suite, each in a module of its own because the names of the tests are the same.
mod contract_on_disk {
    crate::contract_tests!(super::on_disk());
}

mod contract_in_memory {
    crate::contract_tests!(super::in_memory(super::Options::default().watch_buffer));
}

/// With a queue of two events nearly every watch overflows and is caught up from the log.
mod contract_with_small_buffers {
    crate::contract_tests!(super::in_memory(2));
}

async fn on_disk() -> (Arc<dyn Store>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    (Arc::new(store), directory)
}

#[expect(clippy::unused_async, reason = "the suite awaits what opens a store")]
async fn in_memory(watch_buffer: usize) -> (Arc<dyn Store>, ()) {
    (Arc::new(Embedded::in_memory_with_buffer(watch_buffer)), ())
}

async fn put(store: &Embedded, key: &str, value: &'static str) -> Revision {
    store.put(key, value.into(), Precondition::None).await.unwrap()
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    let first = put(&store, "/a", "1").await;
    let second = put(&store, "/a", "2").await;
    let third = put(&store, "/b", "1").await;
    let deletion = store.delete("/b", Precondition::None).await.unwrap();
    store.compact(second).await.unwrap();
    let before = store.range(RangeRequest::default()).await.unwrap();
    store.close().await;
    drop(store);

    let store = Embedded::open(directory.path().join("store.redb"), Options::default())
        .await
        .unwrap();
    assert_eq!(store.current_revision().await.unwrap(), deletion);
    assert_eq!(store.range(RangeRequest::default()).await.unwrap(), before);
    let past = store.range(RangeRequest::default().at(third)).await.unwrap();
    assert_eq!(past.entries.len(), 2);
    let compacted = store.range(RangeRequest::default().at(first)).await;
    assert!(matches!(compacted, Err(Error::Compacted { oldest, .. }) if oldest == second));
    let mut watch = store.watch("/", second).await.unwrap();
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Put { entry, .. } if entry.revision == third));
    assert_eq!(put(&store, "/c", "1").await, deletion.next());
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    let error = Embedded::open(directory.path(), Options::default()).await.unwrap_err();
    let expected = format!("another umbra process is using {}", directory.path().display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let write = |format: u64| {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(tables::META)
            .unwrap()
            .insert(tables::FORMAT, format)
            .unwrap();
        transaction.commit().unwrap();
    };
    write(format::CURRENT_FORMAT + 1);
    let error = Embedded::open(&path, Options::default()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            OpenError::NewerFormat {
                found,
                supported: format::CURRENT_FORMAT,
                ..
            } if *found == format::CURRENT_FORMAT + 1
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("format 3") && text.contains("up to 2") && text.contains("use the newer umbra"),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_that_is_mostly_free_shrinks_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let length = || std::fs::metadata(&path).unwrap().len();
    let store = Embedded::open(&path, Options::default()).await.unwrap();
    let keys = 0..600;
    let value = |key: usize| vec![u8::try_from(key % 251).unwrap(); 20_000];
    let puts = keys
        .clone()
        .map(|key| Operation::put(format!("/{key}"), value(key), Precondition::None));
    assert!(store.batch(puts.collect()).await.iter().all(Result::is_ok));
    let full = length();
    // What stays lies all over the file.
    let deletions = keys
        .clone()
        .filter(|key| key % 40 != 39)
        .map(|key| Operation::delete(format!("/{key}"), Precondition::None));
    assert!(store.batch(deletions.collect()).await.iter().all(Result::is_ok));
    let current = store.current_revision().await.unwrap();
    store.compact(current).await.unwrap();
    let swept = async {
        while store.inner.reads.row_counts().await.0 != 15 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), swept)
        .await
        .expect("the rows go");
    store.close().await;
    let before = length();
    let store = Embedded::open(&path, Options::default()).await.unwrap();
    assert!(
        length() < before / 2 && length() < full / 4,
        "{full}, {before}, then {}",
        length()
    );
    for key in keys.filter(|key| key % 40 == 39) {
        assert_eq!(
            store.get(&format!("/{key}")).await.unwrap().entry.unwrap().value,
            value(key)
        );
    }
    assert_eq!(store.current_revision().await.unwrap(), current);
    assert_eq!(put(&store, "/more", "1").await, current.next());
    store.close().await;
}

/// The tables of format 1, which had no checksums.
#[tokio::test]
async fn format_1_is_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let record = |kind: u8, create: u64, supersedes: u64, value: &str| {
            let mut row = vec![kind];
            row.extend_from_slice(&create.to_le_bytes());
            row.extend_from_slice(&supersedes.to_le_bytes());
            row.extend_from_slice(&2_u32.to_le_bytes());
            row.extend_from_slice(format!("/a{value}").as_bytes());
            row
        };
        let mut log = write.open_table(tables::LOG).unwrap();
        log.insert(2, record(1, 2, 0, "one").as_slice()).unwrap();
        log.insert(3, record(1, 2, 2, "two").as_slice()).unwrap();
        drop(log);
        write
            .open_table(tables::FORMAT_1_LATEST)
            .unwrap()
            .insert("/a", (3, 2))
            .unwrap();
        write
            .open_table(tables::FORMAT_1_HISTORY)
            .unwrap()
            .insert(("/a", 2), 2)
            .unwrap();
        let mut meta = write.open_table(tables::META).unwrap();
        for (name, number) in [
            (tables::FORMAT, 1),
            (tables::REVISION, 3),
            (tables::COMPACTED, 1),
            (tables::SWEPT, 1),
        ] {
            meta.insert(name, number).unwrap();
        }
        drop(meta);
        write.commit().unwrap();
    }
    for _ in 0..2 {
        let store = Embedded::open(&path, Options::default()).await.unwrap();
        let entry = store.get("/a").await.unwrap().entry.unwrap();
        assert_eq!(
            (&*entry.value, entry.create_revision, entry.revision),
            (&b"two"[..], Revision(2), Revision(3))
        );
        let past = store.range(RangeRequest::default().at(Revision(2))).await.unwrap();
        assert_eq!(past.entries[0].value, "one");
        store.close().await;
    }
}

#[tokio::test]
async fn a_foreign_file_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let text = "shopping list\n".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    let error = Embedded::open(&path, Options::default()).await.unwrap_err();
    assert!(
        matches!(error, OpenError::NotAStore { .. } | OpenError::Damaged { .. }),
        "{error:?}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let _store = Embedded::open(directory.path().join("new"), Options::default())
        .await
        .unwrap();
    let mode = |path: &str| {
        std::fs::metadata(directory.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("new"), mode("new/store.redb")), (0o700, 0o600));
}

#[tokio::test]
async fn closing_ends_watches_and_refuses_calls() {
    let store = Embedded::in_memory();
    let revision = put(&store, "/a", "1").await;
    let mut watch = store.watch("/", revision).await.unwrap();
    let waiting = store.put("/a", "2".into(), Precondition::None);
    let (queued, ()) = futures::join!(waiting, store.close());
    assert!(queued.is_ok(), "what was queued before is written");
    assert!(watch.next().await.unwrap().is_ok());
    assert!(matches!(watch.next().await, Some(Err(Error::Unavailable { .. }))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.get("/a").await, Err(Error::Unavailable { .. })));
    assert!(matches!(
        store.put("/a", "3".into(), Precondition::None).await,
        Err(Error::Unavailable { .. })
    ));
    assert!(matches!(store.compact(revision).await, Err(Error::Unavailable { .. })));
    assert!(matches!(
        store.watch("/", revision).await,
        Err(Error::Unavailable { .. })
    ));
    assert!(store.ready().await.is_err());
    store.close().await;
}

#[tokio::test]
async fn a_dropped_watch_is_forgotten() {
    let store = Embedded::in_memory();
    let watches = (
        store.watch("/a/", Revision(1)).await.unwrap(),
        store.watch("/a", Revision(1)).await.unwrap(),
    );
    assert_eq!(store.inner.hub.watchers(), 2);
    drop(watches);
    assert_eq!(store.inner.hub.watchers(), 0);
}

#[tokio::test]
async fn compaction_removes_the_rows_of_the_past() {
    let store = Embedded::in_memory();
    for round in 0..300 {
        let operations = (0..10).map(|key| Operation::put(format!("/{key}"), round.to_string(), Precondition::None));
        for outcome in store.batch(operations.collect()).await {
            outcome.unwrap();
        }
    }
    let deletion = store.delete("/0", Precondition::None).await.unwrap();
    store.compact(deletion).await.unwrap();
    // The rows go in steps after the answer.
    let counts = async {
        while store.inner.reads.row_counts().await != (9, 9, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), counts)
        .await
        .expect("the rows of nine keys remain, and no others");
}

/// The clock of the test is paused and jumps to whatever is waited for, so that ten minutes pass at once.
#[tokio::test(start_paused = true)]
async fn history_expires_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::default();
    let (history, interval) = (options.history.unwrap(), options.compaction_interval);
    assert_eq!(history, Duration::from_secs(600), "what the documentation says");
    let store = Embedded::open(directory.path(), options).await.unwrap();
    let first = put(&store, "/a", "1").await;
    let second = put(&store, "/a", "2").await;
    let start = tokio::time::Instant::now();
    let mut ticks = 0;
    let oldest = loop {
        match store.range(RangeRequest::default().at(first)).await {
            Ok(_) => {}
            Err(Error::Compacted { oldest, .. }) => break oldest,
            Err(error) => panic!("{error}"),
        }
        ticks += 1;
        // The writer is a thread that the clock does not know of.
        assert!(ticks < 10_000, "the first state expires");
        tokio::time::sleep(interval).await;
    };
    assert!(
        start.elapsed() >= history.saturating_sub(interval),
        "after {:?}",
        start.elapsed()
    );
    assert_eq!(oldest, second, "the present stays");
    store.close().await;
}
