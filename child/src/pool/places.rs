//! How much may be under way to one child, and who waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for its turn at most. A quarter of what kube-apiserver lets requests queue would be 15 s
/// (`requestWaitLimit` of `apf_controller.go`); a person should be told sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Places for a kind of requests. What is above the limit waits; what would wait behind more than the limit does not.
#[derive(Debug)]
pub(crate) struct Places {
    current: ArcSwap<Limited>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Limited {
    limit: usize,
    semaphore: Arc<Semaphore>,
}

/// There was no place in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// How many places there are.
    pub(crate) limit: usize,
}

/// Counts one that waits, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limited {
    fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limit,
            semaphore: Arc::new(Semaphore::new(limit)),
        }
    }
}

impl Places {
    /// `limit` places, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            current: ArcSwap::from_pointee(Limited::new(limit)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Another number of places, for who comes from now on: who has a place keeps it and does not count.
    pub(crate) fn set(&self, limit: usize) {
        if self.current.load().limit != limit {
            self.current.store(Arc::new(Limited::new(limit)));
        }
    }

    /// A place, waited for at most `patience` and at most 10 s. Cancel safe.
    ///
    /// # Errors
    /// When there is none in time, or as many wait already as there are places.
    pub(crate) async fn take(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Full> {
        let current = self.current.load_full();
        if let Ok(place) = Arc::clone(&current.semaphore).try_acquire_owned() {
            return Ok(place);
        }
        let full = Full { limit: current.limit };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= current.limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        let _waiting = Waiting(&self.waiting);
        let place = Arc::clone(&current.semaphore).acquire_owned();
        match tokio::time::timeout(patience.min(LONGEST_WAIT), place).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_) => Err(full),
        }
    }

    /// A place, or none.
    ///
    /// # Errors
    /// When there is none now.
    pub(crate) fn try_take(&self) -> Result<OwnedSemaphorePermit, Full> {
        let current = self.current.load_full();
        let full = Full { limit: current.limit };
        Arc::clone(&current.semaphore).try_acquire_owned().map_err(|_| full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_is_above_the_limit_waits_and_is_refused_in_time() {
        let places = Places::new(2);
        let first = places.take(PATIENCE).await.unwrap();
        let _second = places.take(PATIENCE).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(places.take(PATIENCE).await.unwrap_err(), Full { limit: 2 });
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        assert_eq!(
            places.take(Duration::from_secs(1)).await.unwrap_err(),
            Full { limit: 2 }
        );
        assert_eq!(began.elapsed(), LONGEST_WAIT + Duration::from_secs(1));
        let (third, ()) = tokio::join!(places.take(PATIENCE), async { drop(first) });
        drop(third.unwrap());
        assert_eq!(began.elapsed(), LONGEST_WAIT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_forgets_who_leaves() {
        let places = Places::new(1);
        let held = places.take(PATIENCE).await.unwrap();
        let mut waits = Box::pin(places.take(PATIENCE));
        assert!(waits.as_mut().now_or_never().is_none());
        let refused = places.take(PATIENCE).now_or_never().expect("at once");
        assert_eq!(refused.unwrap_err(), Full { limit: 1 });
        drop(waits);
        let mut waits = Box::pin(places.take(PATIENCE));
        assert!(waits.as_mut().now_or_never().is_none(), "the one before has left");
        drop(held);
        drop(waits.await.unwrap());
    }

    #[tokio::test]
    async fn a_new_limit_counts_from_now_on() {
        let places = Places::new(1);
        let _held = places.try_take().unwrap();
        assert!(places.try_take().is_err());
        places.set(2);
        let _one = places.try_take().unwrap();
        let _two = places.try_take().unwrap();
        assert_eq!(places.try_take().unwrap_err(), Full { limit: 2 });
    }
}
