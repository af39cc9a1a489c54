//! What the store and the watch cache have to keep.
//!
//! | benchmark | what is measured |
//! |---|---|
//! | `puts` | durable puts into the embedded store: in batches, and one by one from concurrent writers |
//! | `list` | writing a list of cached objects |
//! | `memory` | resident memory of a process that caches objects |
//! | `fanout` | CPU time that an event costs which a thousand watchers get |
//! | `open` | opening a large store, after it was closed and after its process was killed |
//! | `etcd` | the same puts into etcd on this machine, for comparison |
//!
//! Objects are copies of pods ([`crate::pods`]), stored and indexed as the product does it (`umbra_registry::copies`).

mod etcd;
mod fanout;
mod list;
mod memory;
mod open;
mod puts;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use umbra_storage::{Embedded, Operation, Options, Precondition, Store};

use crate::chart::Chart;
use crate::figure::Figure;
use crate::machine::Machine;
use crate::output::say;
use crate::pods;
use crate::report::{self, Items};

/// What to measure, and how.
#[derive(Debug, Args)]
pub(crate) struct StorageArguments {
    /// Objects in the store that is opened. The budget is about 500,000, which take 3 GB of disk.
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    objects: usize,
    /// Where stores are made, each in a folder of its own that is removed again. The budgets are about its disk.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Only these benchmarks.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Name>,
    /// How often each is run; what counts is the median.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Write machine and figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also measure what the charts of docs/ show, and write them into this folder.
    #[arg(long, value_name = "DIR")]
    charts: Option<PathBuf>,
    /// Compare with this etcd, which should be on this machine and this disk. Without it one is started.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// The program of the etcd to start.
    #[arg(long, default_value = "etcd", env = "UMBRA_BENCH_ETCD", value_name = "PROGRAM")]
    etcd: PathBuf,
}

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Puts,
    List,
    Memory,
    Fanout,
    Open,
    Etcd,
}

impl Name {
    /// The items that it records.
    fn items(self) -> &'static [&'static str] {
        match self {
            Self::Puts => &[puts::BATCHED, puts::SINGLE],
            Self::List => &[list::COPIED],
            Self::Memory => &[memory::RESIDENT],
            Self::Fanout => &[fanout::CPU],
            Self::Open => &[open::CLOSED, open::KILLED],
            Self::Etcd => &[],
        }
    }

    fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        match self {
            Self::Puts => puts::run(context),
            Self::List => list::run(context),
            Self::Memory => memory::run(context),
            Self::Fanout => fanout::run(context),
            Self::Open => open::run(context),
            Self::Etcd => etcd::run(context),
        }
    }
}

/// What all benchmarks are given.
#[derive(Debug)]
struct Context {
    arguments: StorageArguments,
}

impl Context {
    fn runs(&self) -> u64 {
        self.arguments.runs
    }

    /// Whether charts are wanted.
    fn charts(&self) -> bool {
        self.arguments.charts.is_some()
    }

    /// An empty folder on the disk to measure, removed when dropped.
    fn folder(&self) -> anyhow::Result<TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("umbra-bench-")
            .tempdir_in(&self.arguments.dir);
        folder.with_context(|| format!("making a folder in {}", self.arguments.dir.display()))
    }
}

/// What a benchmark gave.
#[derive(Debug, Default)]
struct Outcome {
    figures: Vec<Figure>,
    /// A line for each chart: which chart, and the line.
    lines: Vec<(Chart, crate::chart::Line)>,
}

/// Runs what was asked for.
///
/// # Errors
/// Where a benchmark could not be carried out; the others are carried out all the same.
pub(crate) fn run(arguments: StorageArguments) -> anyhow::Result<()> {
    let context = Context { arguments };
    let machine = Machine::look(&context.arguments.dir)?;
    machine.print();
    let (mut figures, mut lines, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let only = &context.arguments.only;
    for name in Name::value_variants()
        .iter()
        .filter(|name| only.is_empty() || only.contains(name))
    {
        let mut items = Items::open(name.items());
        say(format_args!("\n{name:?}"));
        match name.run(&context) {
            Ok(outcome) => {
                for figure in &outcome.figures {
                    items.take(figure);
                }
                figures.extend(outcome.figures);
                lines.extend(outcome.lines);
            }
            Err(error) => {
                say(format_args!("failed: {error:#}"));
                failed.push(format!("{name:?}"));
            }
        }
    }
    if let Some(path) = &context.arguments.json {
        report::write(path, &machine, &figures)?;
    }
    if let Some(folder) = &context.arguments.charts {
        for chart in [Chart::Puts, Chart::Memory] {
            let lines: Vec<_> = lines
                .iter()
                .filter(|(of, _)| *of == chart)
                .map(|(_, line)| line)
                .collect();
            chart.write(folder, &lines)?;
        }
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// A runtime as the product has it: one worker per core.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A store in a folder, with the product's options.
async fn open_store(folder: &Path) -> anyhow::Result<Embedded> {
    Embedded::open(folder, Options::default())
        .await
        .context("opening the store")
}

/// Puts copies of the pods of a range, in batches as the copy controller makes them. Answers with the seconds that the store
/// took; making the pods is not counted.
async fn fill(store: &Arc<dyn Store>, pods: std::ops::Range<usize>, version: u64) -> anyhow::Result<f64> {
    /// Enough to make at once that the store is never short of work while others are made.
    const AT_ONCE: usize = 10_000;
    let mut seconds = 0.0;
    for first in pods.clone().step_by(AT_ONCE) {
        let made: Vec<Operation> = (first..(first + AT_ONCE).min(pods.end))
            .map(|index| {
                let (key, value) = pods::stored(index as u64, version);
                Operation::put(key, value, Precondition::None)
            })
            .collect();
        let start = std::time::Instant::now();
        puts::put_batches(store, made, 1).await?;
        seconds += start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
