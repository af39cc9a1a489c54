//! What can be wrong with overrides, and what to do about it.

use std::fmt;

use thiserror::Error;
use umbra_apimachinery::patch::{OperationFailure, PatchError, PatchErrorKind};

use super::model::OverrideIdentity;

/// An override is malformed, whatever it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{by}: {field}: {reason}")]
pub struct InvalidOverride {
    /// Which override.
    pub by: OverrideIdentity,
    /// Which field: `spec.patches[0].value`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An override does not apply to an object for a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{by} (revision {revision}) does not apply to {object} for cluster {cluster}: patch {patch}: {failure}{}",
    Advice(failure)
)]
pub struct OverrideError {
    /// Which override.
    pub by: OverrideIdentity,
    /// Which revision of it.
    pub revision: i64,
    /// The object: `Deployment shop/web`.
    pub object: String,
    /// The cluster.
    pub cluster: String,
    /// Which of its patches, from 0.
    pub patch: usize,
    /// Why.
    #[source]
    pub failure: PatchFailure,
}

impl OverrideError {
    /// Index, name and path of the operation that failed, where the patch is a JSON patch and one did.
    #[must_use]
    pub fn operation(&self) -> Option<(usize, &str, &str)> {
        match self.failure.patch_error() {
            Some(PatchError::Operation { index, op, path, .. }) => Some((*index, *op, path)),
            _ => None,
        }
    }
}

/// Why one patch of an override does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchFailure {
    /// The patch does not fit the object.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The patch does not fit the document in the string.
    #[error("in the document at {pointer:?}: {error}")]
    InField {
        /// Pointer to the string.
        pointer: String,
        /// Why it does not fit.
        #[source]
        error: Box<PatchError>,
    },
    /// There is no such string.
    #[error("field.path {pointer:?} does not exist")]
    FieldMissing {
        /// Pointer to where it should be.
        pointer: String,
    },
    /// There is something else than a string.
    #[error("field.path {pointer:?} is not a string")]
    FieldNotAString {
        /// Pointer to it.
        pointer: String,
    },
    /// The string does not hold a document of that format.
    #[error("the string at {pointer:?} is not {format}: {reason}")]
    FieldUnreadable {
        /// Pointer to the string.
        pointer: String,
        /// `YAML` or `JSON`.
        format: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// A variable has no value.
    #[error(transparent)]
    Variable(#[from] VariableError),
}

impl PatchFailure {
    /// Whether the object lacks what the patch is about; such patches are skipped where they are `optional`.
    #[must_use]
    pub fn is_missing_path(&self) -> bool {
        matches!(self, Self::FieldMissing { .. })
            || matches!(self.operation_failure(), Some(one) if one.is_missing_path())
    }

    fn operation_failure(&self) -> Option<&OperationFailure> {
        match self.patch_error() {
            Some(PatchError::Operation { failure, .. }) => Some(failure),
            _ => None,
        }
    }

    fn patch_error(&self) -> Option<&PatchError> {
        match self {
            Self::Patch(error) => Some(error),
            Self::InField { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What the author of the override can do.
struct Advice<'a>(&'a PatchFailure);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = self.0;
        let advice = if failure.is_missing_path() {
            "correct the path, select fewer objects, or set optional: true on the patch to skip what is missing"
        } else if matches!(failure, PatchFailure::FieldUnreadable { .. }) {
            "correct the document in the template, or field.format of the patch"
        } else if matches!(failure, PatchFailure::FieldNotAString { .. }) {
            "patch it without field, or correct field.path"
        } else {
            match failure.patch_error().map(PatchError::kind) {
                Some(PatchErrorKind::TestFailed) => "the object is not as the patch expects it: correct one of them",
                Some(PatchErrorKind::TooLarge) => "all overrides of a rendering share this limit: patch less",
                _ => return Ok(()),
            }
        };
        write!(f, "; {advice}")
    }
}

/// A `${...}` in a value does not stand for anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VariableError {
    /// Not of a form that is known.
    #[error(
        "unknown variable {text:?}; there are ${{cluster.name}}, ${{cluster.labels['key']}}, \
         ${{cluster.annotations['key']}} and ${{cluster.properties['key']}}; write $${{ for a literal ${{"
    )]
    Unknown {
        /// As written.
        text: String,
    },
    /// The cluster has no such label, annotation or property.
    #[error("the cluster has no {what} {key:?} for {text:?}; set it, or select clusters that have it")]
    Absent {
        /// As written.
        text: String,
        /// `label`, `annotation` or `property`.
        what: &'static str,
        /// Its key.
        key: String,
    },
}
