//! Opening the file: who may, and whether it is ours.
//!
//! A new store is made under another name and renamed when it is complete, so that a file of the store's name is a store: an
//! empty one is not taken for new, because it is what is left of a store that somebody has truncated.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, WriteTransaction};

use super::failure::{Failure, explain_damage, explain_io, is_damage};
use super::format::initialise;
use super::medium::{Backend, DataFile, Medium, StoreLock};
use super::overlay::Overlay;
use super::tables::Marks;

/// The name of the file in its directory.
const FILE_NAME: &str = "store.redb";

/// Files up to this size are compared with all their checksums whenever they are opened: half a second at 1 GB/s. In larger
/// ones damage is found when what is damaged is read.
const CHECKED_BYTES: u64 = 512 << 20;

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
    #[error("{} has the storage format {found}, and this umbra knows formats up to {supported}; use the newer umbra that wrote it, or restore a backup made by an older one", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The newest format that this program knows.
        supported: u64,
    },

    /// The file is something else.
    #[error("{} is not a store of umbra; choose another data directory, or restore a backup if it was one", .path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },

    /// The file or its directory cannot be read or written.
    #[error("{}", explain_io(.source, "opening the store", .path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The file is damaged.
    #[error("the store {}", explain_damage(.message, .path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
}

/// Free space that is worth the work of giving it back.
const SUPERFLUOUS_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };
/// What is moved at most when a file is opened: about four seconds at the 130 MB/s that writing was measured at, within the
/// ten that a start may take.
const MOVED_BYTES: u64 = 512 << 20;

/// A store that has been opened.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) marks: Marks,
    pub(super) medium: Arc<dyn Medium>,
}

/// Which file `path` means: itself if it ends in `.redb`, else `store.redb` in it.
pub(super) fn file_of(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "redb") {
        path.to_owned()
    } else {
        path.join(FILE_NAME)
    }
}

/// Opens or creates the file that `path` means.
pub(super) fn open_file(path: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
    let file = file_of(path);
    let directory = directory_of(&file);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| OpenError::Io {
            path: directory.to_owned(),
            source,
        })?;
    let lock = StoreLock::acquire(&file).map_err(|error| match error {
        OpenError::Locked { .. } => OpenError::Locked { path: path.to_owned() },
        error => error,
    })?;
    if !file.exists() {
        create_file(&file, |_| Ok(()))?;
    }
    let medium = DataFile::new(file, lock);
    let (mut database, mut marks) = open_on(&medium, cache_bytes, false)?;
    let length = std::fs::metadata(medium.path()).map_or(u64::MAX, |metadata| metadata.len());
    if length <= CHECKED_BYTES {
        check(&mut database, medium.path())?;
        marks = initialise(&database, medium.path())?;
    }
    if is_worth_compacting(length, marks.live) {
        compact(&mut database, medium.path(), length);
    }
    Ok(Opened {
        database,
        marks,
        medium: Arc::new(medium),
    })
}

/// Whether a file should be made smaller when it is opened: where more than two thirds of it and [`SUPERFLUOUS_BYTES`] are
/// free, and what is in use is moved in a moment ([`MOVED_BYTES`]). Half of a file is free in everyday use, because it
/// grows by doubling. A larger one is made compact by a backup that is restored.
fn is_worth_compacting(length: u64, live: u64) -> bool {
    live <= MOVED_BYTES && length / 3 > live && length.saturating_sub(live) >= SUPERFLUOUS_BYTES
}

/// Makes the file smaller. It is a matter of room alone, so that a failure keeps nobody from using the store.
fn compact(database: &mut Database, path: &Path, before: u64) {
    let compacted = Failure::guard(|| Ok::<_, Failure>(database.compact()));
    let after = std::fs::metadata(path).map_or(before, |metadata| metadata.len());
    match compacted {
        Ok(Ok(_)) => tracing::info!(path = %path.display(), before, after, "free space of the store is given back"),
        Ok(Err(error)) => tracing::warn!(%error, "free space of the store cannot be given back"),
        Err(failure) => tracing::warn!(%failure, "free space of the store cannot be given back"),
    }
}

/// Makes a new store at `path`, with what `fill` puts into it: complete and durable, or not at all. The caller holds the
/// lock.
pub(super) fn create_file(path: &Path, fill: impl FnOnce(&Database) -> Result<(), OpenError>) -> Result<(), OpenError> {
    let beside = path.with_extension("redb.new");
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let create = || {
        // Secrets lie in the file: nobody but its owner reads it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(io)?;
        let synced = file.try_clone().map_err(io)?;
        let database = Failure::guard(|| Ok::<_, Failure>(Builder::new().create_file(file)?));
        let database = database.map_err(|failure| explain(failure, path))?;
        initialise(&database, path)?;
        fill(&database)?;
        drop(database);
        synced.sync_all().map_err(io)?;
        std::fs::rename(&beside, path).map_err(io)?;
        // A new file survives a crash only if its directory entry does.
        sync_directory(path).map_err(io)
    };
    let created = create();
    if created.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    created
}

/// Makes renames in the directory of `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Opens the database of a medium.
pub(super) fn open_on(
    medium: &dyn Medium,
    cache_bytes: usize,
    after_failure: bool,
) -> Result<(Database, Marks), OpenError> {
    let path = medium.path();
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let backend = medium.open(after_failure).map_err(io)?;
    if path.is_absolute() && redb::StorageBackend::len(&backend).map_err(io)? == 0 {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            message: "it is empty".to_owned(),
        });
    }
    let database = open_backend(backend, cache_bytes).map_err(|failure| explain(failure, path))?;
    let marks = initialise(&database, path)?;
    Ok((database, marks))
}

/// Opens the database of a medium that takes no writes; what is written to it is forgotten.
pub(super) fn open_read_only(medium: &dyn Medium, cache_bytes: usize) -> Result<(Database, Marks), OpenError> {
    let path = medium.path();
    let overlay = medium.open_read_only().and_then(Overlay::new);
    let overlay = overlay.map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    let database = open_backend(Backend(Box::new(overlay)), cache_bytes).map_err(|failure| explain(failure, path))?;
    let marks = initialise(&database, path)?;
    Ok((database, marks))
}

fn open_backend(backend: Backend, cache_bytes: usize) -> Result<Database, Failure> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.set_repair_callback(|session| {
        tracing::info!(
            progress = session.progress(),
            "checking the store after an unclean stop"
        );
    });
    Failure::guard(|| Ok(builder.create_with_backend(backend)?))
}

/// Compares everything with its checksums.
fn check(database: &mut Database, path: &Path) -> Result<(), OpenError> {
    match Failure::guard(|| Ok::<_, Failure>(database.check_integrity()?)) {
        Ok(true) => Ok(()),
        Ok(false) => {
            tracing::warn!(path = %path.display(), "the list of free pages of the store was not right and has been made anew");
            Ok(())
        }
        Err(failure) => Err(explain(failure, path)),
    }
}

/// Begins a transaction whose commit leaves a file that opens at once, whatever happens then.
///
/// The database then writes its list of free pages with every commit, and commits in two steps with a sync each. Without
/// it, opening a file of 4 GB (500,000 values of 4.7 KB) after a kill was measured at 3.0 to 3.7 s with the file in the page
/// cache, and 8.7 s from disk for 6 GB, because the whole file is read; with it at 1 to 3 ms. A commit was measured at
/// 0.65 ms instead of 0.23 ms with one write, 3.1 instead of 2.4 ms with 64, and 20.3 instead of 18.3 ms with 1,000; group
/// commit pays that once for all that wait. It is also what makes opening in place after a failure cheap.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

/// What a failure to open means.
pub(super) fn explain(failure: Failure, path: &Path) -> OpenError {
    let path = path.to_owned();
    match failure {
        Failure::Database(redb::Error::DatabaseAlreadyOpen) => OpenError::Locked { path },
        // The database's word for a file that does not begin with its magic number.
        Failure::Database(redb::Error::Io(source)) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::NotAStore { path }
        }
        Failure::Database(redb::Error::Io(source)) if !is_damage(&source) => OpenError::Io { path, source },
        other => OpenError::Damaged {
            path,
            message: other.to_string(),
        },
    }
}
