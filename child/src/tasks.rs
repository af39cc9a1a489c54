//! Tasks that hyper spawns, where somebody waits for their end.

use tokio_util::task::TaskTracker;

/// Runs what hyper spawns, such as the streams of HTTP/2 connections, under a tracker, so that shutting down waits for it.
#[derive(Debug, Clone)]
pub struct Tracked(TaskTracker);

impl Tracked {
    /// An executor whose tasks `tracker` waits for. It still takes tasks once the tracker is closed: streams of a connection that
    /// ends may begin until it has ended.
    #[must_use]
    pub fn new(tracker: TaskTracker) -> Self {
        Self(tracker)
    }
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
