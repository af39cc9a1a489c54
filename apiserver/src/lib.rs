//! The HTTP front of every root: TLS, filters, verbs, watch streams, negotiation, discovery, health, metrics.
//!
//! A request passes, in this order (the function [`ApiServer::handle`] reads the same way):
//!
//! 1. [`server`]: TLS, HTTP/1.1 or HTTP/2, the client's certificates as request extension.
//! 2. [`filters`]: audit id, panics, metrics, log, [audit log](audit); authentication, impersonation, requests in flight, the way into the
//!    root, deadline.
//! 3. Either a root that passes requests on ([`umbra_registry::root::Forward`]), or one that serves verbs
//!    ([`umbra_registry::root::Api`]): [`routes`] for paths that are no resources, [`verbs`] for those that are.
//! 4. Back: [`negotiation`] decides the representation, [`representation`] writes objects, lists and Tables in it,
//!    [`watch`] streams events, [`respond`] makes answers of statuses.
//!
//! Objects are never parsed here unless a Table or the metadata alone is asked for; lists are written in chunks from the
//! objects' own bytes.
//!
//! Deliberate deviations from kube-apiserver:
//! - Answers are JSON only: clients that take nothing else get 406. Objects of built-in kinds are read as protobuf
//!   (made JSON on arrival by [`umbra_protobuf`]) and all objects as YAML; neither is written, and CBOR gets 415.
//! - Watches over WebSocket are not served; neither are the deprecated `/watch/` and `/proxy/` paths, and watches of a single
//!   name. Children serve them.
//! - Pretty printing stops at 4 MiB, so that curl on a large list stays cheap.
//! - `/healthz`, `/livez`, `/readyz` and `/version` need no identity; everything else does.
//! - Paths with `.` or `..` segments are refused rather than redirected, so that nothing escapes the root it entered.

pub mod audit;
mod body;
mod compression;
mod discovery;
pub mod filters;
pub mod health;
mod inflight;
pub mod metrics;
mod negotiation;
mod openapi;
mod paths;
mod pretty;
mod query;
mod representation;
mod respond;
mod routes;
pub mod server;
mod service;
mod verbs;
mod watch;
mod watchdog;

#[cfg(test)]
mod tests;

pub use filters::{Authenticate, Delegated, PeerCertificates};
pub use health::{Check, Checks};
pub use service::{ApiServer, ApiServerBuilder, InProcess, Limits};
