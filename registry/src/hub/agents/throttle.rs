//! How often a machine may write.
//!
//! Each identity has a bucket (the generic cell rate algorithm, which needs one instant of memory): [`BURST`] writes at once, then
//! one each [`REFILL`]. A write of a ClusterJoinRequest costs a revision of the store and a signature, and goes to every replica
//! and whoever watches; an agent needs one per renewal of its certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Writes at once: the agents of one Deployment that all renew at the same time, with one retry each.
const BURST: u32 = 10;
/// Then one in this time. The shortest life of a certificate is 30 s, renewed after some 18 s by two agents or three.
const REFILL: Duration = Duration::from_secs(5);
/// Identities beyond which those that have been quiet are forgotten.
const KNOWN: usize = 1024;

/// The buckets of all machines.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<BTreeMap<String, Instant>>);

impl Throttle {
    /// Counts a write of `identity`, or says for how long it has to wait.
    pub(super) fn take(&self, identity: &str, now: Instant) -> Result<(), Duration> {
        let mut full = self.0.lock();
        if full.len() > KNOWN {
            full.retain(|_, empty| *empty > now);
        }
        let empty = full.get(identity).map_or(now, |empty| (*empty).max(now));
        let wait = (empty - now).saturating_sub(REFILL * (BURST - 1));
        if wait > Duration::ZERO {
            return Err(wait);
        }
        full.insert(identity.to_owned(), empty + REFILL);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_and_then_one_at_a_time() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(throttle.take("a", start), Ok(()));
        }
        assert_eq!(throttle.take("a", start), Err(REFILL));
        assert_eq!(throttle.take("b", start), Ok(()), "another one is not disturbed");
        assert_eq!(throttle.take("a", start + REFILL), Ok(()));
        assert_eq!(throttle.take("a", start + REFILL), Err(REFILL));
        // Who was quiet for long has no more than the others.
        let later = start + REFILL * 1000;
        let taken = (0..3 * BURST).filter(|_| throttle.take("a", later).is_ok()).count();
        assert_eq!(taken, BURST as usize);
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for index in 0..=KNOWN {
            throttle.take(&index.to_string(), start).unwrap();
        }
        throttle.take("a", start + REFILL * 2).unwrap();
        assert_eq!(throttle.0.lock().len(), 1);
    }
}
