//! Everything of a fleet in memory, decoded: what controllers compute from and tables count in.
//!
//! One watch cache covers all kinds of a fleet, so one of its snapshots is one state of the whole fleet.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;
use umbra_admission::overrides::{Override, OverrideIdentity, OverrideKind};
use umbra_api::overrides::{self, OverrideStatus};
use umbra_api::placement::{ClusterPlacement, Placement, PlacementSpec, PlacementStatus};
use umbra_api::rendering::Rendering;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_storage::{Cache, CachedObject, Entry, Indexer, Revision, StringMap};

use super::names::TemplateKey;
use crate::generic::codec;

/// The cache of everything of a fleet.
pub type FleetCache = Cache<FleetIndexer>;

/// An object of a fleet.
#[derive(Debug, Clone)]
pub enum FleetObject {
    /// A `Placement` or `ClusterPlacement`.
    Placement(Arc<PlacementObject>),
    /// An `Override` or `ClusterOverride`.
    Override(Arc<OverrideObject>),
    /// A `Rendering`.
    Rendering(Arc<Rendering>),
    /// A template.
    Template(TemplateKey, Arc<Value>),
}

/// The two kinds of placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlacementKind {
    /// Places anything.
    ClusterPlacement,
    /// Places templates of its namespace.
    Placement,
}

impl PlacementKind {
    /// The kind as objects write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterPlacement => "ClusterPlacement",
            Self::Placement => "Placement",
        }
    }
}

/// A placement of either kind.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementObject {
    /// Which kind.
    pub kind: PlacementKind,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: PlacementSpec,
    /// How it stands.
    pub status: PlacementStatus,
}

/// An override of either kind.
#[derive(Debug, Clone)]
pub struct OverrideObject {
    /// Which override.
    pub identity: OverrideIdentity,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The override, ready to apply, or what is wrong with it.
    pub parsed: Result<Arc<Override>, String>,
    /// How it stands.
    pub status: OverrideStatus,
}

/// Decodes the objects of a fleet.
#[derive(Debug)]
pub struct FleetIndexer {
    prefix: String,
}

impl FleetIndexer {
    /// Decodes what is under `prefix`.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    fn decode(&self, entry: &Entry) -> Result<(TemplateKey, FleetObject), String> {
        let path = entry.key.strip_prefix(&self.prefix).unwrap_or_default();
        let key = TemplateKey::parse(path).ok_or("the key is no object's")?;
        let object = codec::decode(&entry.value, entry.revision.0).map_err(|error| error.to_string())?;
        let object = match (key.resource.group.as_str(), key.resource.resource.as_str()) {
            ("umbra.dev", "placements") => placement(typed::<Placement>(object)?),
            ("umbra.dev", "clusterplacements") => cluster_placement(typed(object)?),
            ("umbra.dev", "overrides") => override_(typed(object)?),
            ("umbra.dev", "clusteroverrides") => cluster_override(typed(object)?),
            ("umbra.dev", "renderings") => FleetObject::Rendering(Arc::new(typed(object)?)),
            _ => FleetObject::Template(key.clone(), Arc::new(object)),
        };
        Ok((key, object))
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}

fn placement(placement: Placement) -> FleetObject {
    FleetObject::Placement(Arc::new(PlacementObject {
        kind: PlacementKind::Placement,
        metadata: placement.metadata,
        spec: placement.spec,
        status: placement.status.unwrap_or_default(),
    }))
}

fn cluster_placement(placement: ClusterPlacement) -> FleetObject {
    FleetObject::Placement(Arc::new(PlacementObject {
        kind: PlacementKind::ClusterPlacement,
        metadata: placement.metadata,
        spec: placement.spec.placement,
        status: placement.status.unwrap_or_default(),
    }))
}

fn override_(stored: overrides::Override) -> FleetObject {
    let parsed = Override::from_override(&stored)
        .map(Arc::new)
        .map_err(|error| error.to_string());
    FleetObject::Override(Arc::new(OverrideObject {
        identity: OverrideIdentity {
            kind: OverrideKind::Override,
            namespace: stored.metadata.namespace.clone(),
            name: stored.metadata.name.clone().unwrap_or_default(),
        },
        metadata: stored.metadata,
        parsed,
        status: stored.status.unwrap_or_default(),
    }))
}

fn cluster_override(stored: overrides::ClusterOverride) -> FleetObject {
    let parsed = Override::from_cluster_override(&stored)
        .map(Arc::new)
        .map_err(|error| error.to_string());
    FleetObject::Override(Arc::new(OverrideObject {
        identity: OverrideIdentity {
            kind: OverrideKind::ClusterOverride,
            namespace: None,
            name: stored.metadata.name.clone().unwrap_or_default(),
        },
        metadata: stored.metadata,
        parsed,
        status: stored.status.unwrap_or_default(),
    }))
}

impl Indexer for FleetIndexer {
    type Extra = FleetObject;

    fn object(&self, entry: &Entry) -> Option<CachedObject<FleetObject>> {
        let (key, object) = match self.decode(entry) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "an object of the fleet cannot be read; it is left out");
                return None;
            }
        };
        let labels: StringMap = match &object {
            FleetObject::Template(_, template) => {
                let labels = template["metadata"]["labels"].as_object().into_iter().flatten();
                labels
                    .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
                    .collect()
            }
            _ => StringMap::default(),
        };
        Some(CachedObject {
            key: Arc::clone(&entry.key),
            revision: entry.revision,
            bytes: Bytes::new(),
            namespace: key.namespace.unwrap_or_default().into(),
            name: key.name.into(),
            labels,
            fields: StringMap::default(),
            extra: object,
        })
    }

    fn deleted(&self, last: &CachedObject<FleetObject>, revision: Revision) -> CachedObject<FleetObject> {
        CachedObject {
            revision,
            ..last.clone()
        }
    }
}

impl PlacementObject {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace; `None` for a `ClusterPlacement`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self.kind {
            PlacementKind::ClusterPlacement => None,
            PlacementKind::Placement => self.metadata.namespace.as_deref(),
        }
    }
}

/// Whether an object is on its way out.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    !object.metadata_str("deletionTimestamp").is_empty()
}
