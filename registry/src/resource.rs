//! The contract of one resource below a root.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::{ColumnDefinition, ListMetadata};

use crate::request::{GetOptions, ListOptions, PatchType, RequestContext, WriteOptions};

/// A request or response body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A serialized object, ready to be sent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object {
    /// The JSON text, with apiVersion, kind and the revision the client sees.
    pub json: Bytes,
    /// What the object's own server printed of it, where the object is a copy.
    pub row: Option<Arc<Row>>,
}

/// What the server of a copied object printed of it.
///
/// There is one for each copy in memory, so it is one allocation of text: nine cells of a pod take 150 bytes as JSON and
/// 500 as values. They are parsed when a table is made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The cluster, the creation timestamp, the cells.
    text: Box<str>,
    cluster_end: u32,
    created_end: u32,
}

impl Row {
    /// A row of an object that is in `cluster` and was `created` then (`metadata.creationTimestamp`). `cells` is a JSON array
    /// with one value for each column of the cluster and resource; empty where nothing was printed.
    #[must_use]
    pub fn new(cluster: &str, created: &str, cells: &str) -> Self {
        let text = [cluster, created, cells].concat();
        let end = |length: usize| u32::try_from(length).expect("names and timestamps are shorter than 4 GiB");
        Self {
            cluster_end: end(cluster.len()),
            created_end: end(cluster.len() + created.len()),
            text: text.into_boxed_str(),
        }
    }

    /// The cluster the object is in.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.text[..self.cluster_end as usize]
    }

    /// `metadata.creationTimestamp`, from which ages are made anew.
    #[must_use]
    pub fn created(&self) -> &str {
        &self.text[self.cluster_end as usize..self.created_end as usize]
    }

    /// One value for each column of the cluster and resource; empty where nothing was printed.
    #[must_use]
    pub fn cells(&self) -> Vec<Value> {
        let cells = &self.text[self.created_end as usize..];
        serde_json::from_str(cells).unwrap_or_default()
    }
}

impl Object {
    /// An object that prints itself.
    #[must_use]
    pub fn new(json: Bytes) -> Self {
        Self { json, row: None }
    }
}

/// A list: the items of one page, and where it stands.
#[derive(Debug, Clone, Default)]
pub struct ObjectList {
    /// Revision, continue token and the count of what remains.
    pub metadata: ListMetadata,
    /// The objects, in the order of their keys.
    pub items: Vec<Object>,
}

/// What happens on a watch.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object that is new to this watch.
    Added(Object),
    /// An object that changed.
    Modified(Object),
    /// An object that is gone, or no longer selected: its last state, with the revision of the change.
    Deleted(Object),
    /// All events up to `revision` have been sent.
    Bookmark {
        /// The revision.
        revision: u64,
        /// Whether the initial events end here (annotation `k8s.io/initial-events-end`).
        initial_events_end: bool,
    },
    /// The watch ends because of this.
    Error(Box<Status>),
}

/// The events of a watch. Dropping it ends the watch.
pub type EventStream = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A write as it came, except that path and query are read.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// What to do.
    pub verb: WriteVerb,
    /// The namespace of the path; `None` for cluster-scoped resources.
    pub namespace: Option<String>,
    /// The name of the path; empty when creating in or deleting a collection.
    pub name: String,
    /// The subresource of the path, or empty.
    pub subresource: String,
    /// The body: an object, a patch, `DeleteOptions`, or nothing. `DeleteOptions` say of a dry run that it is one, even if the
    /// query does: a child that gets both heeds the body alone.
    pub body: Bytes,
    /// The media type of the body, as sent.
    pub content_type: String,
    /// The query.
    pub options: WriteOptions,
    /// The selectors of a delete of a collection.
    pub list_options: ListOptions,
    /// The whole query as sent, for roots that pass the write on.
    pub query: String,
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteVerb {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch(PatchType),
    /// DELETE of an object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

/// What came of a write.
#[derive(Debug, Clone)]
pub enum WriteOutcome {
    /// 201: the object is new.
    Created(Object),
    /// 200: the object as it is now, or as it was when it went.
    Done(Object),
    /// 202: deletion has begun but waits for finalizers or a grace period; the object as it is now.
    Accepted(Object),
    /// 200: a Status, such as the answer to a delete that leaves nothing.
    Status(Box<Status>),
    /// 200: what a delete of a collection removed.
    Collection(ObjectList),
}

/// One resource below a root.
///
/// Methods are called after authorization. They are cancelled by dropping; a write that was dropped may or may not have
/// happened, as when a connection breaks.
#[async_trait]
pub trait Resource: Send + Sync {
    /// Names, verbs and subresources.
    fn descriptor(&self) -> &ResourceDescriptor;

    /// The object of that name, or its `subresource` where that is not empty (`status`, `scale`).
    ///
    /// # Errors
    /// 404 where there is none.
    async fn get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        options: &GetOptions,
    ) -> Result<Object, Status>;

    /// The objects of a namespace, or of all.
    ///
    /// # Errors
    /// 400 for selectors and tokens that make no sense, 410 for revisions that are gone, 504 for ones to come.
    async fn list(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status>;

    /// The changes of the objects of a namespace, or of all. The stream ends after `options.timeout_seconds`.
    ///
    /// # Errors
    /// As for [`Resource::list`]; once the stream has begun, errors are [`Event::Error`].
    async fn watch(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status>;

    /// A write.
    ///
    /// # Errors
    /// Whatever keeps it from happening.
    async fn write(&self, context: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status>;

    /// A subresource that is a connection or a stream rather than an object: `log`, `exec`, `attach`, `portforward`,
    /// `proxy`. The request's path is the one below the root.
    ///
    /// # Errors
    /// 404 where there is no such subresource.
    async fn connect(
        &self,
        _context: &RequestContext,
        _request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        Err(Status::no_such_path())
    }

    /// The columns of a Table of these objects.
    fn columns(&self, objects: &[Object]) -> Vec<ColumnDefinition>;

    /// The row of one object under columns that [`Resource::columns`] gave; ages are as of `now`.
    fn cells(&self, object: &Object, columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value>;
}
