//! One resource of a view.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::ColumnDefinition;

use super::permissions::HubPermissions;
use super::selection::ViewSelection;
use super::services::ViewServices;
use super::shape::{Served, Shape};
use super::sight::Authority;
use super::table::{Columns, Layout};
use crate::request::{GetOptions, ListOptions, RequestContext};
use crate::resource::{Body, EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest};

/// One resource of a view, for one request.
#[derive(Debug)]
pub(super) struct ViewResource {
    pub(super) services: Arc<ViewServices>,
    pub(super) view: Arc<str>,
    pub(super) shape: Arc<Shape>,
    pub(super) authority: Authority,
    /// Decides who may enter the view.
    pub(super) hub: Arc<dyn HubPermissions>,
    pub(super) served: Arc<Served>,
    /// The columns of what has been read live.
    pub(super) printed: Mutex<Columns>,
    /// How the rows of the answer are laid out, once that has been asked for.
    pub(super) layout: Mutex<Option<Arc<Layout>>>,
}

impl ViewResource {
    /// The resource whatever the version.
    pub(super) fn group_resource(&self) -> GroupResource {
        self.served.descriptor.group_resource()
    }

    /// Warns of the clusters asked about that have something else under the name of the resource.
    pub(super) fn warn_of_left_out(&self, context: &RequestContext, asked: impl Fn(&str) -> bool) {
        for cluster in self.served.left_out.iter().filter(|cluster| asked(cluster)) {
            context.warnings.add(format!(
                "{} of cluster \"{cluster}\" are left out: there they are of another kind or scope",
                self.group_resource()
            ));
        }
    }

    fn warn_of_left_out_of_list(&self, context: &RequestContext, options: &ListOptions) {
        // What cannot be read is answered by what follows.
        if !self.served.left_out.is_empty()
            && let Ok(selection) = ViewSelection::parse(options)
        {
            self.warn_of_left_out(context, |cluster| selection.admits(cluster));
        }
    }

    /// The columns of each cluster: as its copies are printed, or as it has just printed.
    fn all_columns(&self) -> Columns {
        let resource = self.group_resource();
        let catalog = self.services.catalog.state();
        let known = self.served.clusters.keys().filter_map(|cluster| {
            let columns = catalog.clusters.get(cluster)?.columns.get(&resource)?;
            Some((cluster.clone(), Arc::clone(columns)))
        });
        let mut all: Columns = known.collect();
        all.extend(self.printed.lock().clone());
        all
    }
}

#[async_trait]
impl Resource for ViewResource {
    fn descriptor(&self) -> &ResourceDescriptor {
        &self.served.descriptor
    }

    async fn get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let qualified = QualifiedName::parse(name);
        self.warn_of_left_out(context, |cluster| qualified.is_none_or(|name| name.cluster == cluster));
        if subresource.is_empty() {
            self.get_object(context, namespace, name, options).await
        } else {
            self.get_subresource(context, namespace, name, subresource).await
        }
    }

    async fn list(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        self.warn_of_left_out_of_list(context, options);
        if self.served.has_copies() {
            self.list_copies(context, namespace, options).await
        } else {
            self.list_live(context, namespace, options).await
        }
    }

    async fn watch(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status> {
        self.warn_of_left_out_of_list(context, options);
        if self.served.has_copies() {
            self.watch_copies(context, namespace, options).await
        } else {
            Err(Status::method_not_supported(&self.group_resource(), "watch"))
        }
    }

    async fn write(&self, context: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status> {
        self.write_through(context, request).await
    }

    async fn connect(
        &self,
        context: &RequestContext,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        self.connect_through(context, request).await
    }

    fn columns(&self, _objects: &[Object]) -> Vec<ColumnDefinition> {
        let layout = Arc::new(Layout::new(&self.all_columns()));
        *self.layout.lock() = Some(Arc::clone(&layout));
        layout.columns.clone()
    }

    fn cells(&self, object: &Object, columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value> {
        let layout = {
            let mut layout = self.layout.lock();
            Arc::clone(layout.get_or_insert_with(|| Arc::new(Layout::new(&self.all_columns()))))
        };
        debug_assert_eq!(layout.columns.len(), columns.len());
        layout.cells(object, now)
    }
}
