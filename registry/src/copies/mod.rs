//! The copies of children's objects: how they are kept, found and read.
//!
//! The copy controller writes them, views and the fleet's status read them. A copy is kept in the form in which a view
//! shows it ([`translate`]): the name is qualified, the cluster's label is there, `managedFields` are gone. All that a
//! reader still has to put in is the revision, whose place the [`envelope`] remembers, so that serving a copy never
//! parses it.

pub mod cache;
pub mod catalog;
pub mod cells;
pub mod envelope;
pub mod key;
pub mod policy;
pub mod retry;
pub mod translate;
