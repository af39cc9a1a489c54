//! Renderings, as clients see them: they are computed, so they are read and never written.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::ColumnDefinition;

use crate::generic::ResourceStore;
use crate::request::{GetOptions, ListOptions, RequestContext};
use crate::resource::{EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest};

/// A stored resource that clients may only read.
#[derive(Debug)]
pub struct ReadOnly {
    store: Arc<ResourceStore>,
    descriptor: ResourceDescriptor,
    /// What a client that writes is told to do instead.
    advice: &'static str,
}

impl ReadOnly {
    /// `store`, of which nothing can be written.
    #[must_use]
    pub fn new(store: Arc<ResourceStore>, advice: &'static str) -> Self {
        let descriptor = read_only(&store.strategy().descriptor);
        Self {
            store,
            descriptor,
            advice,
        }
    }
}

/// The descriptor of a resource of which nothing can be written.
#[must_use]
pub fn read_only(descriptor: &ResourceDescriptor) -> ResourceDescriptor {
    let mut descriptor = descriptor.clone();
    descriptor.verbs = ["get", "list", "watch"].map(str::to_owned).to_vec();
    for subresource in &mut descriptor.subresources {
        subresource.verbs = vec!["get".to_owned()];
    }
    descriptor
}

#[async_trait]
impl Resource for ReadOnly {
    fn descriptor(&self) -> &ResourceDescriptor {
        &self.descriptor
    }

    async fn get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        self.store.get(context, namespace, name, subresource, options).await
    }

    async fn list(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        self.store.list(context, namespace, options).await
    }

    async fn watch(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status> {
        self.store.watch(context, namespace, options).await
    }

    async fn write(&self, _context: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status> {
        let resource = self.descriptor.group_resource();
        Err(Status::forbidden(&resource, &request.name, self.advice))
    }

    fn columns(&self, objects: &[Object]) -> Vec<ColumnDefinition> {
        self.store.columns(objects)
    }

    fn cells(&self, object: &Object, columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value> {
        self.store.cells(object, columns, now)
    }
}
