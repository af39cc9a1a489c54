//! Clients that work on a store at the same time, and write down what they did and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::history::{Call, Change, Outcome, Record, Seen, seen, verify};
use super::register::{Expect, Value};
use crate::{Entry, Error, Operation, Precondition, RangeRequest, Result, Revision, Store, WatchStream};

/// How long the end of a watch may take: a deadline for a test that would hang, not a measurement.
const DEADLINE: Duration = Duration::from_secs(120);

/// A history in the making.
#[derive(Debug)]
pub(super) struct Clients {
    store: Arc<dyn Store>,
    prefix: String,
    keys: Vec<Arc<str>>,
    clock: AtomicU64,
    next_value: AtomicU64,
    records: Mutex<Vec<Record>>,
    /// The revisions that anybody has seen of each key, for writes that ask for one.
    known: Mutex<BTreeMap<Arc<str>, Vec<Seen>>>,
    start: Revision,
}

impl Clients {
    /// Clients of so many keys under `prefix`, where nothing is yet.
    pub(super) async fn new(store: Arc<dyn Store>, prefix: &str, keys: usize) -> Self {
        let start = settled(|| store.current_revision()).await;
        Self {
            prefix: prefix.to_owned(),
            keys: (0..keys).map(|key| format!("{prefix}{key}").into()).collect(),
            clock: AtomicU64::new(0),
            next_value: AtomicU64::new(0),
            records: Mutex::default(),
            known: Mutex::default(),
            start,
            store,
        }
    }

    /// Operations that have ended.
    pub(super) fn count(&self) -> usize {
        self.records.lock().len()
    }

    /// A watch from the beginning.
    pub(super) async fn watch(&self) -> WatchStream {
        settled(|| self.store.watch(&self.prefix, self.start)).await
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Does `count` operations one after another, as the random numbers of `seed` have it.
    pub(super) async fn work(self: Arc<Self>, seed: u64, count: usize) {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..count {
            let key = Arc::clone(self.keys.choose(&mut random).expect("there are keys"));
            match random.random_range(0..100) {
                0..25 => self.get(key).await,
                25..37 => self.range().await,
                kind => {
                    let size = if kind < 50 { random.random_range(2..5) } else { 1 };
                    let writes = (0..size).map(|_| self.make_up(&mut random)).collect();
                    self.write(writes).await;
                }
            }
        }
    }

    async fn get(&self, key: Arc<str>) {
        let called = self.tick();
        let Ok(read) = self.store.get(&key).await else { return };
        let returned = Some(self.tick());
        let found = read.entry.as_ref().map(seen);
        self.learn(read.entry.iter());
        let call = Call::Get {
            key,
            found,
            at: read.revision,
        };
        self.records.lock().push(Record { called, returned, call });
    }

    async fn range(&self) {
        let called = self.tick();
        let Ok(read) = self.store.range(RangeRequest::prefix(&*self.prefix)).await else {
            return;
        };
        let returned = Some(self.tick());
        self.learn(read.entries.iter());
        let call = Call::Range {
            found: read
                .entries
                .iter()
                .map(|entry| (entry.key.clone(), seen(entry)))
                .collect(),
            at: read.revision,
        };
        self.records.lock().push(Record { called, returned, call });
    }

    fn learn<'a>(&self, entries: impl Iterator<Item = &'a Entry>) {
        let mut known = self.known.lock();
        for entry in entries {
            known.entry(entry.key.clone()).or_default().push(seen(entry));
        }
    }

    /// Makes up a write.
    fn make_up(&self, random: &mut StdRng) -> (Operation, Expect, Option<Value>) {
        let key = Arc::clone(self.keys.choose(random).expect("there are keys"));
        let (precondition, expect) = match random.random_range(0..10) {
            0..3 => (Precondition::None, Expect::Anything),
            3..5 => (Precondition::Absent, Expect::Absent),
            _ => {
                // Mostly what was seen last, so that most of these have a chance.
                let known = self.known.lock();
                let seen = known.get(&key).map_or(&[][..], Vec::as_slice);
                let recent = &seen[seen.len().saturating_sub(random.random_range(1..4))..];
                match recent.choose(random) {
                    Some(seen) => (Precondition::Revision(seen.revision), Expect::Value(seen.value)),
                    None => (Precondition::Absent, Expect::Absent),
                }
            }
        };
        if random.random_range(0..4) == 0 {
            return (Operation::delete(key, precondition), expect, None);
        }
        let value = self.next_value.fetch_add(1, Ordering::SeqCst);
        (
            Operation::put(key, value.to_string(), precondition),
            expect,
            Some(value),
        )
    }

    async fn write(&self, writes: Vec<(Operation, Expect, Option<Value>)>) {
        let operations = writes.iter().map(|(operation, ..)| operation.clone()).collect();
        let called = self.tick();
        let outcomes = self.store.batch(operations).await;
        let returned = self.tick();
        assert_eq!(outcomes.len(), writes.len(), "each operation has an outcome");
        for ((operation, expect, becomes), outcome) in writes.into_iter().zip(outcomes) {
            let key = operation.key().clone();
            let outcome = outcome_of(outcome);
            if let (Outcome::Done(revision), Some(value)) = (outcome, becomes) {
                self.known
                    .lock()
                    .entry(key.clone())
                    .or_default()
                    .push(Seen { value, revision });
            }
            let call = Call::Write {
                key,
                expect,
                becomes,
                outcome,
            };
            let returned = (outcome != Outcome::Unknown).then_some(returned);
            self.records.lock().push(Record { called, returned, call });
        }
    }

    /// Ends the history: reads the log up to now, and compares everything with it, `watches` too. Answers with how many
    /// operations there were.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) async fn conclude(&self, watches: Vec<WatchStream>) -> Result<usize, String> {
        // A write of our own tells every watch where to end, also where there is no progress to ask for.
        let end = format!("{}end", self.prefix);
        let value = self.next_value.fetch_add(1, Ordering::SeqCst);
        settled(|| self.store.put(&end, value.to_string().into(), Precondition::None)).await;
        let log = self.read_until_end(self.watch().await, value).await?;
        for watch in watches {
            if self.read_until_end(watch, value).await? != log {
                return Err("a watch that was there from the beginning saw other changes".to_owned());
            }
        }
        let is_end = |change: &Change| *change.key == *end;
        let log: Vec<_> = log.into_iter().filter(|change| !is_end(change)).collect();
        let records = self.records.lock();
        verify(&records, &log, self.start)?;
        Ok(records.len())
    }

    async fn read_until_end(&self, mut watch: WatchStream, end: Value) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        loop {
            let item = tokio::time::timeout(DEADLINE, watch.next()).await;
            let item = item.map_err(|_| format!("a watch brings nothing more after {} changes", changes.len()))?;
            let event = item.ok_or("a watch has ended without an error")?;
            let event = event.map_err(|error| format!("a watch has ended: {error}"))?;
            let Some(change) = Change::of(&event) else { continue };
            let is_end = change.becomes == Some(end);
            changes.push(change);
            if is_end {
                return Ok(changes);
            }
        }
    }
}

fn outcome_of(outcome: Result<Revision>) -> Outcome {
    match outcome {
        Ok(revision) => Outcome::Done(revision),
        Err(Error::Conflict { current, .. }) => Outcome::Refused(current.as_ref().map(seen)),
        Err(Error::NotFound { .. }) => Outcome::Refused(None),
        Err(Error::Unavailable { .. }) => Outcome::NotDone,
        Err(Error::Io { .. }) => Outcome::Unknown,
        Err(error) => panic!("a write must not fail with {error}"),
    }
}

/// The answer, once there is one: a store may be away for a while.
pub(super) async fn settled<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> T {
    let answer = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => tracing::debug!(%error, "asking again"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::time::timeout(DEADLINE, answer).await;
    answer.expect("the store answers within the deadline")
}
