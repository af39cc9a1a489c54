//! Reading overrides as the hub stores them: everything that can be wrong without an object is found here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use serde_json::Value;
use umbra_api::overrides::{self as api, PatchType, Rollout};
use umbra_api::placement::ResourceSelector;
use umbra_apimachinery::patch::JsonPatch;
use umbra_apimachinery::selector::{LabelSelector, LabelSelectorError, LabelSelectorRequirement, Selector};

use super::error::{InvalidOverride, VariableError};
use super::model::{Field, Override, OverrideIdentity, OverrideKind, Patch, PatchChange, Resources};
use super::variables;
use crate::request::Origin;

/// The highest priority.
const HIGHEST_PRIORITY: i64 = 1000;

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
