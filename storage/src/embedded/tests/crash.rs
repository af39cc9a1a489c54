//! A process that writes, watches, compacts and backs up is killed at some point, again and again: what anybody was told
//! before is there afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::proofs::survivors::Witnessed;

/// Names the directory to the process that writes; without it that test has nothing to do.
const DIRECTORY: &str = "UMBRA_STORAGE_CRASH_DIRECTORY";
/// A few here, to keep the suite short; the number may be raised for a longer run.
const ROUNDS: &str = "UMBRA_STORAGE_CRASH_ROUNDS";
const DEFAULT_ROUNDS: usize = 6;
/// Rounds after which a new store is begun, so that the file, which every round opens twice, stays small.
const ROUNDS_PER_STORE: usize = 25;
const WRITERS: usize = 8;
const KEYS: usize = 20;

/// Not a test by itself: the process that is killed. Until then it does everything at once, and says what it was told:
/// `open REVISION`, `write REVISION KEY VALUE`, `event REVISION KEY VALUE`, and where it is: `compact`, `backup`, `work`.
#[tokio::test]
#[ignore = "run by survives_being_killed in a process of its own"]
async fn write_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let options = Options {
        history: None,
        ..Options::default()
    };
    let store = Embedded::open(&directory, options).await.unwrap();
    let start = store.current_revision().await.unwrap();
    say(&format!("open {start}\n"));
    let writers = futures::future::join_all((0..WRITERS).map(|writer| write(&store, writer)));
    let watchers = futures::future::join_all(["", "/1/", "/"].map(|prefix| watch(&store, prefix, start)));
    futures::join!(writers, watchers, compact_and_back_up(&store, &directory));
}

/// One call, so that a line is never cut short by the kill but for the last.
fn say(lines: &str) {
    std::io::stdout().lock().write_all(lines.as_bytes()).unwrap();
}

async fn write(store: &Embedded, writer: usize) {
    for round in 0_usize.. {
        let key = |offset| format!("/{writer}/{}", (round + offset) % KEYS);
        let number = round + 1;
        let value = format!("{number:0>width$}", width = 10 + round % 3_000);
        let outcomes = store
            .batch(vec![
                Operation::put(key(0), value, Precondition::None),
                Operation::delete(key(KEYS / 2), Precondition::None),
            ])
            .await;
        let mut lines = String::new();
        for (offset, outcome) in [0, KEYS / 2].into_iter().zip(outcomes) {
            let value = if offset == 0 {
                number.to_string()
            } else {
                "-".to_owned()
            };
            match outcome {
                Ok(revision) => lines.push_str(&format!("write {revision} {} {value}\n", key(offset))),
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        say(&lines);
    }
}

async fn watch(store: &Embedded, prefix: &str, start: Revision) {
    let mut watch = store.watch(prefix, start).await.unwrap();
    while let Some(event) = watch.next().await {
        match event.unwrap() {
            WatchEvent::Put { entry, .. } => {
                let value = std::str::from_utf8(&entry.value).unwrap().trim_start_matches('0');
                say(&format!("event {} {} {value}\n", entry.revision, entry.key));
            }
            WatchEvent::Delete { key, revision, .. } => say(&format!("event {revision} {key} -\n")),
            WatchEvent::Progress { .. } => {}
        }
    }
}

async fn compact_and_back_up(store: &Embedded, directory: &Path) {
    for round in 0_usize.. {
        let current = store.current_revision().await.unwrap();
        // Something has to happen between the rounds, or the disk is theirs alone.
        let mut watch = store.watch("/0/", current).await.unwrap();
        for _ in 0..20 {
            watch.next().await.unwrap().unwrap();
        }
        say("compact\n");
        store.compact(current).await.unwrap();
        if round % 3 == 0 {
            say("backup\n");
            let path = directory.join(format!("backup-{}-{round}", std::process::id()));
            store.backup(&path).await.unwrap();
            std::fs::remove_file(path).unwrap();
        }
        say("work\n");
    }
}

/// When to kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After so much time, which may be while the store is being opened.
    Time(Duration),
    /// After so many lines.
    Lines(usize),
    /// As soon as the process says this.
    Word(&'static str),
}

impl Moment {
    /// At random; `opening` is how long the process took to open the store before.
    fn random(opening: Duration) -> Self {
        match rand::random_range(0..10) {
            0..3 => Self::Time(opening.mul_f64(rand::random_range(0.3..1.2))),
            3 => Self::Word("compact"),
            4..6 => Self::Word("backup"),
            _ => Self::Lines(rand::random_range(1..2_000)),
        }
    }
}

/// Starts the writing process in `directory`, and kills it when the moment has come. Answers with what it said.
fn write_and_kill(directory: &Path, moment: Moment, opening: &mut Duration) -> Vec<String> {
    let begin = Instant::now();
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
    let lines = lines_of(&mut process);
    let mut said = Vec::new();
    if let Moment::Time(time) = moment {
        std::thread::sleep(time);
    } else {
        for line in &lines {
            if line.starts_with("open ") {
                *opening = begin.elapsed();
            }
            said.push(line);
            let come = match moment {
                Moment::Word(word) => said.last().is_some_and(|line| line == word),
                Moment::Lines(count) => said.len() > count,
                Moment::Time(_) => true,
            };
            if come {
                break;
            }
        }
    }
    let ended = process.try_wait().unwrap();
    assert!(ended.is_none(), "the process has ended by itself: {ended:?}");
    process.kill().unwrap();
    process.wait().unwrap();
    said.extend(lines);
    said
}

/// The lines of a process as they come, without one that the kill has cut short.
fn lines_of(process: &mut Child) -> mpsc::Receiver<String> {
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|count| count > 0) && line.ends_with('\n') {
            let complete = std::mem::take(&mut line);
            if sender.send(complete.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Notes what the process was told. Answers with what it was doing when it was killed.
fn note(said: &[String], witnessed: &mut Witnessed) -> &'static str {
    let mut doing = "opening";
    for line in said {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["open", revision] => {
                witnessed.revision(revision.parse().unwrap());
                doing = "writing";
            }
            ["write" | "event", revision, key, value] => {
                let value = (value != "-").then_some(value);
                witnessed.change(revision.parse().unwrap(), key, value).unwrap();
            }
            ["compact"] => doing = "compacting",
            ["backup"] => doing = "backing up",
            ["work"] => doing = "writing",
            // What the test program says of itself.
            _ => {}
        }
    }
    doing
}

#[tokio::test]
async fn survives_being_killed() {
    let item = umbra_show::Item::open("storage.crash.embedded");
    let rounds = std::env::var(ROUNDS).map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    let mut directory = tempfile::tempdir().unwrap();
    let (mut witnessed, mut told) = (Witnessed::default(), 0);
    let mut opening = Duration::from_millis(100);
    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..rounds {
        if round % ROUNDS_PER_STORE == 0 {
            directory = tempfile::tempdir().unwrap();
            witnessed = Witnessed::default();
        }
        let moment = Moment::random(opening);
        let said = write_and_kill(directory.path(), moment, &mut opening);
        let before = witnessed.len();
        *kills.entry(note(&said, &mut witnessed)).or_default() += 1;
        told += witnessed.len() - before;
        let options = Options {
            history: None,
            ..Options::default()
        };
        let store = Embedded::open(directory.path(), options).await.unwrap();
        let oldest = store.inner.hub.compacted();
        if let Err(error) = witnessed.verify(&store, oldest).await {
            panic!("round {round}, {moment:?}: {error}");
        }
        store.close().await;
    }
    let kills: Vec<_> = kills
        .into_iter()
        .map(|(doing, count)| format!("{count} {doing}"))
        .collect();
    item.pass(&format!(
        "{rounds} kills ({}), {told} changes witnessed",
        kills.join(", ")
    ));
}
