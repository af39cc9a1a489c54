//! What each root serves.
//!
//! One piece of HTTP code serves every root; a root is a value that answers: which resources do you have, what are
//! their schemas, who may do what, and what does each verb do. [`root`] holds that contract ([`root::Api`]), and the
//! exception to it: the cluster root, which passes whole requests on ([`root::Forward`]). [`resource`] is the contract
//! of one resource below a root: reads give serialized objects ([`resource::Object`]) that the HTTP code concatenates
//! and never parses; writes take the body as it came, because a view passes it on to a child.

pub mod builtin;
pub mod child_documents;
pub mod child_errors;
pub mod cluster;
pub mod copies;
pub mod directory;
pub mod fleet;
pub mod generic;
pub mod hub;
pub mod mirror;
pub mod request;
pub mod resource;
pub mod root;
#[cfg(test)]
mod scripted_child;
pub mod view;
