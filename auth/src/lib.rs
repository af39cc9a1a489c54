//! Who is asking and what may they do: authenticators, RBAC, certificates, delegated reviews.
//!
//! Most of this is a synchronous function of its arguments and of snapshots that somebody else keeps fresh (CA bundles,
//! RBAC objects, service accounts): no network. Clocks are arguments, so that expiry is testable. Two modules ask the hub
//! behind which an aggregated server runs, through a client that they are given: [`delegation`] and [`trust`]. Nothing
//! here starts a task.
//!
//! | module | question it answers |
//! |---|---|
//! | [`tls`] | how does one port ask every kind of client for its certificate, and who does a certificate prove |
//! | [`request_header`] | whom does a front proxy speak for |
//! | [`tokens`] | whom does a bearer token prove |
//! | [`authenticate`] | all of these in the order of kube-apiserver |
//! | [`trust`] | whose certificates count, by what the hub publishes and by files |
//! | [`delegation`] | whose token is it and what may somebody do, says the hub |
//! | [`impersonate`] | whom does the caller want to be, and what must be allowed for that |
//! | [`reserved`] | which names belong to machines of Umbra's own, and to nobody else |
//! | [`rbac`] | what may an identity do, and what may it see |
//! | [`certificates`] | how are certificates issued and kept |
//!
//! Deliberate deviations from kube-apiserver are listed in the module that deviates.

pub mod authenticate;
pub mod certificates;
pub mod delegation;
pub mod impersonate;
pub mod peer;
pub mod rbac;
pub mod request_header;
pub mod reserved;
pub mod service_account;
pub mod tls;
pub mod tokens;
pub mod trust;
