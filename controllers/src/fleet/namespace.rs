//! Namespaces of a fleet that are being deleted: what is inside goes first.

use serde_json::{Value, json};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::fleet::FleetObject;

use super::controller::Inner;
use super::state::FleetState;
use super::write::{Place, ignore_gone};

impl Inner {
    /// Deletes what is in the namespace, and lets it go when nothing is left. Renderings go with their templates; the
    /// namespace's own go last.
    pub(super) async fn empty_namespace(&self, state: &FleetState, namespace: &Value) -> Result<(), Status> {
        let name = namespace.name();
        let mut left = false;
        for (key, object) in state.in_namespace(name) {
            left = true;
            let (uid, goes) = match object {
                FleetObject::Rendering(_) => continue,
                FleetObject::Template(_, template) => (
                    template.uid().to_owned(),
                    umbra_registry::fleet::cache::is_deleting(template),
                ),
                FleetObject::Placement(one) => (
                    one.metadata.uid.clone().unwrap_or_default(),
                    one.metadata.deletion_timestamp.is_some(),
                ),
                FleetObject::Override(one) => (
                    one.metadata.uid.clone().unwrap_or_default(),
                    one.metadata.deletion_timestamp.is_some(),
                ),
            };
            if !goes {
                let place = Place {
                    resource: &key.resource,
                    namespace: Some(name),
                    name: &key.name,
                };
                self.writer.delete(place, &uid).await?;
            }
        }
        if left {
            return Ok(());
        }
        let mut finalized = namespace.clone();
        finalized["spec"]["finalizers"] = json!([]);
        let place = Place {
            resource: &GroupResource::new("", "namespaces"),
            namespace: None,
            name,
        };
        ignore_gone(self.writer.update_subresource(place, "finalize", &finalized).await)
    }
}
