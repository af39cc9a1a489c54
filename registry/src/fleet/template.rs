//! Templates of one resource.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::names::CLUSTER_LABEL;
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::ColumnDefinition;
use umbra_openapi::Dialect;
use umbra_storage::{Cache, CacheOptions, Store};

use super::documents::Documents;
use super::names::{FLEET_LABEL, RENDERING_ANNOTATION, RENDERING_UID_ANNOTATION};
use super::printer::TemplatePrinter;
use super::template_kinds::TemplateKind;
use crate::fleet::FleetCache;
use crate::generic::indexer::StoredIndexer;
use crate::generic::keys::Keys;
use crate::generic::strategy::{Behavior, NameRule};
use crate::generic::{Admission, ResourceStore, Strategy};
use crate::request::{GetOptions, ListOptions, RequestContext};
use crate::resource::{EventStream, Object, ObjectList, Resource, WriteOutcome, WriteRequest, WriteVerb};

/// What all templates of a fleet have in common.
pub struct TemplateParts {
    /// The fleet's name in keys.
    pub root: String,
    /// Where templates are stored.
    pub store: Arc<dyn Store>,
    /// What looks at every write.
    pub admission: Arc<dyn Admission>,
    /// The clusters' schemas.
    pub documents: Arc<dyn Documents>,
    /// Everything of the fleet.
    pub fleet: Arc<FleetCache>,
    /// What the caches' tasks belong to.
    pub tracker: TaskTracker,
    /// Ends the caches' tasks.
    pub cancelled: CancellationToken,
}

impl std::fmt::Debug for TemplateParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateParts")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// The templates of one resource. Its cache starts when it is first asked for: a fleet serves many kinds, and few of them
/// are used.
pub struct TemplateResource {
    parts: Arc<TemplateParts>,
    strategy: Strategy,
    keys: Keys,
    /// The clusters whose schemas hold, in the order in which they are asked.
    clusters: ArcSwap<Vec<String>>,
    /// For everything but writes of objects, which need the schema.
    reads: OnceLock<Arc<ResourceStore>>,
    cancelled: CancellationToken,
}

impl std::fmt::Debug for TemplateResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateResource")
            .field("keys", &self.keys)
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

impl TemplateResource {
    /// The templates of that kind.
    #[must_use]
    pub fn new(parts: Arc<TemplateParts>, kind: TemplateKind) -> Self {
        let descriptor = kind.descriptor;
        let resource = descriptor.group_resource();
        let keys = Keys::new(&parts.root, &resource, descriptor.namespaced);
        let names = match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "services") => NameRule::ServiceLabel,
            ("rbac.authorization.k8s.io", _) => NameRule::PathSegment,
            _ => NameRule::Subdomain,
        };
        let printer = TemplatePrinter::new(resource, descriptor.namespaced, Arc::clone(&parts.fleet));
        let mut strategy = Strategy::new(descriptor)
            .with_names(names)
            .with_printer(Arc::new(printer))
            .with_behavior(TemplateBehavior);
        // Renderings say which generation of the template they are of.
        strategy.counts_generation = true;
        Self {
            cancelled: parts.cancelled.child_token(),
            parts,
            strategy,
            keys,
            clusters: ArcSwap::from_pointee(kind.clusters),
            reads: OnceLock::new(),
        }
    }

    /// Takes schemas from these clusters from now on.
    pub fn set_clusters(&self, clusters: Vec<String>) {
        self.clusters.store(Arc::new(clusters));
    }

    /// Ends the resource's cache.
    pub fn stop(&self) {
        self.cancelled.cancel();
    }

    fn reads(&self) -> &Arc<ResourceStore> {
        self.reads.get_or_init(|| {
            let cache = Cache::start(
                Arc::clone(&self.parts.store),
                self.keys.prefix(),
                StoredIndexer::new(self.keys.clone(), Vec::new()),
                CacheOptions::default(),
                &self.parts.tracker,
                self.cancelled.clone(),
            );
            Arc::new(self.with_cache(self.strategy.clone(), cache))
        })
    }

    fn with_cache(&self, strategy: Strategy, cache: Arc<Cache<StoredIndexer>>) -> ResourceStore {
        let store = Arc::clone(&self.parts.store);
        ResourceStore::new(
            strategy,
            self.keys.clone(),
            store,
            cache,
            Arc::clone(&self.parts.admission),
        )
    }

    /// The schema of the kind, from the first cluster that can say.
    async fn schema(&self) -> Result<Option<TypeSchema>, Status> {
        let kind = self.strategy.kind();
        let mut failure = None;
        for cluster in self.clusters.load_full().iter() {
            match self.parts.documents.type_schema(cluster, &kind).await {
                Ok(Some(schema)) => return Ok(Some(schema)),
                Ok(None) => {}
                Err(error) => failure = Some(error.message),
            }
        }
        match failure {
            None => Ok(None),
            Some(failure) => Err(Status::failure(
                Reason::ServiceUnavailable,
                format!(
                    "no cluster can say what a {} looks like, so it cannot be validated: {failure}; try again when one of \
                     the clusters of the fleet answers",
                    kind.kind
                ),
            )
            .retry_after(1)),
        }
    }

    /// The store to write with.
    async fn writes(&self, context: &RequestContext) -> Result<ResourceStore, Status> {
        let schema = tokio::time::timeout_at(context.deadline, self.schema())
            .await
            .map_err(|_| {
                let kind = &self.strategy.descriptor.kind;
                let message = format!("no cluster said in time what a {kind} looks like, so it cannot be validated");
                Status::failure(Reason::Timeout, message)
            })??;
        let dialect = schema.as_ref().map_or(Dialect::CustomResource, dialect_of);
        let strategy = self.strategy.clone().with_schema(schema, dialect);
        Ok(self.with_cache(strategy, Arc::clone(self.reads().cache())))
    }
}

/// How a kind's schema is meant: Kubernetes' own definitions are of Go types.
#[must_use]
pub fn dialect_of(schema: &TypeSchema) -> Dialect {
    if schema.name().starts_with("io.k8s.") {
        Dialect::BuiltIn
    } else {
        Dialect::CustomResource
    }
}

#[async_trait]
impl Resource for TemplateResource {
    fn descriptor(&self) -> &ResourceDescriptor {
        &self.strategy.descriptor
    }

    async fn get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        self.reads().get(context, namespace, name, subresource, options).await
    }

    async fn list(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        self.reads().list(context, namespace, options).await
    }

    async fn watch(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status> {
        self.reads().watch(context, namespace, options).await
    }

    async fn write(&self, context: &RequestContext, request: WriteRequest) -> Result<WriteOutcome, Status> {
        match request.verb {
            WriteVerb::Delete | WriteVerb::DeleteCollection => self.reads().write(context, request).await,
            _ => self.writes(context).await?.write(context, request).await,
        }
    }

    fn columns(&self, _objects: &[Object]) -> Vec<ColumnDefinition> {
        self.strategy.printer.columns()
    }

    fn cells(&self, object: &Object, _columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value> {
        let object: Value = serde_json::from_slice(&object.json).unwrap_or_default();
        self.strategy.printer.cells(&object, now)
    }
}

/// What templates do not keep.
#[derive(Debug, Clone, Copy)]
struct TemplateBehavior;

impl Behavior for TemplateBehavior {
    fn prepare_for_create(&self, object: &mut Value) {
        clean(object);
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value) {
        clean(object);
    }
}

/// Takes off a template what only objects of clusters have: somebody may have copied it from one.
pub(super) fn clean(object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    metadata.remove("ownerReferences");
    for (map, marks) in [
        ("labels", &[FLEET_LABEL, CLUSTER_LABEL][..]),
        ("annotations", &[RENDERING_ANNOTATION, RENDERING_UID_ANNOTATION][..]),
    ] {
        let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) else {
            continue;
        };
        let before = entries.len();
        entries.retain(|key, _| !marks.contains(&key.as_str()));
        if before > 0 && entries.is_empty() {
            metadata.remove(map);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_copied_from_a_cluster_loses_its_marks() {
        let mut object = json!({"metadata": {
            "labels": {"umbra.dev/fleet": "all", "app": "web"},
            "annotations": {"umbra.dev/rendering": "shop/web", "umbra.dev/rendering-uid": "u"},
            "ownerReferences": [{"name": "a"}],
        }});
        clean(&mut object);
        assert_eq!(object, json!({"metadata": {"labels": {"app": "web"}}}));
    }
}
