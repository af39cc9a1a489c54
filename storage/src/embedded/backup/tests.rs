use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use umbra_show::Item;

use super::*;
use crate::embedded::{Embedded, Options};
use crate::{Operation, Precondition, RangeRequest, Store};

/// Memory as an output.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn put(store: &Embedded, key: &str, value: &str) -> Revision {
    store
        .put(key, value.to_owned().into(), Precondition::None)
        .await
        .unwrap()
}

/// A store with some history: overwritten, deleted and created again.
async fn store() -> Embedded {
    let store = Embedded::in_memory();
    for round in 0..3 {
        for key in 0..20 {
            put(&store, &format!("/{key}"), &format!("{round}-{key}")).await;
        }
    }
    store.delete("/3", Precondition::None).await.unwrap();
    store.delete("/4", Precondition::None).await.unwrap();
    put(&store, "/4", "again").await;
    store
}

async fn backup_of(store: &Embedded, files: Vec<BackupFile>) -> (Vec<u8>, BackupSummary) {
    let sink = Sink::default();
    let summary = store.backup_to(files, sink.clone(), |_| {}).await.unwrap();
    let bytes = sink.0.lock().clone();
    (bytes, summary)
}

fn restore_to(bytes: &[u8], directory: &Path) -> Result<(BackupSummary, Revision), BackupError> {
    restore(
        Cursor::new(bytes),
        &directory.join("store.redb"),
        REVISION_GAP,
        |_| Ok(()),
        |_| {},
    )
}

#[tokio::test]
async fn everything_is_back_and_revisions_go_on_beyond_what_was_lost() {
    let original = store().await;
    let keys = BackupFile {
        name: "keys/a.key".to_owned(),
        content: b"secret".to_vec(),
    };
    let before = original.range(RangeRequest::default()).await.unwrap();
    let (bytes, summary) = backup_of(&original, vec![keys.clone()]).await;
    assert_eq!(summary.revision, before.revision);
    assert_eq!(summary.objects, before.entries.len() as u64);
    assert_eq!(summary.bytes, bytes.len() as u64);
    // The time that will be lost.
    let lost = put(&original, "/lost", "1").await;

    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let take = |file| {
        files.push(file);
        Ok(())
    };
    let path = directory.path().join("store.redb");
    let (restored, revision) = restore(Cursor::new(&bytes), &path, REVISION_GAP, take, |_| {}).unwrap();
    assert_eq!(restored, summary);
    assert_eq!(files, [keys]);
    let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    let after = store.range(RangeRequest::default()).await.unwrap();
    assert_eq!(after.entries, before.entries, "with their revisions");
    assert_eq!(
        (after.revision, revision.0),
        (revision, before.revision.0 + REVISION_GAP)
    );
    for known in [lost, before.revision, Revision(revision.0 - 1)] {
        let watch = store.watch("/", known).await.map(drop);
        assert!(matches!(watch, Err(Error::Compacted { .. })), "{known}: {watch:?}");
        let read = store.range(RangeRequest::default().at(known)).await;
        assert!(matches!(read, Err(Error::Compacted { .. })), "{known}: {read:?}");
    }
    let mut watch = store.watch("/", revision).await.unwrap();
    // What was restored can be changed, deleted and compacted as anything else.
    let changed = put(&store, "/4", "changed").await;
    assert_eq!(changed, revision.next());
    let event = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    let expected = before.entries.iter().find(|entry| &*entry.key == "/4").cloned();
    assert!(matches!(event, crate::WatchEvent::Put { previous, .. } if previous == expected));
    let deleted = store.delete("/5", Precondition::None).await.unwrap();
    store.compact(deleted).await.unwrap();
    store.close().await;
    let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
    assert_eq!(store.current_revision().await.unwrap(), deleted);
    assert!(store.get("/5").await.unwrap().entry.is_none());
    assert_eq!(store.get("/4").await.unwrap().entry.unwrap().value, "changed");
}

#[tokio::test]
async fn a_backup_is_one_state_while_writes_go_on() {
    let item = Item::open("storage.backup");
    let store = Embedded::in_memory();
    // All keys always have the same value: a batch sets them all.
    let write = |round: u64| {
        let operations = (0..50).map(|key| Operation::put(format!("/{key}"), round.to_string(), Precondition::None));
        store.batch(operations.collect())
    };
    write(0).await;
    let mut taken = 0;
    for round in 1..60 {
        let (outcomes, (bytes, summary)) = futures::join!(write(round), backup_of(&store, Vec::new()));
        assert!(outcomes.iter().all(Result::is_ok));
        let mut objects = Vec::new();
        read::read(Cursor::new(bytes), |item| {
            if let read::Item::Object(object) = item {
                objects.push(object);
            }
            Ok(())
        })
        .unwrap();
        let past = store.range(RangeRequest::default().at(summary.revision)).await.unwrap();
        assert_eq!(objects.len(), past.entries.len());
        for (object, entry) in objects.iter().zip(&past.entries) {
            assert_eq!((&*object.key, &object.value[..]), (&*entry.key, &entry.value[..]));
            assert_eq!(object.revision, entry.revision.0);
            assert_eq!(object.create_revision, entry.create_revision.0);
        }
        taken += 1;
    }
    item.pass(&format!("{taken} backups beside writes, each of one revision"));
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let (bytes, _) = backup_of(&store().await, Vec::new()).await;
    let directory = tempfile::tempdir().unwrap();
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        assert!(
            verify(Cursor::new(&damaged), |_| {}).is_err(),
            "byte {position} changed"
        );
        assert!(
            verify(Cursor::new(&bytes[..position]), |_| {}).is_err(),
            "cut to {position} bytes"
        );
    }
    let mut damaged = bytes.clone();
    let middle = bytes.len() / 2;
    damaged[middle] ^= 1;
    let error = restore_to(&damaged, directory.path()).unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    assert!(!directory.path().join("store.redb").exists());
    restore_to(&bytes, directory.path()).unwrap();
    let again = restore_to(&bytes, directory.path()).unwrap_err();
    assert!(
        matches!(again, BackupError::Restore { .. }),
        "nothing is overwritten: {again}"
    );
}

#[test]
fn what_is_no_backup_is_said_to_be_none() {
    for bytes in [&b""[..], b"UMB", b"something else entirely"] {
        assert!(matches!(verify(bytes, |_| {}), Err(BackupError::NotABackup)));
    }
    let error = verify(&b"UMBRABAK\x02\0\0\0"[..], |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the backup has the format 2, and this umbra knows formats up to 1; use a newer umbra"
    );
}

#[tokio::test]
async fn a_backup_cannot_write_elsewhere() {
    for name in ["../evil", "/etc/passwd", "a//b", "", "a/./b"] {
        let file = BackupFile {
            name: name.to_owned(),
            content: Vec::new(),
        };
        let (bytes, _) = backup_of(&Embedded::in_memory(), vec![file]).await;
        assert!(
            matches!(verify(&bytes[..], |_| {}), Err(BackupError::Damaged { .. })),
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn a_backup_file_is_private_and_complete_or_not_there() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    let store = store().await;
    store.backup(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&path).unwrap();
    verify(&bytes[..], |_| {}).unwrap();
    let copied = directory.path().join("copy");
    assert!(copy(&bytes[..bytes.len() - 1], &copied, |_| {}).is_err());
    let names = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names(), 1, "nothing is left of it");
    copy(&bytes[..], &copied, |_| {}).unwrap();
    assert_eq!(std::fs::read(&copied).unwrap(), bytes);
}

#[tokio::test]
async fn the_reader_of_a_backup_that_breaks_off_learns_why() {
    let store = store().await;
    store.close().await;
    let sink = Sink::default();
    assert!(store.backup_to(Vec::new(), sink.clone(), |_| {}).await.is_err());
    // Nothing has been written before, so the beginning is missing too.
    assert!(verify(Cursor::new(sink.0.lock().clone()), |_| {}).is_err());
}
