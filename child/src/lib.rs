//! Reaching a child cluster: connections, credentials, identity, proxying, upgrades.
//!
//! A [`Child`] is a cheap handle on one cluster. Behind it are
//! * a [`Connector`], which opens byte streams to the child's API server. [`DirectConnector`] dials it; a [tunnel] is
//!   another implementation and nothing above it changes;
//! * three [pools](pool) of HTTP/2 connections, one per [`Lane`]: short requests, the hub's own watches, and what users
//!   stream. They never share a connection, so that a stalled log reader cannot starve a watch, and each pool counts
//!   the streams of each connection itself, because a stream that a peer refuses to open waits for ever in hyper;
//! * [`Credentials`], renewed before they expire and again when the child answers 401.
//!
//! [`Children`] keeps the handles of all clusters, probes them, and opens the circuit of those that do not answer.
//! [`proxy::forward`] sends a user's request on, as that user ([`identity`]), and [`upgrade`] splices `exec`, `attach`
//! and `port-forward`.
//!
//! Errors are [`ChildError`]; what status they become is decided by who serves the request.

mod body;
mod config;
mod connection;
mod credentials;
mod error;
mod exec;
mod failure;
pub mod identity;
pub mod kubeconfig;
mod manager;
mod path;
mod pool;
pub mod proxy;
mod raw;
mod tasks;
mod tls;
mod transport;
pub mod tunnel;
pub mod upgrade;
pub mod version;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    body::{Body, BodyError, Uncollected, boxed, collect, collect_with, empty, ending_by, full},
    config::{ChildConfig, Endpoint, Limits, redacted},
    connection::{Child, Lane, RequestDeadline},
    credentials::{Authorization, ClientCertificate, Credentials, CredentialsConfig, Expiry, Secret},
    error::{ChildError, CredentialsError},
    exec::ExecConfig,
    failure::Failure,
    identity::Identity,
    manager::{Children, Health, ProbeConfig},
    path::{InvalidPath, normalise},
    raw::Lines,
    tasks::Tracked,
    transport::{Connected, Connector, DirectConnector, Io, Preferred, Protocol},
};
