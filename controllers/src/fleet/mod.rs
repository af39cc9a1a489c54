//! The controllers of a fleet: from templates and placements to objects in the clusters, and back to status.
//!
//! | module | concern |
//! |---|---|
//! | [`schedule`] | which clusters, how many replicas each; pure |
//! | [`render`] | template, cluster and overrides → the object of the cluster; pure |
//! | [`plan`] | keeps the stored renderings of a template as schedule and rendering want them |
//! | [`dispatch`] | keeps the cluster's object as the rendering says, and withdraws it |
//! | [`drift`] | whether a cluster's object is still what was applied; pure |
//! | [`status`] | what placements, overrides and templates say about all of it |
//! | [`leaving`] | what stays and what goes where a cluster leaves the hub |
//! | [`namespace`] | empties namespaces that are being deleted |
//! | [`controller`] | runs the work; `follow` says which change gives which work, `holding` which replica does it |
//!
//! Everything is level-triggered: a task names an object and looks at the present state, so it makes no difference how
//! often it runs or what it missed. Nothing that matters is kept in memory: what has been decided is in the renderings,
//! what has been done is in their status and in the marks of ownership that the clusters' objects carry
//! ([`umbra_registry::fleet::names`]), and both are written before anything relies on them. A hub that is killed between
//! any two steps goes on from there.
//!
//! Decisions:
//! * A template that several placements select belongs, cluster by cluster, to the oldest of them that selects the cluster.
//! * A placement that cannot be scheduled changes nothing: its renderings stay as they are until it can.
//! * The namespace of a namespaced template comes along: a rendering without a placement, `onRemove: Orphan`. A namespace
//!   that the cluster has already is left alone.
//! * A cluster that is not ready is chosen after those that are, and keeps what it has.

pub mod child;
pub mod controller;
pub mod dispatch;
pub mod drift;
mod follow;
mod holding;
pub mod leaving;
pub mod namespace;
pub mod plan;
pub mod queue;
pub mod render;
pub mod schedule;
pub mod state;
pub mod status;
mod template_status;
mod withdraw;
mod write;

#[cfg(test)]
mod tests;

pub use child::{ChildAccess, ChildFailure};
pub use controller::{Dependencies, FleetController};
