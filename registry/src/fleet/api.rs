//! A fleet as the root of a Kubernetes API.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::age;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::{GroupResource, GroupVersion, GroupVersionResource};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_openapi::builtin;
use umbra_storage::{Cache, CacheOptions, Error, Precondition, Store};

use super::admission::{NamespaceLifecycle, PERMANENT_NAMESPACES};
use super::cache::{FleetCache, FleetIndexer};
use super::documents::Documents;
use super::kinds;
use super::names::{TemplateKey, fleet_prefix, fleet_root};
use super::openapi::FleetOpenApi;
use super::read_only::{ReadOnly, read_only};
use super::template::{TemplateParts, TemplateResource};
use super::template_kinds::template_kinds;
use crate::copies::catalog::Catalog;
use crate::directory::Directory;
use crate::generic::authorization::AllowAll;
use crate::generic::codec;
use crate::generic::collection::{RootParts, StoreApi};
use crate::generic::reviews::Reviews;
use crate::generic::store::storage_status;
use crate::mirror::Mirror;
use crate::request::RequestContext;
use crate::resource::Resource;
use crate::root::{Api, OpenApi};

/// What a client that writes to a rendering is told.
const RENDERINGS_ARE_COMPUTED: &str =
    "renderings are computed from templates, placements and overrides; change one of those instead";

/// How long a fleet may take to read what is stored of it.
const START: Duration = Duration::from_secs(30);

/// What a fleet is made of.
pub struct FleetDependencies {
    /// The name of the `Fleet`.
    pub fleet: String,
    /// Where everything is stored.
    pub store: Arc<dyn Store>,
    /// The clusters and the fleets.
    pub directory: Arc<Mirror<Directory>>,
    /// What the clusters serve.
    pub catalog: Arc<Mirror<Catalog>>,
    /// The clusters' schemas.
    pub documents: Arc<dyn Documents>,
    /// The body of `GET /version`.
    pub version: Bytes,
    /// What the fleet's tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the fleet's tasks.
    pub cancelled: CancellationToken,
}

impl std::fmt::Debug for FleetDependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetDependencies")
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}

/// A fleet as the root of a Kubernetes API.
pub struct FleetApi {
    name: String,
    /// The kinds that are always there.
    own: Arc<StoreApi>,
    renderings: Arc<ReadOnly>,
    cache: Arc<FleetCache>,
    parts: Arc<TemplateParts>,
    directory: Arc<Mirror<Directory>>,
    catalog: Arc<Mirror<Catalog>>,
    table: ArcSwap<Table>,
    version: Bytes,
}

impl std::fmt::Debug for FleetApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetApi")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is served now.
#[derive(Default)]
struct Table {
    discovery: Arc<Discovery>,
    templates: HashMap<GroupVersionResource, Arc<TemplateResource>>,
    clusters: BTreeMap<GroupVersion, Vec<String>>,
}

impl FleetApi {
    /// Serves a fleet, and follows what its clusters serve until `cancelled`. The namespaces `default` and `umbra-system`
    /// are made where they are not there yet. Answers when everything stored of the fleet has been read.
    ///
    /// # Errors
    /// 503 where the store does not answer.
    pub async fn new(dependencies: FleetDependencies) -> Result<Arc<Self>, Status> {
        let FleetDependencies {
            fleet,
            store,
            directory,
            catalog,
            documents,
            version,
            tracker,
            cancelled,
        } = dependencies;
        let prefix = fleet_prefix(&fleet);
        make_permanent_namespaces(store.as_ref(), &prefix).await?;
        let cache = Cache::start(
            Arc::clone(&store),
            prefix.as_str(),
            FleetIndexer::new(prefix.as_str()),
            CacheOptions::default(),
            &tracker,
            cancelled.clone(),
        );
        let admission = Arc::new(NamespaceLifecycle::new(Arc::clone(&store), prefix));
        let own = StoreApi::new(RootParts {
            name: fleet_root(&fleet),
            store: Arc::clone(&store),
            cache: CacheOptions::default(),
            admission: admission.clone(),
            // Never asked: see `may`.
            authorizer: Arc::new(AllowAll),
            // Whoever may enter may do everything here: see `may`.
            reviews: Some(Reviews::new(Arc::new(AllowAll), None)),
            version: version.clone(),
            tracker: tracker.clone(),
            cancelled: cancelled.clone(),
        });
        let (umbra, documents_of_umbra) = kinds::umbra_kinds().map_err(Status::internal)?;
        let core = GroupVersion::new("", "v1");
        let documents_of_own = documents_of_umbra
            .into_iter()
            .chain(builtin::document(&core).map(|document| (core, document.clone())));
        own.install(
            std::iter::once(kinds::namespaces(&cache)).chain(umbra),
            documents_of_own,
        );
        let renderings = own
            .store(&kinds::umbra_version().resource("renderings"))
            .map(|store| Arc::new(ReadOnly::new(store, RENDERINGS_ARE_COMPUTED)))
            .ok_or_else(|| Status::internal("the fleet has no renderings"))?;
        cache
            .ready(Instant::now() + START)
            .await
            .map_err(|error| storage_status(&error))?;
        let parts = Arc::new(TemplateParts {
            root: fleet_root(&fleet),
            store,
            admission,
            documents,
            fleet: Arc::clone(&cache),
            tracker: tracker.clone(),
            cancelled: cancelled.clone(),
        });
        let api = Arc::new(Self {
            name: fleet,
            own,
            renderings,
            cache,
            parts,
            directory,
            catalog,
            table: ArcSwap::default(),
            version,
        });
        api.refresh();
        let following = Arc::clone(&api);
        tracker.spawn(async move { cancelled.run_until_cancelled(following.follow()).await });
        Ok(api)
    }

    /// The name of the `Fleet`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything of the fleet, decoded.
    #[must_use]
    pub fn cache(&self) -> &Arc<FleetCache> {
        &self.cache
    }

    /// The clusters' schemas.
    #[must_use]
    pub fn documents(&self) -> &Arc<dyn Documents> {
        &self.parts.documents
    }

    /// Where everything is stored.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// The resource as the hub itself writes it: renderings too.
    #[must_use]
    pub fn writable(&self, resource: &GroupResource) -> Option<Arc<dyn Resource>> {
        let table = self.table.load();
        let mut found = table
            .discovery
            .resources()
            .filter(|one| one.group_resource() == *resource);
        let resource = found.next()?.resource.clone();
        match self.own.store(&resource) {
            Some(store) => Some(store),
            None => table
                .templates
                .get(&resource)
                .map(|one| Arc::clone(one) as Arc<dyn Resource>),
        }
    }

    /// Which resource holds templates of a kind, and whether they have a namespace.
    #[must_use]
    pub fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<(GroupResource, bool)> {
        let discovery = self.discovery();
        let found = discovery.kind(&GroupVersion::parse(api_version).kind(kind))?;
        Some((found.group_resource(), found.namespaced))
    }

    /// Whether `user` may do what `info` says. Whoever may enter the fleet (`fleets/proxy`, with the verb of the request's
    /// method) may do it here; what reaches a cluster is for the cluster to refuse.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the one place where this will be decided"
    )]
    fn may(&self, _user: &UserInfo, _info: &RequestInfo) -> Result<(), Status> {
        Ok(())
    }

    async fn follow(&self) {
        let (mut directory, mut catalog) = (self.directory.subscribe(), self.catalog.subscribe());
        loop {
            let changed = tokio::select! {
                changed = directory.changed() => changed,
                changed = catalog.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            self.refresh();
        }
    }

    /// Serves what the clusters serve now. Kinds that stay keep their caches.
    pub fn refresh(&self) {
        let kinds = template_kinds(&self.directory.state(), &self.catalog.state(), &self.name);
        let previous = self.table.load_full();
        let mut table = Table::default();
        let mut discovery = Discovery::new();
        let own = self.own.discovery();
        let (core, umbra): (Vec<_>, Vec<_>) = own.resources().partition(|one| one.resource.group.is_empty());
        for descriptor in core {
            discovery.insert(descriptor.clone());
        }
        for kind in kinds {
            let resource = kind.descriptor.resource.clone();
            discovery.insert(kind.descriptor.clone());
            let clusters = table.clusters.entry(resource.group_version()).or_default();
            clusters.extend(
                kind.clusters
                    .iter()
                    .filter(|one| !clusters.contains(one))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            let template = match previous.templates.get(&resource) {
                Some(one) if *one.descriptor() == kind.descriptor => {
                    one.set_clusters(kind.clusters);
                    Arc::clone(one)
                }
                _ => Arc::new(TemplateResource::new(Arc::clone(&self.parts), kind)),
            };
            table.templates.insert(resource, template);
        }
        for descriptor in umbra {
            let is_renderings = descriptor.resource.resource == "renderings";
            discovery.insert(if is_renderings {
                read_only(descriptor)
            } else {
                descriptor.clone()
            });
        }
        for (resource, template) in &previous.templates {
            if !table
                .templates
                .get(resource)
                .is_some_and(|kept| Arc::ptr_eq(kept, template))
            {
                template.stop();
            }
        }
        table.discovery = if *previous.discovery == discovery {
            Arc::clone(&previous.discovery)
        } else {
            Arc::new(discovery)
        };
        self.table.store(Arc::new(table));
    }
}

async fn make_permanent_namespaces(store: &dyn Store, prefix: &str) -> Result<(), Status> {
    for name in PERMANENT_NAMESPACES {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "uid": uuid::Uuid::new_v4().to_string(),
                "generation": 1,
                "creationTimestamp": age::rfc3339(Timestamp::now()),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        let key = format!("{prefix}{}", TemplateKey::namespace(name).path());
        match store.put(&key, codec::encode(&namespace), Precondition::Absent).await {
            Ok(_) | Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(storage_status(&error)),
        }
    }
    Ok(())
}

#[async_trait]
impl Api for FleetApi {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        self.may(user, info)
    }

    fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.table.load().discovery)
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        if *resource == kinds::umbra_version().resource("renderings") {
            return Some(Arc::clone(&self.renderings) as Arc<dyn Resource>);
        }
        match self.own.resource(resource) {
            Some(own) => Some(own),
            None => {
                let table = self.table.load();
                table
                    .templates
                    .get(resource)
                    .map(|one| Arc::clone(one) as Arc<dyn Resource>)
            }
        }
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        Arc::new(FleetOpenApi {
            own: self.own.openapi(),
            documents: Arc::clone(&self.parts.documents),
            clusters: self.table.load().clusters.clone(),
        })
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        self.own.review(context, body).await
    }

    fn version(&self) -> Bytes {
        self.version.clone()
    }
}
