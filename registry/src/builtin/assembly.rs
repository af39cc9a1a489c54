//! A root that decides by its own RBAC objects and has its own namespaces: a standalone hub, a simulated child.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Status;
use umbra_auth::rbac::RbacKind;
use umbra_openapi::Document;
use umbra_storage::{CacheOptions, Store};

use super::bootstrap::bootstrap;
use super::controllers;
use super::lifecycle::{EscalationCheck, NamespaceLifecycle};
use crate::generic::admission::{Admission, AdmissionChain};
use crate::generic::authorization::RbacAuthorizer;
use crate::generic::collection::{Installation, RootParts, StoreApi};
use crate::generic::reviews::{Reviews, TokenReviewer};

/// What such a root is made of, beside its kinds.
#[derive(Clone)]
pub struct ClusterParts {
    /// The root's name in keys: `hub`, `simulated/east`.
    pub name: String,
    /// Where everything is stored.
    pub store: Arc<dyn Store>,
    /// How the caches work.
    pub cache: CacheOptions,
    /// What looks at every write, after namespaces and roles were looked at.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Says whose a token is; without it there are no token reviews.
    pub tokens: Option<Arc<dyn TokenReviewer>>,
    /// The body of `GET /version`.
    pub version: Bytes,
    /// What the root's tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the root's tasks.
    pub cancelled: CancellationToken,
}

impl std::fmt::Debug for ClusterParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterParts")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A root that serves.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The root.
    pub api: Arc<StoreApi>,
    /// Who may do what in it.
    pub authorizer: Arc<RbacAuthorizer>,
}

impl Cluster {
    /// Starts a root of these kinds, which include the built-in ones that it is to have, and waits until its caches are
    /// filled and what it has from the start is there. The two controllers of [`controllers`] run from then on.
    ///
    /// # Errors
    /// 503 where the caches are not filled by `deadline`; whatever keeps the first objects from being created.
    pub async fn start(
        parts: ClusterParts,
        kinds: impl IntoIterator<Item = impl Into<Installation>>,
        documents: impl IntoIterator<Item = (GroupVersion, Document)>,
        deadline: Instant,
    ) -> Result<Self, Status> {
        let authorizer = RbacAuthorizer::new();
        let lifecycle = NamespaceLifecycle::new(Arc::clone(&parts.store), &parts.name);
        let escalation = EscalationCheck::new(Arc::clone(&authorizer));
        let mut admission: Vec<Arc<dyn Admission>> = vec![Arc::new(lifecycle), Arc::new(escalation)];
        admission.extend(parts.admission);
        let api = StoreApi::new(RootParts {
            name: parts.name,
            store: parts.store,
            cache: parts.cache,
            admission: Arc::new(AdmissionChain(admission)),
            authorizer: Arc::clone(&authorizer) as _,
            reviews: Some(Reviews::new(Arc::clone(&authorizer) as _, parts.tokens)),
            version: parts.version,
            tracker: parts.tracker,
            cancelled: parts.cancelled,
        });
        api.install(kinds, documents);
        api.ready(deadline).await?;
        let cluster = Self { api, authorizer };
        cluster.follow_rbac();
        bootstrap(&cluster.api).await?;
        let parts = cluster.api.parts();
        let controllers = controllers::run(Arc::clone(&cluster.api), parts.cancelled.clone());
        parts.tracker.spawn(controllers);
        Ok(cluster)
    }

    fn follow_rbac(&self) {
        let rbac = GroupVersion::new("rbac.authorization.k8s.io", "v1");
        let caches = RbacKind::ALL.into_iter().filter_map(|kind| {
            let store = self.api.store(&rbac.resource(kind.resource()))?;
            Some((kind, Arc::clone(store.cache())))
        });
        let parts = self.api.parts();
        self.authorizer
            .follow(caches.collect(), &parts.tracker, parts.cancelled.clone());
    }
}
