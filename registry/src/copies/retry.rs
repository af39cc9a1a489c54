//! How long to wait before trying again: exponential with full jitter, so that many that failed together do not come
//! back together ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use rand::RngExt;

/// The first retry comes within this.
const FIRST: Duration = Duration::from_millis(500);
/// No retry waits longer: a child that is back should be seen to be within half a minute.
const LONGEST: Duration = Duration::from_secs(30);

/// A random wait before the retry of that number, counted from 1.
#[must_use]
pub fn pause(attempt: u32) -> Duration {
    let ceiling = FIRST
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)))
        .min(LONGEST);
    ceiling.mul_f64(rand::rng().random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        for attempt in [0, 1, 5, 40, u32::MAX] {
            assert!(pause(attempt) <= LONGEST);
        }
        assert!(pause(1) <= FIRST);
    }
}
