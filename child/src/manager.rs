//! All children, and whether they answer.
//!
//! Each child has a probe loop: `GET /readyz` every 10 s with a 5 s timeout. Any answer of the API server but 401 and a
//! gateway's 502, 503 or 504 says that the child is there; `/readyz` failing with 500 is the child's own trouble and its API
//! may well serve. After five failures in a row the circuit opens: requests fail at once with
//! [`ChildError::Unreachable`](crate::ChildError::Unreachable), until a probe succeeds. A 401 makes the hub read its
//! credentials again. Probes use the connections of requests, because it is these that have to work, but no place among the
//! requests ([`Limits`](crate::Limits)): who sends too many is told so, and the child stays reachable for others.
//!
//! A child with several endpoints goes to another one when a probe fails, and back to a preferred one after that has answered
//! two probes in a row. A child behind whose address another cluster answers is unreachable at once.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Request, StatusCode};
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::empty,
    config::ChildConfig,
    connection::{Child, Lane, Probe, RequestDeadline, connector},
    error::ChildError,
    failure::Failure,
    transport::Connector,
};

/// How long what is under way on a connection may go on after the cluster has moved elsewhere.
const GRACE: Duration = Duration::from_secs(30);
/// The shortest pause between two probes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How often in a row a preferred endpoint has to answer before it is used again.
const RECOVERED: u32 = 2;

/// Whether a child answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It has not been asked yet, or less often without an answer than makes it unreachable.
    Unknown,
    /// It answered the last probes.
    Reachable,
    /// It does not answer; requests fail at once.
    Unreachable {
        /// When the first failed probe began.
        since: Timestamp,
        /// What kind of failure the last one was.
        failure: Failure,
        /// How the last one failed.
        reason: Arc<str>,
    },
}

/// How children are probed.
#[derive(Debug, Clone)]
pub struct ProbeConfig {
    /// Between two probes. 10 s by default.
    pub interval: Duration,
    /// How long a probe may take. 5 s by default.
    pub timeout: Duration,
    /// How many failures in a row make a child unreachable. 5 by default.
    pub failures: u32,
    /// What is asked for. `/readyz` by default.
    pub path: String,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            failures: 5,
            path: "/readyz".into(),
        }
    }
}

/// All children by name. Clones are the same set; reading it takes no lock.
#[derive(Debug, Clone)]
pub struct Children(Arc<Set>);

#[derive(Debug)]
struct Set {
    children: ArcSwap<BTreeMap<Arc<str>, Child>>,
    /// One change at a time.
    changing: Mutex<()>,
    changes: watch::Sender<u64>,
    probe: ProbeConfig,
    /// Children that have been replaced or removed and are ending.
    leaving: TaskTracker,
    cancel: CancellationToken,
}

impl Children {
    /// An empty set.
    #[must_use]
    pub fn new(probe: ProbeConfig) -> Self {
        Self(Arc::new(Set {
            children: ArcSwap::default(),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
            probe,
            leaving: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }))
    }

    /// The child of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Child> {
        self.0.children.load().get(name).cloned()
    }

    /// All children as they are now, by name.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<Arc<str>, Child>> {
        self.0.children.load_full()
    }

    /// Changes whenever a child is added, replaced or removed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Adds a child and begins to probe it. One of the same name is replaced: when only
    /// credentials or identity differ, the handle and its connections stay; otherwise what is under way on the old one
    /// has 30 s to end.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be used; a child of that name then stays as it was.
    pub async fn insert(&self, config: ChildConfig) -> Result<Child, ChildError> {
        let _changing = self.0.changing.lock().await;
        if let Some(existing) = self.get(&config.name).filter(|one| one.config().same_place(&config)) {
            existing.set_identity(config.identity);
            existing.set_limits(config.limits);
            existing.credentials().replace(config.credentials);
            return Ok(existing);
        }
        let connector = connector(&config)?;
        self.put(config, connector)
    }

    /// Adds a child that is reached through `connector`, always as a new handle.
    ///
    /// # Errors
    ///
    /// As [`Children::insert`].
    pub async fn insert_with(&self, config: ChildConfig, connector: Arc<dyn Connector>) -> Result<Child, ChildError> {
        let _changing = self.0.changing.lock().await;
        self.put(config, connector)
    }

    fn put(&self, config: ChildConfig, connector: Arc<dyn Connector>) -> Result<Child, ChildError> {
        let child = Child::with_connector(config, connector, self.0.cancel.child_token())?;
        let probing = probe_loop(child.clone(), self.0.probe.clone());
        child
            .tracker()
            .spawn(child.cancellation().clone().run_until_cancelled_owned(probing));
        let replaced = self.change(|children| children.insert(Arc::clone(child.name()), child.clone()));
        if let Some(replaced) = replaced {
            self.leave(replaced, GRACE);
        }
        Ok(child)
    }

    /// Removes a child and cuts everything under way to it. Returns whether there was one.
    pub async fn remove(&self, name: &str) -> bool {
        let _changing = self.0.changing.lock().await;
        let removed = self.change(|children| children.remove(name));
        removed.map(|child| self.leave(child, Duration::ZERO)).is_some()
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Arc<str>, Child>) -> T) -> T {
        let mut children = BTreeMap::clone(&self.0.children.load());
        let result = change(&mut children);
        self.0.children.store(Arc::new(children));
        self.0.changes.send_modify(|count| *count += 1);
        result
    }

    fn leave(&self, child: Child, grace: Duration) {
        let cancel = self.0.cancel.clone();
        self.0.leaving.spawn(async move {
            let _ = tokio::time::timeout(grace, cancel.cancelled()).await;
            child.close().await;
        });
    }

    /// Ends all children and waits until they have ended.
    pub async fn close(&self) {
        self.0.cancel.cancel();
        for child in self.all().values() {
            child.close().await;
        }
        self.0.leaving.close();
        self.0.leaving.wait().await;
    }
}

async fn probe_loop(child: Child, config: ProbeConfig) {
    let mut failures: u32 = 0;
    let mut since = Timestamp::now();
    let mut recovering = Recovering::default();
    loop {
        let began = Timestamp::now();
        let pause = match probe(&child, &config).await {
            Ok(()) => {
                failures = 0;
                child.set_health(Health::Reachable);
                recovering.look(&child, &config).await;
                // Around the interval, so that a thousand children are not asked in the same instant.
                config.interval.mul_f64(0.9) + jitter(config.interval.mul_f64(0.2))
            }
            Err((failure, reason)) => {
                if failures == 0 {
                    since = began;
                }
                failures = failures.saturating_add(1);
                tracing::debug!(cluster = %child.name(), failures, %failure, %reason, "probe failed");
                // Whatever the connection was, the next probe dials.
                child.discard_connections();
                if !matches!(failure, Failure::CredentialsRefused | Failure::NoCredentials) {
                    child.avoid_endpoint();
                }
                // All endpoints have been asked by then, and another cluster does not become the right one by being asked again.
                if failures >= config.failures || failure == Failure::WrongCluster {
                    child.set_health(Health::Unreachable { since, failure, reason });
                }
                jitter(config.interval).max(SHORTEST_PAUSE.min(config.interval))
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The way back to a preferred endpoint.
#[derive(Default)]
struct Recovering {
    /// The endpoint that has answered, and how often in a row.
    answered: Option<(usize, u32)>,
}

impl Recovering {
    /// Asks the preferred endpoints, where one of the others is in use, and goes back to one that answers steadily.
    async fn look(&mut self, child: &Child, config: &ProbeConfig) {
        let asked = tokio::time::timeout(config.timeout, child.try_preferred(&config.path)).await;
        let Ok(Some(way)) = asked else {
            self.answered = None;
            return;
        };
        let before = self.answered.filter(|(last, _)| *last == way);
        let answered = before.map_or(0, |(_, count)| count) + 1;
        if answered >= RECOVERED {
            self.answered = None;
            child.settle_on(way);
        } else {
            self.answered = Some((way, answered));
        }
    }
}

async fn probe(child: &Child, config: &ProbeConfig) -> Result<(), (Failure, Arc<str>)> {
    let failed = |error: ChildError| (error.failure(), Arc::from(error.to_string()));
    let request = Request::get(config.path.as_str()).body(empty());
    let mut request = request.map_err(|error| failed(error.into()))?;
    request.extensions_mut().insert(RequestDeadline(config.timeout));
    request.extensions_mut().insert(Probe);
    let response = child.send_regardless(Lane::Requests, request).await.map_err(failed)?;
    match response.status() {
        StatusCode::UNAUTHORIZED => {
            child.credentials().reload();
            let reason = "the hub's credentials are refused (401 Unauthorized)";
            Err((Failure::CredentialsRefused, reason.into()))
        }
        status if serves(status) => Ok(()),
        status => Err((Failure::NotServing, format!("{} answers {status}", config.path).into())),
    }
}

/// Whether an API server has answered so, and not what is before it.
pub(crate) fn serves(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Between nothing and `most`, uniformly. The hasher's keys are random, and each call has new ones.
fn jitter(most: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8);
    most.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests;
