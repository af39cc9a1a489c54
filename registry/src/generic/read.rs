//! Get and list from a watch cache, with the meaning Kubernetes gives to `resourceVersion`, `resourceVersionMatch`, `limit`
//! and `continue` (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>;
//! `k8s.io/apiserver/pkg/storage/continue.go`, `pkg/storage/cacher/delegator`).
//!
//! Nothing here knows how keys are laid out or what an object looks like: a [`Scope`] does.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::selector::{FieldSelector, Selector};
use umbra_apimachinery::status::{Cause, Reason, Status};
use umbra_apimachinery::table::ListMetadata;
use umbra_storage::{Cache, CachedObject, Error, Indexer, RangeRequest, Revision, Snapshot, Store};

use super::metadata::forbidden;
use super::store::storage_status;
use crate::request::{ListOptions, ResourceVersionMatch};
use crate::resource::{Object, ObjectList};

/// How long a read waits for the cache to become fresh enough (`blockTimeout` of
/// `k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`).
const FRESHNESS: Duration = Duration::from_secs(3);

/// What a list or a watch is about, among the objects of a cache whose indexer keeps `E` of each.
pub trait Scope<E>: Send + Sync + 'static {
    /// What the keys of all objects of the resource start with; continue tokens are relative to it.
    fn base(&self) -> &str;

    /// What the keys of the objects in question start with: [`Scope::base`] or more.
    fn prefix(&self) -> &str;

    /// Whether an object under the prefix is in question.
    fn selects(&self, object: &CachedObject<E>) -> bool;

    /// Whether all objects under the prefix are.
    fn selects_everything(&self) -> bool;

    /// An object as it is served.
    fn object(&self, object: &CachedObject<E>) -> Object;
}

/// Label and field selectors of a request.
#[derive(Debug, Clone)]
pub struct Selection {
    /// By labels.
    pub labels: Selector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Reads the selectors of a request; `supported` says which fields may be named.
    ///
    /// # Errors
    /// 400 for what cannot be read, and for fields that are not supported.
    pub fn parse(options: &ListOptions, supported: impl Fn(&str) -> bool) -> Result<Self, Status> {
        let labels = Selector::parse(&options.label_selector)
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields =
            FieldSelector::parse(&options.field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
        fields
            .restrict_to(supported)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self { labels, fields })
    }

    /// Whether the object is selected.
    #[must_use]
    pub fn selects<E>(&self, object: &CachedObject<E>) -> bool {
        self.labels.matches(|key| object.labels.get(key))
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(&object.name),
                "metadata.namespace" => Some(&object.namespace),
                other => object.fields.get(other),
            })
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// `metadata.continue`: which snapshot, and after which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ContinueToken {
    #[serde(rename = "v")]
    version: String,
    /// −1 is the newest state, whatever was seen before.
    #[serde(rename = "rv", default)]
    revision: i64,
    /// The last key of the page before, relative to the base, followed by a NUL: the next possible key.
    #[serde(default)]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The revision of a token whose snapshot is gone.
const INCONSISTENT: i64 = -1;

impl ContinueToken {
    fn after(key: &str, base: &str, revision: i64) -> Self {
        Self {
            version: TOKEN_VERSION.to_owned(),
            revision,
            start: format!("{}\0", key.strip_prefix(base).unwrap_or(key)),
        }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token has only strings and numbers"))
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))?;
        if token.version != TOKEN_VERSION {
            return Err(invalid("server does not recognize this encoded version"));
        }
        if token.revision == 0 || token.revision < INCONSISTENT {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if !token.start.ends_with('\0') {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }

    /// The last key of the page before.
    fn last_key(&self, base: &str) -> String {
        format!("{base}{}", self.start.trim_end_matches('\0'))
    }
}

/// The object under `key`, not older than `revision`.
///
/// # Errors
/// 504 for a revision to come.
pub async fn get<I: Indexer>(
    cache: &Cache<I>,
    key: &str,
    revision: u64,
    deadline: Instant,
) -> Result<Option<Arc<CachedObject<I::Extra>>>, Status> {
    let snapshot = not_older_than(cache, revision, deadline).await?;
    Ok(snapshot.get(key).cloned())
}

/// A state of the cache that is not older than `revision`; 0 takes any.
pub(super) async fn not_older_than<I: Indexer>(
    cache: &Cache<I>,
    revision: u64,
    deadline: Instant,
) -> Result<Snapshot<I::Extra>, Status> {
    let deadline = deadline.min(Instant::now() + FRESHNESS);
    cache.ready(deadline).await.map_err(|error| storage_status(&error))?;
    cache
        .wait_for(Revision(revision), deadline)
        .await
        .map_err(|error| storage_status(&error))
}

/// A state of the cache that has everything the store had when this was called.
pub(super) async fn most_recent<I: Indexer>(
    store: &dyn Store,
    cache: &Cache<I>,
    deadline: Instant,
) -> Result<Snapshot<I::Extra>, Status> {
    let current = store.current_revision().await.map_err(|error| storage_status(&error))?;
    not_older_than(cache, current.0, deadline).await
}

/// The objects of a page.
///
/// # Errors
/// 400 for tokens that make no sense, 422 for options that do not go together, 410 for revisions that are gone, 504 for
/// revisions to come.
pub async fn list<I: Indexer, S: Scope<I::Extra>>(
    store: &dyn Store,
    cache: &Cache<I>,
    scope: &S,
    options: &ListOptions,
    deadline: Instant,
) -> Result<ObjectList, Status> {
    validate(options)?;
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    if !options.continue_token.is_empty() {
        return next_page(store, cache, scope, options, limit, deadline).await;
    }
    let snapshot = match (options.resource_version, options.resource_version_match) {
        (None, _) => most_recent(store, cache, deadline).await?,
        (Some(0), _) => not_older_than(cache, 0, deadline).await?,
        (Some(revision), Some(ResourceVersionMatch::Exact)) => {
            return exact(store, cache, scope, revision, None, limit, deadline).await;
        }
        // A limit with a revision and nothing said meant that revision before there was a way to say it.
        (Some(revision), None) if limit > 0 => {
            return exact(store, cache, scope, revision, None, limit, deadline).await;
        }
        (Some(revision), _) => not_older_than(cache, revision, deadline).await?,
    };
    Ok(page(cache, &snapshot, scope, None, limit))
}

async fn next_page<I: Indexer, S: Scope<I::Extra>>(
    store: &dyn Store,
    cache: &Cache<I>,
    scope: &S,
    options: &ListOptions,
    limit: usize,
    deadline: Instant,
) -> Result<ObjectList, Status> {
    if options.resource_version.is_some_and(|revision| revision > 0) {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let token = ContinueToken::decode(&options.continue_token)?;
    let last = token.last_key(scope.base());
    match u64::try_from(token.revision) {
        Ok(revision) => exact(store, cache, scope, revision, Some(&last), limit, deadline).await,
        Err(_) => {
            let snapshot = most_recent(store, cache, deadline).await?;
            Ok(page(cache, &snapshot, scope, Some(&last), limit))
        }
    }
}

/// A page of the state at exactly that revision: from the cache where it has it, otherwise from the store.
async fn exact<I: Indexer, S: Scope<I::Extra>>(
    store: &dyn Store,
    cache: &Cache<I>,
    scope: &S,
    revision: u64,
    after: Option<&str>,
    limit: usize,
    deadline: Instant,
) -> Result<ObjectList, Status> {
    if let Some(snapshot) = cache.snapshot_at(Revision(revision)) {
        return Ok(page(cache, &snapshot, scope, after, limit));
    }
    // Waiting also tells revisions to come from those that are gone.
    not_older_than(cache, revision, deadline).await?;
    if let Some(snapshot) = cache.snapshot_at(Revision(revision)) {
        return Ok(page(cache, &snapshot, scope, after, limit));
    }
    let mut request = RangeRequest::prefix(scope.prefix()).at(Revision(revision));
    request.start_after = after.map(str::to_owned);
    let response = store.range(request).await.map_err(|error| match (&error, after) {
        (Error::Compacted { .. }, Some(after)) => expired_token(after, scope.base()),
        (Error::Compacted { requested, oldest }, None) => Status::expired(format!(
            "The provided resource version is too old: {requested} ({oldest})"
        )),
        _ => storage_status(&error),
    })?;
    let objects = response
        .entries
        .iter()
        .filter_map(|entry| cache.indexer().object(entry));
    Ok(collect(objects, scope, response.revision, limit).list)
}

fn page<I: Indexer, S: Scope<I::Extra>>(
    cache: &Cache<I>,
    snapshot: &Snapshot<I::Extra>,
    scope: &S,
    after: Option<&str>,
    limit: usize,
) -> ObjectList {
    let objects = snapshot.range(scope.prefix(), after).map(AsRef::as_ref);
    let page = collect(objects, scope, snapshot.revision(), limit);
    if page.has_more {
        cache.keep(snapshot);
    }
    page.list
}

struct Page {
    list: ObjectList,
    has_more: bool,
}

/// Collects a page of selected objects; one more is looked for, so that no page comes that is empty.
fn collect<E, S: Scope<E>, O: std::borrow::Borrow<CachedObject<E>>>(
    objects: impl Iterator<Item = O>,
    scope: &S,
    revision: Revision,
    limit: usize,
) -> Page {
    let mut selected = objects.filter(|object| scope.selects(object.borrow()));
    let mut items = Vec::new();
    let mut last_key = None;
    while limit == 0 || items.len() < limit {
        let Some(object) = selected.next() else { break };
        let object = object.borrow();
        items.push(scope.object(object));
        last_key = Some(Arc::clone(&object.key));
    }
    let mut metadata = ListMetadata {
        resource_version: revision.to_string(),
        ..ListMetadata::default()
    };
    let has_more = limit > 0 && selected.next().is_some();
    if let Some(last) = last_key.filter(|_| has_more) {
        let revision = i64::try_from(revision.0).unwrap_or(i64::MAX);
        metadata.continue_token = ContinueToken::after(&last, scope.base(), revision).encode();
        if scope.selects_everything() {
            metadata.remaining_item_count = i64::try_from(1 + selected.count()).ok();
        }
    }
    Page {
        list: ObjectList { metadata, items },
        has_more,
    }
}

/// 410 for a page whose snapshot is gone, with a token that goes on in the newest state
/// (`handleCompactedErrorForPaging` of `k8s.io/apiserver/pkg/storage/etcd3/errors.go`).
fn expired_token(after: &str, base: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.continue_token = ContinueToken::after(after, base, INCONSISTENT).encode();
    status
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
    fn tokens_are_read_as_they_are_written() {
        let token = ContinueToken::after("/umbra/hub/core/pods/a/b", "/umbra/hub/core/pods/", 7);
        let read = ContinueToken::decode(&token.encode()).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.start, "a/b\0");
        assert_eq!(read.last_key("/umbra/hub/core/pods/"), "/umbra/hub/core/pods/a/b");
        let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for bad in [
            "%".to_owned(),
            json("{}"),
            json(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a\u0000"}"#),
            json(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#),
            json(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
        ] {
            assert_eq!(ContinueToken::decode(&bad).unwrap_err().code, 400, "{bad}");
        }
    }

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
