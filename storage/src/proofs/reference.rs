//! The plainest store that keeps the contract: a map and a log behind a lock. And stores that each break one rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fault::Fault;
use super::reference_watch::Watcher;
use crate::{
    Entry, Error, GetResponse, Guard, Operation, Precondition, RangeRequest, RangeResponse, Result, Revision, Store,
    WatchEvent, WatchStream,
};

/// The store.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) shared: Arc<Shared>,
}

/// What the store and its watches share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Changes with every write and every request for progress.
    pub(super) stirred: watch::Sender<()>,
    pub(super) fault: Option<Fault>,
    /// For [`Fault::DroppedWatchesEndOthers`].
    pub(super) silenced: AtomicBool,
    /// For [`Fault::CompactionEndsWatches`].
    pub(super) compactions: AtomicU64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) latest: BTreeMap<Arc<str>, Entry>,
    pub(super) log: Vec<WatchEvent>,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// The state before the last write, for [`Fault::StaleReads`].
    before: BTreeMap<Arc<str>, Entry>,
}

impl Shared {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl Reference {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        let state = State {
            latest: BTreeMap::new(),
            log: Vec::new(),
            revision: Revision::INITIAL,
            compacted: Revision::INITIAL,
            before: BTreeMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                stirred: watch::Sender::new(()),
                fault,
                silenced: AtomicBool::new(false),
                compactions: AtomicU64::new(0),
            }),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.shared.has(fault)
    }

    /// The key as the store understands it.
    fn key(&self, key: &str) -> Arc<str> {
        if self.has(Fault::KeysAreTrimmed) {
            key.trim_end_matches('/').into()
        } else if self.has(Fault::KeysFoldCase) {
            key.to_lowercase().into()
        } else {
            key.into()
        }
    }

    fn holds(&self, state: &State, key: &str, precondition: Precondition, current: Option<&Entry>) -> bool {
        match precondition {
            Precondition::None => true,
            Precondition::Absent if self.has(Fault::AbsentIgnored) => true,
            Precondition::Absent if self.has(Fault::EmptyIsAbsent) => {
                current.is_none_or(|entry| entry.value.is_empty())
            }
            Precondition::Absent => current.is_none(),
            Precondition::Revision(_) if self.has(Fault::RevisionIgnored) => true,
            Precondition::Revision(revision) if self.has(Fault::LivesAreOne) => {
                let ever =
                    |event: &WatchEvent| event.revision() == revision && event.key().is_some_and(|k| **k == *key);
                current.is_some_and(|entry| entry.revision == revision)
                    || (current.is_some_and(|entry| entry.create_revision == entry.revision)
                        && state.log.iter().any(ever))
            }
            Precondition::Revision(revision) => current.is_some_and(|entry| entry.revision == revision),
        }
    }

    /// Whether the operation takes place, without doing it.
    fn admit(&self, state: &mut State, operation: &Operation) -> Result<()> {
        let key = self.key(operation.key());
        let current = state.latest.get(&key).cloned();
        let (precondition, is_delete) = match operation {
            Operation::Put { precondition, .. } => (*precondition, false),
            Operation::Delete { .. } if self.has(Fault::DeleteIgnoresPrecondition) => (Precondition::None, true),
            Operation::Delete { precondition, .. } => (*precondition, true),
        };
        if !self.holds(state, &key, precondition, current.as_ref()) {
            if self.has(Fault::FailedWritesCount) {
                state.revision = state.revision.next();
            }
            if self.has(Fault::FailuresAreEvents)
                && let Some(entry) = current.clone()
            {
                let previous = Some(entry.clone());
                state.revision = state.revision.next();
                let revision = state.revision;
                state.log.push(WatchEvent::Put {
                    entry: Entry { revision, ..entry },
                    previous,
                });
            }
            return Err(Error::Conflict { key, current });
        }
        if is_delete && current.is_none() {
            return Err(Error::NotFound { key });
        }
        Ok(())
    }

    /// Does it.
    fn perform(&self, state: &mut State, operation: &Operation, shared_revision: Option<Revision>) -> Revision {
        if self.has(Fault::StaleReads) || self.has(Fault::LastWriteIsNotDurable) {
            state.before = state.latest.clone();
        }
        let key = self.key(operation.key());
        let previous = state.latest.get(&key).cloned();
        let step = if self.has(Fault::RevisionsAreSkipped) { 2 } else { 1 };
        let revision = shared_revision.unwrap_or(Revision(state.revision.0 + step));
        state.revision = revision;
        match operation {
            Operation::Put { value, .. } => {
                let mut create_revision = previous.as_ref().map_or(revision, |entry| entry.create_revision);
                if self.has(Fault::CreateRevisionMoves) {
                    create_revision = revision;
                }
                if self.has(Fault::LivesShareCreateRevision) {
                    let first = state.log.iter().find(|event| event.key() == Some(&key));
                    create_revision = first.map_or(revision, WatchEvent::revision);
                }
                let mut value = value.clone();
                if self.has(Fault::ValuesAreCut) {
                    value.truncate(1 << 20);
                }
                let entry = Entry {
                    key: Arc::clone(&key),
                    value,
                    create_revision,
                    revision,
                };
                state.latest.insert(key, entry.clone());
                state.log.push(WatchEvent::Put { entry, previous });
            }
            Operation::Delete { .. } => {
                state.latest.remove(&key);
                if let Some(previous) = previous {
                    state.log.push(WatchEvent::Delete {
                        key,
                        previous,
                        revision,
                    });
                }
            }
        }
        revision
    }

    /// The state right after `revision`.
    fn state_at(state: &State, revision: Revision) -> BTreeMap<Arc<str>, Entry> {
        let mut entries = BTreeMap::new();
        for event in state.log.iter().take_while(|event| event.revision() <= revision) {
            match event {
                WatchEvent::Put { entry, .. } => drop(entries.insert(entry.key.clone(), entry.clone())),
                WatchEvent::Delete { key, .. } => drop(entries.remove(key)),
                WatchEvent::Progress { .. } => {}
            }
        }
        entries
    }

    /// The entries to read from and the revision to name.
    fn view(&self, state: &State, revision: Option<Revision>) -> Result<(BTreeMap<Arc<str>, Entry>, Revision)> {
        let present = |revision| Ok((state.latest.clone(), revision));
        let Some(requested) = revision else {
            if self.has(Fault::StaleReads) {
                return Ok((
                    state.before.clone(),
                    Revision(state.revision.0.saturating_sub(1).max(1)),
                ));
            }
            return present(state.revision);
        };
        let current = state.revision;
        if requested > current || (requested == current && self.has(Fault::PresentIsFuture)) {
            return if self.has(Fault::FutureIsPresent) {
                present(current)
            } else {
                Err(Error::FutureRevision { requested, current })
            };
        }
        let oldest = state.compacted;
        if requested < oldest && !self.has(Fault::CompactedIsServed) {
            return Err(Error::Compacted { requested, oldest });
        }
        if self.has(Fault::PastIsPresent) {
            return present(requested);
        }
        let mut entries = Self::state_at(state, requested);
        if self.has(Fault::CompactionForgetsTheOld) {
            entries.retain(|_, entry| entry.revision >= oldest);
        }
        Ok((entries, requested))
    }

    /// The answer to a request, if `entries` are what there is.
    fn select(&self, request: &RangeRequest, entries: &BTreeMap<Arc<str>, Entry>, revision: Revision) -> RangeResponse {
        let prefix = self.key(&request.prefix);
        let under =
            |key: &str| key.starts_with(&*prefix) && !(prefix.is_empty() && self.has(Fault::EmptyPrefixIsNothing));
        let after = |key: &str| request.start_after.as_deref().is_none_or(|start| key > start);
        let forgets = self.has(Fault::StartAfterForgetsPrefix) && request.start_after.is_some();
        let mut found: Vec<Entry> = entries
            .values()
            .filter(|entry| after(&entry.key) && (forgets || under(&entry.key)))
            .cloned()
            .collect();
        if self.has(Fault::RangesAreUnordered) {
            found.sort_by_key(|entry| entry.revision);
        }
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let remaining = found.len().saturating_sub(limit);
        found.truncate(limit);
        let more = remaining > 0 || (self.has(Fault::MoreIsGuessed) && found.len() == limit);
        RangeResponse {
            entries: found,
            revision,
            more,
            remaining: request.count_remaining.then_some(remaining as u64),
        }
    }
}

#[async_trait]
impl Store for Reference {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        tokio::task::yield_now().await;
        let key = self.key(key);
        let state = self.shared.state.lock();
        let (entries, mut revision) = self.view(&state, None)?;
        let entry = entries.get(&key).cloned();
        if entry.is_none() && self.has(Fault::MissingIsNotFound) {
            return Err(Error::NotFound { key });
        }
        if self.has(Fault::ReadsAreAhead) {
            revision = revision.next();
        }
        Ok(GetResponse { entry, revision })
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        tokio::task::yield_now().await;
        let (entries, revision) = self.view(&self.shared.state.lock(), request.revision)?;
        let mut response = self.select(&request, &entries, revision);
        if self.has(Fault::RangesAreTorn) && request.revision.is_none() {
            for _ in 0..6 {
                tokio::task::yield_now().await;
            }
            let (entries, _) = self.view(&self.shared.state.lock(), None)?;
            let second = self.select(&request, &entries, revision).entries;
            let half = response.entries.len() / 2;
            response.entries.splice(..half, second.into_iter().take(half));
        }
        Ok(response)
    }

    async fn batch(&self, mut operations: Vec<Operation>) -> Vec<Result<Revision>> {
        tokio::task::yield_now().await;
        if self.has(Fault::CancelledWritesLeaveHoles) {
            let raise = |by: i64| {
                let mut state = self.shared.state.lock();
                state.revision = Revision(state.revision.0.saturating_add_signed(by));
            };
            raise(1);
            tokio::task::yield_now().await;
            raise(-1);
        }
        if self.has(Fault::BatchesAreReversed) {
            operations.reverse();
        }
        let mut outcomes = Vec::new();
        let mut shared_revision = None;
        for operation in &operations {
            let outcome = if self.has(Fault::NotAtomic) {
                let admitted = self.admit(&mut self.shared.state.lock(), operation);
                tokio::task::yield_now().await;
                let mut state = self.shared.state.lock();
                admitted.map(|()| self.perform(&mut state, operation, shared_revision))
            } else {
                let mut state = self.shared.state.lock();
                self.admit(&mut state, operation)
                    .map(|()| self.perform(&mut state, operation, shared_revision))
            };
            if self.has(Fault::BatchesShareARevision) {
                shared_revision = outcome.as_ref().ok().copied();
            }
            outcomes.push(outcome);
        }
        if self.has(Fault::OneFailsAll)
            && let Some(error) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).cloned()
        {
            outcomes = vec![Err(error); operations.len()];
        }
        if self.has(Fault::BatchesAreReversed) {
            outcomes.reverse();
        }
        self.shared.stirred.send_replace(());
        outcomes
    }

    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        if self.has(Fault::GuardsAreIgnored) {
            return self.batch(operations).await;
        }
        let current = self.get(&guard.key).await.map(|response| response.entry);
        let refused = match current {
            Ok(current) if guard.holds(current.as_ref()) => return self.batch(operations).await,
            Ok(current) => Error::Conflict {
                key: guard.key.clone(),
                current,
            },
            Err(error) => error,
        };
        vec![Err(refused); operations.len()]
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let state = self.shared.state.lock();
        let (current, oldest) = (state.revision, state.compacted);
        drop(state);
        if after > current && !self.has(Fault::FutureIsWatched) {
            return Err(Error::FutureRevision {
                requested: after,
                current,
            });
        }
        if after < oldest {
            return Err(Error::Compacted {
                requested: after,
                oldest,
            });
        }
        let prefix = if self.has(Fault::WatchesTakeNeighbours) {
            prefix.trim_end_matches('/')
        } else {
            prefix
        };
        Ok(Watcher::start(Arc::clone(&self.shared), prefix, after, current))
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.shared.state.lock().revision)
    }

    async fn compact(&self, requested: Revision) -> Result<()> {
        let mut state = self.shared.state.lock();
        let current = state.revision;
        if requested > current {
            return Err(Error::FutureRevision { requested, current });
        }
        let goes_back = self.has(Fault::CompactionGoesBack);
        if requested > state.compacted || goes_back {
            state.compacted = requested;
        }
        if self.has(Fault::CompactionForgetsTheOld) {
            state.latest.retain(|_, entry| entry.revision >= requested);
        }
        self.shared.compactions.fetch_add(1, Ordering::SeqCst);
        drop(state);
        self.shared.stirred.send_replace(());
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}

impl Reference {
    /// What remains after a crash. A store that is not durable has lost the last write.
    pub(super) fn crashed(&self) -> Self {
        let recovered = Self::new(self.shared.fault);
        let state = self.shared.state.lock();
        let mut log = state.log.clone();
        if self.has(Fault::LastWriteIsNotDurable) {
            log.pop();
        }
        let revision = log.last().map_or(Revision::INITIAL, WatchEvent::revision);
        let mut after = recovered.shared.state.lock();
        after.latest = Self::state_at(
            &State {
                log: log.clone(),
                latest: BTreeMap::new(),
                before: BTreeMap::new(),
                ..*state
            },
            revision,
        );
        after.log = log;
        after.revision = revision;
        after.compacted = state.compacted;
        drop(after);
        recovered
    }
}
