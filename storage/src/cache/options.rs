//! How a cache works.

use std::time::Duration;

/// How a cache works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheOptions {
    /// How long events stay in the window, unless the bounds below push them out. Default: 75 seconds, as kube-apiserver
    /// (`DefaultEventFreshDuration`): longer than the minute between bookmarks, so that a client that resumes from its
    /// last bookmark finds its place.
    pub history: Duration,
    /// Events in the window at most. Default: 102,400, as kube-apiserver's largest ring.
    pub max_events: usize,
    /// Bytes of objects in the window at most. Default: 64 MiB: 75 s of 180 changes/s of 4.7 KB.
    pub max_event_bytes: usize,
    /// How many changes of the store to go back at the start, so that watchers can resume from before it without reading
    /// the store. Changes of all prefixes count. Default: 1,000, some seconds of a busy hub: whoever was away for longer is
    /// caught up from the store's history, and each change here holds an object and the one it replaced, 10 KB or so.
    pub resume_changes: u64,
    /// Entries to read from the store at once. Default: 1,000, about 5 MB.
    pub page_size: usize,
    /// Snapshots kept for paging at most. Default: 64.
    pub kept_snapshots: usize,
    /// How much memory the kept snapshots may keep alive, in bytes; the oldest go first. Default: 64 MiB, as the window: at
    /// 180 changes/s of 4.7 KB a client has 75 s to page through a list; then its pages come from the store.
    pub max_kept_bytes: usize,
    /// How long a snapshot is kept for paging. Default: 5 minutes, as etcd keeps revisions for kube-apiserver.
    pub kept_for: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(75),
            max_events: 102_400,
            max_event_bytes: 64 << 20,
            resume_changes: 1_000,
            page_size: 1_000,
            kept_snapshots: 64,
            max_kept_bytes: 64 << 20,
            kept_for: Duration::from_secs(300),
        }
    }
}
