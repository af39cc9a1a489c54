//! Which layout a file has: a new one gets the tables, an older one is rewritten, a newer or foreign one is refused.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableHandle};

use super::OpenError;
use super::failure::Failure;
use super::open::{begin, explain};
use super::tables::{
    COMPACTED, FORMAT, FORMAT_1_HISTORY, FORMAT_1_LATEST, KEYS, LOG, META, Marks, REVISION, SWEPT, VERSIONS, key_row,
    room, version_row,
};
use crate::Revision;

/// The layout that this program reads and writes. A change of the tables or of the records raises it.
pub(super) const CURRENT_FORMAT: u64 = 2;

/// Reads the marks of the database, after creating its tables if it is new.
pub(super) fn initialise(database: &Database, path: &Path) -> Result<Marks, OpenError> {
    let initialised = Failure::guard(|| {
        Ok::<_, Failure>(match format(database)? {
            Format::New => Ok(create(database)?),
            Format::Foreign => Err(OpenError::NotAStore { path: path.to_owned() }),
            Format::Version(1) => Ok(upgrade(database)?),
            Format::Version(CURRENT_FORMAT) => Ok(read_marks(database)?),
            Format::Version(found) => Err(OpenError::NewerFormat {
                path: path.to_owned(),
                found,
                supported: CURRENT_FORMAT,
            }),
        })
    });
    initialised.unwrap_or_else(|failure| Err(explain(failure, path)))
}

/// What a database holds.
enum Format {
    New,
    Foreign,
    Version(u64),
}

fn format(database: &Database) -> Result<Format, Failure> {
    let transaction = database.begin_read()?;
    let mut tables = transaction.list_tables()?.peekable();
    if tables.peek().is_none() {
        return Ok(Format::New);
    }
    if !tables.any(|table| table.name() == META.name()) {
        return Ok(Format::Foreign);
    }
    Ok(match transaction.open_table(META) {
        Ok(meta) => meta
            .get(FORMAT)?
            .map_or(Format::Foreign, |version| Format::Version(version.value())),
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        Err(_) => Format::Foreign,
    })
}

fn create(database: &Database) -> Result<Marks, Failure> {
    let marks = Marks {
        revision: Revision::INITIAL.0,
        compacted: Revision::INITIAL.0,
        swept: Revision::INITIAL.0,
        live: 0,
    };
    let write = begin(database)?;
    {
        write.open_table(LOG)?;
        write.open_table(KEYS)?;
        write.open_table(VERSIONS)?;
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT, CURRENT_FORMAT)?;
        marks.write(&mut meta)?;
    }
    write.commit()?;
    Ok(marks)
}

/// Rewrites the tables of format 1.
fn upgrade(database: &Database) -> Result<Marks, Failure> {
    let write = begin(database)?;
    let mut live = 0;
    for row in write.open_table(LOG)?.iter()? {
        live += room(row?.1.value().len());
    }
    let marks = {
        let mut meta = write.open_table(META)?;
        let mark = |name: &str| -> Result<u64, Failure> {
            let value = meta
                .get(name)?
                .ok_or_else(|| Failure::Damaged(format!("its number {name:?} is missing")))?;
            Ok(value.value())
        };
        let marks = Marks {
            revision: mark(REVISION)?,
            compacted: mark(COMPACTED)?,
            swept: mark(SWEPT)?,
            live,
        };
        marks.write(&mut meta)?;
        meta.insert(FORMAT, CURRENT_FORMAT)?;
        let mut keys = write.open_table(KEYS)?;
        for row in write.open_table(FORMAT_1_LATEST)?.iter()? {
            let (key, row) = row?;
            let (revision, create_revision) = row.value();
            keys.insert(key.value(), key_row(key.value(), revision, create_revision))?;
        }
        let mut versions = write.open_table(VERSIONS)?;
        for row in write.open_table(FORMAT_1_HISTORY)?.iter()? {
            let (id, create_revision) = row?;
            let (key, revision) = id.value();
            versions.insert((key, revision), version_row(key, revision, create_revision.value()))?;
        }
        marks
    };
    write.delete_table(FORMAT_1_LATEST)?;
    write.delete_table(FORMAT_1_HISTORY)?;
    write.commit()?;
    Ok(marks)
}

fn read_marks(database: &Database) -> Result<Marks, Failure> {
    let transaction = database.begin_read()?;
    let marks = Marks::read(&transaction.open_table(META)?)?;
    let newest = transaction
        .open_table(LOG)?
        .last()?
        .map(|(revision, _)| revision.value());
    match newest {
        Some(newest) if newest > marks.revision => Err(Failure::Damaged(format!(
            "its log goes to revision {newest}, but it claims to be at {}",
            marks.revision
        ))),
        _ => Ok(marks),
    }
}
