//! Opening the file: who may, and whether it is ours.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableHandle};

use super::failure::Failure;
use super::tables::{COMPACTED, FORMAT, HISTORY, LATEST, LOG, META, REVISION, SWEPT};
use super::transaction::Marks;
use crate::Revision;

/// The layout that this program reads and writes. A change of the tables or of the records raises it.
pub(super) const CURRENT_FORMAT: u64 = 1;

/// The name of the file in its directory.
const FILE_NAME: &str = "store.redb";

/// Why the embedded store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("another umbra process is using {}; stop it, or choose another data directory", .path.display())]
    Locked {
        /// The file or directory asked for.
        path: PathBuf,
    },

    /// A newer program wrote the file.
    #[error("{} has the storage format {found}, and this program knows formats up to {supported}; use a newer umbra", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The newest format that this program knows.
        supported: u64,
    },

    /// The file is something else.
    #[error("{} is not a store of umbra; choose another data directory", .path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },

    /// The file or its directory cannot be read or written.
    #[error("cannot open the store {}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The file is damaged.
    #[error("the store {} is damaged: {message}; restore it from a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
}

/// Opens or creates the file that `path` means: itself if it ends in `.redb`, else `store.redb` in it.
pub(super) fn open_file(path: &Path, cache_bytes: usize) -> Result<(Database, Marks), OpenError> {
    let is_file = path.extension().is_some_and(|extension| extension == "redb");
    let file_path = if is_file { path.to_owned() } else { path.join(FILE_NAME) };
    let directory = file_path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let io = |source| OpenError::Io {
        path: file_path.clone(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io)?;
    // Secrets lie in the file: nobody but its owner reads it.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file_path);
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.set_repair_callback(|session| {
        tracing::info!(
            progress = session.progress(),
            "checking the store after an unclean stop"
        );
    });
    let database = builder
        .create_file(file.map_err(io)?)
        .map_err(|error| refine(error, path, &file_path))?;
    // A new file survives a crash only if its directory entry does.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io)?;
    let marks = initialise(&database, &file_path)?;
    Ok((database, marks))
}

/// Reads the marks of the database, after creating its tables if it is new.
pub(super) fn initialise(database: &Database, path: &Path) -> Result<Marks, OpenError> {
    let damaged = |failure: Failure| OpenError::Damaged {
        path: path.to_owned(),
        message: failure.to_string(),
    };
    match format(database).map_err(damaged)? {
        Format::New => create(database).map_err(damaged),
        Format::Foreign => Err(OpenError::NotAStore { path: path.to_owned() }),
        Format::Version(CURRENT_FORMAT) => read_marks(database).map_err(damaged),
        Format::Version(found) => Err(OpenError::NewerFormat {
            path: path.to_owned(),
            found,
            supported: CURRENT_FORMAT,
        }),
    }
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
    };
    let write = database.begin_write()?;
    {
        write.open_table(LOG)?;
        write.open_table(LATEST)?;
        write.open_table(HISTORY)?;
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT, CURRENT_FORMAT)?;
        meta.insert(REVISION, marks.revision)?;
        meta.insert(COMPACTED, marks.compacted)?;
        meta.insert(SWEPT, marks.swept)?;
    }
    write.commit()?;
    Ok(marks)
}

fn read_marks(database: &Database) -> Result<Marks, Failure> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let mark = |name: &str| -> Result<u64, Failure> {
        let value = meta
            .get(name)?
            .ok_or_else(|| Failure::Damaged(format!("{name:?} is missing")))?;
        Ok(value.value())
    };
    Ok(Marks {
        revision: mark(REVISION)?,
        compacted: mark(COMPACTED)?,
        swept: mark(SWEPT)?,
    })
}

fn refine(error: DatabaseError, asked: &Path, file: &Path) -> OpenError {
    let path = file.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path: asked.to_owned() },
        // The database's word for a file that does not begin with its magic number.
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == std::io::ErrorKind::InvalidData => {
            OpenError::NotAStore { path }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::Io { path, source },
        other => OpenError::Damaged {
            path,
            message: other.to_string(),
        },
    }
}
