//! Opening a large store: after it was closed, and after its process was killed while it wrote.
//!
//! Each opening is that of a new process. The file's pages are dropped from the page cache of the kernel before, as after a start
//! of the machine; where that is not possible, as with pages that are still to be written, the disk is spared and the figure
//! better than it would be. After that a watch cache is filled, which is what a hub does before it is ready.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{Advice, fadvise};

use super::worker::{Opened, call, start};
use super::{Context, Outcome};
use crate::figure::{Bound, Figure, Unit};

/// The item about a store that was closed.
pub(super) const CLOSED: &str = "storage.bench.open.closed";
/// The item about a store whose process was killed.
pub(super) const KILLED: &str = "storage.bench.open.killed";

/// How long a process writes before it is killed.
const WRITING: Duration = Duration::from_secs(1);

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let objects = context.arguments.objects;
    let folder = context.folder()?;
    let filling: f64 = call("fill", folder.path(), Some(objects))?;
    let size = size(folder.path())?;
    let (mut closed, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..context.runs() {
        closed.push(opened(folder.path(), objects)?);
    }
    for _ in 0..context.runs() {
        write_and_kill(folder.path(), objects)?;
        killed.push(opened(folder.path(), objects)?);
    }
    let times = |runs: &[Opened], part: fn(&Opened) -> f64| runs.iter().map(part).collect::<Vec<_>>();
    let figures = vec![
        Figure::new(
            CLOSED,
            format!("opening a store of {objects} pods that was closed"),
            Unit::Seconds,
            times(&closed, |run| run.open),
        )
        .bound(Bound::AtMost(10.0)),
        Figure::new(
            KILLED,
            format!("opening a store of {objects} pods whose process was killed"),
            Unit::Seconds,
            times(&killed, |run| run.open),
        )
        .bound(Bound::AtMost(10.0)),
        Figure::new(
            "open.fill",
            "  and then filling a watch cache with all of them",
            Unit::Seconds,
            times(&closed, |run| run.fill),
        ),
        Figure::new(
            "open.ready",
            "  both, after the process was killed",
            Unit::Seconds,
            times(&killed, |run| run.open + run.fill),
        ),
        Figure::new(
            "open.copy",
            "putting these pods before, one writer, in batches",
            Unit::PerSecond("puts"),
            vec![objects as f64 / filling],
        ),
        Figure::new("open.size", "the file after that", Unit::Bytes, vec![size]),
    ];
    Ok(Outcome {
        figures,
        ..Outcome::default()
    })
}

/// Opens the store in a new process.
fn opened(folder: &Path, objects: usize) -> anyhow::Result<Opened> {
    for entry in std::fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    let opened: Opened = call("open", folder, None)?;
    anyhow::ensure!(opened.objects == objects, "{} objects were there", opened.objects);
    Ok(opened)
}

/// Lets a process write to the store for a while and kills it.
fn write_and_kill(folder: &Path, objects: usize) -> anyhow::Result<()> {
    let mut writer = start("write", folder, Some(objects))?;
    let output = writer.stdout.take().context("the worker's output is read")?;
    let line = BufReader::new(output).lines().next();
    std::thread::sleep(WRITING);
    let early = writer.try_wait()?;
    writer.kill()?;
    writer.wait()?;
    anyhow::ensure!(early.is_none() && line.is_some(), "the writer ended by itself");
    Ok(())
}

/// The bytes that the files of a folder take.
fn size(folder: &Path) -> anyhow::Result<f64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        size += entry?.metadata()?.len();
    }
    Ok(size as f64)
}
