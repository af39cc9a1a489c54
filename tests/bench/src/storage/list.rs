//! Writing a list of cached objects.
//!
//! As the product does it: the objects of a snapshot are collected with what their lists need (`ObjectList` of the registry: a
//! reference to the bytes of each), then written as the items of a list. What is timed goes from the snapshot to the last byte in
//! the sink. Two sinks:
//!
//! * *copied*, what the budget is held against: the items are copied into chunks of 256 KiB, each handed over as `Bytes` and
//!   dropped, as the body of a response does (`ChunkedList` of the API server). Every byte is read and written once.
//! * *shared*: the slices are handed over as they are, items and commas in turn, as a body that writes vectored would take them.
//!   No byte is touched, so bytes a second say little; what it shows is the cost of walking the snapshot.

use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_registry::copies::cache::{Copies, CopyCache, CopyExtra};
use umbra_storage::{Embedded, Snapshot, Store};

use super::{Context, Outcome, fill, open_store, runtime};
use crate::figure::{Bound, Figure, Unit};
use crate::pods;

/// The item about a list whose bytes are copied.
pub(super) const COPIED: &str = "storage.bench.list";

/// Objects of the list: the pods of a large view.
const OBJECTS: usize = 20_000;
/// Lists of one run: 2 GB.
const LISTS: usize = 20;
/// Bytes of a chunk, as in the API server.
const CHUNK: usize = 256 * 1024;

/// Copies of pods in a cache over an embedded store.
pub(super) struct Cached {
    pub(super) embedded: Embedded,
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<CopyCache>,
    pub(super) tracker: TaskTracker,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Cached {
    /// Stores `objects` pods and waits until all are cached.
    pub(super) async fn new(context: &Context, objects: usize) -> anyhow::Result<Self> {
        let folder = context.folder()?;
        let embedded = open_store(folder.path()).await?;
        let store: Arc<dyn Store> = Arc::new(embedded.clone());
        fill(&store, 0..objects, 1).await?;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let copies = Copies::new(Arc::clone(&store), tracker.clone(), cancel.clone());
        let cache = copies.cache(&pods::resource());
        cache
            .ready(tokio::time::Instant::now() + super::worker::PATIENCE)
            .await?;
        Ok(Self {
            embedded,
            store,
            cache,
            tracker,
            cancel,
            _folder: folder,
        })
    }

    /// Ends cache and store.
    pub(super) async fn close(self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.embedded.close().await;
    }
}

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let runtime = runtime()?;
    let cached = runtime.block_on(Cached::new(context, OBJECTS))?;
    let snapshot = cached.cache.snapshot();
    anyhow::ensure!(snapshot.len() == OBJECTS, "{} objects are cached", snapshot.len());
    let prefix = cached.cache.prefix().to_owned();
    let rates = |list: fn(&Snapshot<CopyExtra>, &str) -> usize| {
        let one = |_| {
            let start = Instant::now();
            let bytes: usize = (0..LISTS).map(|_| std::hint::black_box(list(&snapshot, &prefix))).sum();
            bytes as f64 / start.elapsed().as_secs_f64()
        };
        // The first run warms up.
        (0..=context.runs()).map(one).skip(1).collect::<Vec<_>>()
    };
    let size = copied(&snapshot, &prefix);
    let per_object = size / OBJECTS;
    let figures = vec![
        Figure::new(
            COPIED,
            format!("list of {OBJECTS} pods of {per_object} B into a sink, copied into chunks"),
            Unit::BytesPerSecond,
            rates(copied),
        )
        .bound(Bound::AtLeast(2e9)),
        Figure::new(
            "list.shared",
            "the same, slices handed over as they are",
            Unit::BytesPerSecond,
            rates(shared),
        ),
    ];
    runtime.block_on(cached.close());
    Ok(Outcome {
        figures,
        ..Outcome::default()
    })
}

/// The items of a list, as the registry hands them on.
fn items(snapshot: &Snapshot<CopyExtra>, prefix: &str) -> Vec<Bytes> {
    snapshot
        .range(prefix, None)
        .map(|object| object.bytes.clone())
        .collect()
}

/// Writes a list into chunks. Answers with its length.
fn copied(snapshot: &Snapshot<CopyExtra>, prefix: &str) -> usize {
    let mut items = items(snapshot, prefix).into_iter().peekable();
    let mut length = 0;
    while items.peek().is_some() {
        let mut chunk = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        while chunk.len() < CHUNK {
            let Some(item) = items.next() else { break };
            chunk.put_slice(&item);
            chunk.put_u8(b',');
        }
        length += std::hint::black_box(chunk.freeze()).len();
    }
    length
}

/// Hands the slices of a list over. Answers with its length.
fn shared(snapshot: &Snapshot<CopyExtra>, prefix: &str) -> usize {
    let comma = Bytes::from_static(b",");
    let mut length = 0;
    for item in items(snapshot, prefix) {
        length += std::hint::black_box(item).len();
        length += std::hint::black_box(comma.clone()).len();
    }
    length
}
