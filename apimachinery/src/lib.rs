//! The vocabulary of the Kubernetes API, without I/O: what objects, names, selectors, request paths, statuses, patches
//! and schemas are, and the algebra on them.
//!
//! Everything here is a pure function of its arguments and compiles in seconds; the crates above add storage, network
//! and processes.

pub mod age;
pub mod apply;
pub mod discovery;
pub mod discovery_list;
pub mod gvk;
pub mod metadata;
pub mod names;
pub mod number;
pub mod patch;
pub mod raw;
pub mod request;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod user;
