//! Making a store of a backup.

use std::io::Read;
use std::path::Path;

use redb::Database;

use super::read::{Item, Object, read};
use super::{BackupError, BackupFile, BackupSummary};
use crate::Revision;
use crate::embedded::failure::Failure;
use crate::embedded::open::{begin, create_file, explain};
use crate::embedded::tables::{KEYS, LOG, META, Marks, Record, key_row, room};
use crate::embedded::{OpenError, StoreLock};

/// What goes into one transaction: enough for the sync not to matter, little enough to fit the memory for pages.
const TRANSACTION_OBJECTS: usize = 10_000;
const TRANSACTION_BYTES: usize = 32 << 20;

/// Makes the store file `path`, which must not exist, of a backup, `gap` revisions ahead of it; hands the files that travel
/// with the backup to `take`. Answers with what the backup holds and the revision of the store. The file is there as a whole
/// or not at all. `progress` is told the number of objects, once for every thousand.
///
/// # Errors
/// [`BackupError`], with what is wrong with the backup or the place.
pub fn restore(
    input: impl Read,
    path: &Path,
    gap: u64,
    mut take: impl FnMut(BackupFile) -> Result<(), BackupError>,
    mut progress: impl FnMut(u64),
) -> Result<(BackupSummary, Revision), BackupError> {
    let failed = |source| BackupError::Restore {
        path: path.to_owned(),
        source,
    };
    let _lock = StoreLock::acquire(path).map_err(failed)?;
    if path.exists() {
        return Err(failed(OpenError::Io {
            path: path.to_owned(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        }));
    }
    let mut outcome = None;
    let created = create_file(path, |database| {
        let mut filling = Filling {
            database,
            path,
            objects: Vec::new(),
            bytes: 0,
            count: 0,
            live: 0,
        };
        let filled = read(input, |item| match item {
            Item::File(file) => take(file),
            Item::Object(object) => filling.add(object, &mut progress),
        });
        let filled = filled.and_then(|summary| {
            let revision = filling.finish(summary.revision, gap)?;
            Ok((summary, revision))
        });
        let complete = filled.is_ok();
        outcome = Some(filled);
        // Any error keeps the file from being put in place; the caller gets the one above.
        if complete {
            Ok(())
        } else {
            Err(OpenError::NotAStore { path: path.to_owned() })
        }
    });
    match outcome {
        Some(Ok(restored)) => created.map(|()| restored).map_err(failed),
        Some(Err(error)) => Err(error),
        None => Err(failed(
            created.err().unwrap_or(OpenError::NotAStore { path: path.to_owned() }),
        )),
    }
}

struct Filling<'a> {
    database: &'a Database,
    path: &'a Path,
    objects: Vec<Object>,
    bytes: usize,
    count: u64,
    live: u64,
}

impl Filling<'_> {
    fn add(&mut self, object: Object, progress: &mut impl FnMut(u64)) -> Result<(), BackupError> {
        self.bytes += object.value.len();
        self.objects.push(object);
        self.count += 1;
        if self.count.is_multiple_of(1_000) {
            progress(self.count);
        }
        if self.objects.len() >= TRANSACTION_OBJECTS || self.bytes >= TRANSACTION_BYTES {
            self.flush(None)?;
        }
        Ok(())
    }

    fn finish(&mut self, revision: Revision, gap: u64) -> Result<Revision, BackupError> {
        let revision = revision
            .0
            .checked_add(gap)
            .ok_or_else(|| BackupError::damaged("no revision is left"))?;
        // Nothing can be read at, or watched from, what was before.
        let marks = Marks {
            revision,
            compacted: revision,
            swept: revision,
            live: self.live,
        };
        self.flush(Some(marks))?;
        Ok(Revision(revision))
    }

    fn flush(&mut self, marks: Option<Marks>) -> Result<(), BackupError> {
        let objects = std::mem::take(&mut self.objects);
        self.bytes = 0;
        let live = &mut self.live;
        let written = Failure::guard(|| {
            let write = begin(self.database)?;
            {
                let (mut log, mut keys) = (write.open_table(LOG)?, write.open_table(KEYS)?);
                let mut buffer = Vec::new();
                for object in &objects {
                    let record = Record {
                        deletion: false,
                        create_revision: object.create_revision,
                        supersedes: 0,
                        key: &object.key,
                        value: &object.value,
                    };
                    record.encode(object.revision, &mut buffer);
                    *live += room(buffer.len());
                    let twice = log.insert(object.revision, buffer.as_slice())?.is_some();
                    let row = key_row(&object.key, object.revision, object.create_revision);
                    if keys.insert(object.key.as_str(), row)?.is_some() || twice {
                        return Ok(Err(BackupError::damaged("a key or a revision occurs twice")));
                    }
                }
                if let Some(marks) = marks {
                    marks.write(&mut write.open_table(META)?)?;
                }
            }
            write.commit()?;
            Ok::<_, Failure>(Ok(()))
        });
        written.unwrap_or_else(|failure| {
            Err(BackupError::Restore {
                path: self.path.to_owned(),
                source: explain(failure, self.path),
            })
        })
    }
}
