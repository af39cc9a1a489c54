//! Resident memory of a process that caches objects.
//!
//! The process is the product's in what counts: the same allocator, an embedded store with its page cache, one watch cache. All
//! of its resident memory is held against the bytes of the objects as they are served, so the store's page cache and the
//! program itself count against the cache.

use super::worker::{Memory, call};
use super::{Context, Outcome};
use crate::chart::{Chart, Line};
use crate::figure::{Bound, Figure, Unit};

/// The item about resident memory.
pub(super) const RESIDENT: &str = "storage.bench.memory";

/// Objects that the budget is about.
const OBJECTS: usize = 100_000;
/// Objects that change: more than the window of events holds.
const CHANGES: usize = 50_000;
/// Objects in the chart, beside those of the budget.
const CHART_OBJECTS: [usize; 3] = [25_000, 50_000, 200_000];

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let folder = context.folder()?;
    call::<f64>("fill", folder.path(), Some(OBJECTS))?;
    let mut runs = Vec::new();
    for _ in 0..context.runs() {
        let memory: Memory = call("memory", folder.path(), Some(CHANGES))?;
        anyhow::ensure!(memory.objects == OBJECTS, "{} objects are cached", memory.objects);
        runs.push(memory);
    }
    let ratio = |part: fn(&Memory) -> f64| runs.iter().map(|run| part(run) / run.serialized).collect::<Vec<_>>();
    let mut outcome = Outcome {
        figures: vec![
            Figure::new(
                RESIDENT,
                format!("resident memory of a process with {OBJECTS} cached pods, over their size"),
                Unit::Ratio,
                ratio(|run| run.ready),
            )
            .bound(Bound::AtMost(1.5)),
            Figure::new(
                "memory.settled",
                "  after a rest of 12 s",
                Unit::Ratio,
                ratio(|run| run.settled),
            ),
            Figure::new(
                "memory.changed",
                format!("  after {CHANGES} changes, with a full window of events"),
                Unit::Ratio,
                ratio(|run| run.changed),
            ),
            Figure::new(
                "memory.before",
                "  resident memory before anything was cached",
                Unit::Bytes,
                runs.iter().map(|run| run.before).collect(),
            ),
        ],
        ..Outcome::default()
    };
    if context.charts() {
        let mut memories = vec![runs[0].clone()];
        for objects in CHART_OBJECTS {
            let folder = context.folder()?;
            call::<f64>("fill", folder.path(), Some(objects))?;
            memories.push(call("memory", folder.path(), Some(0))?);
        }
        memories.sort_by_key(|memory| memory.objects);
        let line = |name, part: fn(&Memory) -> f64| {
            let point = |memory: &Memory| (memory.objects as f64, part(memory) / 1e6);
            (Chart::Memory, Line::new(name, memories.iter().map(point).collect()))
        };
        outcome.lines.push(line("resident", |memory| memory.ready));
        outcome
            .lines
            .push(line("1.5 × serialized", |memory| memory.serialized * 1.5));
        outcome.lines.push(line("serialized", |memory| memory.serialized));
    }
    Ok(outcome)
}
