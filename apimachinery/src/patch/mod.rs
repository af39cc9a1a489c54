//! The three ways in which Kubernetes clients describe a change: JSON Patch, merge patch and strategic merge patch.
//!
//! All of them work on parsed documents, leave the document alone when they fail, and report one [`PatchError`], which
//! says whose mistake it is. Server-side apply is the fourth way and lives elsewhere: it is not a patch of a document but
//! of the ownership of its fields.

pub mod json;
pub mod merge;
pub mod strategic;

mod error;
mod order;
mod place;

pub use error::{OperationFailure, PatchError, PatchErrorKind};
pub use json::{JsonPatch, MissingPath, PatchBudget};
