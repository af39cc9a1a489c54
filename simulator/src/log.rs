//! Logs of containers that do not run.
//!
//! A log is a function of when the container was started: some lines at the start, then one every [`TICK`]. So it costs
//! nothing to keep, and is the same whenever it is read.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

/// How often a simulated container writes a line, in seconds.
pub(crate) const TICK: i64 = 5;

/// Lines of a log that are kept, as a node's log rotation does.
const KEPT: i64 = 10_000;

/// Lines that a container writes at its start.
const START_LINES: i64 = 4;

/// The log of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) node: String,
    pub(crate) started: Timestamp,
    /// When the container ended, where it did.
    pub(crate) ended: Option<Timestamp>,
}

impl Log {
    /// How many lines have been written until `now`.
    pub(crate) fn written(&self, now: Timestamp) -> i64 {
        let until = self.ended.map_or(now, |ended| ended.min(now));
        let seconds = until.duration_since(self.started).as_secs().max(0);
        let ended = self.ended.is_some_and(|ended| ended <= now);
        START_LINES + seconds / TICK + i64::from(ended)
    }

    /// When line number `line` was or will be written.
    pub(crate) fn time(&self, line: i64) -> Timestamp {
        let after = SignedDuration::from_secs((line - START_LINES + 1).max(0) * TICK);
        let time = self.started.saturating_add(after).unwrap_or(self.started);
        self.ended.map_or(time, |ended| time.min(ended))
    }

    /// Line number `line`, with its end.
    pub(crate) fn line(&self, line: i64, now: Timestamp) -> String {
        let Self { pod, container, .. } = self;
        match line {
            0 => format!(
                "container {container} of pod {pod} with image {} on node {}\n",
                self.image, self.node
            ),
            1 => "this cluster is simulated: no process runs here, and this log is made up\n".to_owned(),
            2 => "started\n".to_owned(),
            3 => "ready\n".to_owned(),
            _ if self.ended.is_some() && line + 1 == self.written(now) => "done\n".to_owned(),
            _ => format!("tick {}\n", line - START_LINES + 1),
        }
    }

    /// Which of the lines written so far are wanted: the last `tail` of those since `since`.
    pub(crate) fn select(&self, tail: Option<i64>, since: Option<Timestamp>, now: Timestamp) -> Range<i64> {
        let end = self.written(now);
        let mut begin = (end - KEPT).max(0);
        if let Some(tail) = tail {
            begin = begin.max(end - tail.max(0));
        }
        if let Some(since) = since {
            let missed = since.duration_since(self.started).as_secs();
            if missed > 0 {
                let after = START_LINES - 1 + (missed + TICK - 1) / TICK;
                begin = begin.max(after.min(end));
            }
        }
        begin..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn log(ended: Option<i64>) -> Log {
        Log {
            pod: "shop/web".to_owned(),
            container: "web".to_owned(),
            image: "nginx".to_owned(),
            node: "n".to_owned(),
            started: at(1_000),
            ended: ended.map(at),
        }
    }

    #[test]
    fn lines_come_at_their_time() {
        let log = log(None);
        assert_eq!(log.written(at(1_000)), START_LINES);
        assert_eq!(log.written(at(1_004)), START_LINES);
        assert_eq!(log.written(at(1_011)), START_LINES + 2);
        for line in 0..START_LINES + 20 {
            assert_eq!(
                log.written(log.time(line)),
                log.written(log.time(line)).max(line + 1),
                "{line}"
            );
        }
        assert_eq!(log.time(START_LINES), at(1_005));
        assert_eq!(log.line(START_LINES, at(1_005)), "tick 1\n");
    }

    #[test]
    fn a_part_can_be_asked_for() {
        let log = log(None);
        let now = at(1_000 + 10 * TICK);
        assert_eq!(log.select(None, None, now), 0..START_LINES + 10);
        assert_eq!(log.select(Some(3), None, now), START_LINES + 7..START_LINES + 10);
        assert_eq!(log.select(Some(99), None, now), 0..START_LINES + 10);
        let since = at(1_000 + 8 * TICK);
        let selected = log.select(None, Some(since), now);
        assert!(selected.clone().all(|line| log.time(line) >= since));
        assert!(log.time(selected.start - 1) < since);
        let long = log.select(None, None, at(1_000 + 20_000 * TICK));
        assert_eq!(long.end - long.start, KEPT);
    }

    #[test]
    fn a_log_ends_with_its_container() {
        let log = log(Some(1_007));
        assert_eq!(log.written(at(2_000)), START_LINES + 2);
        assert_eq!(log.line(START_LINES + 1, at(2_000)), "done\n");
        assert_eq!(log.time(START_LINES + 1), at(1_007));
    }
}
