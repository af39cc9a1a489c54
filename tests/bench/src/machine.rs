//! The machine that figures come from.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use crate::figure::{Unit, percentile};
use crate::output::say;

/// Writes of one page that the latency of the disk is taken from: two seconds at 10 ms each, the time of a disk that
/// turns.
const SYNCS: usize = 200;

/// A machine, and the disk under a directory.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// What `/proc/cpuinfo` calls the processor.
    processor: String,
    /// How many threads run at once.
    cores: usize,
    /// Memory, in bytes.
    memory: u64,
    /// The release of the kernel.
    kernel: String,
    /// Where the directory is mounted, from what, with which file system.
    disk: String,
    /// Seconds that writing 4 KB and `fdatasync` take: half of the times not more, and 99 of 100 not more.
    sync_seconds: (f64, f64),
    /// How many programs wanted to run in the last minute: more than none makes figures worse.
    load: f64,
}

impl Machine {
    /// This machine, with the disk under `directory`.
    pub(crate) fn look(directory: &Path) -> anyhow::Result<Self> {
        let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or_default() * 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            disk: mount(directory).unwrap_or_else(|| "unknown".to_owned()),
            sync_seconds: sync_latency(directory)
                .with_context(|| format!("measuring the disk under {}", directory.display()))?,
            load: load
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        })
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        say(format_args!("processor  {}, {} cores", self.processor, self.cores));
        say(format_args!("memory     {}", Unit::Bytes.text(self.memory as f64)));
        say(format_args!("kernel     Linux {}", self.kernel));
        say(format_args!("disk       {}", self.disk));
        let (half, most) = self.sync_seconds;
        let (half, most) = (Unit::Seconds.text(half), Unit::Seconds.text(most));
        say(format_args!("fdatasync  of 4 KB: p50 {half}, p99 {most}"));
        say(format_args!("load       {} in the minute before", self.load));
    }
}

/// What stands behind the first `name` of a file such as `/proc/meminfo`.
pub(crate) fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// The mount that a directory is on: the one with the longest path of those above it.
fn mount(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (point, rest) = mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            Some((left.split(' ').nth(4)?, right))
        })
        .filter(|(point, _)| directory.starts_with(point))
        .max_by_key(|(point, _)| point.len())?;
    let mut rest = rest.split(' ');
    let (kind, source) = (rest.next()?, rest.next()?);
    Some(format!("{kind} on {source}, mounted at {point}"))
}

/// How long a write of one page takes to become durable.
fn sync_latency(directory: &Path) -> anyhow::Result<(f64, f64)> {
    let mut file: File = tempfile::tempfile_in(directory)?;
    let page = [7; 4096];
    file.write_all(&page)?;
    file.sync_all()?;
    let mut seconds = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        let start = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((percentile(&seconds, 0.5), percentile(&seconds, 0.99)))
}
