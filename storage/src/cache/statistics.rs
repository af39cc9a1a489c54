//! What a cache tells of itself.

use std::time::Duration;

use crate::Revision;

/// What a cache holds and has been through, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Up to where the cache has seen every change.
    pub revision: Revision,
    /// Whether it has caught up with what the store held at the start.
    pub ready: bool,
    /// Objects.
    pub objects: usize,
    /// The memory that the objects take, about, in bytes.
    pub object_bytes: usize,
    /// The window of recent events.
    pub window: WindowStatistics,
    /// Snapshots kept for paging.
    pub kept_snapshots: usize,
    /// The memory that these keep alive at most, in bytes.
    pub kept_bytes: usize,
    /// Open watches.
    pub watchers: usize,
    /// Watches ended so far because they were too slow.
    pub slow_watchers: u64,
    /// How often the cache has started over because the history it needed was gone.
    pub restarts: u64,
}

/// The window of recent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowStatistics {
    /// Events.
    pub events: usize,
    /// The memory they keep alive at most, in bytes.
    pub bytes: usize,
    /// The window has every event after this revision.
    pub after: Revision,
    /// How old the oldest event is; zero without events.
    pub age: Duration,
    /// Events that have been pushed out so far before [`CacheOptions::history`](super::CacheOptions::history) was over, by the bounds of count and
    /// bytes. Watches that resume from before the window read the store's history.
    pub pushed_out: u64,
}
