//! What is admitted, and for which cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use umbra_apimachinery::patch::PatchBudget;

use crate::overrides::AppliedOverride;

/// What is about to happen to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The cluster does not have it yet.
    Create,
    /// The cluster has it.
    Update,
}

/// How the object came here; overrides say in `appliesTo` which of these they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A template was rendered for the cluster.
    Rendered,
    /// Somebody wrote it through a cluster or view root.
    Proxied,
}

/// The cluster that receives the object, as far as plugins look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// The name of the `ManagedCluster`.
    pub name: String,
    /// Its labels, which cluster selectors look at.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The facts in its status.
    pub properties: BTreeMap<String, String>,
}

/// The state of the object's namespace in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamespaceState {
    /// The object is cluster-scoped.
    #[default]
    NotNamespaced,
    /// The namespace is there, or comes along with the object.
    Active,
    /// The namespace is being deleted.
    Terminating,
    /// The cluster has no such namespace.
    Missing,
}

/// What the object is, as it entered the chain. Plugins select by this, so that no plugin changes what a later one
/// selects, and the identity check compares with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The UID; `None` where the object has none.
    pub uid: Option<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

impl Target {
    /// What `object` is. What it does not say is empty.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let optional = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let labels = metadata["labels"].as_object().into_iter().flatten();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: optional(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: optional(&metadata["uid"]),
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
        }
    }
}

impl fmt::Display for Target {
    /// For messages: `Deployment shop/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// An object on its way to a cluster.
#[derive(Debug, Clone)]
pub struct AdmissionRequest {
    /// What is about to happen.
    pub operation: Operation,
    /// How the object came here.
    pub origin: Origin,
    /// The object; plugins change it.
    pub object: Value,
    /// The object that the cluster has, for an update.
    pub old_object: Option<Arc<Value>>,
    /// The cluster that receives the object.
    pub cluster: Arc<Cluster>,
    /// The state of the object's namespace in the cluster.
    pub namespace: NamespaceState,
    /// What to tell who asked for this, beside the result.
    pub warnings: Vec<String>,
    /// Which overrides took part, in the order in which they did.
    pub applied: Vec<AppliedOverride>,
    /// What patches may still cost; one budget for the whole chain.
    pub budget: PatchBudget,
    target: Target,
}

impl AdmissionRequest {
    /// A rendering that is created in `cluster`. Set the public fields for anything else.
    #[must_use]
    pub fn new(object: Value, cluster: Arc<Cluster>) -> Self {
        let target = Target::of(&object);
        let namespace = match target.namespace {
            Some(_) => NamespaceState::Active,
            None => NamespaceState::NotNamespaced,
        };
        Self {
            operation: Operation::Create,
            origin: Origin::Rendered,
            object,
            old_object: None,
            cluster,
            namespace,
            warnings: Vec::new(),
            applied: Vec::new(),
            budget: PatchBudget::new(),
            target,
        }
    }

    /// What the object was when it entered the chain.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}
