//! Small sets of objects that every request looks at, decoded and in memory: the catalog of clusters, the clusters
//! themselves, views and fleets, the children's RBAC.
//!
//! A [`Mirror`] follows one prefix of the store and publishes immutable snapshots; readers never wait. What is large or
//! served to clients is in a watch cache instead.

use std::fmt::Debug;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_storage::{Error, RangeRequest, Revision, Store, WatchEvent};

use crate::copies::retry;

/// Events that are published together at most, so that a burst costs one clone of the state.
const BATCH: usize = 256;

/// The state that a prefix decodes to. Keys come without the prefix.
pub trait MirrorState: Clone + Default + Debug + Send + Sync + 'static {
    /// A value was put.
    fn put(&mut self, key: &str, value: &Bytes, revision: Revision);
    /// A key was deleted.
    fn remove(&mut self, key: &str);
}

/// A decoded copy of what is under one prefix of the store.
#[derive(Debug)]
pub struct Mirror<S> {
    prefix: &'static str,
    store: Arc<dyn Store>,
    state: ArcSwap<S>,
    /// The revision up to which the state is known.
    revision: watch::Sender<Revision>,
}

impl<S: MirrorState> Mirror<S> {
    /// Reads what is under `prefix` now. [`Mirror::follow`] keeps it up to date.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load(store: Arc<dyn Store>, prefix: &'static str) -> Result<Arc<Self>, Error> {
        let (state, revision) = read(&*store, prefix).await?;
        let state = ArcSwap::from_pointee(state);
        Ok(Arc::new(Self {
            prefix,
            store,
            state,
            revision: watch::Sender::new(revision),
        }))
    }

    /// A state that nothing follows.
    #[cfg(test)]
    pub(crate) fn of(state: S) -> Arc<Self> {
        Arc::new(Self {
            prefix: "",
            store: Arc::new(umbra_storage::Embedded::in_memory()),
            state: ArcSwap::from_pointee(state),
            revision: watch::Sender::default(),
        })
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> Arc<S> {
        self.state.load_full()
    }

    /// Changes whenever the state may have.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Follows the store until `cancel`. After an error of the watch everything is read again.
    pub async fn follow(self: Arc<Self>, cancel: CancellationToken) {
        let mut failures = 0;
        loop {
            let followed = tokio::select! {
                () = cancel.cancelled() => return,
                followed = self.follow_once(failures > 0) => followed,
            };
            failures += 1;
            if let Err(error) = followed {
                tracing::warn!(%error, prefix = self.prefix, "following the store is interrupted");
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(retry::pause(failures)) => {}
            }
        }
    }

    async fn follow_once(&self, read_again: bool) -> Result<(), Error> {
        if read_again {
            let (state, revision) = read(&*self.store, self.prefix).await?;
            self.publish(state, revision);
        }
        let after = *self.revision.borrow();
        let mut events = self.store.watch(self.prefix, after).await?.ready_chunks(BATCH);
        while let Some(chunk) = events.next().await {
            let mut state: Option<S> = None;
            let mut revision = after;
            for event in chunk {
                let event = event?;
                revision = event.revision();
                match event {
                    WatchEvent::Progress { .. } => {}
                    WatchEvent::Put { entry, .. } => {
                        let state = state.get_or_insert_with(|| S::clone(&self.state.load()));
                        state.put(self.below(&entry.key), &entry.value, entry.revision);
                    }
                    WatchEvent::Delete { key, .. } => {
                        let state = state.get_or_insert_with(|| S::clone(&self.state.load()));
                        state.remove(self.below(&key));
                    }
                }
            }
            if let Some(state) = state {
                self.publish(state, revision);
            }
        }
        Ok(())
    }

    fn below<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(self.prefix)
            .expect("a watch of a prefix delivers keys with it")
    }

    fn publish(&self, state: S, revision: Revision) {
        self.state.store(Arc::new(state));
        self.revision.send_replace(revision);
    }
}

async fn read<S: MirrorState>(store: &dyn Store, prefix: &str) -> Result<(S, Revision), Error> {
    let response = store.range(RangeRequest::prefix(prefix)).await?;
    let mut state = S::default();
    for entry in &response.entries {
        let below = entry
            .key
            .strip_prefix(prefix)
            .expect("a range of a prefix has keys with it");
        state.put(below, &entry.value, entry.revision);
    }
    Ok((state, response.revision))
}
