//! Says in the status of each View and each Fleet how many clusters it selects.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Error};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use umbra_api::root::{Fleet, RootStatus, View};
use umbra_registry::copies::retry;
use umbra_registry::directory::Directory;
use umbra_registry::mirror::Mirror;

use crate::cluster::FIELD_MANAGER;
use crate::lease::{LeaseKey, Leases};

/// Between two looks: the directory changes with every status of a cluster.
const PAUSE: Duration = Duration::from_secs(1);
/// The lease of this work.
const LEASE: &str = "root-status";

/// Keeps the statuses right until `cancel`, while this replica is the one to do it.
pub(super) async fn follow(
    client: Client,
    directory: Arc<Mirror<Directory>>,
    leases: Leases,
    cancel: CancellationToken,
) {
    let following = async {
        let mut lease = leases.lease(LeaseKey::hub(LEASE));
        loop {
            let held = lease.acquire().await;
            held.lost().run_until_cancelled(keep(&client, &directory)).await;
        }
    };
    cancel.run_until_cancelled(following).await;
}

async fn keep(client: &Client, directory: &Mirror<Directory>) {
    let (views, fleets): (Api<View>, Api<Fleet>) = (Api::all(client.clone()), Api::all(client.clone()));
    let mut changed = directory.subscribe();
    let mut failures = 0;
    loop {
        changed.mark_unchanged();
        let state = directory.state();
        match write_all(&state, &views, &fleets).await {
            Ok(()) => {
                failures = 0;
                if changed.changed().await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "how many clusters views and fleets select cannot be written");
                tokio::time::sleep(retry::pause(failures)).await;
            }
        }
    }
}

async fn write_all(state: &Directory, views: &Api<View>, fleets: &Api<Fleet>) -> Result<(), Error> {
    for (name, view) in &state.views {
        let spec = &view.spec;
        let selected = state.select(spec.cluster_selector.as_ref(), spec.cluster_names.as_deref());
        write(views, name, view.status.as_ref(), selected.len()).await?;
    }
    for (name, fleet) in &state.fleets {
        let spec = &fleet.spec;
        let selected = state.select(spec.cluster_selector.as_ref(), spec.cluster_names.as_deref());
        write(fleets, name, fleet.status.as_ref(), selected.len()).await?;
    }
    Ok(())
}

async fn write<K>(api: &Api<K>, name: &str, status: Option<&RootStatus>, selected: usize) -> Result<(), Error>
where
    K: DeserializeOwned,
{
    let selected = i64::try_from(selected).unwrap_or(i64::MAX);
    if status.and_then(|status| status.clusters) == Some(selected) {
        return Ok(());
    }
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"status": {"clusters": selected}}));
    match api.patch_status(name, &parameters, &patch).await {
        // Deleted in between.
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        written => written.map(drop),
    }
}
