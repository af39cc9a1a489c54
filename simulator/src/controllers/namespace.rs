//! What every namespace has: the service account `default`, and the certificate authority of the API server
//! (`pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use umbra_apimachinery::status::Status;

use super::queue::ObjectKey;
use super::writes;
use super::{Reconcile, Shared};

/// Furnishes namespaces.
pub(crate) struct Namespaces(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for Namespaces {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(namespace) = self
            .0
            .namespaces
            .object(key)
            .filter(|namespace| !namespace.extra.deleting)
        else {
            return Ok(None);
        };
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": &*namespace.name},
        });
        let authority = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt", "namespace": &*namespace.name},
            "data": {"ca.crt": self.0.certificate_authority},
        });
        for (kind, object) in [(&self.0.service_accounts, account), (&self.0.config_maps, authority)] {
            if kind.object(&ObjectKey::of_value(&object)).is_none() {
                writes::create_missing(&kind.store, &object).await?;
            }
        }
        Ok(None)
    }
}
