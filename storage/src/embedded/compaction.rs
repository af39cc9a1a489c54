//! When to compact.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::writer::Command;
use crate::Revision;

/// Remembers which revision the store had when, to tell which one has become old enough to compact to.
#[derive(Debug)]
pub(super) struct Schedule {
    history: Duration,
    samples: VecDeque<(Instant, Revision)>,
}

impl Schedule {
    /// Keeps at least `history`.
    pub(super) fn new(history: Duration) -> Self {
        Self {
            history,
            samples: VecDeque::new(),
        }
    }

    /// Notes that the store is at `revision`; answers with the revision to compact to, if there is a new one.
    pub(super) fn sample(&mut self, now: Instant, revision: Revision) -> Option<Revision> {
        self.samples.push_back((now, revision));
        let mut due = None;
        while let Some((_, revision)) = self.samples.pop_front_if(|(taken, _)| *taken + self.history <= now) {
            due = Some(revision);
        }
        due
    }
}

/// Compacts every `interval` to what the store was `history` ago, until cancelled.
pub(super) async fn run(
    hub: Arc<Hub>,
    commands: mpsc::Sender<Command>,
    history: Duration,
    interval: Duration,
    cancelled: CancellationToken,
) {
    let mut schedule = Schedule::new(history);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            now = ticks.tick() => {
                let Some(revision) = schedule.sample(now, hub.published()) else { continue };
                if revision <= hub.compacted() {
                    continue;
                }
                let (reply, _) = oneshot::channel();
                tracing::debug!(%revision, "compacting");
                if commands.send(Command::Compact { revision, reply }).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_to_the_newest_revision_that_is_old_enough() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::new(Duration::from_secs(100));
        assert_eq!(schedule.sample(at(0), Revision(5)), None);
        assert_eq!(schedule.sample(at(60), Revision(8)), None);
        assert_eq!(schedule.sample(at(99), Revision(9)), None);
        assert_eq!(schedule.sample(at(100), Revision(11)), Some(Revision(5)));
        assert_eq!(schedule.sample(at(200), Revision(20)), Some(Revision(11)));
        assert_eq!(schedule.sample(at(201), Revision(20)), None);
    }
}
