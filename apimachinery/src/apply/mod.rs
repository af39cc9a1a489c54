//! Server-side apply: who owns which fields of an object, and what a configuration makes of it.
//!
//! The way of a write: a handler has one [`FieldManager`] per kind, version and subresource. Creates, updates and
//! patches go through [`FieldManager::update`], applies through [`FieldManager::apply`]. Both read
//! `metadata.managedFields` ([`ManagedFields`]: a [`Set`] of paths per manager), find out what changed ([`compare()`])
//! or lay the configuration over the object ([`merge()`]), settle ownership, and write `managedFields` back.
//!
//! All walks follow the schema place by place ([`Node`]); without a schema, types are deduced from the values. Walks
//! build sets from the inside out and in order, sets share what they have in common, and operations of sets are
//! merge joins: everything is linear in what it looks at, up to a logarithm for items of associative lists.
//!
//! Source of the rules: KEP-555, `sigs.k8s.io/structured-merge-diff/v6` and
//! `k8s.io/apimachinery/pkg/util/managedfields`, whose tables of tests are ported beside the code.
//!
//! Deviations, all deliberate:
//! - An object has one version. Fields of managers that wrote in another one are taken as fields of this one, where the
//!   API server converts the object; managers of versions that no longer exist are kept, where it drops them.
//! - What has nothing left in it after pruning is left out, or empty where somebody owns it as such, instead of null. Go
//!   has null until its structs drop it.
//! - A struct in which all that is left or owned is an empty associative list is there and stays. Go takes it, and what
//!   nobody owns in it, for gone.
//! - Quotes in conflict messages are escaped as Rust does, which differs for unprintable characters only.
//! - A configuration that does not fit the schema is answered with 400 instead of 500.

mod compare;
mod conflict;
mod field_set;
pub mod fields_v1;
mod last_applied;
mod managed_fields;
mod manager;
mod merge;
mod node;
mod path;
mod reconcile;
mod remove;
mod set;
mod updater;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use compare::{Comparison, compare};
pub use conflict::{Conflict, Conflicts, FIELD_MANAGER_CONFLICT};
pub use field_set::to_field_set;
pub use managed_fields::{
    MAX_UPDATE_MANAGERS, ManagedFields, ManagedFieldsError, ManagerEntry, ManagerIdentifier, Operation,
};
pub use manager::{ApplyError, FieldManager, without_times_only_change};
pub use merge::merge;
pub use node::Node;
pub use path::{KeyField, Path, PathElement};
pub use reconcile::reconcile;
pub use remove::{extract_items, remove_items};
pub use set::Set;
pub use validate::{Duplicates, ValidationError, ValidationErrors, validate};
pub use value::PathValue;
