//! What one write transaction does to the tables.

use std::path::Path;
use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::failure::Failure;
use super::tables::{DELETION, KEYS, LOG, META, Marks, Record, VERSIONS, key_row, read_key_row, room, version_row};
use crate::{Entry, Error, Operation, Precondition, Result, Revision, WatchEvent};

/// Records that one transaction sweeps at most: about 10 ms of work, so that sweeping hardly delays waiting writes.
const SWEEP_CHUNK: u64 = 1_000;

/// An open write transaction.
pub(super) struct Transaction<'t> {
    log: Table<'t, u64, &'static [u8]>,
    keys: Table<'t, &'static str, (u64, u64, u32)>,
    versions: Table<'t, (&'static str, u64), (u64, u32)>,
    meta: Table<'t, &'static str, u64>,
    buffer: Vec<u8>,
    pub(super) marks: Marks,
    before: Marks,
    /// A row that could not be read. It concerns its key alone.
    pub(super) damage: Option<Failure>,
}

impl<'t> Transaction<'t> {
    pub(super) fn open(write: &'t WriteTransaction, marks: Marks) -> Result<Self, Failure> {
        Ok(Self {
            log: write.open_table(LOG)?,
            keys: write.open_table(KEYS)?,
            versions: write.open_table(VERSIONS)?,
            meta: write.open_table(META)?,
            buffer: Vec::new(),
            marks,
            before: marks,
            damage: None,
        })
    }

    /// Applies one operation. The outer error ends the transaction, the inner one is the outcome of the operation.
    pub(super) fn apply(&mut self, operation: &Operation, path: &Path) -> Result<Result<WatchEvent>, Failure> {
        let key = operation.key();
        let previous = match self.current(key) {
            Ok(previous) => previous,
            Err(failure @ Failure::Damaged(_)) => {
                let error = failure.to_error("writing", path);
                self.damage = Some(failure);
                return Ok(Err(error));
            }
            Err(failure) => return Err(failure),
        };
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

    /// Makes `revision` the oldest one available. It is one from before this transaction: whoever asks cannot know a later
    /// one, and should the outcome of the transaction be unknown at first, its events can still be read from the log.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision.0 > self.before.revision {
            return Err(Error::FutureRevision {
                requested: revision,
                current: Revision(self.before.revision),
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
            let record = match Record::read(revision, value.value()) {
                Ok(record) => record,
                // What it superseded stays, which does no harm.
                Err(failure) => {
                    self.damage = Some(failure);
                    continue;
                }
            };
            if record.supersedes != 0 {
                superfluous.push((record.key.to_owned(), record.supersedes));
            }
            if record.deletion {
                superfluous.push((record.key.to_owned(), revision));
            }
        }
        for (key, revision) in superfluous {
            if let Some(removed) = self.log.remove(revision)? {
                self.marks.live = self.marks.live.saturating_sub(room(removed.value().len()));
            }
            self.versions.remove((key.as_str(), revision))?;
        }
        self.marks.swept = until;
        Ok(())
    }

    /// Writes the marks; answers whether the transaction has changed anything.
    pub(super) fn finish(mut self) -> Result<bool, Failure> {
        if self.marks == self.before {
            return Ok(false);
        }
        self.marks.write(&mut self.meta)?;
        Ok(true)
    }

    fn current(&self, key: &Arc<str>) -> Result<Option<Entry>, Failure> {
        let Some(row) = self.keys.get(&**key)?.map(|guard| guard.value()) else {
            return Ok(None);
        };
        let (revision, create_revision) = read_key_row(key, row)?;
        let row = self
            .log
            .get(revision)?
            .ok_or_else(|| Failure::damaged_record(revision))?;
        let record = Record::read(revision, row.value())?;
        if record.deletion || record.key != &**key {
            return Err(Failure::damaged_record(revision));
        }
        Ok(Some(Entry {
            key: Arc::clone(key),
            value: bytes::Bytes::copy_from_slice(record.value),
            create_revision: Revision(create_revision),
            revision: Revision(revision),
        }))
    }

    fn write_put(&mut self, entry: &Entry, previous: Option<&Entry>) -> Result<(), Failure> {
        let (revision, create_revision) = (entry.revision.0, entry.create_revision.0);
        self.append(
            revision,
            &Record {
                deletion: false,
                create_revision,
                supersedes: previous.map_or(0, |previous| previous.revision.0),
                key: &entry.key,
                value: &entry.value,
            },
        )?;
        let row = key_row(&entry.key, revision, create_revision);
        self.keys.insert(&*entry.key, row)?;
        if let Some(previous) = previous {
            self.keep_version(&previous.key, previous.revision.0, previous.create_revision.0)?;
        }
        Ok(())
    }

    fn write_deletion(&mut self, revision: u64, previous: &Entry) -> Result<(), Failure> {
        self.append(
            revision,
            &Record {
                deletion: true,
                create_revision: previous.create_revision.0,
                supersedes: previous.revision.0,
                key: &previous.key,
                value: b"",
            },
        )?;
        self.keys.remove(&*previous.key)?;
        self.keep_version(&previous.key, previous.revision.0, previous.create_revision.0)?;
        self.keep_version(&previous.key, revision, DELETION)
    }

    fn append(&mut self, revision: u64, record: &Record<'_>) -> Result<(), Failure> {
        record.encode(revision, &mut self.buffer);
        self.log.insert(revision, self.buffer.as_slice())?;
        self.marks.revision = revision;
        self.marks.live += room(self.buffer.len());
        Ok(())
    }

    fn keep_version(&mut self, key: &str, revision: u64, create_revision: u64) -> Result<(), Failure> {
        let row = version_row(key, revision, create_revision);
        self.versions.insert((key, revision), row)?;
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
