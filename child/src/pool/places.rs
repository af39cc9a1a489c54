//! How much may be under way to one child, and who waits.
//!
//! What users stream has no deadline, so no user holds more than three quarters of the places for it, as for short requests in
//! the server (`umbra_apiserver::inflight`): whoever opens watches without end shuts nobody out.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for its turn at most. A quarter of what kube-apiserver lets requests queue would be 15 s
/// (`requestWaitLimit` of `apf_controller.go`); a person should be told sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Places for a kind of requests. What is above the limit waits; what would wait behind more than the limit does not.
#[derive(Debug)]
pub(crate) struct Places {
    current: ArcSwap<Limited>,
    waiting: AtomicUsize,
    taken: Arc<Taken>,
}

/// How many places each user has who has any.
type Taken = Mutex<HashMap<Arc<str>, usize>>;

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// What a place takes of its user's share.
#[derive(Debug)]
struct Share {
    user: Arc<str>,
    taken: Arc<Taken>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(places) = taken.get_mut(&self.user) {
            *places -= 1;
            if *places == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[derive(Debug)]
struct Limited {
    limit: usize,
    semaphore: Arc<Semaphore>,
}

/// There was no place in time, or the user has as many as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// How many places there are, for all or for one user.
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
            taken: Arc::default(),
        }
    }

    /// Counts a place for `user`, where there is one who streams.
    fn share(&self, user: Option<&Arc<str>>, places: usize) -> Result<Option<Share>, Full> {
        let Some(user) = user else { return Ok(None) };
        let limit = (places - places / 4).max(1);
        let mut taken = self.taken.lock();
        let has = taken.entry(Arc::clone(user)).or_default();
        if *has >= limit {
            return Err(Full { limit });
        }
        *has += 1;
        Ok(Some(Share {
            user: Arc::clone(user),
            taken: Arc::clone(&self.taken),
        }))
    }

    /// Another number of places, for who comes from now on: who has a place keeps it and does not count.
    pub(crate) fn set(&self, limit: usize) {
        if self.current.load().limit != limit {
            self.current.store(Arc::new(Limited::new(limit)));
        }
    }

    /// A place, waited for at most `patience` and at most 10 s; of the share of `user`, where one is named. Cancel safe.
    ///
    /// # Errors
    /// When there is none in time, as many wait already as there are places, or the user has a whole share.
    pub(crate) async fn take(&self, patience: Duration, user: Option<&Arc<str>>) -> Result<Place, Full> {
        let current = self.current.load_full();
        let _share = self.share(user, current.limit)?;
        if let Ok(_permit) = Arc::clone(&current.semaphore).try_acquire_owned() {
            return Ok(Place { _permit, _share });
        }
        let full = Full { limit: current.limit };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= current.limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        let _waiting = Waiting(&self.waiting);
        let place = Arc::clone(&current.semaphore).acquire_owned();
        match tokio::time::timeout(patience.min(LONGEST_WAIT), place).await {
            Ok(permit) => Ok(Place {
                _permit: permit.expect("the semaphore is never closed"),
                _share,
            }),
            Err(_) => Err(full),
        }
    }

    /// A place, or none; of the share of `user`, where one is named.
    ///
    /// # Errors
    /// When there is none now, or the user has a whole share.
    pub(crate) fn try_take(&self, user: Option<&Arc<str>>) -> Result<Place, Full> {
        let current = self.current.load_full();
        let full = Full { limit: current.limit };
        let _share = self.share(user, current.limit)?;
        let _permit = Arc::clone(&current.semaphore).try_acquire_owned().map_err(|_| full)?;
        Ok(Place { _permit, _share })
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
        let first = places.take(PATIENCE, None).await.unwrap();
        let _second = places.take(PATIENCE, None).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(places.take(PATIENCE, None).await.unwrap_err(), Full { limit: 2 });
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        assert_eq!(
            places.take(Duration::from_secs(1), None).await.unwrap_err(),
            Full { limit: 2 }
        );
        assert_eq!(began.elapsed(), LONGEST_WAIT + Duration::from_secs(1));
        let (third, ()) = tokio::join!(places.take(PATIENCE, None), async { drop(first) });
        drop(third.unwrap());
        assert_eq!(began.elapsed(), LONGEST_WAIT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_forgets_who_leaves() {
        let places = Places::new(1);
        let held = places.take(PATIENCE, None).await.unwrap();
        let mut waits = Box::pin(places.take(PATIENCE, None));
        assert!(waits.as_mut().now_or_never().is_none());
        let refused = places.take(PATIENCE, None).now_or_never().expect("at once");
        assert_eq!(refused.unwrap_err(), Full { limit: 1 });
        drop(waits);
        let mut waits = Box::pin(places.take(PATIENCE, None));
        assert!(waits.as_mut().now_or_never().is_none(), "the one before has left");
        drop(held);
        drop(waits.await.unwrap());
    }

    #[tokio::test]
    async fn a_new_limit_counts_from_now_on() {
        let places = Places::new(1);
        let _held = places.try_take(None).unwrap();
        assert!(places.try_take(None).is_err());
        places.set(2);
        let _one = places.try_take(None).unwrap();
        let _two = places.try_take(None).unwrap();
        assert_eq!(places.try_take(None).unwrap_err(), Full { limit: 2 });
    }

    #[tokio::test]
    async fn one_user_leaves_places_for_others() {
        let places = Places::new(4);
        let [ann, bob] = ["ann", "bob"].map(Arc::<str>::from);
        let mut of_ann: Vec<_> = (0..3).map(|_| places.try_take(Some(&ann)).unwrap()).collect();
        assert_eq!(places.try_take(Some(&ann)).unwrap_err(), Full { limit: 3 });
        assert_eq!(places.take(PATIENCE, Some(&ann)).await.unwrap_err(), Full { limit: 3 });
        let _of_bob = places.try_take(Some(&bob)).unwrap();
        assert_eq!(places.try_take(Some(&bob)).unwrap_err(), Full { limit: 4 });
        of_ann.pop();
        of_ann.push(places.try_take(Some(&ann)).unwrap());
        drop(of_ann);
        assert_eq!(places.taken.lock().len(), 1, "who has none is forgotten");
    }
}
