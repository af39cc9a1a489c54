//! What stands between a request and the store.

use async_trait::async_trait;
use serde_json::Value;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;

use crate::request::RequestContext;

/// What a request does to an object (`admission.Operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change, also of a subresource and by patches.
    Update,
    /// The beginning or the end of an object's deletion.
    Delete,
}

/// Looks at every write of a store before it is stored, and may change the object. Called anew for every attempt of a
/// write that meets a conflict, and for dry runs: it has no side effects.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Admits a write, or refuses it. On delete `object` is the object as it is, and changes to it are lost.
    ///
    /// # Errors
    /// What the client is told; mostly 403.
    async fn admit(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status>;
}

/// Admits everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

#[async_trait]
impl Admission for AdmitAll {
    async fn admit(
        &self,
        _context: &RequestContext,
        _operation: Operation,
        _resource: &GroupVersionResource,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// Asks several in order; the first that refuses decides.
#[derive(Clone, Default)]
pub struct AdmissionChain(pub Vec<std::sync::Arc<dyn Admission>>);

impl std::fmt::Debug for AdmissionChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AdmissionChain").field(&self.0.len()).finish()
    }
}

#[async_trait]
impl Admission for AdmissionChain {
    async fn admit(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        for one in &self.0 {
            one.admit(context, operation, resource, object, old).await?;
        }
        Ok(())
    }
}
