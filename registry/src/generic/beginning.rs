//! How a watch begins.
//!
//! A watch may have to begin at a revision that the cache has not come to, or cannot know it has come to: the revision of a
//! list that the store answered, or the present of a store whose progress cannot be trusted. It then begins where the cache
//! is, and passes over the events up to that revision, which the client has; what the client is to get first is read from
//! the store. kube-apiserver begins such watches likewise, but refuses streaming lists where progress cannot be trusted;
//! here they work.
//!
//! A watch without `resourceVersion` begins with the most recent state, as documented; kube-apiserver takes any state that
//! its cache has.

use std::sync::Arc;

use tokio::time::Instant;
use umbra_apimachinery::status::Status;
use umbra_storage::cache::WatchFrom;
use umbra_storage::{Cache, CacheWatch, Error, Indexer, Revision, Snapshot, Store};

use super::read::FRESHNESS;
use super::scope::Scope;
use super::store::storage_status;
use super::watch::BUFFER;
use crate::request::ListOptions;

/// How fresh the state at the beginning has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    MostRecent,
    NotOlderThan(u64),
}

/// How a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    freshness: Freshness,
    from: WatchFrom,
    /// Whether what is there comes first.
    with_state: bool,
    /// Whether a bookmark says where that ends.
    pub(super) marks_end: bool,
}

impl Beginning {
    pub(super) fn of(options: &ListOptions) -> Self {
        let freshness = options
            .resource_version
            .map_or(Freshness::MostRecent, Freshness::NotOlderThan);
        let exact = options.resource_version.filter(|revision| *revision > 0);
        let with_state = options.send_initial_events.unwrap_or(exact.is_none());
        Self {
            freshness,
            from: match exact {
                Some(revision) if !with_state => WatchFrom::After(Revision(revision)),
                _ => WatchFrom::Now,
            },
            with_state,
            marks_end: options.send_initial_events == Some(true) && options.allow_watch_bookmarks,
        }
    }
}

impl Beginning {
    pub(super) async fn begin<I: Indexer, S: Scope<I::Extra>>(
        &self,
        store: &dyn Store,
        cache: &Arc<Cache<I>>,
        scope: &S,
        deadline: Instant,
    ) -> Result<Begun<I>, Status> {
        let needed = match self.freshness {
            Freshness::MostRecent => store.current_revision().await.map_err(|error| storage_status(&error))?,
            Freshness::NotOlderThan(revision) => Revision(revision),
        };
        let patience = if store.progress_on_request() {
            deadline.min(Instant::now() + FRESHNESS)
        } else {
            Instant::now()
        };
        match cache.wait_for(needed, patience).await {
            Ok(_) => self.begin_in_cache(cache, scope, deadline).await,
            Err(Error::FutureRevision { .. }) => self.begin_ahead(store, cache, scope, needed, deadline).await,
            Err(error) => Err(storage_status(&error)),
        }
    }

    /// Begins at a revision that the cache has come to.
    async fn begin_in_cache<I: Indexer, S: Scope<I::Extra>>(
        &self,
        cache: &Arc<Cache<I>>,
        scope: &S,
        deadline: Instant,
    ) -> Result<Begun<I>, Status> {
        let (prefix, field) = (scope.prefix(), scope.indexed_field());
        let (state, events) = match self.from {
            WatchFrom::Now => cache
                .snapshot_and_watch_field(prefix, field, self.from, BUFFER)
                .map(|(state, events)| (Some(state), events)),
            // Also from before the window, as far back as the store remembers.
            WatchFrom::After(revision) => cache
                .watch_from_history(prefix, field, revision, BUFFER, deadline)
                .await
                .map(|events| (None, events)),
        }
        .map_err(|error| beginning_status(&error))?;
        Ok(Begun {
            events,
            passed: Revision(0),
            state: state.filter(|_| self.with_state),
        })
    }

    /// Begins at a revision that the cache has not come to, or cannot know it has.
    async fn begin_ahead<I: Indexer, S: Scope<I::Extra>>(
        &self,
        store: &dyn Store,
        cache: &Arc<Cache<I>>,
        scope: &S,
        needed: Revision,
        deadline: Instant,
    ) -> Result<Begun<I>, Status> {
        // Before the state is read, so that nothing is missed between.
        let (_, events) = cache
            .snapshot_and_watch_field(scope.prefix(), scope.indexed_field(), WatchFrom::Now, BUFFER)
            .map_err(|error| beginning_status(&error))?;
        if !self.with_state {
            refuse_future(store, needed).await?;
            return Ok(Begun {
                events,
                passed: needed,
                state: None,
            });
        }
        let state = cache.not_older_than(scope.prefix(), needed, deadline).await;
        let state = state.map_err(|error| storage_status(&error))?;
        Ok(Begun {
            events,
            passed: state.revision(),
            state: Some(state),
        })
    }
}

/// A watch of the cache that has begun.
pub(super) struct Begun<I: Indexer> {
    pub(super) events: CacheWatch<I>,
    /// The revision up to which the client has everything, or gets it from the state.
    pub(super) passed: Revision,
    /// What comes first.
    pub(super) state: Option<Snapshot<I::Extra>>,
}

/// 504 for a revision that the store has not come to.
async fn refuse_future(store: &dyn Store, revision: Revision) -> Result<(), Status> {
    match store.current_revision().await {
        Ok(current) if current < revision => Err(Status::too_large_resource_version(revision.0, current.0)),
        Ok(_) => Ok(()),
        Err(error) => Err(storage_status(&error)),
    }
}

/// What a client is told of a watch that cannot begin, or cannot go on.
pub(super) fn beginning_status(error: &Error) -> Status {
    match error {
        Error::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        other => storage_status(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_says_how_a_watch_begins() {
        let options = |resource_version, send_initial_events| ListOptions {
            resource_version,
            send_initial_events,
            allow_watch_bookmarks: true,
            ..ListOptions::default()
        };
        let after = WatchFrom::After(Revision(7));
        for (options, from, with_state, marks_end) in [
            (options(None, None), WatchFrom::Now, true, false),
            (options(Some(0), None), WatchFrom::Now, true, false),
            (options(Some(7), None), after, false, false),
            (options(None, Some(true)), WatchFrom::Now, true, true),
            (options(Some(7), Some(true)), WatchFrom::Now, true, true),
            (options(None, Some(false)), WatchFrom::Now, false, false),
            (options(Some(7), Some(false)), after, false, false),
        ] {
            let begin = Beginning::of(&options);
            assert_eq!(
                (begin.from, begin.with_state, begin.marks_end),
                (from, with_state, marks_end)
            );
        }
    }
}
