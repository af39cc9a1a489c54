//! The store against a model: the whole state, once per revision, in ordinary maps.
//!
//! [`check`] takes any sequence of steps, so a property test can make them up and shrink them; [`random`] goes on for as long
//! as it is told to. Both need a store that nobody else writes to.

use std::collections::BTreeMap;

use super::{Row, TestStore, row};
use crate::{Error, Operation, Precondition, RangeRequest, Result, Revision};

mod following;
pub mod random;

use following::Following;

/// A step of the check.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes made as one batch.
    Batch(Vec<Write>),
    /// Compact this many revisions before the current one.
    Compact(u64),
    /// Read.
    Read(Read),
    /// Watch keys that begin with this, from this many revisions before the current one on, for the rest of the check.
    Watch(&'static str, u64),
    /// Take what the watches have to deliver.
    Follow,
}

/// A read of a range.
#[derive(Debug, Clone)]
pub struct Read {
    /// This many revisions before the current one; `None` for the present.
    pub back: Option<u64>,
    /// Only keys that begin with this.
    pub prefix: &'static str,
    /// Only keys after this one.
    pub start_after: Option<&'static str>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

/// A write.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which of the model's keys.
    pub key: usize,
    /// Deletes the key instead of putting to it.
    pub delete: bool,
    /// What the write asks for.
    pub expect: Expect,
}

/// A precondition in terms of the model.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// The key to be absent.
    Absent,
    /// The key at the revision that it has, or at revision 1 if it is absent.
    Current,
    /// The key at a revision that it does not have.
    Other,
}

/// The keys of the model: neighbours, a key that is the prefix of others, and one outside of the prefix that is read.
pub const KEYS: [&str; 7] = [
    "/model/a",
    "/model/a/b",
    "/model/a0",
    "/model/b",
    "/model/b/",
    "/model/ü",
    "/model2/outside",
];
const PREFIX: &str = "/model/";

type State = BTreeMap<String, Row>;

/// What the store should be like.
struct Model {
    /// The state right after each revision since `oldest`.
    states: BTreeMap<u64, State>,
    /// What changed at each revision since: the key, what it was and what it became.
    changes: BTreeMap<u64, (&'static str, Option<Row>, Option<Row>)>,
    oldest: u64,
    current: u64,
    written: usize,
    watches: Vec<Following>,
}

/// Performs the steps on the store and on the model, and compares every outcome, every state and every watch.
pub async fn check(store: TestStore, steps: Vec<Step>) {
    let mut model = Model::new(&store).await;
    for step in &steps {
        model.step(&store, step).await;
    }
    model.finish(&store).await;
}

impl Model {
    async fn new(store: &TestStore) -> Self {
        let start = store.current_revision().await.unwrap().0;
        Self {
            states: BTreeMap::from([(start, State::new())]),
            changes: BTreeMap::new(),
            oldest: start,
            current: start,
            written: 0,
            watches: Vec::new(),
        }
    }

    async fn step(&mut self, store: &TestStore, step: &Step) {
        match step {
            Step::Batch(writes) => self.write(store, writes).await,
            Step::Compact(back) => self.compact(store, *back).await,
            Step::Read(read) => self.read(store, read).await,
            Step::Watch(prefix, back) => self.watch(store, prefix, *back).await,
            Step::Follow => self.follow(store).await,
        }
    }

    /// Compares everything that can be compared in the end.
    async fn finish(&mut self, store: &TestStore) {
        assert_eq!(store.current_revision().await.unwrap(), Revision(self.current));
        self.follow(store).await;
        self.compare_states(store).await;
        self.compare_watches(store).await;
    }

    async fn read(&self, store: &TestStore, read: &Read) {
        let revision = read.back.map(|back| self.current.saturating_sub(back).max(1));
        let request = RangeRequest {
            prefix: read.prefix.to_owned(),
            start_after: read.start_after.map(str::to_owned),
            limit: read.limit,
            revision: revision.map(Revision),
            count_remaining: true,
        };
        let result = store.range(request).await;
        let at = revision.unwrap_or(self.current);
        let Some(state) = self.states.get(&at) else {
            let oldest = Revision(self.oldest);
            assert!(
                matches!(&result, Err(Error::Compacted { oldest: found, .. }) if *found == oldest),
                "{read:?} before {oldest}: {result:?}"
            );
            return;
        };
        let rows = state.values().filter(|row| {
            row.0.starts_with(read.prefix) && read.start_after.is_none_or(|start| row.0.as_str() > start)
        });
        let mut expected: Vec<Row> = rows.cloned().collect();
        let limit = if read.limit == 0 { expected.len() } else { read.limit };
        let remaining = expected.len().saturating_sub(limit);
        expected.truncate(limit);
        let response = result.unwrap();
        assert_eq!(
            response.entries.iter().map(row).collect::<Vec<_>>(),
            expected,
            "{read:?} at {at}"
        );
        assert_eq!(
            (response.revision, response.more, response.remaining),
            (Revision(at), remaining > 0, Some(remaining as u64)),
            "{read:?} at {at}"
        );
    }

    async fn write(&mut self, store: &TestStore, writes: &[Write]) {
        let operations = self.plan(writes);
        let outcomes: Vec<_> = store
            .batch(operations.clone())
            .await
            .into_iter()
            .map(simplify)
            .collect();
        assert_eq!(outcomes.len(), operations.len(), "each operation has an outcome");
        for index in order_of(&operations, &outcomes) {
            let expected = self.apply(&operations[index]);
            assert_eq!(outcomes[index], expected, "{:?} of {operations:?}", operations[index]);
        }
    }

    /// The operations of a batch, as if they were done in its order.
    fn plan(&mut self, writes: &[Write]) -> Vec<Operation> {
        let (mut state, mut current) = (self.states[&self.current].clone(), self.current);
        let mut operations = Vec::new();
        for write in writes {
            let key = KEYS[write.key % KEYS.len()];
            let precondition = match write.expect {
                Expect::Anything => Precondition::None,
                Expect::Absent => Precondition::Absent,
                Expect::Current => Precondition::Revision(state.get(key).map_or(Revision(1), |row| row.3)),
                Expect::Other => Precondition::Revision(Revision(self.current + 10 + writes.len() as u64)),
            };
            self.written += 1;
            let operation = if write.delete {
                Operation::delete(key, precondition)
            } else {
                Operation::put(key, format!("value {}", self.written), precondition)
            };
            if let Outcome::Done(revision) = perform(&mut state, current, &operation) {
                current = revision.0;
            }
            operations.push(operation);
        }
        operations
    }

    /// What the operation does to the model.
    fn apply(&mut self, operation: &Operation) -> Outcome {
        let mut state = self.states[&self.current].clone();
        let outcome = perform(&mut state, self.current, operation);
        if let Outcome::Done(revision) = outcome {
            let key = KEYS.into_iter().find(|key| **key == **operation.key());
            let key = key.expect("only keys of the model are written to");
            let before = self.states[&self.current].get(key).cloned();
            self.changes.insert(revision.0, (key, before, state.get(key).cloned()));
            self.current = revision.0;
            self.states.insert(revision.0, state);
        }
        outcome
    }

    async fn compact(&mut self, store: &TestStore, back: u64) {
        let revision = self.current.saturating_sub(back).max(self.oldest);
        store.compact(Revision(revision)).await.unwrap();
        self.oldest = revision;
        self.states = self.states.split_off(&revision);
        self.changes = self.changes.split_off(&(revision + 1));
    }

    async fn compare_states(&self, store: &TestStore) {
        for (revision, state) in &self.states {
            let expected: Vec<_> = state
                .values()
                .filter(|row| row.0.starts_with(PREFIX))
                .cloned()
                .collect();
            let request = RangeRequest::prefix(PREFIX).at(Revision(*revision));
            let whole = store.range(request.clone()).await.unwrap();
            assert_eq!(
                whole.entries.iter().map(row).collect::<Vec<_>>(),
                expected,
                "at {revision}"
            );
            let mut paged = Vec::new();
            let mut request = request.limit(2).counting();
            loop {
                let page = store.range(request.clone()).await.unwrap();
                paged.extend(page.entries.iter().map(row));
                assert_eq!(
                    page.remaining,
                    Some((expected.len() - paged.len()) as u64),
                    "at {revision}"
                );
                match page.entries.last() {
                    Some(last) if page.more => request = request.after(&*last.key),
                    _ => break,
                }
            }
            assert_eq!(paged, expected, "in pages at {revision}");
        }
    }

    /// A watch from any revision on delivers what has changed since.
    async fn compare_watches(&self, store: &TestStore) {
        for revision in self.states.keys() {
            let mut watch = Following::start(store, PREFIX, *revision).await;
            let whole = self.follow_one(&mut watch, store.progress_on_request()).await;
            assert!(whole, "watched from {revision}");
        }
    }
}

/// In which order the operations of a batch were done. Those of one key are in the order of the batch, and operations of
/// different keys may overtake each other: their revisions tell. One that failed comes right after the one before it on its
/// key, where only that key counts.
fn order_of(operations: &[Operation], outcomes: &[Outcome]) -> Vec<usize> {
    let mut last: BTreeMap<&str, Revision> = BTreeMap::new();
    let mut places = Vec::new();
    for (index, (operation, outcome)) in operations.iter().zip(outcomes).enumerate() {
        let before = last.entry(operation.key()).or_insert(Revision(0));
        if let Outcome::Done(revision) = outcome {
            assert!(*before < *revision, "{operation:?} is done in its turn");
            *before = *revision;
        }
        places.push((*before, index));
    }
    places.sort_unstable();
    places.into_iter().map(|(_, index)| index).collect()
}

/// Does the operation to a state of the revision `current`.
fn perform(state: &mut State, current: u64, operation: &Operation) -> Outcome {
    let key: &str = operation.key();
    let existing = state.get(key).cloned();
    let (Operation::Put { precondition, .. } | Operation::Delete { precondition, .. }) = operation;
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Absent => existing.is_none(),
        Precondition::Revision(revision) => existing.as_ref().is_some_and(|row| row.3 == *revision),
    };
    if !holds {
        return Outcome::Conflict(existing);
    }
    let revision = Revision(current + 1);
    match (operation, existing) {
        (Operation::Delete { .. }, None) => return Outcome::NotFound,
        (Operation::Delete { .. }, Some(_)) => drop(state.remove(key)),
        (Operation::Put { value, .. }, existing) => {
            let created = existing.map_or(revision, |row| row.2);
            let value = String::from_utf8_lossy(value).into_owned();
            state.insert(key.to_owned(), (key.to_owned(), value, created, revision));
        }
    }
    Outcome::Done(revision)
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done(Revision),
    NotFound,
    Conflict(Option<Row>),
}

fn simplify(outcome: Result<Revision>) -> Outcome {
    match outcome {
        Ok(revision) => Outcome::Done(revision),
        Err(Error::NotFound { .. }) => Outcome::NotFound,
        Err(Error::Conflict { current, .. }) => Outcome::Conflict(current.as_ref().map(row)),
        Err(error) => panic!("{error}"),
    }
}
