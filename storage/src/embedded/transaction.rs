//! What one write transaction does to the tables.

use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::failure::Failure;
use super::tables::{COMPACTED, DELETION, HISTORY, LATEST, LOG, META, REVISION, Record, SWEPT};
use crate::{Entry, Error, Operation, Precondition, Result, Revision, WatchEvent};

/// Records that one transaction sweeps at most: about 10 ms of work, so that sweeping hardly delays waiting writes.
const SWEEP_CHUNK: u64 = 1_000;

/// An open write transaction.
pub(super) struct Transaction<'t> {
    log: Table<'t, u64, &'static [u8]>,
    latest: Table<'t, &'static str, (u64, u64)>,
    history: Table<'t, (&'static str, u64), u64>,
    meta: Table<'t, &'static str, u64>,
    buffer: Vec<u8>,
    pub(super) marks: Marks,
    before: Marks,
}

/// The numbers in `meta` that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) revision: u64,
    pub(super) compacted: u64,
    pub(super) swept: u64,
}

impl Marks {
    /// Whether rows are left that compaction has made superfluous.
    pub(super) fn sweep_pending(&self) -> bool {
        self.swept < self.compacted
    }
}

impl<'t> Transaction<'t> {
    pub(super) fn open(write: &'t WriteTransaction, marks: Marks) -> Result<Self, Failure> {
        Ok(Self {
            log: write.open_table(LOG)?,
            latest: write.open_table(LATEST)?,
            history: write.open_table(HISTORY)?,
            meta: write.open_table(META)?,
            buffer: Vec::new(),
            marks,
            before: marks,
        })
    }

    /// Applies one operation. The outer error ends the transaction, the inner one is the outcome of the operation.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<Result<WatchEvent>, Failure> {
        let key = operation.key();
        let previous = self.current(key)?;
        match operation {
            Operation::Put {
                value, precondition, ..
            } => {
                if !holds(*precondition, previous.as_ref()) {
                    return Ok(Err(Error::Conflict {
                        key: Arc::clone(key),
                        current: previous,
                    }));
                }
                let revision = self.marks.revision + 1;
                let entry = Entry {
                    key: Arc::clone(key),
                    value: value.clone(),
                    create_revision: previous
                        .as_ref()
                        .map_or(Revision(revision), |entry| entry.create_revision),
                    revision: Revision(revision),
                };
                self.write_put(&entry, previous.as_ref())?;
                Ok(Ok(WatchEvent::Put { entry, previous }))
            }
            Operation::Delete { precondition, .. } => {
                if !holds(*precondition, previous.as_ref()) {
                    return Ok(Err(Error::Conflict {
                        key: Arc::clone(key),
                        current: previous,
                    }));
                }
                let Some(previous) = previous else {
                    return Ok(Err(Error::NotFound { key: Arc::clone(key) }));
                };
                let revision = Revision(self.marks.revision + 1);
                self.write_deletion(revision.0, &previous)?;
                Ok(Ok(WatchEvent::Delete {
                    key: Arc::clone(key),
                    previous,
                    revision,
                }))
            }
        }
    }

    /// Makes `revision` the oldest one available.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision.0 > self.marks.revision {
            return Err(Error::FutureRevision {
                requested: revision,
                current: Revision(self.marks.revision),
            });
        }
        self.marks.compacted = self.marks.compacted.max(revision.0);
        Ok(())
    }

    /// Removes some of the rows that compaction has made superfluous: what each record up to the compacted revision
    /// superseded, and the record itself if it is a deletion.
    pub(super) fn sweep(&mut self) -> Result<(), Failure> {
        let until = self.marks.compacted.min(self.marks.swept + SWEEP_CHUNK);
        if !self.marks.sweep_pending() {
            return Ok(());
        }
        let mut superfluous = Vec::new();
        for row in self.log.range(self.marks.swept + 1..=until)? {
            let (revision, value) = row?;
            let revision = revision.value();
            let record = Record::decode(value.value()).ok_or_else(|| Failure::damaged_record(revision))?;
            if record.supersedes != 0 {
                superfluous.push((record.key.to_owned(), record.supersedes));
            }
            if record.deletion {
                superfluous.push((record.key.to_owned(), revision));
            }
        }
        for (key, revision) in superfluous {
            self.log.remove(revision)?;
            self.history.remove((key.as_str(), revision))?;
        }
        self.marks.swept = until;
        Ok(())
    }

    /// Writes the marks; answers whether the transaction has changed anything.
    pub(super) fn finish(mut self) -> Result<bool, Failure> {
        if self.marks == self.before {
            return Ok(false);
        }
        self.meta.insert(REVISION, self.marks.revision)?;
        self.meta.insert(COMPACTED, self.marks.compacted)?;
        self.meta.insert(SWEPT, self.marks.swept)?;
        Ok(true)
    }

    fn current(&self, key: &Arc<str>) -> Result<Option<Entry>, Failure> {
        let Some(found) = self.latest.get(&**key)?.map(|guard| guard.value()) else {
            return Ok(None);
        };
        let (revision, create_revision) = found;
        let row = self
            .log
            .get(revision)?
            .ok_or_else(|| Failure::damaged_record(revision))?;
        let record = Record::decode(row.value()).ok_or_else(|| Failure::damaged_record(revision))?;
        Ok(Some(Entry {
            key: Arc::clone(key),
            value: bytes::Bytes::copy_from_slice(record.value),
            create_revision: Revision(create_revision),
            revision: Revision(revision),
        }))
    }

    fn write_put(&mut self, entry: &Entry, previous: Option<&Entry>) -> Result<(), Failure> {
        let revision = entry.revision.0;
        Record {
            deletion: false,
            create_revision: entry.create_revision.0,
            supersedes: previous.map_or(0, |previous| previous.revision.0),
            key: &entry.key,
            value: &entry.value,
        }
        .encode(&mut self.buffer);
        self.log.insert(revision, self.buffer.as_slice())?;
        self.latest.insert(&*entry.key, (revision, entry.create_revision.0))?;
        if let Some(previous) = previous {
            self.history
                .insert((&*previous.key, previous.revision.0), previous.create_revision.0)?;
        }
        self.marks.revision = revision;
        Ok(())
    }

    fn write_deletion(&mut self, revision: u64, previous: &Entry) -> Result<(), Failure> {
        Record {
            deletion: true,
            create_revision: previous.create_revision.0,
            supersedes: previous.revision.0,
            key: &previous.key,
            value: b"",
        }
        .encode(&mut self.buffer);
        self.log.insert(revision, self.buffer.as_slice())?;
        self.latest.remove(&*previous.key)?;
        self.history
            .insert((&*previous.key, previous.revision.0), previous.create_revision.0)?;
        self.history.insert((&*previous.key, revision), DELETION)?;
        self.marks.revision = revision;
        Ok(())
    }
}

fn holds(precondition: Precondition, current: Option<&Entry>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::Revision(revision) => current.is_some_and(|entry| entry.revision == revision),
    }
}
