//! Copies children into the hub's store.
//!
//! One [`ClusterCopy`] runs for each cluster. It asks the cluster what it serves, selects what is copied, and runs one
//! task for each resource: list, compare with the copies that are there, write what differs, watch, write what comes.
//! What the tasks write is in the form of [`umbra_registry::copies`]; nothing else writes there.

mod child_source;
mod cluster;
mod discover;
mod erase;
mod page;
mod position;
mod resource;
mod selection;
mod source;

pub use child_source::ChildSource;
pub use cluster::{ClusterCopy, ClusterState, erase_cluster};
pub use resource::ResourceState;
pub(crate) use selection::everywhere;
pub use selection::is_pattern;
pub use source::{Lines, Source, SourceError};
