//! A revisioned key-value store, its embedded backend, the watch cache and the contract suite.
//!
//! * [`Store`] is the contract: compare-and-put, reads at a revision, watches from a revision. Its documentation is the
//!   specification; [`contract`] is the same specification as tests that every backend passes.
//! * [`etcd`] keeps everything in an etcd cluster that several processes share.
//! * [`Embedded`] keeps everything in one file of one process.
//! * [`encryption`] encrypts the values of configured keys on their way into any store.
//! * [`Cache`] holds one prefix of a store in memory, as bytes ready to be served and an index over them, and serves
//!   lists and watches from there.

mod bounded;
pub mod cache;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod embedded;
pub mod encryption;
mod entry;
mod error;
pub mod etcd;
#[cfg(test)]
mod proofs;
mod request;
mod store;
mod watch;

pub use cache::{
    Cache, CacheEvent, CacheOptions, CacheWatch, CachedObject, EventKind, Indexer, SharedKeys, Snapshot, StringMap,
    WatchFrom,
};
pub use embedded::{Embedded, OpenError, Options};
pub use entry::{Entry, Revision};
pub use error::{Error, Result};
pub use request::{GetResponse, Guard, Operation, Precondition, RangeRequest, RangeResponse};
pub use store::Store;
pub use watch::{ProgressRequest, WatchEvent, WatchStream};
