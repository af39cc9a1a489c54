//! The generic REST store: what every stored resource does, whatever its kind.
//!
//! [`ResourceStore`] is the equal of `k8s.io/apiserver/pkg/registry/generic/registry.Store`: it implements
//! [`crate::resource::Resource`] over a [`umbra_storage::Store`] for writes and a [`umbra_storage::Cache`] for reads. What
//! differs from kind to kind is data, a [`Strategy`]: names, schema, columns, generation, deletion; and where data does
//! not do, a [`strategy::Behavior`].
//!
//! * Writes are compare-and-put loops ([`update`], [`delete`]): read, compute, validate, admit, put under the revision
//!   that was read; a conflict computes again from what is there now. After a write the answer waits until the cache has
//!   it, so that a client reads its own writes.
//! * Reads are byte slices out of the cache ([`read`], [`watch`]); nothing is parsed. These two modules know no layout of
//!   keys, only a [`read::Scope`], and are shared with the view.
//! * [`collection::StoreApi`] puts resources together to a root.
//!
//! Deliberate deviations from kube-apiserver:
//! * One version is stored and served for every kind; there is no conversion.
//! * Setting `metadata.resourceVersion` on create is 400, not 500.
//! * A list with `resourceVersion=0` and a limit is paged, where kube-apiserver ignores the limit.
//! * A delete of a collection is sequential.

pub mod admission;
pub mod authorization;
mod beginning;
pub mod body;
pub mod codec;
pub mod collection;
mod continuation;
mod create;
pub mod definition;
pub mod delete;
pub mod fields;
pub mod indexer;
pub mod keys;
pub mod metadata;
mod patch;
pub mod printer;
pub mod read;
pub mod reviews;
mod schema;
mod scope;
pub mod store;
pub mod strategy;
pub mod subresource;
pub mod update;
pub mod watch;

#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmitAll, Operation};
pub use collection::StoreApi;
pub use store::ResourceStore;
pub use strategy::Strategy;
