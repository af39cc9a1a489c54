//! What has to run in a process of its own: to be killed, to begin with cold caches, to have its memory looked at.
//!
//! A worker prints one line of JSON when it is done, or the line `writing` when it may be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_registry::copies::cache::Copies;
use umbra_storage::Store;

use super::{fill, open_store, puts, runtime};
use crate::machine::field;
use crate::output::say;
use crate::pods;

/// How long something may take that takes seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// How long a process rests before its memory is looked at again: the allocator gives memory back ten seconds after it was freed.
const REST: Duration = Duration::from_secs(12);

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Make a store of pods.
    Fill { folder: PathBuf, objects: usize },
    /// Open a store, fill a cache from it, close it.
    Open { folder: PathBuf },
    /// Put new states of pods until killed.
    Write { folder: PathBuf, objects: usize },
    /// Fill a cache and look at the memory of this process, then change a part of the pods and look again.
    Memory { folder: PathBuf, changes: usize },
}

/// What `open` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Opened {
    /// Seconds until the store was open and had answered a read.
    pub(super) open: f64,
    /// Seconds from then until all its pods were cached.
    pub(super) fill: f64,
    /// How many were.
    pub(super) objects: usize,
}

/// What `memory` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Pods cached.
    pub(super) objects: usize,
    /// Bytes of all pods as they are served.
    pub(super) serialized: f64,
    /// Resident bytes before the cache was made.
    pub(super) before: f64,
    /// Resident bytes when it was ready.
    pub(super) ready: f64,
    /// Resident bytes after a while of rest.
    pub(super) settled: f64,
    /// Resident bytes after the changes.
    pub(super) changed: f64,
}

/// Does it.
///
/// # Errors
/// Where it cannot be done.
pub(crate) fn run(arguments: &WorkerArguments) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match &arguments.work {
            Work::Fill { folder, objects } => answer(&make(folder, *objects).await?),
            Work::Open { folder } => answer(&open(folder).await?),
            Work::Write { folder, objects } => write(folder, *objects).await,
            Work::Memory { folder, changes } => answer(&memory(folder, *changes).await?),
        }
    })
}

fn answer(answer: &impl Serialize) -> anyhow::Result<()> {
    say(format_args!("{}", serde_json::to_string(answer)?));
    Ok(())
}

/// Makes a store of pods; answers with the seconds that the store took.
async fn make(folder: &Path, objects: usize) -> anyhow::Result<f64> {
    let embedded = open_store(folder).await?;
    let store: Arc<dyn Store> = Arc::new(embedded.clone());
    let seconds = fill(&store, 0..objects, 1).await?;
    embedded.close().await;
    Ok(seconds)
}

async fn open(folder: &Path) -> anyhow::Result<Opened> {
    let start = Instant::now();
    let embedded = open_store(folder).await?;
    embedded.get("/umbra/").await?;
    let open = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let copies = Copies::new(Arc::new(embedded.clone()), tracker.clone(), cancel.clone());
    let cache = copies.cache(&pods::resource());
    cache.ready(tokio::time::Instant::now() + PATIENCE).await?;
    let fill = start.elapsed().as_secs_f64();
    let objects = cache.snapshot().len();
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    embedded.close().await;
    Ok(Opened { open, fill, objects })
}

async fn write(folder: &Path, objects: usize) -> anyhow::Result<()> {
    let store: Arc<dyn Store> = Arc::new(open_store(folder).await?);
    let count = objects.min(4 * puts::BATCH);
    fill(&store, 0..count, 2).await?;
    say(format_args!("writing"));
    for version in 3.. {
        fill(&store, 0..count, version).await?;
    }
    Ok(())
}

async fn memory(folder: &Path, changes: usize) -> anyhow::Result<Memory> {
    let embedded = open_store(folder).await?;
    let store: Arc<dyn Store> = Arc::new(embedded.clone());
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let before = resident()?;
    let copies = Copies::new(Arc::clone(&store), tracker.clone(), cancel.clone());
    let cache = copies.cache(&pods::resource());
    cache.ready(tokio::time::Instant::now() + PATIENCE).await?;
    let ready = resident()?;
    tokio::time::sleep(REST).await;
    let settled = resident()?;
    let snapshot = cache.snapshot();
    let serialized: usize = snapshot.iter().map(|object| object.bytes.len()).sum();
    let objects = snapshot.len();
    drop(snapshot);
    fill(&store, 0..changes, 2).await?;
    let current = store.current_revision().await?;
    cache.wait_for(current, tokio::time::Instant::now() + PATIENCE).await?;
    let changed = resident()?;
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    embedded.close().await;
    Ok(Memory {
        objects,
        serialized: serialized as f64,
        before,
        ready,
        settled,
        changed,
    })
}

/// The resident memory of this process, in bytes.
fn resident() -> anyhow::Result<f64> {
    let text = field("/proc/self/status", "VmRSS").context("the kernel does not say how much memory is resident")?;
    let kilobytes: f64 = text.trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0)
}

/// Runs a worker to its end; answers with what it answered.
pub(super) fn call<A: DeserializeOwned>(work: &str, folder: &Path, number: Option<usize>) -> anyhow::Result<A> {
    let output = command(work, folder, number)?
        .stderr(Stdio::inherit())
        .output()
        .context("starting a worker")?;
    anyhow::ensure!(output.status.success(), "the worker {work:?} failed: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("the answer of the worker {work:?}"))
}

/// Starts a worker whose output is read.
pub(super) fn start(work: &str, folder: &Path, number: Option<usize>) -> anyhow::Result<Child> {
    command(work, folder, number)?
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a worker")
}

fn command(work: &str, folder: &Path, number: Option<usize>) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", work]).arg(folder);
    command.args(number.map(|number| number.to_string()));
    Ok(command)
}
