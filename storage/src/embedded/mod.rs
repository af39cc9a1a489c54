//! A store in one file of one process.
//!
//! [redb](https://docs.rs/redb) keeps the file: a copy-on-write B-tree with checksums, one writer beside any number of
//! readers with stable snapshots, and a commit that is durable when it returns. On top of it:
//!
//! * One thread writes, in transactions that take everything that waits: one `fsync` for all of it (`writer`).
//! * A log by revision, the newest version per key, and the superseded versions make every state since the last
//!   compaction readable (`tables`, `read`), and watches resumable from the log (`watcher`).
//! * Committed events go to the watchers by prefix, so many watches do not mean many readers of the log (`hub`).
//! * Compaction follows the clock (`compaction`) and removes rows in small steps between writes (`transaction`).
//!
//! The file grows with what is stored and with the history kept; pages that become free are used again, but the file does
//! not shrink while it is open. One that is mostly free is made smaller when it is opened; a backup is always compact.
//!
//! When a write fails below the store (disk full, read-only or gone), writes are refused with [`Error::Unavailable`] and
//! [`Store::ready`] says why, until the cause is gone; reads go on where the file can be read (`recovery`).
//!
//! Every row has a checksum. What is found to be damaged is an [`Error::Damaged`] that names the file, makes the store not
//! ready, and concerns no other key where the row alone is damaged. A row that is damaged together with its checksum, or a
//! page of the tree that hides rows, is found by comparing everything with the checksums of the pages, which happens
//! whenever a file of up to half a gigabyte is opened.

pub mod backup;
mod compaction;
mod failure;
mod format;
mod hub;
mod medium;
mod open;
mod overlay;
mod read;
mod reads;
mod recovery;
mod slot;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod watcher;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use medium::StoreLock;
pub use open::OpenError;

use crate::{Error, GetResponse, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchStream};
use hub::Hub;
use medium::{Medium, Memory};
use open::Opened;
use reads::Reads;
use slot::Slot;
use writer::{Command, Writer};

/// Requests that wait for the writer at most; whoever comes later waits for a place. More than one transaction takes
/// from ordinary writers, so that the disk never idles, and little enough to answer within a second.
const QUEUED_REQUESTS: usize = 4_096;

/// How an embedded store works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How long states stay readable and watches resumable. `None`: until [`Store::compact`] is called.
    /// Default: 10 minutes, twice what kube-apiserver leaves in etcd, so that paging through a large list and a
    /// watch that was away for minutes both find their revision.
    pub history: Option<Duration>,
    /// How often to compact; history is kept for at most this much longer. Default: 30 seconds.
    pub compaction_interval: Duration,
    /// Memory for pages of the file, in bytes; what is kept of a page takes a quarter more. Default: 16 MiB. Up to half are
    /// pages of the transaction that is being written: 8 MiB hold a batch of 1,000 values of 4.7 KB with its index, and more
    /// goes to the file before the commit instead of at it. The other half holds the inner pages of the tables, which every
    /// read and write goes through (a key takes about 100 B and a page of 4 KiB 40 of them: a million keys have 650, or
    /// 2.7 MB). Values are read to be kept by the watch cache: here they would be in memory twice, and the kernel keeps
    /// the file as well.
    pub page_cache_bytes: usize,
    /// Events that may wait for one watcher before it is taken off the live feed and caught up from the log.
    /// Default: 10,000, a second's worth at the rate of an initial copy.
    pub watch_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Some(Duration::from_secs(600)),
            compaction_interval: Duration::from_secs(30),
            page_cache_bytes: 16 << 20,
            watch_buffer: 10_000,
        }
    }
}

/// The embedded store. Cheap to clone: clones are the same store.
///
/// Call [`close`](Embedded::close) to wait until the file is released; when the last clone is dropped it is released
/// soon, in the background.
#[derive(Debug, Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::Sender<Command>,
    reads: Reads,
    hub: Arc<Hub>,
    watch_buffer: usize,
    tasks: TaskTracker,
    cancelled: CancellationToken,
    /// Ends the compaction task when the last clone goes.
    _guard: DropGuard,
    writer: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the store in the directory `path`, or the file `path` if its name ends in `.redb`; creates what is not
    /// there, readable for its owner only.
    ///
    /// Cancel safe; a cancelled call may leave an empty store behind.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking({
            let path = path.clone();
            move || open::open_file(&path, options.page_cache_bytes)
        });
        let opened = opened.await.unwrap_or_else(|error| {
            Err(OpenError::Damaged {
                path,
                message: format!("opening it failed: {error}"),
            })
        })?;
        let store = Self::start(opened, &options);
        if let Some(history) = options.history {
            let inner = &store.inner;
            let (hub, commands) = (Arc::clone(&inner.hub), inner.commands.clone());
            let cancelled = inner.cancelled.clone();
            inner.tasks.spawn(compaction::run(
                hub,
                commands,
                history,
                options.compaction_interval,
                cancelled,
            ));
        }
        Ok(store)
    }

    /// A store in memory, for tests. It keeps its whole history until told to compact.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::in_memory_with_buffer(Options::default().watch_buffer)
    }

    fn in_memory_with_buffer(watch_buffer: usize) -> Self {
        let options = Options {
            watch_buffer,
            ..Options::default()
        };
        Self::on_medium(Arc::new(Memory::default()), &options).expect("a database in memory can be created")
    }

    /// A store on a medium, without compaction by the clock.
    fn on_medium(medium: Arc<dyn Medium>, options: &Options) -> Result<Self, OpenError> {
        let (database, marks) = open::open_on(&*medium, options.page_cache_bytes, false)?;
        let opened = Opened {
            database,
            marks,
            medium,
        };
        Ok(Self::start(opened, options))
    }

    fn start(opened: Opened, options: &Options) -> Self {
        let Opened {
            database,
            marks,
            medium,
        } = opened;
        let slot = Arc::new(Slot::new(database));
        let hub = Arc::new(Hub::new(Revision(marks.revision), Revision(marks.compacted)));
        let (commands, receiver) = mpsc::channel(QUEUED_REQUESTS);
        let writer = Writer::new(
            Arc::clone(&slot),
            Arc::clone(&hub),
            Arc::clone(&medium),
            options.page_cache_bytes,
            receiver,
            marks,
        );
        let thread = std::thread::Builder::new()
            .name("umbra-store".to_owned())
            .spawn(move || writer.run())
            .expect("a thread can be started");
        let cancelled = CancellationToken::new();
        Self {
            inner: Arc::new(Inner {
                reads: Reads::new(slot, Arc::clone(&hub), medium, commands.downgrade()),
                commands,
                hub,
                watch_buffer: options.watch_buffer,
                tasks: TaskTracker::new(),
                _guard: cancelled.clone().drop_guard(),
                cancelled,
                writer: parking_lot::Mutex::new(Some(thread)),
            }),
        }
    }

    /// Finishes the writes that are queued, ends all watches and releases the file. Later calls of any clone fail with
    /// [`Error::Unavailable`]. Waits for one transaction and the reads under way, so there is no deadline to give.
    ///
    /// Cancel safe: a cancelled call may be repeated, and the store closes in any case.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.cancelled.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        // The queue is gone if the store has been closed before.
        let _ = inner.commands.send(Command::Close).await;
        inner.commands.closed().await;
        inner.reads.closed().await;
        let writer = inner.writer.lock().take();
        if let Some(writer) = writer
            && let Ok(Err(_)) = tokio::task::spawn_blocking(move || writer.join()).await
        {
            tracing::error!("the store's writer panicked");
        }
    }

    /// What to say when the writer does not answer.
    fn gone(&self) -> Error {
        self.inner
            .hub
            .failure()
            .unwrap_or_else(|| Error::unavailable("it has been closed"))
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.inner.reads.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.inner.reads.range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        if operations.is_empty() {
            return Vec::new();
        }
        let count = operations.len();
        let (reply, answer) = oneshot::channel();
        if self
            .inner
            .commands
            .send(Command::Write { operations, reply })
            .await
            .is_err()
        {
            return vec![Err(self.gone()); count];
        }
        match answer.await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => vec![Err(error); count],
            Err(_) => vec![Err(self.gone()); count],
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let inner = &self.inner;
        watcher::watch(
            inner.reads.clone(),
            Arc::clone(&inner.hub),
            prefix,
            after,
            inner.watch_buffer,
        )
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.inner.hub.published())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .commands
            .send(Command::Compact { revision, reply })
            .await
            .map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn ready(&self) -> Result<()> {
        if let Some(error) = self.inner.hub.failure() {
            return Err(error);
        }
        if self.inner.commands.is_closed() {
            return Err(Error::unavailable("it has been closed"));
        }
        self.inner.hub.damaged().map_or(Ok(()), Err)
    }
}
