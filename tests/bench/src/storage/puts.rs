//! Durable puts into the embedded store.
//!
//! A put counts when it has been acknowledged, which is after the `fsync` of its transaction. Values have 4 KB of random bytes, so
//! that no layer below can make them smaller. Every run begins with an empty store and creates new keys: what an initial copy does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::task::TaskTracker;
use umbra_storage::{Operation, Precondition, Store};

use super::{Context, Outcome, open_store, runtime};
use crate::chart::{Chart, Line};
use crate::figure::{Bound, Figure, Unit, percentile};

/// The item about batches.
pub(super) const BATCHED: &str = "storage.bench.puts.batched";
/// The item about single puts.
pub(super) const SINGLE: &str = "storage.bench.puts.single";

/// Bytes of a value.
const VALUE: usize = 4096;
/// Operations of a batch: what the copy controller writes together (`BATCH` in `umbra_controllers::copy`).
pub(super) const BATCH: usize = 256;
/// Puts of a run of batches: 400 MB, more than the page cache of the store holds and than a disk hides in its own.
const BATCHED_PUTS: usize = 100_000;
/// Writers that write batches at the same time: resources that are copied for the first time.
const BATCH_WRITERS: usize = 8;
/// Writers of single puts that the budget is about.
pub(super) const SINGLE_WRITERS: usize = 64;
/// How long a run of single puts takes, after a fifth of that to warm up.
pub(super) const SINGLE_RUN: Duration = Duration::from_secs(4);
/// Concurrent writers in the chart.
pub(super) const CHART_WRITERS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// How long each point of the chart is measured.
pub(super) const CHART_RUN: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let runtime = runtime()?;
    let mut outcome = Outcome::default();
    let mut batched = [(BATCH_WRITERS, Vec::new()), (1, Vec::new())];
    for (writers, samples) in &mut batched {
        for _ in 0..context.runs() {
            samples.push(on_new_store(context, &runtime, |store| batches(store, *writers))?);
        }
    }
    let [(_, many), (_, one)] = batched;
    outcome.figures.push(
        Figure::new(
            BATCHED,
            format!("durable puts of 4 KB, {BATCH_WRITERS} writers, {BATCH} a batch"),
            Unit::PerSecond("puts"),
            many,
        )
        .bound(Bound::AtLeast(10_000.0)),
    );
    outcome.figures.push(Figure::new(
        "puts.batched.one",
        format!("durable puts of 4 KB, one writer, {BATCH} a batch"),
        Unit::PerSecond("puts"),
        one,
    ));
    let mut runs = Vec::new();
    for _ in 0..context.runs() {
        runs.push(on_new_store(context, &runtime, |store| {
            singles(store, SINGLE_WRITERS, SINGLE_RUN)
        })?);
    }
    outcome
        .figures
        .extend(single_figures(SINGLE, "durable puts", SINGLE_WRITERS, &runs));
    outcome.figures[2].bound = Some(Bound::AtLeast(1_500.0));
    let mut runs = Vec::new();
    for _ in 0..context.runs() {
        runs.push(on_new_store(context, &runtime, |store| singles(store, 1, SINGLE_RUN))?);
    }
    outcome
        .figures
        .extend(single_figures("puts.single.one", "durable puts", 1, &runs));
    if context.charts() {
        let mut points = Vec::new();
        for writers in CHART_WRITERS {
            let run = on_new_store(context, &runtime, |store| singles(store, writers, CHART_RUN))?;
            points.push((writers as f64, run.rate));
        }
        outcome.lines.push((Chart::Puts, Line::new("embedded", points)));
    }
    Ok(outcome)
}

/// Runs something on a store of its own.
fn on_new_store<F: Future<Output = anyhow::Result<T>>, T>(
    context: &Context,
    runtime: &tokio::runtime::Runtime,
    body: impl FnOnce(Arc<dyn Store>) -> F,
) -> anyhow::Result<T> {
    let folder = context.folder()?;
    runtime.block_on(async {
        let store = open_store(folder.path()).await?;
        let result = body(Arc::new(store.clone())).await;
        store.close().await;
        result
    })
}

/// Values that differ: windows of one piece of random bytes.
#[derive(Debug, Clone)]
struct Values(Bytes);

impl Values {
    fn new() -> Self {
        let mut bytes = vec![0; 1 << 20];
        StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self(bytes.into())
    }

    fn get(&self, index: usize) -> Bytes {
        let start = index * 61 % (self.0.len() - VALUE);
        self.0.slice(start..start + VALUE)
    }
}

fn key(writer: usize, index: usize) -> String {
    format!("/umbra/bench/{writer:03}/{index:08}")
}

fn put(values: &Values, writer: usize, index: usize) -> Operation {
    Operation::put(key(writer, index), values.get(writer + index), Precondition::Absent)
}

/// Batched puts a second.
pub(super) async fn batches(store: Arc<dyn Store>, writers: usize) -> anyhow::Result<f64> {
    let values = Values::new();
    let made = |writer, count| (0..count).map(|index| put(&values, writer, index)).collect::<Vec<_>>();
    put_batches(&store, made(999, BATCHED_PUTS / 20), writers).await?;
    let operations: Vec<_> = (0..writers)
        .flat_map(|writer| made(writer, BATCHED_PUTS / writers))
        .collect();
    let count = operations.len();
    let start = Instant::now();
    put_batches(&store, operations, writers).await?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Makes all operations, in batches, each writer one after the other.
pub(super) async fn put_batches(
    store: &Arc<dyn Store>,
    mut operations: Vec<Operation>,
    writers: usize,
) -> anyhow::Result<()> {
    let tracker = TaskTracker::new();
    let share = operations.len().div_ceil(writers);
    let mut tasks = Vec::with_capacity(writers);
    while !operations.is_empty() {
        let mut own = operations.split_off(operations.len().saturating_sub(share)).into_iter();
        let store = Arc::clone(store);
        tasks.push(tracker.spawn(async move {
            loop {
                let batch: Vec<_> = own.by_ref().take(BATCH).collect();
                if batch.is_empty() {
                    return Ok(());
                }
                for outcome in store.batch(batch).await {
                    outcome?;
                }
            }
        }));
    }
    for task in tasks {
        let done: umbra_storage::Result<()> = task.await.context("a writer ended")?;
        done?;
    }
    Ok(())
}

/// What single puts gave.
#[derive(Debug)]
pub(super) struct Singles {
    /// Puts a second.
    pub(super) rate: f64,
    /// How long each put took, in seconds, sorted.
    latencies: Vec<f64>,
}

/// Puts one by one from each of `writers`, for `duration`.
pub(super) async fn singles(store: Arc<dyn Store>, writers: usize, duration: Duration) -> anyhow::Result<Singles> {
    let put = move |key: String, value| {
        let store = Arc::clone(&store);
        async move {
            store.put(&key, value, Precondition::Absent).await?;
            anyhow::Ok(())
        }
    };
    singles_with(put, writers, duration).await
}

/// As [`singles`], into whatever `put` puts into.
pub(super) async fn singles_with<P, F>(put: P, writers: usize, duration: Duration) -> anyhow::Result<Singles>
where
    P: Fn(String, Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let values = Values::new();
    let tracker = TaskTracker::new();
    let begin = Instant::now() + duration / 5;
    let end = begin + duration;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (put, values) = (put.clone(), values.clone());
            tracker.spawn(async move {
                let mut latencies = Vec::new();
                for index in 0.. {
                    let (key, value) = (key(writer, index), values.get(writer + index));
                    let start = Instant::now();
                    put(key, value).await?;
                    let now = Instant::now();
                    if now >= end {
                        break;
                    }
                    if now >= begin {
                        latencies.push((now - start).as_secs_f64());
                    }
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.context("a writer ended")??);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Singles {
        rate: latencies.len() as f64 / duration.as_secs_f64(),
        latencies,
    })
}

/// The rate, and how long a put takes.
pub(super) fn single_figures(name: &'static str, what: &str, writers: usize, runs: &[Singles]) -> Vec<Figure> {
    let who = if writers == 1 {
        "one writer".to_owned()
    } else {
        format!("{writers} writers")
    };
    let rates = runs.iter().map(|run| run.rate).collect();
    let mut figures = vec![Figure::new(
        name,
        format!("{what} of 4 KB, {who}, one at a time each"),
        Unit::PerSecond("puts"),
        rates,
    )];
    for (quantile, label) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
        let samples = runs.iter().map(|run| percentile(&run.latencies, quantile)).collect();
        figures.push(Figure::new(
            "puts.single.latency",
            format!("  how long such a put takes, {label}"),
            Unit::Seconds,
            samples,
        ));
    }
    figures
}
