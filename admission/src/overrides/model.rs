//! One revision of an override, checked and ready to apply.

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use serde_json::Value;
use umbra_api::overrides::{self as api, Format, PatchType, Rollout};
use umbra_api::placement::ResourceSelector;
use umbra_apimachinery::patch::JsonPatch;
use umbra_apimachinery::selector::{LabelSelector, LabelSelectorError, LabelSelectorRequirement, Selector};

use super::error::{InvalidOverride, VariableError};
use super::variables;
use crate::request::{Cluster, Origin, Target};

/// The highest priority.
const HIGHEST_PRIORITY: i64 = 1000;

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
    identity: OverrideIdentity,
    revision: i64,
    priority: i64,
    is_final: bool,
    /// `None` for one that is only tried out; it comes last, as if it were created now.
    created: Option<Timestamp>,
    clusters: Selector,
    resources: Vec<Resources>,
    rollout: Rollout,
    applies_to: Vec<Origin>,
    patches: Vec<Patch>,
}

/// Which objects are patched.
#[derive(Debug, Clone)]
struct Resources {
    api_version: String,
    kind: String,
    name: Option<String>,
    labels: Selector,
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
    /// A revision of a `ClusterOverride`, as the hub stores it.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn from_cluster_override(stored: &api::ClusterOverride) -> Result<Self, InvalidOverride> {
        let spec = &stored.spec;
        let written = Written {
            kind: OverrideKind::ClusterOverride,
            metadata: &stored.metadata,
            priority: spec.priority,
            cluster_selector: spec.cluster_selector.as_ref(),
            resources: &spec.resources,
            rollout: spec.rollout,
            patches: &spec.patches,
        };
        Ok(Self {
            is_final: spec.is_final,
            ..written.check()?
        })
    }

    /// A revision of an `Override`, as the hub stores it.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn from_override(stored: &api::Override) -> Result<Self, InvalidOverride> {
        let spec = &stored.spec;
        Written {
            kind: OverrideKind::Override,
            metadata: &stored.metadata,
            priority: spec.priority,
            cluster_selector: spec.cluster_selector.as_ref(),
            resources: &spec.resources,
            rollout: spec.rollout,
            patches: &spec.patches,
        }
        .check()
    }

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

/// What both kinds have in common.
struct Written<'a> {
    kind: OverrideKind,
    metadata: &'a metav1::ObjectMeta,
    priority: i64,
    cluster_selector: Option<&'a metav1::LabelSelector>,
    resources: &'a [ResourceSelector],
    rollout: Rollout,
    patches: &'a [api::Patch],
}

impl Written<'_> {
    fn check(&self) -> Result<Override, InvalidOverride> {
        let identity = OverrideIdentity {
            kind: self.kind,
            namespace: match self.kind {
                OverrideKind::ClusterOverride => None,
                OverrideKind::Override => self.metadata.namespace.clone(),
            },
            name: self.metadata.name.clone().unwrap_or_default(),
        };
        let invalid = |field: String, reason: String| InvalidOverride {
            by: identity.clone(),
            field,
            reason,
        };
        if !(0..=HIGHEST_PRIORITY).contains(&self.priority) {
            let reason = format!("has to be from 0 to {HIGHEST_PRIORITY}, is {}", self.priority);
            return Err(invalid("spec.priority".to_owned(), reason));
        }
        let clusters = selector(self.cluster_selector)
            .map_err(|error| invalid("spec.clusterSelector".to_owned(), error.to_string()))?;
        if self.resources.is_empty() {
            let reason = "names no resources, so the override would change nothing".to_owned();
            return Err(invalid("spec.resources".to_owned(), reason));
        }
        let mut resources = Vec::with_capacity(self.resources.len());
        for (index, written) in self.resources.iter().enumerate() {
            let checked = check_resources(written);
            resources
                .push(checked.map_err(|(field, reason)| invalid(format!("spec.resources[{index}]{field}"), reason))?);
        }
        let mut patches = Vec::with_capacity(self.patches.len());
        for (index, written) in self.patches.iter().enumerate() {
            let checked = check_patch(written);
            patches.push(checked.map_err(|(field, reason)| invalid(format!("spec.patches[{index}].{field}"), reason))?);
        }
        Ok(Override {
            revision: self.metadata.generation.unwrap_or_default(),
            priority: self.priority,
            is_final: false,
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            clusters,
            resources,
            rollout: self.rollout,
            applies_to: vec![Origin::Rendered],
            patches,
            identity,
        })
    }
}

/// An absent selector selects everything, which is what this API says of its selectors.
fn selector(written: Option<&metav1::LabelSelector>) -> Result<Selector, LabelSelectorError> {
    let Some(written) = written else {
        return Ok(Selector::everything());
    };
    let expressions = written.match_expressions.iter().flatten();
    LabelSelector {
        match_labels: written.match_labels.clone().unwrap_or_default(),
        match_expressions: expressions
            .map(|expression| LabelSelectorRequirement {
                key: expression.key.clone(),
                operator: expression.operator.clone(),
                values: expression.values.clone().unwrap_or_default(),
            })
            .collect(),
    }
    .to_selector()
}

type Fault = (&'static str, String);

fn check_resources(written: &ResourceSelector) -> Result<Resources, Fault> {
    if written.api_version.is_empty() {
        return Err((".apiVersion", "is missing".to_owned()));
    }
    if written.kind.is_empty() {
        return Err((".kind", "is missing".to_owned()));
    }
    if written.name.is_some() && written.label_selector.is_some() {
        return Err(("", "has both name and labelSelector; one of them selects".to_owned()));
    }
    let labels = selector(written.label_selector.as_ref()).map_err(|error| (".labelSelector", error.to_string()))?;
    Ok(Resources {
        api_version: written.api_version.clone(),
        kind: written.kind.clone(),
        name: written.name.clone(),
        labels,
    })
}

fn check_patch(written: &api::Patch) -> Result<Patch, Fault> {
    let mut has_variables = false;
    let change = match written.patch_type {
        PatchType::JSONPatch => {
            let patch = JsonPatch::from_value(written.value.clone()).map_err(|error| ("value", error.to_string()))?;
            patch
                .try_map_values(|value| {
                    variables::check(value)?;
                    has_variables |= variables::occur_in(value);
                    Ok(Value::Null)
                })
                .map_err(|error: VariableError| ("value", error.to_string()))?;
            PatchChange::Json(patch)
        }
        PatchType::MergePatch if written.field.is_none() && !written.value.is_object() => {
            return Err((
                "value",
                "a merge patch of an object has to be an object itself".to_owned(),
            ));
        }
        PatchType::MergePatch => {
            variables::check(&written.value).map_err(|error| ("value", error.to_string()))?;
            has_variables = variables::occur_in(&written.value);
            PatchChange::Merge(written.value.clone())
        }
    };
    let field = written.field.as_ref().map(check_field).transpose()?;
    Ok(Patch {
        change,
        field,
        optional: written.optional,
        has_variables,
    })
}

fn check_field(written: &api::Field) -> Result<Field, Fault> {
    if written.path.starts_with('/') {
        Ok(Field {
            pointer: written.path.clone(),
            format: written.format,
        })
    } else {
        let reason = format!(
            "{:?} is not a JSON pointer to a string, such as /data/app.yaml",
            written.path
        );
        Err(("field.path", reason))
    }
}
