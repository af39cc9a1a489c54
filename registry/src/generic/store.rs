//! One stored resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Cause, Reason, Status};
use umbra_apimachinery::table::ColumnDefinition;
use umbra_storage::{Cache, Entry, Error, Revision, Store};

use super::admission::Admission;
use super::codec;
use super::fields::FieldManagers;
use super::indexer::{StoredIndexer, StoredScope};
use super::keys::Keys;
use super::read;
use super::strategy::Strategy;
use super::subresource::{Connector, SubresourceHandler};
use super::watch;
use crate::request::{GetOptions, ListOptions, RequestContext, WriteOptions};
use crate::resource::{Body, EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest, WriteVerb};

/// How long the answer to a write waits for the cache. The write has happened by then: the wait is for the client's next
/// read, and running out of it is no error.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The pauses between attempts of a write that meets conflicts: the first is immediate, later ones up to this, with full
/// jitter.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// One stored resource of one root.
pub struct ResourceStore {
    pub(super) strategy: Strategy,
    pub(super) keys: Keys,
    pub(super) fields: FieldManagers,
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<Cache<StoredIndexer>>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) handlers: BTreeMap<String, Arc<dyn SubresourceHandler>>,
    connector: Option<Arc<dyn Connector>>,
}

impl std::fmt::Debug for ResourceStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceStore")
            .field("strategy", &self.strategy)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// An object as it is stored now.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Parsed, with its resourceVersion.
    pub(super) object: Value,
    /// As stored.
    pub(super) value: Bytes,
    pub(super) revision: Revision,
}

/// What a write is about.
#[derive(Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) context: &'a RequestContext,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) subresource: &'a str,
    pub(super) options: &'a WriteOptions,
}

impl Write<'_> {
    /// The field manager's name: as asked for, or the start of the user agent.
    pub(super) fn manager(&self) -> &str {
        if self.options.field_manager.is_empty() {
            self.context.user_agent.split('/').next().unwrap_or_default()
        } else {
            &self.options.field_manager
        }
    }
}

impl ResourceStore {
    /// The resource that `strategy` describes, kept under `keys` of `store`. `cache` is a running cache of the prefix of
    /// `keys`, made with a [`StoredIndexer`].
    #[must_use]
    pub fn new(
        strategy: Strategy,
        keys: Keys,
        store: Arc<dyn Store>,
        cache: Arc<Cache<StoredIndexer>>,
        admission: Arc<dyn Admission>,
    ) -> Self {
        Self {
            fields: FieldManagers::new(&strategy),
            strategy,
            keys,
            store,
            cache,
            admission,
            handlers: BTreeMap::new(),
            connector: None,
        }
    }

    /// The same resource, where POST to `subresource` of an object is answered by `handler`.
    #[must_use]
    pub fn with_handler(mut self, subresource: &str, handler: Arc<dyn SubresourceHandler>) -> Self {
        self.handlers.insert(subresource.to_owned(), handler);
        self
    }

    /// The same resource, whose connections are answered by `connector`. The descriptor has to name the subresources.
    #[must_use]
    pub fn with_connector(mut self, connector: Option<Arc<dyn Connector>>) -> Self {
        self.connector = connector;
        self
    }

    /// What differs from kind to kind.
    #[must_use]
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Where the objects are.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The cache that reads are served from.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache<StoredIndexer>> {
        &self.cache
    }

    /// The UID of an object, as the store itself has it now.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn stored_uid(&self, namespace: Option<&str>, name: &str) -> Result<Option<String>, Status> {
        let stored = self.load(&self.keys.key(namespace, name)).await?;
        Ok(stored.map(|stored| stored.object.uid().to_owned()))
    }

    pub(super) fn resource(&self) -> GroupResource {
        self.strategy.descriptor.group_resource()
    }

    pub(super) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.resource(), name)
    }

    pub(super) fn invalid(&self, name: &str, causes: Vec<Cause>) -> Status {
        Status::invalid(&self.resource(), &self.strategy.descriptor.kind, name, causes)
    }

    /// The object as it is stored now, read from the store.
    pub(super) async fn load(&self, key: &str) -> Result<Option<Stored>, Status> {
        let response = self.store.get(key).await.map_err(|error| storage_status(&error))?;
        response.entry.as_ref().map(stored).transpose()
    }

    /// Waits until reads from the cache see `revision`.
    pub(super) async fn catch_up(&self, context: &RequestContext, revision: Revision) {
        let deadline = context.deadline.min(Instant::now() + CATCH_UP);
        if self.cache.wait_for(revision, deadline).await.is_err() {
            tracing::warn!(%revision, prefix = self.keys.prefix(), "the cache has not caught up with a write");
        }
    }

    async fn get_object(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let key = self.keys.key(namespace, name);
        if let Some(revision) = options.resource_version {
            let found = read::get(&self.cache, &key, revision, context.deadline).await?;
            let found = found.ok_or_else(|| self.not_found(name))?;
            return Ok(Object::new(found.bytes.clone()));
        }
        let response = self.store.get(&key).await.map_err(|error| storage_status(&error))?;
        let entry = response.entry.ok_or_else(|| self.not_found(name))?;
        present(&entry.value, entry.revision)
    }
}

/// Pauses before the attempt after attempt number `attempt`, from 0.
///
/// # Errors
/// 504 where the deadline of the request comes first.
pub(super) async fn pause(context: &RequestContext, attempt: u32) -> Result<(), Status> {
    if attempt > 0 {
        let longest = Duration::from_millis(1 << attempt.min(6)).min(LONGEST_PAUSE);
        let share: f64 = rand::random();
        tokio::time::sleep(longest.mul_f64(share)).await;
    }
    if Instant::now() >= context.deadline {
        let message = "the object keeps changing, and the request's time ran out before it could be written";
        return Err(Status::failure(Reason::Timeout, message));
    }
    Ok(())
}

/// Parses an entry of the store.
pub(super) fn stored(entry: &Entry) -> Result<Stored, Status> {
    Ok(Stored {
        object: codec::decode(&entry.value, entry.revision.0).map_err(|error| damaged(&entry.key, &error))?,
        value: entry.value.clone(),
        revision: entry.revision,
    })
}

/// An object as it is served.
pub(super) fn present(value: &[u8], revision: Revision) -> Result<Object, Status> {
    codec::present(value, revision.0)
        .map(Object::new)
        .map_err(|error| Status::internal(format!("a stored object is damaged: {error}")))
}

fn damaged(key: &str, error: &codec::CodecError) -> Status {
    Status::internal(format!("the object stored under {key:?} is damaged: {error}"))
}

/// What a client is told of a failure of the store that is not about its request.
#[must_use]
pub fn storage_status(error: &Error) -> Status {
    match error {
        Error::Unavailable { .. } => Status::failure(Reason::ServiceUnavailable, error.to_string()).retry_after(1),
        Error::Compacted { .. } => Status::expired(format!("The resourceVersion is too old: {error}")),
        Error::FutureRevision { requested, current } => Status::too_large_resource_version(requested.0, current.0),
        Error::SlowWatcher { .. } => Status::expired(error.to_string()),
        Error::Io { source, .. } => {
            tracing::error!(%error, cause = %source, "the store failed");
            Status::internal(format!("{error}: {source}"))
        }
        other => {
            tracing::error!(error = %other, "the store failed");
            Status::internal(other)
        }
    }
}

#[async_trait]
impl Resource for ResourceStore {
    fn descriptor(&self) -> &ResourceDescriptor {
        &self.strategy.descriptor
    }

    async fn get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let object = self.get_object(context, namespace, name, options).await?;
        self.project(subresource, object)
    }

    async fn list(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let scope = self.scope(namespace, options)?;
        read::list(self.store.as_ref(), &self.cache, &scope, options, context.deadline).await
    }

    async fn watch(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status> {
        let scope = self.scope(namespace, options)?;
        watch::watch(self.store.as_ref(), &self.cache, scope, options, context.deadline).await
    }

    async fn write(&self, context: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status> {
        let write = Write {
            context,
            namespace: request
                .namespace
                .as_deref()
                .filter(|_| self.strategy.descriptor.namespaced),
            name: &request.name,
            subresource: &request.subresource,
            options: &request.options,
        };
        if !request.subresource.is_empty() {
            return self.write_subresource(&write, &request).await;
        }
        match request.verb {
            WriteVerb::Create => self.create(&write, &request).await,
            WriteVerb::Update => self.update(&write, &request).await,
            WriteVerb::Patch(patch_type) => self.patch(&write, patch_type, &request).await,
            WriteVerb::Delete => self.delete(&write, &request).await,
            WriteVerb::DeleteCollection => self.delete_collection(&write, &request).await,
        }
    }

    async fn connect(
        &self,
        context: &RequestContext,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        match &self.connector {
            Some(connector) => connector.connect(context, request).await,
            None => Err(Status::no_such_path()),
        }
    }

    fn columns(&self, _objects: &[Object]) -> Vec<ColumnDefinition> {
        self.strategy.printer.columns()
    }

    fn cells(&self, object: &Object, columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value> {
        let object: Value = serde_json::from_slice(&object.json).unwrap_or_default();
        let cells = self.strategy.printer.cells(&object, now);
        debug_assert_eq!(cells.len(), columns.len());
        cells
    }
}

impl ResourceStore {
    /// Which objects a list or a watch is about.
    pub(super) fn scope(&self, namespace: Option<&str>, options: &ListOptions) -> Result<StoredScope, Status> {
        let selection = read::Selection::parse(options, |field| self.strategy.selects_by(field))?;
        Ok(StoredScope::new(&self.keys, namespace, selection))
    }
}
