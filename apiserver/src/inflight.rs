//! How many requests are served at a time (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MASTERS, UserInfo};

/// Short requests in flight, reads and writes apart, so that neither starves the other.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl InFlight {
    /// That many reads and writes at a time.
    pub(crate) fn new(reads: usize, writes: usize) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(reads)),
            writes: Arc::new(Semaphore::new(writes)),
        }
    }

    /// Leave to serve a request, held until its answer is sent. Those who may do everything always get it.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub(crate) fn admit(&self, verb: &str, user: &UserInfo) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let semaphore = match verb {
            "get" | "list" | "watch" | "head" | "options" => &self.reads,
            _ => &self.writes,
        };
        match Arc::clone(semaphore).try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if user.in_group(MASTERS) => Ok(None),
            Err(_) => {
                let message = "Too many requests, please try again later.";
                Err(Status::failure(Reason::TooManyRequests, message).retry_after(1))
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
}
