//! Namespaces of a fleet hold templates: nothing is created in one that is not there or is going
//! (`k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_storage::Store;

use super::cache::is_deleting;
use super::names::TemplateKey;
use crate::generic::store::storage_status;
use crate::generic::{Admission, Operation, codec};
use crate::request::RequestContext;

/// The namespaces that every fleet has from the start and keeps.
pub const PERMANENT_NAMESPACES: [&str; 2] = ["default", SYSTEM_NAMESPACE];

/// The admission of one fleet.
#[derive(Debug)]
pub struct NamespaceLifecycle {
    store: Arc<dyn Store>,
    /// Where everything of the fleet is.
    prefix: String,
}

impl NamespaceLifecycle {
    /// The admission of the fleet that is stored under `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: String) -> Self {
        Self { store, prefix }
    }

    /// Looks into the store, not into a cache: the namespace may have been created by the request before.
    async fn namespace(&self, name: &str) -> Result<Option<Value>, Status> {
        let key = format!("{}{}", self.prefix, TemplateKey::namespace(name).path());
        let response = self.store.get(&key).await.map_err(|error| storage_status(&error))?;
        let Some(entry) = response.entry else { return Ok(None) };
        codec::decode(&entry.value, entry.revision.0)
            .map(Some)
            .map_err(Status::internal)
    }

    async fn check_create(&self, resource: &GroupResource, object: &Value) -> Result<(), Status> {
        let namespace = object.namespace();
        if namespace.is_empty() {
            return Ok(());
        }
        let namespaces = GroupResource::new("", "namespaces");
        match self.namespace(namespace).await? {
            None => Err(Status::not_found(&namespaces, namespace)),
            Some(found) if is_deleting(&found) => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                let status = Status::forbidden(resource, object.name(), &why);
                Err(status.cause("NamespaceTerminating", why, "metadata.namespace"))
            }
            Some(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn admit(
        &self,
        _context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = resource.group_resource();
        match operation {
            Operation::Create => self.check_create(&resource, object).await,
            Operation::Delete
                if resource == GroupResource::new("", "namespaces")
                    && PERMANENT_NAMESPACES.contains(&object.name()) =>
            {
                Err(Status::forbidden(
                    &resource,
                    object.name(),
                    "this namespace may not be deleted",
                ))
            }
            _ => Ok(()),
        }
    }
}
