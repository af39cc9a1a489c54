//! What every hub stands on, standalone or behind a kube-apiserver: the store, what roots and controllers look at together,
//! the controllers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::Sync;
use umbra_apiserver::{Check, Checks};
use umbra_child::Children;
use umbra_child::tunnel::Tunnels;
use umbra_controllers::cluster::{ClusterController, ClusterControllerParts, LocalCredentials};
use umbra_controllers::lease::Leases;
use umbra_registry::child_documents::ChildDocuments;
use umbra_registry::copies::cache::Copies;
use umbra_registry::copies::catalog::{CATALOG, Catalog};
use umbra_registry::copies::policy::{ChildPolicies, RBAC_COPIES};
use umbra_registry::directory::{Directory, HUB_KINDS};
use umbra_registry::hub::HubRoots;
use umbra_registry::hub::roots::{Fleets, HubRoot};
use umbra_registry::mirror::{Mirror, MirrorState};
use umbra_registry::view::ViewServices;
use umbra_storage::Store;

use super::fleets;

/// Who the hub's own controllers are.
pub(crate) const CONTROLLERS: &str = "system:umbra:controllers";
/// How often the store is asked whether it can serve.
const READINESS_INTERVAL: Duration = Duration::from_secs(2);

/// What everything stands on: the store, and what tasks belong to.
pub(crate) struct Base {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// What the controllers work with.
pub(crate) struct Controllers {
    /// The hub root, as somebody who may do everything.
    pub(crate) client: kube::Client,
    /// Whose Secrets hold the credentials of children.
    pub(crate) credentials: kube::Client,
    /// Whether kubeconfigs of those Secrets may run programs here.
    pub(crate) local: LocalCredentials,
    pub(crate) shared: Shared,
    pub(crate) fleets: Fleets,
    /// What is copied of every cluster, and what of none.
    pub(crate) sync: Sync,
    /// What is this replica's to do.
    pub(crate) leases: Leases,
}

impl Base {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }
    }

    /// Ends everything that belongs to it.
    pub(crate) async fn end(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    pub(crate) fn run_controllers(&self, controllers: Controllers) {
        let Controllers {
            client,
            credentials,
            local,
            shared,
            fleets,
            sync,
            leases,
        } = controllers;
        let clusters = ClusterController::new(ClusterControllerParts {
            client,
            store: Arc::clone(&self.store),
            directory: Arc::clone(&shared.directory),
            children: shared.children.clone(),
            tunnels: Some(shared.tunnels.clone()),
            documents: Arc::clone(&shared.documents),
            sync,
        })
        .with_credentials(credentials)
        .with_local_credentials(local)
        .with_leases(leases.clone());
        self.tracker.spawn(clusters.run(self.cancel.clone()));
        self.tracker.spawn(fleets::run(fleets::FleetsParts {
            store: Arc::clone(&self.store),
            shared,
            fleets,
            leases,
            version: version(),
            tracker: self.tracker.clone(),
            cancelled: self.cancel.clone(),
        }));
    }

    async fn mirror<S: MirrorState>(&self, prefix: &'static str) -> Result<Arc<Mirror<S>>> {
        let mirror = Mirror::load(Arc::clone(&self.store), prefix).await?;
        self.tracker.spawn(Arc::clone(&mirror).follow(self.cancel.clone()));
        Ok(mirror)
    }

    /// Readiness asks what the store said last, so that a probe never waits for it.
    pub(crate) fn checks(&self, name: &'static str) -> Checks {
        let (sender, receiver) = tokio::sync::watch::channel(Ok(()));
        let (store, cancel) = (Arc::clone(&self.store), self.cancel.clone());
        self.tracker.spawn(async move {
            let ask = async {
                loop {
                    let state = store.ready().await.map_err(|error| error.to_string());
                    let _previous = sender.send_replace(state);
                    tokio::time::sleep(READINESS_INTERVAL).await;
                }
            };
            cancel.run_until_cancelled(ask).await;
        });
        Checks {
            live: Vec::new(),
            ready: vec![Check::new(name, move || receiver.borrow().clone())],
        }
    }
}

/// What roots and controllers look at together.
pub(crate) struct Shared {
    pub(crate) directory: Arc<Mirror<Directory>>,
    pub(crate) catalog: Arc<Mirror<Catalog>>,
    pub(crate) policies: Arc<Mirror<ChildPolicies>>,
    pub(crate) copies: Arc<Copies>,
    pub(crate) children: Children,
    /// The tunnels that end here.
    pub(crate) tunnels: Tunnels,
    pub(crate) documents: Arc<ChildDocuments>,
}

impl Shared {
    pub(crate) async fn load(base: &Base, children: &Children) -> Result<Self> {
        Ok(Self {
            directory: base.mirror(HUB_KINDS).await?,
            catalog: base.mirror(CATALOG).await?,
            policies: base.mirror(RBAC_COPIES).await?,
            copies: Arc::new(Copies::new(
                Arc::clone(&base.store),
                base.tracker.clone(),
                base.cancel.clone(),
            )),
            children: children.clone(),
            tunnels: Tunnels::new(),
            documents: Arc::new(ChildDocuments::new(children.clone())),
        })
    }

    /// All roots of a hub over these parts.
    pub(crate) fn roots(&self, hub: impl Into<HubRoot>, fleets: &Fleets) -> HubRoots {
        HubRoots::new(
            hub,
            self.views(),
            Arc::clone(&self.directory),
            self.children.clone(),
            Arc::clone(fleets),
        )
    }

    fn views(&self) -> Arc<ViewServices> {
        ViewServices::new(
            Arc::clone(&self.directory),
            Arc::clone(&self.catalog),
            Arc::clone(&self.policies),
            Arc::clone(&self.copies),
            self.children.clone(),
            Arc::clone(&self.documents),
        )
    }
}

/// The body of `/version`. The Kubernetes version is that of the built-in kinds; clients decide by it what they may use.
pub(crate) fn version() -> Bytes {
    let version = json!({
        "major": "1",
        "minor": "36",
        "gitVersion": concat!("v1.36.3+umbra.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    version.to_string().into()
}
