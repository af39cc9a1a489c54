//! Disks that are really full or read-only: small file systems in memory, mounted where only a process of the test sees
//! them.

use std::path::PathBuf;
use std::process::Command;

use umbra_show::Item;

use super::super::*;

/// Names the directory of the small file system to the process in which it is mounted.
const DIRECTORY: &str = "UMBRA_STORAGE_SMALL_DISK";
/// Room for the store, a probe, and some.
const DISK_BYTES: u64 = 32 << 20;

/// Runs an ignored test of this module in a mount namespace with a small file system; `false` where that is not allowed.
fn run_on_a_small_disk(test: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={DISK_BYTES} small \"${DIRECTORY}\" || exit 77; exec \"$0\" --ignored --exact --nocapture \"$1\""
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("embedded::tests::faults::real::{test}"))
        .env(DIRECTORY, directory.path())
        .output();
    let Ok(output) = output else { return false };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        return false;
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    true
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

fn skipped(test: &str) {
    use std::io::Write as _;
    // Past the test harness, which keeps the output of what passes.
    let line = format!("\nSKIPPED {test}: no file system may be mounted here\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let item = Item::open("storage.disk-full");
    if run_on_a_small_disk("on_a_small_disk_that_fills") {
        item.pass("refused with the reason, recovered by itself, every acknowledged write there");
    } else {
        skipped("a_full_disk_refuses_writes_until_there_is_room");
    }
}

#[test]
fn a_read_only_disk_is_named() {
    if !run_on_a_small_disk("on_a_small_disk_that_is_read_only") {
        skipped("a_read_only_disk_is_named");
    }
}

#[tokio::test]
#[ignore = "run by a_full_disk_refuses_writes_until_there_is_room in a process of its own"]
async fn on_a_small_disk_that_fills() {
    let directory = directory().expect("the other test names the directory");
    let store = Embedded::open(directory.join("data"), Options::default())
        .await
        .unwrap();
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/", start).await.unwrap();
    for round in 0..3 {
        fill_and_recover(&store, &directory, round).await;
    }
    // Every revision has its event, in order, none twice.
    let current = store.current_revision().await.unwrap();
    let mut expected = start;
    while expected < current {
        expected = expected.next();
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), expected);
    }
    store.close().await;
    let store = Embedded::open(directory.join("data"), Options::default())
        .await
        .unwrap();
    assert_eq!(store.current_revision().await.unwrap(), current);
    store.close().await;
}

async fn fill_and_recover(store: &Embedded, directory: &Path, round: u32) {
    let ballast = directory.join("ballast");
    fill(&ballast);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("/{round}/{}", acknowledged.len());
        match store.put(&key, vec![b'x'; 100_000].into(), Precondition::None).await {
            Ok(revision) => acknowledged.push((key, revision)),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 1_000, "the disk has an end");
    };
    let text = explain(&refused);
    let file = directory.join("data/store.redb").display().to_string();
    for part in [&*file, "No space left on device", "free space there"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let reason = store.ready().await.unwrap_err().to_string();
    assert!(
        reason.contains("No space left on device") && reason.contains(&file),
        "{reason}"
    );
    let later = store.put("/later", "1".into(), Precondition::None).await.unwrap_err();
    assert!(matches!(later, Error::Unavailable { .. }), "{later:?}");
    // Reads go on.
    for (key, revision) in &acknowledged {
        assert_eq!(store.get(key).await.unwrap().entry.unwrap().revision, *revision);
    }
    std::fs::remove_file(ballast).unwrap();
    let recovered = async {
        while store.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered)
        .await
        .expect("the store recovers by itself");
    let revision = put(store, "/after", "1").await;
    assert!(acknowledged.iter().all(|(_, earlier)| *earlier < revision));
    for (key, revision) in &acknowledged {
        assert_eq!(store.get(key).await.unwrap().entry.unwrap().revision, *revision);
        store.delete(key, Precondition::None).await.unwrap();
    }
    // Their pages are free for the next round.
    let current = store.current_revision().await.unwrap();
    store.compact(current).await.unwrap();
}

/// Leaves no room.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![0; 1 << 16];
    while file.write_all(&block).is_ok() {}
}

fn explain(error: &Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[tokio::test]
#[ignore = "run by a_read_only_disk_is_named in a process of its own"]
async fn on_a_small_disk_that_is_read_only() {
    let directory = directory().expect("the other test names the directory");
    let remount = |mode: &str| {
        let options = format!("remount,{mode}");
        let status = Command::new("mount").args(["-o", &options]).arg(&directory).status();
        assert!(status.unwrap().success(), "remounting {mode}");
    };
    let store = Embedded::open(&directory, Options::default()).await.unwrap();
    let revision = put(&store, "/a", "1").await;
    store.close().await;
    drop(store);
    remount("ro");
    let error = Embedded::open(&directory, Options::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, OpenError::Io { .. })
            && text.contains(&directory.join("store.redb").display().to_string())
            && text.contains("Read-only file system")
            && text.contains("make that file system writable"),
        "{text}"
    );
    remount("rw");
    let store = Embedded::open(&directory, Options::default()).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap().entry.unwrap().revision, revision);
}
