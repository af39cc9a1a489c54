//! The override engine: what a template receives on its way to a cluster.
//!
//! An [`Override`] is one revision of a `ClusterOverride` or `Override`, checked and ready to apply. Three passes of the
//! chain apply them, see [`Stage`]; within a pass they apply by priority, then creation time, then name, whatever order
//! they are handed over in, so later ones win and the result depends on nothing else. Selection looks at the object as
//! it entered the chain ([`crate::Target`]), so overrides do not influence which others apply.
//!
//! Templates are never modified, and nothing is remembered: without an override the result is what it would have been
//! had the override never existed. What each override did is recorded as an [`AppliedOverride`].

mod document;
mod engine;
mod error;
mod model;
mod pinning;
mod reading;
mod record;
mod variables;

pub use engine::OverridePlugin;
pub use error::{InvalidOverride, OverrideError, PatchFailure, VariableError};
pub use model::{Override, OverrideIdentity, OverrideKind, Stage};
pub use pinning::{RevisionGone, revisions_in_force};
pub use record::{AppliedOverride, Change, ChangeKind, Culprit, culprit};

#[cfg(test)]
mod tests;
