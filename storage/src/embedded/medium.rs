//! Where the bytes of a store are. After a failure the database is opened again on the same medium.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, StorageBackend};

use super::OpenError;

/// What is written and removed again to see whether a disk that has failed works: more than one transaction of everyday
/// use needs, so that the store does not come back for one write alone. Should a larger transaction fail again, it fails
/// as the first did.
const PROBE_BYTES: usize = 8 << 20;

/// How long a lock that is taken is tried again. A process that is being started holds what its parent had open, locks
/// included, from `fork` to `exec`, so a lock that was given up may be held for some milliseconds more.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// How often.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Something that carries a database.
pub(super) trait Medium: fmt::Debug + Send + Sync + 'static {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// Opens what is there; after a failure as the disk has it, and not as the operating system remembers it.
    fn open(&self, after_failure: bool) -> io::Result<Backend>;

    /// Opens what is there for reading alone; it works where nothing can be written.
    fn open_read_only(&self) -> io::Result<Backend>;

    /// Whether more could be written now.
    fn probe(&self) -> io::Result<()>;

    /// Lets others have it: it is not opened again.
    fn release(&self) {}
}

/// The right to a store: one process has it at a time, also while it opens, replaces or restores the file.
///
/// It is a lock of a file beside the store, because the store's own file is replaced when it is restored, and not locked
/// for the moment in which it is opened again.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock of the store that is the file `store`. It is free again when the value is dropped, or the process
    /// ends.
    ///
    /// # Errors
    /// [`OpenError::Locked`] and [`OpenError::Io`].
    pub fn acquire(store: &Path) -> Result<Self, OpenError> {
        let mut path = store.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let io = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: store.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
    }
}

/// A file.
#[derive(Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    lock: Mutex<Option<StoreLock>>,
}

impl DataFile {
    /// The file, which belongs to whoever holds the lock.
    pub(super) fn new(path: PathBuf, lock: StoreLock) -> Self {
        Self {
            path,
            lock: Mutex::new(Some(lock)),
        }
    }
}

impl Medium for DataFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, after_failure: bool) -> io::Result<Backend> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        if after_failure {
            // What is read next may be acknowledged: it has to be on the disk.
            file.sync_all()?;
            // After a failed sync Linux takes pages for written that are not, and would show them until it forgets them:
            // what is read now has to be what a restart of the machine would find. Only a hint, so there is nothing to
            // do about its failure.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(Backend(Box::new(FileBackend::new(file).map_err(io::Error::other)?)))
    }

    fn open_read_only(&self) -> io::Result<Backend> {
        let file = FileBackend::new(File::open(&self.path)?).map_err(io::Error::other)?;
        Ok(Backend(Box::new(file)))
    }

    fn probe(&self) -> io::Result<()> {
        let path = self.path.with_extension("redb.probe");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(&vec![0xA5; PROBE_BYTES])?;
                file.sync_all()
            });
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
            _ => written,
        }
    }

    fn release(&self) {
        self.lock.lock().take();
    }
}

/// Memory that outlives the database in it.
#[derive(Debug, Default)]
pub(super) struct Memory(Arc<InMemoryBackend>);

impl Medium for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn open(&self, _after_failure: bool) -> io::Result<Backend> {
        Ok(Backend(Box::new(SharedMemory(Arc::clone(&self.0)))))
    }

    fn open_read_only(&self) -> io::Result<Backend> {
        self.open(false)
    }

    fn probe(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct SharedMemory(Arc<InMemoryBackend>);

impl StorageBackend for SharedMemory {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Any backend of the database.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    // The locks of the file go on excluding other programs that open it as a database.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
