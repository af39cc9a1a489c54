//! The admission chain and its plugins; the override engine.
//!
//! What a child receives passes a chain of plugins first, as a create or an update of the object for that cluster: a
//! rendering of a template always, and a request that is sent through a cluster or view root where an override says so.
//! The order is fixed, see [`Chain::standard`]. Everything here is a function of its arguments: no I/O, no clocks, no
//! memory of earlier requests, so a rendering can be computed anywhere, again, and for a dry run.
//!
//! | module | concern |
//! |---|---|
//! | [`request`] | what is admitted, and for which cluster |
//! | [`chain`] | the plugins and their order |
//! | [`namespace_lifecycle`], [`identity`], [`validation`] | plugins that only look |
//! | [`overrides`] | the plugins that change: two stages, and the final one |

pub mod chain;
pub mod error;
pub mod identity;
pub mod namespace_lifecycle;
pub mod overrides;
pub mod request;
pub mod validation;

pub use chain::{Chain, Plugin};
pub use error::AdmissionError;
pub use request::{AdmissionRequest, Cluster, NamespaceState, Operation, Origin, Target};
