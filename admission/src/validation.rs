//! An object has to be valid in the cluster that receives it.
//!
//! Which schemas a cluster has, and how objects are validated against them, is not known here: an [`ObjectValidator`] is
//! plugged in. What it finds is blamed on the override that wrote the field, where one did.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::chain::Plugin;
use crate::error::AdmissionError;
use crate::overrides::{Culprit, culprit};
use crate::request::{AdmissionRequest, Cluster};

/// Something wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, as Kubernetes writes it: `spec.template.spec.containers[0].image`; empty for the whole object.
    pub field: String,
    /// `metav1.CauseType`, such as `FieldValueInvalid`.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// The patch that wrote the field. Validators leave it `None`.
    pub culprit: Option<Culprit>,
}

impl FieldError {
    /// Something wrong with a field, which nobody is blamed for yet.
    #[must_use]
    pub fn new(field: impl Into<String>, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            message: message.into(),
            culprit: None,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        match &self.culprit {
            Some(culprit) => write!(f, " (written by {culprit})"),
            None => Ok(()),
        }
    }
}

/// What a validator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The object is valid.
    Valid,
    /// It is not; at least one reason.
    Invalid(Vec<FieldError>),
    /// The cluster does not serve the kind.
    UnknownKind,
    /// The schemas of the cluster are not known, and why.
    Unavailable(String),
}

/// Says whether objects are valid in a cluster. Must not block: schemas are to be at hand.
pub trait ObjectValidator: Send + Sync {
    /// Whether `object` is valid in `cluster`, where `old` is there already in the case of an update. Warnings are
    /// pushed to `warnings`.
    fn validate(&self, cluster: &Cluster, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Verdict;
}

impl<F> ObjectValidator for F
where
    F: Fn(&Cluster, &Value, Option<&Value>, &mut Vec<String>) -> Verdict + Send + Sync,
{
    fn validate(&self, cluster: &Cluster, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Verdict {
        self(cluster, object, old, warnings)
    }
}

/// Refuses objects that are not valid in the cluster.
pub struct SchemaValidation {
    validator: Arc<dyn ObjectValidator>,
}

impl SchemaValidation {
    /// Validates with `validator`.
    #[must_use]
    pub fn new(validator: Arc<dyn ObjectValidator>) -> Self {
        Self { validator }
    }
}

impl fmt::Debug for SchemaValidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaValidation").finish_non_exhaustive()
    }
}

impl Plugin for SchemaValidation {
    fn name(&self) -> &'static str {
        "SchemaValidation"
    }

    fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError> {
        let old = request.old_object.as_deref();
        let verdict = self
            .validator
            .validate(&request.cluster, &request.object, old, &mut request.warnings);
        let target = || Box::new(request.target().clone());
        let cluster = request.cluster.name.clone();
        match verdict {
            Verdict::Valid => Ok(()),
            Verdict::UnknownKind => Err(AdmissionError::UnknownKind {
                target: target(),
                cluster,
            }),
            Verdict::Unavailable(reason) => Err(AdmissionError::NotValidated {
                target: target(),
                cluster,
                reason,
            }),
            Verdict::Invalid(mut errors) => {
                for error in &mut errors {
                    error.culprit = culprit(&request.applied, &error.field);
                }
                Err(AdmissionError::Invalid {
                    target: target(),
                    cluster,
                    errors,
                })
            }
        }
    }
}
