//! A store that several replicas share over connections that can be cut. It lives in one thread and under tokio's paused clock,
//! so that what happens depends on nothing but the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use umbra_storage::{
    Entry, Error, GetResponse, Guard, Operation, Precondition, ProgressRequest, RangeRequest, RangeResponse, Result,
    Revision, Store, WatchEvent, WatchStream,
};

/// The backend.
#[derive(Debug)]
pub(super) struct Backend {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    /// Batches that a guard has refused.
    pub(super) refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    log: Vec<WatchEvent>,
}

impl Backend {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            revision: watch::Sender::new(1),
            refused: AtomicU64::new(0),
        })
    }

    /// Everything that ever happened.
    pub(super) fn log(&self) -> Vec<WatchEvent> {
        self.state.lock().log.clone()
    }

    /// The keys there are.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.state.lock();
        let keys = state.entries.keys().filter(|key| key.starts_with(prefix));
        keys.map(|key| key.to_string()).collect()
    }

    fn write(&self, guard: Option<&Guard>, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        let mut state = self.state.lock();
        let mut outcomes = Vec::new();
        for operation in operations {
            let guarding = guard.map(|guard| (guard, state.entries.get(&guard.key).cloned()));
            outcomes.push(match guarding {
                Some((guard, current)) if !guard.holds(current.as_ref()) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    let key = Arc::clone(&guard.key);
                    Err(Error::Conflict { key, current })
                }
                _ => state.apply(operation),
            });
        }
        self.revision.send_replace(state.log.len() as u64 + 1);
        outcomes
    }
}

impl State {
    fn apply(&mut self, operation: Operation) -> Result<Revision> {
        let key = Arc::clone(operation.key());
        let previous = self.entries.get(&key).cloned();
        let precondition = match &operation {
            Operation::Put { precondition, .. } | Operation::Delete { precondition, .. } => *precondition,
        };
        let holds = match precondition {
            Precondition::None => true,
            Precondition::Absent => previous.is_none(),
            Precondition::Revision(revision) => previous.as_ref().is_some_and(|one| one.revision == revision),
        };
        if !holds {
            return Err(Error::Conflict { key, current: previous });
        }
        let revision = Revision(self.log.len() as u64 + 2);
        self.log.push(match operation {
            Operation::Put { value, .. } => {
                let create_revision = previous.as_ref().map_or(revision, |one| one.create_revision);
                let entry = Entry {
                    key: Arc::clone(&key),
                    value,
                    create_revision,
                    revision,
                };
                self.entries.insert(key, entry.clone());
                WatchEvent::Put { entry, previous }
            }
            Operation::Delete { .. } => {
                let previous = previous.ok_or(Error::NotFound { key: Arc::clone(&key) })?;
                self.entries.remove(&key);
                WatchEvent::Delete {
                    key,
                    previous,
                    revision,
                }
            }
        });
        Ok(revision)
    }
}

/// A replica's way to the backend.
#[derive(Debug)]
pub(super) struct Connection {
    backend: Arc<Backend>,
    /// While this is false nothing comes through, and nothing fails either: the worst kind of network.
    up: watch::Receiver<bool>,
    requests: AtomicU64,
}

impl Connection {
    pub(super) fn open(backend: &Arc<Backend>, up: watch::Receiver<bool>) -> Arc<dyn Store> {
        Arc::new(Self {
            backend: Arc::clone(backend),
            up,
            requests: AtomicU64::new(0),
        })
    }

    /// One way. Now fast, now slow.
    async fn travel(&self) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1 + number * 7 % 40)).await;
        connected(&mut self.up.clone()).await;
    }
}

async fn connected(up: &mut watch::Receiver<bool>) {
    if up.wait_for(|up| *up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Progress is never asked for here.
struct NoProgress;

impl ProgressRequest for NoProgress {
    fn request(&self) {}
}

#[async_trait]
impl Store for Connection {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.travel().await;
        let response = {
            let state = self.backend.state.lock();
            GetResponse {
                entry: state.entries.get(key).cloned(),
                revision: Revision(state.log.len() as u64 + 1),
            }
        };
        self.travel().await;
        Ok(response)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.travel().await;
        let response = {
            let state = self.backend.state.lock();
            let entries = state
                .entries
                .values()
                .filter(|one| one.key.starts_with(&request.prefix));
            RangeResponse {
                entries: entries.cloned().collect(),
                revision: Revision(state.log.len() as u64 + 1),
                more: false,
                remaining: None,
            }
        };
        self.travel().await;
        Ok(response)
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.travel().await;
        let outcomes = self.backend.write(None, operations);
        self.travel().await;
        outcomes
    }

    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.travel().await;
        let outcomes = self.backend.write(Some(guard), operations);
        self.travel().await;
        outcomes
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.travel().await;
        let next = usize::try_from(after.0 - 1).expect("a log fits in memory");
        let start = (
            Arc::clone(&self.backend),
            self.backend.revision.subscribe(),
            self.up.clone(),
            next,
        );
        let prefix = prefix.to_owned();
        let events = futures::stream::unfold(start, |(backend, mut revision, mut up, next)| async move {
            loop {
                connected(&mut up).await;
                let event = backend.state.lock().log.get(next).cloned();
                if let Some(event) = event {
                    return Some((Ok(event), (backend, revision, up, next + 1)));
                }
                let _ = revision.changed().await;
            }
        });
        let concerned = events.filter(move |event: &Result<WatchEvent>| {
            let key = event.as_ref().ok().and_then(WatchEvent::key);
            std::future::ready(key.is_some_and(|key| key.starts_with(&prefix)))
        });
        Ok(WatchStream::new(concerned, Arc::new(NoProgress)))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.travel().await;
        Ok(Revision(*self.backend.revision.borrow()))
    }

    async fn compact(&self, _: Revision) -> Result<()> {
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}
