//! Get and list from a watch cache, with the meaning Kubernetes gives to `resourceVersion`, `resourceVersionMatch`, `limit`
//! and `continue` (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>; KEP-2340, KEP-4988,
//! KEP-4568; `k8s.io/apiserver/pkg/storage/cacher/delegator.go` and `delegator/interface.go`).
//!
//! The cache answers wherever it can know that its answer is right. Where it cannot, because the store's progress cannot be
//! trusted or does not come in time, the store answers. What the cache holds is served while the store is down.
//!
//! Nothing here knows how keys are laid out or what an object looks like: a [`Scope`] does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Cause, Reason, Status};
use umbra_apimachinery::table::ListMetadata;
use umbra_storage::{Cache, CachedObject, Error, Indexer, RangeRequest, Revision, Snapshot, Store};

use super::continuation::{ContinueToken, expired_token};
use super::metadata::forbidden;
pub use super::scope::{Scope, Selection};
use super::store::storage_status;
use crate::request::{ListOptions, ResourceVersionMatch};
use crate::resource::{Object, ObjectList};

/// How long a read waits for the cache to become fresh enough (`blockTimeout` of
/// `k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`).
pub(super) const FRESHNESS: Duration = Duration::from_secs(3);
/// How long a request waits for a cache that is being filled: as long.
const FILLING: Duration = FRESHNESS;
/// Entries to read from the store at once, about 5 MB. kube-apiserver reads up to 10,000 (`maxLimit` of
/// `k8s.io/apiserver/pkg/storage/etcd3/store.go`), which etcd answers with one message in its memory.
const STORE_PAGE: usize = 1_000;

/// The object under `key`, not older than `revision`; 0 takes any. Where the cache has not come so far, or is not filled yet,
/// it comes from the store (`Get` of `k8s.io/apiserver/pkg/storage/cacher/delegator.go`).
///
/// # Errors
/// 504 for a revision to come.
pub async fn get<I: Indexer>(
    cache: &Cache<I>,
    key: &str,
    revision: u64,
    deadline: Instant,
) -> Result<Option<Arc<CachedObject<I::Extra>>>, Status> {
    let snapshot = cache.not_older_than(key, Revision(revision), deadline).await;
    let snapshot = snapshot.map_err(|error| storage_status(&error))?;
    Ok(snapshot.get(key).cloned())
}

/// Waits for a cache that is being filled, which takes some seconds at most; then the client has to come again
/// (KEP-4568; `calculateRetryAfterForUnreadyCache` of `k8s.io/apiserver/pkg/storage/cacher/util.go`).
///
/// # Errors
/// 429 with the seconds to wait: the longer the cache is not ready, the more.
pub(super) async fn ready<I: Indexer>(cache: &Cache<I>, deadline: Instant) -> Result<(), Status> {
    if cache.ready(deadline.min(Instant::now() + FILLING)).await.is_ok() {
        return Ok(());
    }
    let seconds = (0.06 * cache.unready_for().as_secs_f64()).exp().clamp(1.0, 30.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 30"
    )]
    let seconds = seconds as u32;
    let message = "storage is (re)initializing: the objects are being loaded; try again";
    Err(Status::failure(Reason::TooManyRequests, message).retry_after(seconds))
}

/// The objects of a page.
///
/// | `resourceVersion` | with | answered |
/// |---|---|---|
/// | unset | | by the cache once it is as new as the store; by the store where that cannot be known |
/// | 0 | | by the cache as it is |
/// | set | nothing, or `NotOlderThan` | by the cache once it is so new, otherwise by the store |
/// | set | `Exact`, or `limit` | by the cache if it has that state, otherwise by the store |
/// | of a token | `continue` | likewise; a token without one as if unset |
///
/// While the cache is being filled, pages of unselected objects come from the store; everything else has to wait, so that
/// what reads all objects does not do so once for each client. A `limit` holds with `resourceVersion=0` too, which
/// kube-apiserver ignores there: the pages are of one state and come from memory.
///
/// # Errors
/// 400 for tokens that make no sense, 422 for options that do not go together, 410 for revisions that are gone, 429 while
/// the cache is being filled, 503 where the store is needed and down, 504 for revisions to come.
pub async fn list<I: Indexer, S: Scope<I::Extra>>(
    store: &dyn Store,
    cache: &Cache<I>,
    scope: &S,
    options: &ListOptions,
    deadline: Instant,
) -> Result<ObjectList, Status> {
    validate(options)?;
    let list = List {
        store,
        cache,
        scope,
        limit: usize::try_from(options.limit).unwrap_or(usize::MAX),
        deadline,
    };
    if !options.continue_token.is_empty() {
        return list.next_page(options).await;
    }
    match (options.resource_version, options.resource_version_match) {
        (None, _) => list.present(None).await,
        (Some(revision), Some(ResourceVersionMatch::Exact)) => list.exact(revision, None).await,
        // A limit with a revision and nothing said meant that revision before there was a way to say it.
        (Some(revision), None) if revision > 0 && list.limit > 0 => list.exact(revision, None).await,
        (Some(revision), _) => list.not_older_than(revision).await,
    }
}

/// A list that is being answered.
struct List<'a, I: Indexer, S> {
    store: &'a dyn Store,
    cache: &'a Cache<I>,
    scope: &'a S,
    limit: usize,
    deadline: Instant,
}

impl<I: Indexer, S: Scope<I::Extra>> List<'_, I, S> {
    async fn next_page(&self, options: &ListOptions) -> Result<ObjectList, Status> {
        if options.resource_version.is_some_and(|revision| revision > 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = ContinueToken::decode(&options.continue_token)?;
        let last = token.last_key(self.scope.base());
        match token.revision() {
            Some(revision) => self.exact(revision, Some(&last)).await,
            None => self.present(Some(&last)).await,
        }
    }

    /// Whether the cache can be asked. A page that reads no more of the store than it shows need not wait until it can.
    async fn cache_can_be_asked(&self) -> Result<bool, Status> {
        if !self.cache.is_ready() && self.limit > 0 && self.scope.selects_whole_prefix() {
            return Ok(false);
        }
        ready(self.cache, self.deadline).await?;
        Ok(true)
    }

    /// A page of the newest state.
    async fn present(&self, after: Option<&str>) -> Result<ObjectList, Status> {
        if self.cache_can_be_asked().await? && self.store.progress_on_request() {
            let current = self.store.current_revision().await;
            let current = current.map_err(|error| storage_status(&error))?;
            if let Some(snapshot) = self.reached(current).await? {
                return Ok(self.page(&snapshot, after));
            }
        }
        self.of_store(None, after).await
    }

    /// A page of a state at that revision or later.
    async fn not_older_than(&self, revision: u64) -> Result<ObjectList, Status> {
        if self.cache_can_be_asked().await?
            && let Some(snapshot) = self.reached(Revision(revision)).await?
        {
            return Ok(self.page(&snapshot, None));
        }
        self.refuse_future(revision).await?;
        self.of_store(None, None).await
    }

    /// A page of the state at exactly that revision: from the cache where it has it, otherwise from the store.
    async fn exact(&self, revision: u64, after: Option<&str>) -> Result<ObjectList, Status> {
        let revision = Revision(revision);
        if self.cache_can_be_asked().await? {
            // Where the revision is not reached the store tells whether it is one to come.
            self.reached(revision).await?;
            if let Some(snapshot) = self.cache.snapshot_at(revision) {
                return Ok(self.page(&snapshot, after));
            }
        }
        self.of_store(Some(revision), after).await
    }

    /// A state of the cache at that revision or later, if it comes so far in time. Without progress it comes so far only if
    /// something happens, which is not waited for.
    async fn reached(&self, revision: Revision) -> Result<Option<Snapshot<I::Extra>>, Status> {
        let now = Instant::now();
        let patience = if self.store.progress_on_request() {
            self.deadline.min(now + FRESHNESS)
        } else {
            now
        };
        match self.cache.wait_for(revision, patience).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(Error::FutureRevision { .. }) => Ok(None),
            Err(error) => Err(storage_status(&error)),
        }
    }

    async fn refuse_future(&self, revision: u64) -> Result<(), Status> {
        match self.store.current_revision().await {
            Ok(current) if current.0 < revision => Err(Status::too_large_resource_version(revision, current.0)),
            Ok(_) => Ok(()),
            Err(error) => Err(storage_status(&error)),
        }
    }

    fn page(&self, snapshot: &Snapshot<I::Extra>, after: Option<&str>) -> ObjectList {
        let prefix = self.scope.prefix();
        let indexed = self.scope.indexed_field();
        let mut objects = indexed
            .and_then(|(field, value)| snapshot.range_of_field(field, value, prefix, after))
            .unwrap_or_else(|| snapshot.range(prefix, after));
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let (selected, remaining) = if self.scope.selects_whole_prefix() {
            let selected: Vec<_> = objects.by_ref().take(limit).collect();
            (selected, Some(objects.len()))
        } else {
            let mut matching = objects.filter(|object| self.scope.selects(object));
            let selected: Vec<_> = matching.by_ref().take(limit).collect();
            // One more is looked for, so that no page comes that is empty.
            let remaining = match matching.next() {
                None => Some(0),
                Some(_) if self.scope.selects_everything() => Some(1 + matching.count()),
                Some(_) => None,
            };
            (selected, remaining)
        };
        let rest = Rest::new(selected.last().map(|object| &*object.key), remaining);
        if rest.is_some() {
            self.cache.keep(snapshot);
        }
        let items = selected.into_iter().map(|object| self.scope.object(object)).collect();
        self.answer(items, snapshot.revision(), rest)
    }

    /// A page of the state at a revision, or of the newest, as the store has it.
    async fn of_store(&self, revision: Option<Revision>, after: Option<&str>) -> Result<ObjectList, Status> {
        let whole = self.limit > 0 && self.scope.selects_whole_prefix();
        let mut request = RangeRequest::prefix(self.scope.prefix());
        request.revision = revision;
        request.start_after = after.map(str::to_owned);
        request.limit = if whole { self.limit } else { STORE_PAGE };
        request.count_remaining = whole;
        let mut selected: Vec<Arc<CachedObject<I::Extra>>> = Vec::new();
        loop {
            let page = self.cache.page_of_store(request.clone(), self.deadline).await;
            let page = page.map_err(|error| self.past_status(&error, after))?;
            let matching = page.objects.into_iter().filter(|object| self.scope.selects(object));
            selected.extend(matching);
            let last = page.last_key.filter(|_| page.more);
            let rest = if whole {
                last.map(|last| Rest {
                    last: last.to_string(),
                    count: page.remaining,
                })
            } else if self.limit > 0 && selected.len() > self.limit {
                selected.truncate(self.limit);
                Rest::new(selected.last().map(|object| &*object.key), None)
            } else if let Some(last) = last {
                // What is read next is of the same state.
                request.revision = Some(page.revision);
                request.start_after = Some(last.to_string());
                continue;
            } else {
                None
            };
            let items = selected.iter().map(|object| self.scope.object(object)).collect();
            return Ok(self.answer(items, page.revision, rest));
        }
    }

    fn past_status(&self, error: &Error, after: Option<&str>) -> Status {
        match (error, after) {
            (Error::Compacted { .. }, Some(after)) => expired_token(after, self.scope.base()),
            (Error::Compacted { requested, oldest }, None) => Status::expired(format!(
                "The provided resource version is too old: {requested} ({oldest})"
            )),
            _ => storage_status(error),
        }
    }

    fn answer(&self, items: Vec<Object>, revision: Revision, rest: Option<Rest>) -> ObjectList {
        let mut metadata = ListMetadata {
            resource_version: revision.to_string(),
            ..ListMetadata::default()
        };
        if let Some(rest) = rest {
            metadata.continue_token = ContinueToken::after(&rest.last, self.scope.base(), Some(revision.0)).encode();
            metadata.remaining_item_count = rest.count.and_then(|count| i64::try_from(count).ok());
        }
        ObjectList { metadata, items }
    }
}

/// What a page leaves to the next ones.
struct Rest {
    /// The last key of the page.
    last: String,
    /// How many objects follow, where that is known.
    count: Option<u64>,
}

impl Rest {
    /// `None` where nothing follows: `remaining` is zero, or there is no last key because nothing was selected.
    fn new(last: Option<&str>, remaining: Option<usize>) -> Option<Self> {
        let last = last.filter(|_| remaining != Some(0))?;
        Some(Self {
            last: last.to_owned(),
            count: remaining.map(|count| count as u64),
        })
    }
}

/// Options that do not go together (`ValidateListOptions` of
/// `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`).
fn validate(options: &ListOptions) -> Result<(), Status> {
    let fault = match (options.resource_version_match, options.resource_version) {
        _ if options.send_initial_events.is_some() => ("sendInitialEvents", "sendInitialEvents is forbidden for list"),
        (None, _) => return Ok(()),
        (Some(_), _) if !options.continue_token.is_empty() => (
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        ),
        (Some(_), None) => (
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (Some(ResourceVersionMatch::Exact), Some(0)) => (
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (Some(_), Some(_)) => return Ok(()),
    };
    Err(invalid_options(forbidden(fault.0, fault.1)))
}

/// 422 for the query of a list or a watch.
pub(super) fn invalid_options(cause: Cause) -> Status {
    let resource = GroupResource::new("meta.k8s.io", "listoptions");
    let status = Status::invalid(&resource, "ListOptions", "", vec![cause]);
    debug_assert!(status.is(Reason::Invalid));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let base = ListOptions::default();
        let exact = Some(ResourceVersionMatch::Exact);
        for bad in [
            ListOptions {
                resource_version_match: exact,
                ..base.clone()
            },
            ListOptions {
                resource_version_match: exact,
                resource_version: Some(0),
                ..base.clone()
            },
            ListOptions {
                send_initial_events: Some(true),
                ..base.clone()
            },
        ] {
            assert_eq!(validate(&bad).unwrap_err().code, 422);
        }
        assert!(validate(&base).is_ok());
    }
}
