//! Who is asking and what may they do: authenticators, RBAC, certificates.
//!
//! Everything here is a synchronous function of its arguments and of snapshots that somebody else keeps fresh (CA
//! bundles, RBAC objects, service accounts): no network, no tasks. Clocks are arguments, so that expiry is testable.
//!
//! | module | question it answers |
//! |---|---|
//! | [`tls`] | how does one port ask every kind of client for its certificate, and who does a certificate prove |
//! | [`request_header`] | whom does a front proxy speak for |
//! | [`tokens`] | whom does a bearer token prove |
//! | [`authenticate`] | all of these in the order of kube-apiserver |
//! | [`impersonate`] | whom does the caller want to be, and what must be allowed for that |
//! | [`rbac`] | what may an identity do, and what may it see |
//! | [`certificates`] | how are certificates issued and kept |
//!
//! Deliberate deviations from kube-apiserver are listed in the module that deviates.

pub mod authenticate;
pub mod certificates;
pub mod impersonate;
pub mod peer;
pub mod rbac;
pub mod request_header;
pub mod service_account;
pub mod tls;
pub mod tokens;
