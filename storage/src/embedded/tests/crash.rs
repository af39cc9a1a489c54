//! A process that writes is killed at some point, again and again: what it has acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use super::*;
use crate::GetResponse;

/// Names the directory to the process that writes; without it that test has nothing to do.
const DIRECTORY: &str = "UMBRA_STORAGE_CRASH_DIRECTORY";
/// A few here, to keep the suite short; the number may be raised for a longer run.
const ROUNDS: &str = "UMBRA_STORAGE_CRASH_ROUNDS";
const DEFAULT_ROUNDS: usize = 6;
const WRITERS: usize = 8;
const KEYS: usize = 20;

/// Not a test by itself: the process that is killed. It writes until then, and says what has been acknowledged.
#[tokio::test]
#[ignore = "run by survives_being_killed in a process of its own"]
async fn write_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let options = Options {
        history: None,
        ..Options::default()
    };
    let store = Embedded::open(PathBuf::from(directory), options).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = &store;
        async move {
            for round in 0_usize.. {
                let key = |offset| format!("/{writer}/{}", (round + offset) % KEYS);
                let value = format!("{round:0>width$}", width = 10 + round % 3_000);
                let outcomes = store
                    .batch(vec![
                        Operation::put(key(0), value, Precondition::None),
                        Operation::delete(key(KEYS / 2), Precondition::None),
                    ])
                    .await;
                let mut lines = String::new();
                for (index, outcome) in outcomes.into_iter().enumerate() {
                    let (key, value) = if index == 0 {
                        (key(0), round.to_string())
                    } else {
                        (key(KEYS / 2), "-".into())
                    };
                    match outcome {
                        Ok(revision) => lines.push_str(&format!("{revision} {key} {value}\n")),
                        Err(Error::NotFound { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                // One call, so that a line is never cut short by the kill but for the last.
                std::io::stdout().lock().write_all(lines.as_bytes()).unwrap();
                if writer == 0 && round % 50 == 49 {
                    let current = store.current_revision().await.unwrap();
                    store.compact(Revision(current.0 - 40)).await.unwrap();
                }
            }
        }
    });
    futures::future::join_all(writers).await;
}

/// An acknowledged write: its revision, and the value as the round that wrote it, `-` for a deletion.
type Acknowledged = BTreeMap<String, (u64, String)>;

/// Runs the writing process, kills it after so many acknowledgements, and adds those to `acknowledged`.
fn write_and_kill(directory: &Path, after: usize, acknowledged: &mut Acknowledged) {
    let mut process = Process::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "embedded::tests::crash::write_until_killed",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let mut count = 0;
    for line in output.lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        let [revision, key, value] = words[..] else { continue };
        let (Ok(revision), true) = (revision.parse::<u64>(), key.starts_with('/')) else {
            continue;
        };
        let newest = acknowledged.entry(key.to_owned()).or_default();
        if newest.0 < revision {
            *newest = (revision, value.to_owned());
        }
        count += 1;
        if count == after {
            process.kill().unwrap();
        }
    }
    process.wait().unwrap();
    assert!(
        count >= after,
        "the process ended by itself after {count} acknowledgements"
    );
}

#[tokio::test]
async fn survives_being_killed() {
    let rounds = std::env::var(ROUNDS).map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut newest_seen = 0;
    for _ in 0..rounds {
        let after = rand::random_range(1..1_500);
        write_and_kill(directory.path(), after, &mut acknowledged);
        let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
        let current = store.current_revision().await.unwrap().0;
        let newest = acknowledged
            .values()
            .map(|(revision, _)| *revision)
            .max()
            .unwrap()
            .max(newest_seen);
        assert!(
            current >= newest,
            "the store is at {current}, and {newest} had been seen"
        );
        newest_seen = current;
        for (key, (revision, value)) in &acknowledged {
            verify(key, *revision, value, &store.get(key).await.unwrap());
        }
        verify_history(&store).await;
        store.close().await;
    }
}

/// The key is as acknowledged, or as a later write made it whose acknowledgement nobody heard.
fn verify(key: &str, revision: u64, value: &str, read: &GetResponse) {
    let Some(entry) = &read.entry else {
        assert!(
            value == "-" || read.revision.0 > revision,
            "{key} of revision {revision} is lost"
        );
        return;
    };
    assert!(
        entry.revision.0 >= revision || value == "-",
        "{key} is at {}, not at {revision}",
        entry.revision
    );
    if entry.revision.0 == revision {
        let written = std::str::from_utf8(&entry.value).unwrap();
        assert_eq!(
            written.parse::<usize>().unwrap(),
            value.parse::<usize>().unwrap(),
            "{key} at {revision}"
        );
    } else {
        assert!(
            entry.revision.0 > revision,
            "{key} was deleted at {revision} and is at {}",
            entry.revision
        );
    }
}

/// What the log says has happened leads to what the store holds.
async fn verify_history(store: &Embedded) {
    let oldest = store.inner.hub.compacted();
    let current = store.current_revision().await.unwrap();
    let start = store.range(RangeRequest::default().at(oldest)).await.unwrap();
    let mut state: BTreeMap<_, _> = start
        .entries
        .into_iter()
        .map(|entry| (entry.key.clone(), entry))
        .collect();
    let mut watch = store.watch("/", oldest).await.unwrap();
    let mut expected = oldest;
    while expected < current {
        expected = expected.next();
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!(event.revision(), expected, "every revision has its event");
        match event {
            WatchEvent::Put { entry, previous } => assert_eq!(state.insert(entry.key.clone(), entry), previous),
            WatchEvent::Delete { key, previous, .. } => assert_eq!(state.remove(&key), Some(previous)),
            WatchEvent::Progress { .. } => unreachable!("nobody asked for progress"),
        }
    }
    let present = store.range(RangeRequest::default()).await.unwrap();
    assert_eq!(state.into_values().collect::<Vec<_>>(), present.entries);
}
