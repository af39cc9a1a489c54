//! One revision of an override, checked and ready to apply.

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use umbra_api::overrides::{Format, Rollout};
use umbra_apimachinery::patch::JsonPatch;
use umbra_apimachinery::selector::Selector;

use crate::request::{Cluster, Origin, Target};

/// The passes in which overrides apply, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Stage 1: every `ClusterOverride`.
    Cluster,
    /// Stage 2: every `Override`.
    Namespace,
    /// Stage 1 again: every `ClusterOverride` that is `final`.
    Final,
}

impl Stage {
    /// 1 or 2, as users count.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Cluster | Self::Final => 1,
            Self::Namespace => 2,
        }
    }
}

/// The two kinds of overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverrideKind {
    /// Of platform administrators, for templates of any namespace.
    ClusterOverride,
    /// Of tenants, for templates of their namespace.
    Override,
}

impl OverrideKind {
    /// The kind as objects write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterOverride => "ClusterOverride",
            Self::Override => "Override",
        }
    }
}

/// Which override, whatever its revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverrideIdentity {
    /// Its kind.
    pub kind: OverrideKind,
    /// Its namespace; `None` for a `ClusterOverride`.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for OverrideIdentity {
    /// For messages: `Override shop/more-memory`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_str())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// One revision of an override.
#[derive(Debug, Clone)]
pub struct Override {
    pub(super) identity: OverrideIdentity,
    pub(super) revision: i64,
    pub(super) priority: i64,
    pub(super) is_final: bool,
    /// `None` for one that is only tried out; it comes last, as if it were created now.
    pub(super) created: Option<Timestamp>,
    pub(super) clusters: Selector,
    pub(super) resources: Vec<Resources>,
    pub(super) rollout: Rollout,
    pub(super) applies_to: Vec<Origin>,
    pub(super) patches: Vec<Patch>,
}

/// Which objects are patched.
#[derive(Debug, Clone)]
pub(super) struct Resources {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) labels: Selector,
}

/// A patch that is decoded as far as it can be without a cluster.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    pub(super) change: PatchChange,
    pub(super) field: Option<Field>,
    pub(super) optional: bool,
    /// Whether there is anything to expand.
    pub(super) has_variables: bool,
}

#[derive(Debug, Clone)]
pub(super) enum PatchChange {
    Json(JsonPatch),
    Merge(Value),
}

/// The string that a patch goes into.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) pointer: String,
    pub(super) format: Format,
}

impl Override {
    /// The same override, changing objects of these origins alone. Without this it changes what is rendered.
    #[must_use]
    pub fn applying_to(mut self, origins: Vec<Origin>) -> Self {
        self.applies_to = origins;
        self
    }

    /// Which override this is a revision of.
    #[must_use]
    pub fn identity(&self) -> &OverrideIdentity {
        &self.identity
    }

    /// Which revision this is: the generation of the stored object.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// When a change reaches objects that are already placed.
    #[must_use]
    pub fn rollout(&self) -> Rollout {
        self.rollout
    }

    pub(super) fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// Whether the override changes `target` on its way to `cluster`, in whatever pass.
    #[must_use]
    pub fn selects(&self, target: &Target, cluster: &Cluster, origin: Origin) -> bool {
        let in_reach = match self.identity.kind {
            OverrideKind::ClusterOverride => true,
            OverrideKind::Override => self.identity.namespace.is_some() && self.identity.namespace == target.namespace,
        };
        in_reach
            && self.applies_to.contains(&origin)
            && self.clusters.matches(|key| cluster.labels.get(key).map(String::as_str))
            && self.resources.iter().any(|resources| resources.select(target))
    }

    /// Whether the override takes part in that pass.
    #[must_use]
    pub fn is_of(&self, stage: Stage) -> bool {
        match stage {
            Stage::Cluster => self.identity.kind == OverrideKind::ClusterOverride,
            Stage::Namespace => self.identity.kind == OverrideKind::Override,
            Stage::Final => self.identity.kind == OverrideKind::ClusterOverride && self.is_final,
        }
    }

    /// Which of two overrides of a pass applies first.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |one: &Self| (one.priority, one.created.is_none(), one.created);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.identity.cmp_name(&other.identity))
    }
}

#[cfg(test)]
impl Override {
    /// The same override under another name.
    pub(super) fn named(mut self, name: String) -> Self {
        self.identity.name = name;
        self
    }
}

impl OverrideIdentity {
    fn cmp_name(&self, other: &Self) -> Ordering {
        (&self.name, &self.namespace).cmp(&(&other.name, &other.namespace))
    }
}

impl Resources {
    fn select(&self, target: &Target) -> bool {
        self.api_version == target.api_version
            && self.kind == target.kind
            && self.name.as_ref().is_none_or(|name| *name == target.name)
            && self.labels.matches(|key| target.labels.get(key).map(String::as_str))
    }
}
