//! The fleet root: templates, how they are placed and overridden, and what each cluster gets of them.
//!
//! Everything of a fleet is stored under `/umbra/fleets/{fleet}/`. Two things read it: [`FleetApi`], which serves it as a
//! Kubernetes API, and the fleet's controllers, which follow one [`FleetCache`] over all kinds, so that what they compute
//! comes from one consistent state.
//!
//! * Kinds of `umbra.dev` ([`kinds`]) are stored resources like any other, with what their schemas cannot say checked by
//!   [`validation`]. Renderings are written by the controllers alone.
//! * Templates ([`template`]) are whatever kinds the clusters of the fleet serve ([`template_kinds`]), with schemas from
//!   the clusters' own documents.
//!
//! Deliberate limits:
//! * A resource is served in one version, the first that the first cluster (by name) prefers: templates are stored as they
//!   are written, and nothing converts them.
//! * What a user may do inside a fleet is decided by entering it, see [`FleetApi`]; the children judge what the hub may
//!   place there.
//! * Templates have neither owners nor grace periods: a template is deleted at once, and its renderings are withdrawn after
//!   it.

pub mod admission;
pub mod api;
pub mod cache;
pub mod documents;
pub mod kinds;
pub mod names;
pub mod openapi;
pub mod printer;
pub mod read_only;
pub mod template;
pub mod template_kinds;
pub mod validation;

pub use api::{FleetApi, FleetDependencies};
pub use cache::{FleetCache, FleetObject, OverrideObject, PlacementKind, PlacementObject};
pub use documents::Documents;
pub use names::{TemplateKey, rendering_name};
