//! Runs a root and its controllers for each Fleet of the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_controllers::fleet::{Dependencies, FleetController};
use umbra_controllers::lease::Leases;
use umbra_registry::copies::retry;
use umbra_registry::fleet::{FleetApi, FleetDependencies};
use umbra_registry::hub::roots::Fleets;
use umbra_storage::Store;

use super::base::Shared;

/// What fleets are made of.
pub(super) struct FleetsParts {
    pub(super) store: Arc<dyn Store>,
    pub(super) shared: Shared,
    pub(super) fleets: Fleets,
    pub(super) leases: Leases,
    pub(super) version: Bytes,
    pub(super) tracker: TaskTracker,
    pub(super) cancelled: CancellationToken,
}

/// How long nothing has to change before all fleets are looked at again, for those that did not start.
const AGAIN: Duration = Duration::from_secs(10);

/// Starts and stops fleets as their objects come and go, until the parts' token is cancelled. The objects of a fleet that
/// goes stay in the store, and in the clusters: a Fleet of the same name finds them again.
pub(super) async fn run(parts: FleetsParts) {
    let cancelled = parts.cancelled.clone();
    cancelled.run_until_cancelled(follow(&parts)).await;
}

async fn follow(parts: &FleetsParts) {
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    let mut changed = parts.shared.directory.subscribe();
    let mut failures = 0;
    loop {
        changed.mark_unchanged();
        let wanted = parts.shared.directory.state();
        running.retain(|name, cancel| {
            let kept = wanted.fleets.contains_key(name);
            if !kept {
                cancel.cancel();
                publish(parts, name, None);
            }
            kept
        });
        let mut failed = false;
        for name in wanted
            .fleets
            .keys()
            .filter(|name| !running.contains_key(*name))
            .cloned()
            .collect::<Vec<_>>()
        {
            let cancel = parts.cancelled.child_token();
            match start(parts, &name, &cancel).await {
                Ok(api) => {
                    publish(parts, &name, Some(&api));
                    running.insert(name, cancel);
                }
                Err(status) => {
                    cancel.cancel();
                    failed = true;
                    tracing::warn!(fleet = name, error = %status.message, "the fleet does not start; trying again");
                }
            }
        }
        failures = if failed { failures + 1 } else { 0 };
        let pause = if failed { retry::pause(failures) } else { AGAIN };
        let _either = tokio::time::timeout(pause, changed.changed()).await;
    }
}

async fn start(
    parts: &FleetsParts,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Arc<FleetApi>, umbra_apimachinery::status::Status> {
    let shared = &parts.shared;
    let api = FleetApi::new(FleetDependencies {
        fleet: name.to_owned(),
        // What this fleet's controllers write too late, another replica has taken over.
        store: parts.leases.fenced(Arc::clone(&parts.store)),
        directory: Arc::clone(&shared.directory),
        catalog: Arc::clone(&shared.catalog),
        documents: Arc::clone(&shared.documents) as _,
        version: parts.version.clone(),
        tracker: parts.tracker.clone(),
        cancelled: cancel.clone(),
    })
    .await?;
    let controller = FleetController::new(Dependencies {
        api: Arc::clone(&api),
        directory: Arc::clone(&shared.directory),
        catalog: Arc::clone(&shared.catalog),
        copies: Arc::clone(&shared.copies),
        children: Arc::new(shared.children.clone()),
    })
    .with_leases(parts.leases.clone());
    parts.tracker.spawn(controller.run(cancel.clone()));
    Ok(api)
}

fn publish(parts: &FleetsParts, name: &str, api: Option<&Arc<FleetApi>>) {
    parts.fleets.rcu(|fleets| {
        let mut fleets = BTreeMap::clone(fleets);
        match api {
            Some(api) => fleets.insert(name.to_owned(), Arc::clone(api)),
            None => fleets.remove(name),
        };
        fleets
    });
}
