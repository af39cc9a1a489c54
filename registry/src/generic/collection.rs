//! Resources put together to a root.
//!
//! A [`StoreApi`] is a [`root::Api`](crate::root::Api) over stored resources. Its set of kinds may change while it serves:
//! [`StoreApi::install`] and [`StoreApi::remove`] swap in a new table, requests in flight keep the old one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_openapi::{Document, publish};
use umbra_storage::cache::{EventKind, WatchFrom};
use umbra_storage::{Cache, CacheEvent, CacheOptions, Store};

use super::admission::Admission;
use super::authorization::{Authorizer, attributes, forbidden};
use super::indexer::{Lifecycle, StoredIndexer};
use super::keys::Keys;
use super::reviews::Reviews;
use super::store::ResourceStore;
use super::strategy::Strategy;
use super::subresource::{Connector, SubresourceHandler};
use crate::request::RequestContext;
use crate::resource::Resource;
use crate::root::{Api, OpenApi, PublishedDocument};

/// What a root is made of, beside its kinds.
#[derive(Clone)]
pub struct RootParts {
    /// The root's name in keys: `hub`, `fleets/all`, `simulated/east`.
    pub name: String,
    /// Where everything is stored.
    pub store: Arc<dyn Store>,
    /// How the caches work.
    pub cache: CacheOptions,
    /// What looks at every write.
    pub admission: Arc<dyn Admission>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Reviews, where the root answers them.
    pub reviews: Option<Reviews>,
    /// The body of `GET /version`.
    pub version: Bytes,
    /// What the root's tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the root's tasks.
    pub cancelled: CancellationToken,
}

/// A kind to be served.
#[derive(Clone)]
pub struct Installation {
    /// What differs from kind to kind.
    pub strategy: Strategy,
    /// Who answers POST to which subresources.
    pub handlers: Vec<(String, Arc<dyn SubresourceHandler>)>,
    /// Who answers its connections; the descriptor has to name the subresources.
    pub connector: Option<Arc<dyn Connector>>,
}

impl std::fmt::Debug for RootParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootParts")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation")
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

impl From<Strategy> for Installation {
    fn from(strategy: Strategy) -> Self {
        Self {
            strategy,
            handlers: Vec::new(),
            connector: None,
        }
    }
}

/// A root over stored resources.
pub struct StoreApi {
    parts: RootParts,
    table: ArcSwap<Table>,
    /// Serialises changes of the table.
    changing: Mutex<()>,
    /// Wakes whoever looks after owners, finalizers and namespaces.
    activity: Arc<Notify>,
}

impl std::fmt::Debug for StoreApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreApi")
            .field("name", &self.parts.name)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Served {
    store: Arc<ResourceStore>,
    cancelled: CancellationToken,
}

/// What is served now.
#[derive(Default)]
struct Table {
    discovery: Arc<Discovery>,
    resources: HashMap<GroupVersionResource, Served>,
    openapi: Arc<Documents>,
}

impl StoreApi {
    /// A root without kinds yet.
    #[must_use]
    pub fn new(parts: RootParts) -> Arc<Self> {
        let api = Self {
            parts,
            table: ArcSwap::from_pointee(Table::default()),
            changing: Mutex::new(()),
            activity: Arc::default(),
        };
        api.swap(Vec::new(), BTreeMap::new());
        Arc::new(api)
    }

    /// Adds kinds, or replaces those of the same resource, and publishes `documents` for their group versions beside those
    /// that are published already. Kinds appear in discovery in the order of their first installation; their caches begin
    /// to fill.
    pub fn install(
        &self,
        kinds: impl IntoIterator<Item = impl Into<Installation>>,
        documents: impl IntoIterator<Item = (GroupVersion, Document)>,
    ) {
        let _changing = self.changing.lock();
        let table = self.table.load_full();
        let mut served = table.in_order();
        for kind in kinds {
            let new = self.serve(kind.into());
            let resource = &new.store.strategy().descriptor.resource;
            match served
                .iter_mut()
                .find(|one| one.store.strategy().descriptor.resource == *resource)
            {
                Some(existing) => std::mem::replace(existing, new).cancelled.cancel(),
                None => served.push(new),
            }
        }
        let mut published = table.openapi.documents.clone();
        published.extend(documents);
        self.swap(served, published);
    }

    /// Stops serving kinds. What is stored of them stays.
    pub fn remove(&self, resources: &[GroupVersionResource]) {
        let _changing = self.changing.lock();
        let table = self.table.load_full();
        let (gone, kept): (Vec<Served>, Vec<Served>) = table
            .in_order()
            .into_iter()
            .partition(|one| resources.contains(&one.store.strategy().descriptor.resource));
        for one in &gone {
            one.cancelled.cancel();
        }
        self.swap(kept, table.openapi.documents.clone());
    }

    fn serve(&self, installation: Installation) -> Served {
        let RootParts { store, tracker, .. } = &self.parts;
        let strategy = installation.strategy;
        let descriptor = &strategy.descriptor;
        let keys = Keys::new(&self.parts.name, &descriptor.group_resource(), descriptor.namespaced);
        let cancelled = self.parts.cancelled.child_token();
        let cache = Cache::start(
            Arc::clone(store),
            keys.prefix(),
            StoredIndexer::new(keys.clone(), strategy.selectable_fields.clone()),
            self.parts.cache.clone(),
            tracker,
            cancelled.clone(),
        );
        let activity = Arc::clone(&self.activity);
        let feed = report_activity(Arc::clone(&cache), activity);
        let until = cancelled.clone();
        tracker.spawn(async move { until.run_until_cancelled(feed).await });
        let admission = Arc::clone(&self.parts.admission);
        let resource = ResourceStore::new(strategy, keys, Arc::clone(store), cache, admission);
        let resource = resource.with_connector(installation.connector);
        let resource = installation
            .handlers
            .into_iter()
            .fold(resource, |resource, (name, handler)| {
                resource.with_handler(&name, handler)
            });
        Served {
            store: Arc::new(resource),
            cancelled,
        }
    }

    fn swap(&self, served: Vec<Served>, documents: BTreeMap<GroupVersion, Document>) {
        let mut discovery = Discovery::new();
        for one in &served {
            discovery.insert(one.store.strategy().descriptor.clone());
        }
        for review in self.parts.reviews.iter().flat_map(Reviews::descriptors) {
            discovery.insert(review);
        }
        let resources = served
            .into_iter()
            .map(|one| (one.store.strategy().descriptor.resource.clone(), one))
            .collect();
        let openapi = Arc::new(Documents::new(documents, &discovery));
        let discovery = Arc::new(discovery);
        self.table.store(Arc::new(Table {
            discovery,
            resources,
            openapi,
        }));
        self.activity.notify_one();
    }

    /// What the root is made of.
    #[must_use]
    pub fn parts(&self) -> &RootParts {
        &self.parts
    }

    /// The stored resource of that name.
    #[must_use]
    pub fn store(&self, resource: &GroupVersionResource) -> Option<Arc<ResourceStore>> {
        self.table
            .load()
            .resources
            .get(resource)
            .map(|served| Arc::clone(&served.store))
    }

    /// All stored resources, in the order of discovery.
    #[must_use]
    pub fn stores(&self) -> Vec<Arc<ResourceStore>> {
        self.table
            .load()
            .in_order()
            .into_iter()
            .map(|served| served.store)
            .collect()
    }

    /// The stored resource that holds objects of that kind.
    #[must_use]
    pub fn store_of_kind(&self, kind: &GroupVersionKind) -> Option<Arc<ResourceStore>> {
        let table = self.table.load();
        let resource = &table.discovery.kind(kind)?.resource;
        table.resources.get(resource).map(|served| Arc::clone(&served.store))
    }

    /// Waits until all caches are filled.
    ///
    /// # Errors
    /// 503 after `deadline`.
    pub async fn ready(&self, deadline: Instant) -> Result<(), Status> {
        for store in self.stores() {
            store
                .cache()
                .ready(deadline)
                .await
                .map_err(|error| Status::failure(Reason::ServiceUnavailable, error.to_string()))?;
        }
        Ok(())
    }

    /// Notified when something happens that owners, finalizers or namespaces may be concerned with: a deletion, a change
    /// of an object's owners or of an object in deletion, another set of kinds. Notifications coalesce.
    #[must_use]
    pub fn activity(&self) -> Arc<Notify> {
        Arc::clone(&self.activity)
    }
}

impl Table {
    fn in_order(&self) -> Vec<Served> {
        let resources = self.discovery.resources();
        resources
            .filter_map(|descriptor| self.resources.get(&descriptor.resource).cloned())
            .collect()
    }
}

/// Reports what [`StoreApi::activity`] promises, of one cache.
async fn report_activity(cache: Arc<Cache<StoredIndexer>>, activity: Arc<Notify>) {
    loop {
        if let Ok(mut watch) = cache.watch(cache.prefix(), WatchFrom::Now, 1_000) {
            activity.notify_one();
            while let Some(Ok(event)) = watch.next().await {
                if concerns(&event) {
                    activity.notify_one();
                }
            }
        }
        // The cache starts over, or this fell behind; either way everything is looked at again.
        tokio::time::sleep(Duration::from_millis(200).mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
    }
}

fn concerns(event: &CacheEvent<Lifecycle>) -> bool {
    let lifecycle = &event.object.extra;
    let owners_before = event
        .previous
        .as_ref()
        .map_or(&[][..], |previous| &previous.extra.owners);
    event.kind == EventKind::Delete || lifecycle.deleting || lifecycle.owners != owners_before
}

#[async_trait]
impl Api for StoreApi {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        let attributes = attributes(info);
        let verdict = self.parts.authorizer.decide(user, &attributes).await;
        if verdict.allowed {
            Ok(())
        } else {
            Err(forbidden(user, &attributes, &verdict.reason))
        }
    }

    fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.table.load().discovery)
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        self.store(resource).map(|store| store as Arc<dyn Resource>)
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        Arc::clone(&self.table.load().openapi) as Arc<dyn OpenApi>
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        self.parts.reviews.as_ref()?.answer(context, body).await
    }

    fn version(&self) -> Bytes {
        self.parts.version.clone()
    }
}

/// The OpenAPI documents of one table, made when they are first asked for.
#[derive(Default)]
struct Documents {
    documents: BTreeMap<GroupVersion, Document>,
    descriptors: Vec<ResourceDescriptor>,
    versions: Vec<GroupVersion>,
    v3: BTreeMap<GroupVersion, OnceLock<(Bytes, String)>>,
    v2: OnceLock<Bytes>,
}

impl Documents {
    fn new(documents: BTreeMap<GroupVersion, Document>, discovery: &Discovery) -> Self {
        let descriptors: Vec<ResourceDescriptor> = discovery.resources().cloned().collect();
        let mut versions: Vec<GroupVersion> = Vec::new();
        for descriptor in &descriptors {
            let version = descriptor.resource.group_version();
            if documents.contains_key(&version) && !versions.contains(&version) {
                versions.push(version);
            }
        }
        let v3 = versions
            .iter()
            .map(|version| (version.clone(), OnceLock::new()))
            .collect();
        Self {
            documents,
            descriptors,
            versions,
            v3,
            v2: OnceLock::new(),
        }
    }

    fn document(&self, version: &GroupVersion) -> Option<&(Bytes, String)> {
        let document = self.documents.get(version)?;
        Some(self.v3.get(version)?.get_or_init(|| {
            let json = publish::v3(document, version, &self.descriptors);
            let hash = publish::hash(&json);
            (json.into(), hash)
        }))
    }
}

#[async_trait]
impl OpenApi for Documents {
    async fn index(&self, _deadline: Instant) -> Result<Vec<(GroupVersion, String)>, Status> {
        let entries = self.versions.iter().filter_map(|version| {
            let (_, hash) = self.document(version)?;
            Some((version.clone(), hash.clone()))
        });
        Ok(entries.collect())
    }

    async fn v3(
        &self,
        version: &GroupVersion,
        _hash: Option<&str>,
        _deadline: Instant,
    ) -> Result<PublishedDocument, Status> {
        let (json, hash) = self.document(version).ok_or_else(Status::no_such_path)?;
        Ok(PublishedDocument {
            hash: hash.clone(),
            text: json.clone(),
        })
    }

    async fn v2(&self) -> Result<Bytes, Status> {
        let served = self.versions.iter().filter_map(|version| self.documents.get(version));
        Ok(self
            .v2
            .get_or_init(|| publish::v2(served, &self.descriptors).into())
            .clone())
    }
}
