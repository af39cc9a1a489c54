//! One state of a fleet, and how its parts refer to each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use umbra_admission::overrides::OverrideIdentity;
use umbra_admission::{Cluster, Target};
use umbra_api::placement::ResourceSelector;
use umbra_api::rendering::{PlacementReference, Rendering, TemplateReference};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::names::CLUSTER_LABEL;
use umbra_apimachinery::selector::Selector;
use umbra_registry::directory::{Directory, to_selector};
use umbra_registry::fleet::names::fleet_prefix;
use umbra_registry::fleet::template_kinds::{clusters_of, is_ready};
use umbra_registry::fleet::{FleetObject, OverrideObject, PlacementKind, PlacementObject, TemplateKey, rendering_name};
use umbra_storage::Snapshot;

use super::leaving::is_leaving;
use super::schedule::FleetCluster;

/// Which rendering.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RenderingKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl RenderingKey {
    /// The rendering of a template for a cluster.
    #[must_use]
    pub fn new(template: &TemplateKey, cluster: &str) -> Self {
        Self {
            namespace: template.rendering_namespace().to_owned(),
            name: rendering_name(template, cluster),
        }
    }

    /// The key of a rendering.
    #[must_use]
    pub fn of(rendering: &Rendering) -> Self {
        Self {
            namespace: rendering.metadata.namespace.clone().unwrap_or_default(),
            name: rendering.metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Which placement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlacementKey {
    /// Its kind.
    pub kind: PlacementKind,
    /// Its namespace; empty for a `ClusterPlacement`.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PlacementKey {
    /// The key of a placement.
    #[must_use]
    pub fn of(placement: &PlacementObject) -> Self {
        Self {
            kind: placement.kind,
            namespace: placement.namespace().unwrap_or_default().to_owned(),
            name: placement.name().to_owned(),
        }
    }

    /// The placement that a rendering names.
    #[must_use]
    pub fn of_rendering(rendering: &Rendering) -> Option<Self> {
        let reference = rendering.spec.placement.as_ref()?;
        let (kind, namespace) = match reference.kind.as_str() {
            "Placement" => (PlacementKind::Placement, rendering.metadata.namespace.clone()?),
            _ => (PlacementKind::ClusterPlacement, String::new()),
        };
        let name = reference.name.clone();
        Some(Self { kind, namespace, name })
    }

    /// How renderings name it.
    #[must_use]
    pub fn reference(&self) -> PlacementReference {
        PlacementReference {
            kind: self.kind.as_str().to_owned(),
            name: self.name.clone(),
        }
    }
}

/// The template that a rendering is of.
#[must_use]
pub fn template_of(reference: &TemplateReference) -> TemplateKey {
    TemplateKey {
        resource: GroupResource::parse(&reference.resource),
        namespace: Some(reference.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: reference.name.clone(),
    }
}

/// One state of a fleet.
pub struct FleetState {
    snapshot: Snapshot<FleetObject>,
    prefix: String,
}

impl std::fmt::Debug for FleetState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetState")
            .field("prefix", &self.prefix)
            .field("revision", &self.snapshot.revision())
            .finish()
    }
}

impl FleetState {
    /// The state that `snapshot` holds of a fleet.
    #[must_use]
    pub fn new(snapshot: Snapshot<FleetObject>, fleet: &str) -> Self {
        Self {
            snapshot,
            prefix: fleet_prefix(fleet),
        }
    }

    fn below(&self, path: &str) -> Vec<&FleetObject> {
        let prefix = format!("{}{path}", self.prefix);
        self.snapshot.range(&prefix, None).map(|object| &object.extra).collect()
    }

    /// Everything there is.
    pub fn all(&self) -> impl Iterator<Item = &FleetObject> {
        self.snapshot.iter().map(|object| &object.extra)
    }

    /// Everything in a namespace, with what identifies it.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (TemplateKey, &'a FleetObject)> {
        self.snapshot
            .iter()
            .filter(move |object| *object.namespace == *namespace)
            .filter_map(|object| {
                let key = TemplateKey::parse(object.key.strip_prefix(&self.prefix)?)?;
                Some((key, &object.extra))
            })
    }

    /// A template.
    #[must_use]
    pub fn template(&self, key: &TemplateKey) -> Option<Arc<Value>> {
        let key = format!("{}{}", self.prefix, key.path());
        match &self.snapshot.get(&key)?.extra {
            FleetObject::Template(_, template) => Some(Arc::clone(template)),
            _ => None,
        }
    }

    /// All templates.
    pub fn templates(&self) -> impl Iterator<Item = (&TemplateKey, &Arc<Value>)> {
        self.all().filter_map(|object| match object {
            FleetObject::Template(key, template) => Some((key, template)),
            _ => None,
        })
    }

    /// All placements: the older first, and among equals by kind and name.
    #[must_use]
    pub fn placements(&self) -> Vec<Arc<PlacementObject>> {
        let kinds = ["umbra.dev/clusterplacements/", "umbra.dev/placements/"];
        let mut found: Vec<Arc<PlacementObject>> = kinds
            .iter()
            .flat_map(|kind| self.below(kind))
            .filter_map(|object| match object {
                FleetObject::Placement(placement) => Some(Arc::clone(placement)),
                _ => None,
            })
            .collect();
        let created = |one: &PlacementObject| one.metadata.creation_timestamp.as_ref().map(|time| time.0);
        found.sort_by_cached_key(|one| (created(one), PlacementKey::of(one)));
        found
    }

    /// A placement.
    #[must_use]
    pub fn placement(&self, key: &PlacementKey) -> Option<Arc<PlacementObject>> {
        let path = match key.kind {
            PlacementKind::ClusterPlacement => format!("umbra.dev/clusterplacements/{}", key.name),
            PlacementKind::Placement => format!("umbra.dev/placements/{}/{}", key.namespace, key.name),
        };
        match &self.snapshot.get(&format!("{}{path}", self.prefix))?.extra {
            FleetObject::Placement(placement) => Some(Arc::clone(placement)),
            _ => None,
        }
    }

    /// All overrides.
    #[must_use]
    pub fn overrides(&self) -> Vec<Arc<OverrideObject>> {
        let kinds = ["umbra.dev/clusteroverrides/", "umbra.dev/overrides/"];
        let found = kinds
            .iter()
            .flat_map(|kind| self.below(kind))
            .filter_map(|object| match object {
                FleetObject::Override(found) => Some(Arc::clone(found)),
                _ => None,
            });
        found.collect()
    }

    /// An override.
    #[must_use]
    pub fn override_(&self, identity: &OverrideIdentity) -> Option<Arc<OverrideObject>> {
        let path = match &identity.namespace {
            None => format!("umbra.dev/clusteroverrides/{}", identity.name),
            Some(namespace) => format!("umbra.dev/overrides/{namespace}/{}", identity.name),
        };
        match &self.snapshot.get(&format!("{}{path}", self.prefix))?.extra {
            FleetObject::Override(found) => Some(Arc::clone(found)),
            _ => None,
        }
    }

    /// A rendering.
    #[must_use]
    pub fn rendering(&self, key: &RenderingKey) -> Option<Arc<Rendering>> {
        let key = format!("{}umbra.dev/renderings/{}/{}", self.prefix, key.namespace, key.name);
        match &self.snapshot.get(&key)?.extra {
            FleetObject::Rendering(rendering) => Some(Arc::clone(rendering)),
            _ => None,
        }
    }

    /// All renderings whose namespace and name start with `path`.
    fn renderings_below(&self, path: &str) -> Vec<Arc<Rendering>> {
        let found = self
            .below(&format!("umbra.dev/renderings/{path}"))
            .into_iter()
            .filter_map(|object| match object {
                FleetObject::Rendering(rendering) => Some(Arc::clone(rendering)),
                _ => None,
            });
        found.collect()
    }

    /// The renderings of a template, by cluster.
    #[must_use]
    pub fn renderings_of(&self, key: &TemplateKey) -> BTreeMap<String, Arc<Rendering>> {
        let path = format!("{}/{}", key.rendering_namespace(), key.rendering_prefix());
        let found = self.renderings_below(&path).into_iter();
        found.map(|one| (one.spec.cluster.clone(), one)).collect()
    }

    /// The renderings in a namespace.
    #[must_use]
    pub fn renderings_in(&self, namespace: &str) -> Vec<Arc<Rendering>> {
        self.renderings_below(&format!("{namespace}/"))
    }

    /// All renderings.
    #[must_use]
    pub fn renderings(&self) -> Vec<Arc<Rendering>> {
        self.renderings_below("")
    }
}

/// Whether a placement selects a template, whatever the clusters.
#[must_use]
pub fn places(placement: &PlacementObject, key: &TemplateKey, template: &Value) -> bool {
    let in_reach = match placement.kind {
        PlacementKind::ClusterPlacement => true,
        PlacementKind::Placement => key.namespace.is_some() && key.namespace.as_deref() == placement.namespace(),
    };
    in_reach
        && placement
            .spec
            .resources
            .iter()
            .any(|resources| selects(resources, template))
}

fn selects(resources: &ResourceSelector, template: &Value) -> bool {
    let selector = match resources.label_selector.as_ref().map(to_selector) {
        None => Selector::everything(),
        Some(Ok(selector)) => selector,
        // Validation refuses such; one that came in another way selects nothing.
        Some(Err(_)) => return false,
    };
    template["apiVersion"] == *resources.api_version
        && template["kind"] == *resources.kind
        && resources.name.as_ref().is_none_or(|name| *name == template.name())
        && selector.matches(|label| template.label(label))
}

/// The clusters of a fleet, as scheduling and rendering see them. Each has the label `umbra.dev/cluster` with its name, as
/// its objects have in a view, so that a selector can name clusters.
#[must_use]
pub fn fleet_clusters(directory: &Directory, fleet: &str) -> BTreeMap<String, FleetCluster> {
    let describe = |name: String| {
        let cluster = &directory.clusters[&name];
        let metadata = &cluster.metadata;
        let status = cluster.status.clone().unwrap_or_default();
        let mut labels = metadata.labels.clone().unwrap_or_default();
        labels.insert(CLUSTER_LABEL.to_owned(), name.clone());
        let info = Cluster {
            name: name.clone(),
            labels,
            annotations: metadata.annotations.clone().unwrap_or_default(),
            properties: status.properties,
        };
        let described = FleetCluster {
            info: Arc::new(info),
            taints: cluster.spec.taints.clone(),
            ready: is_ready(directory, &name),
        };
        (name, described)
    };
    let staying = clusters_of(directory, fleet).into_iter();
    let staying = staying.filter(|name| !is_leaving(&directory.clusters[name]));
    staying.map(describe).collect()
}

/// For messages: `Deployment shop/web`.
#[must_use]
pub fn display(rendering: &Rendering) -> String {
    let template = &rendering.spec.template;
    Target {
        kind: template.kind.clone(),
        namespace: Some(template.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: template.name.clone(),
        ..Target::default()
    }
    .to_string()
}
