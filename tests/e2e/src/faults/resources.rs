//! What a process holds, as the operating system and the process itself count it.

use std::fmt;

use crate::kubectl::Kubectl;

/// What a hub holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Open files and sockets.
    pub descriptors: usize,
    /// Threads of the operating system.
    pub threads: usize,
    /// Tasks of its runtime.
    pub tasks: usize,
    /// Resident memory, in KiB.
    pub memory: usize,
}

impl Resources {
    /// Of the hub that runs as a process with this number, and answers `root`.
    ///
    /// # Panics
    /// Where it does not run, or does not say how many tasks it has.
    #[must_use]
    #[track_caller]
    pub fn of(process: u32, root: &Kubectl) -> Self {
        let metrics = root.ok("get --raw /metrics");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process runs");
        Self {
            descriptors: descriptors.count(),
            threads: number(&status, "Threads:"),
            tasks: number(&metrics, "umbra_runtime_tasks "),
            memory: number(&status, "VmRSS:"),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} tasks, {} MiB",
            self.descriptors,
            self.threads,
            self.tasks,
            self.memory >> 10
        )
    }
}

/// The number after `name` at the beginning of a line.
#[track_caller]
fn number(text: &str, name: &str) -> usize {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let digits = value.and_then(|value| value.split_whitespace().next());
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
}
