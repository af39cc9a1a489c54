//! What a process has used of the processor.

use anyhow::Context as _;

/// The seconds that a process has run since it was started, in user space and in the kernel: `utime` and `stime` of
/// proc_pid_stat(5).
pub(super) fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program is in brackets and may have any character.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Option<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().ok())
        .sum();
    let ticks = ticks.with_context(|| format!("{path} has no times"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
