//! Applying overrides.

use std::sync::Arc;

use serde_json::Value;
use umbra_apimachinery::patch::{MissingPath, PatchBudget, PatchError, merge};

use super::document;
use super::error::{OverrideError, PatchFailure};
use super::model::{Field, Override, Patch, PatchChange, Stage};
use super::record::{AppliedOverride, compare};
use super::variables;
use crate::chain::Plugin;
use crate::error::AdmissionError;
use crate::request::{AdmissionRequest, Cluster};

/// One pass of overrides.
#[derive(Debug, Clone)]
pub struct OverridePlugin {
    stage: Stage,
    /// Of this stage only, in the order in which they apply.
    overrides: Vec<Arc<Override>>,
}

impl OverridePlugin {
    /// Applies those of `overrides` that take part in `stage`, whatever order they come in.
    #[must_use]
    pub fn new(stage: Stage, overrides: impl AsRef<[Arc<Override>]>) -> Self {
        let of_stage = overrides.as_ref().iter().filter(|one| one.is_of(stage));
        let mut overrides: Vec<Arc<Override>> = of_stage.cloned().collect();
        overrides.sort_by(|one, other| one.order(other));
        Self { stage, overrides }
    }
}

impl Plugin for OverridePlugin {
    fn name(&self) -> &'static str {
        match self.stage {
            Stage::Cluster => "ClusterOverrides",
            Stage::Namespace => "Overrides",
            Stage::Final => "FinalClusterOverrides",
        }
    }

    /// Where an override fails, the object is as it was before the pass.
    fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError> {
        let cluster = Arc::clone(&request.cluster);
        let selected = self
            .overrides
            .iter()
            .filter(|one| one.selects(request.target(), &cluster, request.origin));
        let selected: Vec<Arc<Override>> = selected.cloned().collect();
        if selected.is_empty() {
            return Ok(());
        }
        let mut object = request.object.clone();
        let mut applied = Vec::with_capacity(selected.len());
        for one in selected {
            let record =
                apply(&one, self.stage, &mut object, &cluster, &mut request.budget).map_err(|(patch, failure)| {
                    OverrideError {
                        by: one.identity().clone(),
                        revision: one.revision(),
                        object: request.target().to_string(),
                        cluster: cluster.name.clone(),
                        patch,
                        failure,
                    }
                });
            applied.push(record.map_err(Box::new)?);
        }
        request.object = object;
        request.applied.append(&mut applied);
        Ok(())
    }
}

/// Applies all patches of one override; the error comes with the index of the patch.
fn apply(
    one: &Override,
    stage: Stage,
    object: &mut Value,
    cluster: &Cluster,
    budget: &mut PatchBudget,
) -> Result<AppliedOverride, (usize, PatchFailure)> {
    let mut record = AppliedOverride {
        by: one.identity().clone(),
        revision: one.revision(),
        stage,
        changes: Vec::new(),
        skipped: Vec::new(),
    };
    for (index, patch) in one.patches().iter().enumerate() {
        let before = object.clone();
        match apply_patch(patch, object, cluster, budget) {
            Ok(skipped) => record
                .skipped
                .extend(skipped.into_iter().map(|operation| (index, Some(operation)))),
            Err(failure) if patch.optional && failure.is_missing_path() => record.skipped.push((index, None)),
            Err(failure) => return Err((index, failure)),
        }
        compare(&before, object, index, &mut record.changes);
    }
    Ok(record)
}

/// Applies one patch or changes nothing; returns the operations that were left out.
fn apply_patch(
    patch: &Patch,
    object: &mut Value,
    cluster: &Cluster,
    budget: &mut PatchBudget,
) -> Result<Vec<usize>, PatchFailure> {
    let expanded;
    let change = if patch.has_variables {
        expanded = expand(&patch.change, cluster)?;
        &expanded
    } else {
        &patch.change
    };
    match &patch.field {
        None => Ok(change_value(change, patch.optional, object, budget)?),
        Some(field) => change_field(change, patch.optional, field, object, budget),
    }
}

fn expand(change: &PatchChange, cluster: &Cluster) -> Result<PatchChange, PatchFailure> {
    Ok(match change {
        PatchChange::Json(patch) => PatchChange::Json(patch.try_map_values(|value| variables::expand(value, cluster))?),
        PatchChange::Merge(patch) => PatchChange::Merge(variables::expand(patch, cluster)?),
    })
}

fn change_value(
    change: &PatchChange,
    optional: bool,
    value: &mut Value,
    budget: &mut PatchBudget,
) -> Result<Vec<usize>, PatchError> {
    match change {
        PatchChange::Json(patch) => {
            let missing = if optional {
                MissingPath::Skips
            } else {
                MissingPath::Fails
            };
            patch.apply(value, missing, budget)
        }
        PatchChange::Merge(patch) => {
            budget.spend_operations(1)?;
            merge::apply(value, patch);
            Ok(Vec::new())
        }
    }
}

/// Patches the document in a string.
fn change_field(
    change: &PatchChange,
    optional: bool,
    field: &Field,
    object: &mut Value,
    budget: &mut PatchBudget,
) -> Result<Vec<usize>, PatchFailure> {
    let pointer = || field.pointer.clone();
    let unreadable = |reason| PatchFailure::FieldUnreadable {
        pointer: pointer(),
        format: document::name(field.format),
        reason,
    };
    let text = match object.pointer_mut(&field.pointer) {
        None => return Err(PatchFailure::FieldMissing { pointer: pointer() }),
        Some(Value::String(text)) => text,
        Some(_) => return Err(PatchFailure::FieldNotAString { pointer: pointer() }),
    };
    let before = document::parse(text, field.format).map_err(unreadable)?;
    let mut after = before.clone();
    let skipped = change_value(change, optional, &mut after, budget).map_err(|error| PatchFailure::InField {
        pointer: pointer(),
        error: Box::new(error),
    })?;
    if after != before {
        *text = document::write(&after, field.format, text).map_err(unreadable)?;
    }
    Ok(skipped)
}
