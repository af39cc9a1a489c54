//! Why an object may not go to a cluster.

use thiserror::Error;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Cause, Status};

use crate::overrides::{Culprit, OverrideError, OverrideIdentity};
use crate::request::Target;
use crate::validation::FieldError;

/// Why an object may not go to a cluster.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// Nothing new may come into a namespace that is being deleted.
    #[error(
        "unable to create {target} in cluster {cluster}: namespace {namespace} is being terminated there; wait until it \
         is gone"
    )]
    NamespaceTerminating {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
        /// The namespace.
        namespace: String,
    },
    /// The cluster has no such namespace.
    #[error(
        "unable to create {target} in cluster {cluster}: there is no namespace {namespace}; create it there, or place a \
         template of it too"
    )]
    NamespaceMissing {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
        /// The namespace.
        namespace: String,
    },
    /// An override does not apply.
    #[error(transparent)]
    Override(#[from] Box<OverrideError>),
    /// A patch made another object of it.
    #[error(
        "{target} for cluster {cluster}: {field} changed from {before:?} to {after:?}{}; take that out of the patch: \
         patches may not change what an object is", culprit_text(culprit.as_deref())
    )]
    IdentityChanged {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
        /// `apiVersion`, `kind`, `metadata.name`, `metadata.namespace` or `metadata.uid`.
        field: &'static str,
        /// What it was.
        before: String,
        /// What it became.
        after: String,
        /// The patch that did it.
        culprit: Option<Box<Culprit>>,
    },
    /// The object is not valid in the cluster.
    #[error("{target} is not valid in cluster {cluster}: {}", field_errors(errors))]
    Invalid {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
        /// What is wrong with it.
        errors: Vec<FieldError>,
    },
    /// The cluster does not serve the kind.
    #[error(
        "cluster {cluster} does not serve {} of {}; install it there, or place the object elsewhere",
        target.kind, target.api_version
    )]
    UnknownKind {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
    },
    /// It cannot be said whether the object is valid in the cluster.
    #[error("{target} could not be validated for cluster {cluster}: {reason}")]
    NotValidated {
        /// The object.
        target: Box<Target>,
        /// The cluster.
        cluster: String,
        /// Why.
        reason: String,
    },
}

fn culprit_text(culprit: Option<&Culprit>) -> String {
    culprit.map_or_else(String::new, |culprit| format!(" by {culprit}"))
}

fn field_errors(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl AdmissionError {
    /// The override that is to blame, where one is.
    #[must_use]
    pub fn culprit(&self) -> Option<&OverrideIdentity> {
        match self {
            Self::Override(error) => Some(&error.by),
            Self::IdentityChanged { culprit, .. } => culprit.as_ref().map(|culprit| &culprit.by),
            Self::Invalid { errors, .. } => errors
                .iter()
                .find_map(|error| error.culprit.as_ref())
                .map(|culprit| &culprit.by),
            _ => None,
        }
    }

    /// A word for conditions and metrics: `OverrideFailed`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NamespaceTerminating { .. } => "NamespaceTerminating",
            Self::NamespaceMissing { .. } => "NamespaceMissing",
            Self::Override(_) => "OverrideFailed",
            Self::IdentityChanged { .. } => "IdentityChanged",
            Self::Invalid { .. } => "Invalid",
            Self::UnknownKind { .. } => "UnknownKind",
            Self::NotValidated { .. } => "NotValidated",
        }
    }

    /// The answer to the one who sent the object through a root, which names it as an object of `resource`.
    #[must_use]
    pub fn to_status(&self, resource: &GroupResource) -> Status {
        match self {
            Self::NamespaceTerminating { target, .. } => Status::forbidden(resource, &target.name, self).cause(
                "NamespaceTerminating",
                self.to_string(),
                "metadata.namespace",
            ),
            Self::NamespaceMissing { namespace, .. } => {
                Status::not_found(&GroupResource::new("", "namespaces"), namespace)
            }
            Self::Override(_) | Self::IdentityChanged { .. } => Status::bad_request(self.to_string()),
            Self::Invalid { target, errors, .. } => {
                let causes = errors.iter().map(|error| Cause {
                    reason: error.reason.clone(),
                    message: error.message.clone(),
                    field: error.field.clone(),
                });
                Status::invalid(resource, &target.kind, &target.name, causes.collect())
            }
            Self::UnknownKind { .. } => Status::bad_request(self.to_string()),
            Self::NotValidated { .. } => Status::internal(self),
        }
    }
}
