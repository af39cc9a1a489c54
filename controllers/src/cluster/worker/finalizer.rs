//! The finalizer that keeps a ManagedCluster until nothing of it is left.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use umbra_api::cluster::ManagedCluster;

use super::{Worker, WorkerError};
use crate::cluster::{FIELD_MANAGER, FINALIZER};

impl Worker {
    /// Puts the finalizer on or takes it off, where that is this replica's to do; whether that changed anything.
    pub(super) async fn set_finalizer(&self, cluster: &ManagedCluster, wanted: bool) -> Result<bool, WorkerError> {
        if self.holding.is_none() {
            return Ok(false);
        }
        let Some(patch) = finalizer_patch(cluster, wanted) else {
            return Ok(false);
        };
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await {
            // Somebody else was faster; the next target says how it is now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
            patched => Ok(patched.map(|_| true)?),
        }
    }
}

/// The patch that puts the finalizer on or takes it off; `None` where it is as it should be. The list is replaced, so it
/// must be the one that was read.
fn finalizer_patch(cluster: &ManagedCluster, wanted: bool) -> Option<Value> {
    let mut finalizers = cluster.metadata.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|one| one != FINALIZER);
    if (finalizers.len() != before) == wanted {
        return None;
    }
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let version = &cluster.metadata.resource_version;
    Some(json!({"metadata": {"finalizers": finalizers, "resourceVersion": version}}))
}
