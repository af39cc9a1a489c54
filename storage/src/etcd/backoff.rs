//! Pauses between attempts.

use std::time::Duration;

/// Pauses that grow from attempt to attempt, each of a random length between nothing and its bound ("full jitter"), so that
/// the watches that one lost member ends do not come back at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
    least: Duration,
    most: Duration,
}

impl Backoff {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self {
            bound: least,
            least,
            most,
        }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::random_range(0.0..1.0));
        self.bound = (self.bound * 2).min(self.most);
        pause
    }

    /// Begins again with the shortest.
    pub(super) fn reset(&mut self) {
        self.bound = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40));
        for bound in [10, 20, 40, 40] {
            assert!(backoff.next() <= Duration::from_millis(bound));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(10));
    }
}
