//! What an event costs that a thousand watchers get.
//!
//! One thread runs everything that belongs to the cache and to its watchers: the task that follows the store, and a thousand
//! tasks that wait for events and take each in the form in which it goes over the wire, made once and shared. Its CPU time is
//! what the budget is held against: taking the event from the store's watch, decoding it, queueing it a thousand times, waking a
//! thousand tasks, and their taking it. The store's own thread, which writes the file, is not in it. Events come one by one: each
//! is put when all watchers have the one before, so that none of this work is shared between events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use umbra_storage::WatchFrom;

use super::list::Cached;
use super::{Context, Outcome};
use crate::figure::{Bound, Figure, Unit, percentile};
use crate::pods;

/// The item about CPU time.
pub(super) const CPU: &str = "storage.bench.fanout";

/// Watchers.
const WATCHERS: usize = 1_000;
/// Objects in the cache: of no consequence beyond the few microseconds that publishing a snapshot takes.
const OBJECTS: usize = 10_000;
/// Events of a run.
const EVENTS: usize = 200;
/// The queue of a watcher, as in the registry.
const BUFFER: usize = umbra_storage::cache::DEFAULT_WATCH_BUFFER;

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    // One thread, so that its CPU time is all there is.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (cpu, latency) = runtime.block_on(measure(context, true))?;
    let (elsewhere, _) = runtime.block_on(measure(context, false))?;
    let figures = vec![
        Figure::new(
            CPU,
            format!("CPU time of an event for {WATCHERS} watchers"),
            Unit::Seconds,
            cpu,
        )
        .bound(Bound::AtMost(1e-3)),
        Figure::new(
            "fanout.latency",
            "  from its acknowledgement to the last watcher, p99",
            Unit::Seconds,
            latency,
        ),
        Figure::new(
            "fanout.elsewhere",
            format!("CPU time of an event for one watcher, with {WATCHERS} of other namespaces"),
            Unit::Seconds,
            elsewhere,
        ),
    ];
    Ok(Outcome {
        figures,
        ..Outcome::default()
    })
}

/// CPU time of an event for each run, and the time until the last watcher has it. `concerned`: all watchers watch
/// everything; else all but one watch a namespace in which nothing happens.
async fn measure(context: &Context, concerned: bool) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let cached = Cached::new(context, OBJECTS).await?;
    let everything = cached.cache.prefix().to_owned();
    let elsewhere = format!("{everything}cluster-00/nowhere/");
    let counter = Arc::new(Counter::default());
    for number in 0..WATCHERS {
        let scope = if concerned || number == 0 {
            &everything
        } else {
            &elsewhere
        };
        let mut watch = cached.cache.watch(scope, WatchFrom::Now, BUFFER)?;
        let counter = Arc::clone(&counter);
        cached.tracker.spawn(async move {
            while let Some(Ok(event)) = watch.next().await {
                let bytes = event.rendering(0, || event.object.bytes.clone());
                std::hint::black_box(&bytes);
                counter.add();
            }
        });
    }
    let receivers = if concerned { WATCHERS } else { 1 };
    let (mut cpu, mut latency) = (Vec::new(), Vec::new());
    // The first run warms up.
    for run in 0..=context.runs() {
        let (mut thread, mut waits) = (0.0, Vec::with_capacity(EVENTS));
        for number in 0..EVENTS {
            let (key, value) = pods::stored(number as u64, 2 + run);
            let expected = counter.expect(receivers);
            let before = clock_gettime(ClockId::ThreadCPUTime);
            cached.store.put(&key, value, umbra_storage::Precondition::None).await?;
            let start = Instant::now();
            expected.await;
            waits.push(start.elapsed().as_secs_f64());
            let after = clock_gettime(ClockId::ThreadCPUTime);
            thread += (after.tv_sec - before.tv_sec) as f64 + (after.tv_nsec - before.tv_nsec) as f64 * 1e-9;
        }
        if run > 0 {
            waits.sort_by(f64::total_cmp);
            cpu.push(thread / EVENTS as f64);
            latency.push(percentile(&waits, 0.99));
        }
    }
    cached.close().await;
    Ok((cpu, latency))
}

/// Counts down what watchers have taken.
#[derive(Debug, Default)]
struct Counter {
    remaining: AtomicUsize,
    done: Notify,
}

impl Counter {
    /// Waits until [`add`](Counter::add) has been called `count` times from now on.
    fn expect(&self, count: usize) -> impl Future<Output = ()> + '_ {
        self.remaining.store(count, Ordering::Relaxed);
        self.done.notified()
    }

    fn add(&self) {
        if self.remaining.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
    }
}
