//! How many requests are served at a time (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`).
//!
//! Kubernetes shares what it can serve among users by priority and fairness. Here it is a rule of thumb that does the same
//! against the worst: no single user holds more than three quarters of the places, whatever that user sends.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MASTERS, UserInfo};

/// Short requests in flight, reads and writes apart, so that neither starves the other.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    reads: Places,
    writes: Places,
}

#[derive(Debug, Clone)]
struct Places {
    all: Arc<Semaphore>,
    /// How many one user may have.
    share: usize,
    /// How many each user has who has any.
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    user: String,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

impl InFlight {
    /// That many reads and writes at a time.
    pub(crate) fn new(reads: usize, writes: usize) -> Self {
        Self {
            reads: Places::new(reads),
            writes: Places::new(writes),
        }
    }

    /// Leave to serve a request, held until its answer is sent. Those who may do everything always get it.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub(crate) fn admit(&self, verb: &str, user: &UserInfo) -> Result<Option<Permit>, Status> {
        let places = match verb {
            "get" | "list" | "watch" | "head" | "options" => &self.reads,
            _ => &self.writes,
        };
        match places.take(user) {
            Some(permit) => Ok(Some(permit)),
            None if user.in_group(MASTERS) => Ok(None),
            None => {
                let message = "Too many requests, please try again later.";
                Err(Status::failure(Reason::TooManyRequests, message).retry_after(1))
            }
        }
    }
}

impl Places {
    fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            share: (count * 3).div_ceil(4),
            taken: Arc::default(),
        }
    }

    fn take(&self, user: &UserInfo) -> Option<Permit> {
        let mut taken = self.taken.lock();
        if taken.get(&user.name).is_some_and(|count| *count >= self.share) {
            return None;
        }
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        *taken.entry(user.name.clone()).or_default() += 1;
        Some(Permit {
            _place: place,
            user: user.name.clone(),
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_counted_apart() {
        let limits = InFlight::new(1, 1);
        let user = UserInfo::new("a", ["dev"]);
        let held = limits.admit("list", &user).unwrap();
        assert_eq!(limits.admit("get", &user).unwrap_err().code, 429);
        assert!(limits.admit("create", &user).unwrap().is_some());
        assert!(
            limits
                .admit("get", &UserInfo::new("root", [MASTERS]))
                .unwrap()
                .is_none()
        );
        drop(held);
        assert!(limits.admit("get", &user).unwrap().is_some());
    }

    #[test]
    fn nobody_takes_all() {
        let limits = InFlight::new(8, 8);
        let (greedy, other) = (UserInfo::new("greedy", ["dev"]), UserInfo::new("other", ["dev"]));
        let mut held: Vec<_> = (0..6).map(|_| limits.admit("get", &greedy).unwrap()).collect();
        assert_eq!(limits.admit("get", &greedy).unwrap_err().code, 429);
        held.push(limits.admit("get", &other).unwrap());
        drop(held);
        assert!(limits.reads.taken.lock().is_empty());
        assert!(limits.admit("get", &greedy).unwrap().is_some());
    }
}
