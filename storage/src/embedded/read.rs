//! Reads: one key, a prefix now or at a past revision, and the log.

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::failure::Failure;
use super::tables::{COMPACTED, DELETION, HISTORY, LATEST, LOG, META, REVISION, Record};
use crate::{Entry, Error, GetResponse, RangeRequest, RangeResponse, Result, Revision, WatchEvent};

/// Events that one read of the log returns at most, and records that it looks at: a few milliseconds each.
const REPLAY_EVENTS: usize = 1_000;
const REPLAY_RECORDS: usize = 50_000;
/// Bytes of values that one read of the log returns at most; one event may exceed it.
const REPLAY_BYTES: usize = 4 << 20;

/// One read transaction: everything it returns is of one state.
pub(super) struct Reader {
    transaction: ReadTransaction,
    log: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

/// Part of the log.
#[derive(Debug)]
pub(super) struct Replay {
    /// The events found.
    pub(super) events: Vec<WatchEvent>,
    /// Up to which revision the log has been read.
    pub(super) until: Revision,
}

impl Reader {
    pub(super) fn begin(database: &dyn ReadableDatabase) -> Result<Self, Failure> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let mark = |name: &str| -> Result<Revision, Failure> {
            let value = meta
                .get(name)?
                .ok_or_else(|| Failure::Damaged(format!("{name:?} is missing")))?;
            Ok(Revision(value.value()))
        };
        let (revision, compacted) = (mark(REVISION)?, mark(COMPACTED)?);
        let log = transaction.open_table(LOG)?;
        Ok(Self {
            transaction,
            log,
            revision,
            compacted,
        })
    }

    pub(super) fn get(&self, key: &str) -> Result<GetResponse, Failure> {
        let latest = self.transaction.open_table(LATEST)?;
        let found = latest.get(key)?.map(|row| row.value().0);
        let entry = found.map(|revision| self.entry(revision)).transpose()?;
        Ok(GetResponse {
            entry,
            revision: self.revision,
        })
    }

    /// The outer error is a failure, the inner one an answer.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<Result<RangeResponse>, Failure> {
        let revision = request.revision.unwrap_or(self.revision);
        if let Err(error) = self.available(revision) {
            return Ok(Err(error));
        }
        let mut page = Page::new(request.limit);
        if revision == self.revision {
            self.walk_present(request, |_, version| page.take(version))?;
        } else {
            self.walk_past(request, revision.0, |version| page.take(version))?;
        }
        let entries = page
            .versions
            .iter()
            .map(|version| self.entry(*version))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Ok(RangeResponse {
            entries,
            revision,
            more: page.remaining > 0,
            remaining: page.remaining,
        }))
    }

    /// Reads the events under `prefix` after `after` and up to `until`, or some of them.
    pub(super) fn replay(&self, prefix: &str, after: Revision, until: Revision) -> Result<Result<Replay>, Failure> {
        if let Err(error) = self.available(after) {
            return Ok(Err(error));
        }
        let mut replay = Replay {
            events: Vec::new(),
            until,
        };
        let mut bytes = 0;
        for (count, row) in self.log.range(after.0 + 1..=until.0)?.enumerate() {
            let (revision, value) = row?;
            let revision = revision.value();
            if count >= REPLAY_RECORDS || replay.events.len() >= REPLAY_EVENTS || bytes >= REPLAY_BYTES {
                replay.until = Revision(revision - 1);
                break;
            }
            let record = Record::decode(value.value()).ok_or_else(|| Failure::damaged_record(revision))?;
            if !record.key.starts_with(prefix) {
                continue;
            }
            let previous = match record.supersedes {
                0 => None,
                superseded => Some(self.entry(superseded)?),
            };
            bytes += record.value.len() + previous.as_ref().map_or(0, |entry| entry.value.len());
            let event = record
                .event(revision, previous)
                .ok_or_else(|| Failure::damaged_record(revision))?;
            replay.events.push(event);
        }
        Ok(Ok(replay))
    }

    fn available(&self, revision: Revision) -> Result<()> {
        if revision < self.compacted {
            return Err(Error::Compacted {
                requested: revision,
                oldest: self.compacted,
            });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision {
                requested: revision,
                current: self.revision,
            });
        }
        Ok(())
    }

    fn entry(&self, revision: u64) -> Result<Entry, Failure> {
        let row = self
            .log
            .get(revision)?
            .ok_or_else(|| Failure::damaged_record(revision))?;
        let record = Record::decode(row.value()).ok_or_else(|| Failure::damaged_record(revision))?;
        Ok(record.entry(revision))
    }

    /// Calls `visit` with every key that exists now and its version.
    fn walk_present(&self, request: &RangeRequest, mut visit: impl FnMut(&str, u64)) -> Result<(), Failure> {
        let latest = self.transaction.open_table(LATEST)?;
        for row in latest.range(first_key(request)..)? {
            let (key, version) = row?;
            let key = key.value();
            if !key.starts_with(&request.prefix) {
                break;
            }
            if is_after(key, request) {
                visit(key, version.value().0);
            }
        }
        Ok(())
    }

    /// Calls `visit` with the version of every key that existed at `revision`, in the order of the keys: a merge of the
    /// keys that exist now with those that have a history.
    fn walk_past(&self, request: &RangeRequest, revision: u64, mut visit: impl FnMut(u64)) -> Result<(), Failure> {
        let mut superseded = self.superseded(request, revision)?.into_iter().peekable();
        self.walk_present(request, |key, version| {
            while let Some((_, old)) = superseded.next_if(|(other, _)| &**other < key) {
                old.into_iter().for_each(&mut visit);
            }
            let old = superseded
                .next_if(|(other, _)| &**other == key)
                .and_then(|(_, old)| old);
            if version <= revision {
                visit(version);
            } else if let Some(old) = old {
                visit(old);
            }
        })?;
        superseded.filter_map(|(_, old)| old).for_each(visit);
        Ok(())
    }

    /// For every key with a history its newest superseded version up to `revision`, `None` if it was deleted then.
    fn superseded(&self, request: &RangeRequest, revision: u64) -> Result<Vec<(Arc<str>, Option<u64>)>, Failure> {
        let history = self.transaction.open_table(HISTORY)?;
        let mut found: Vec<(Arc<str>, Option<u64>)> = Vec::new();
        for row in history.range((first_key(request), 0)..)? {
            let (id, create_revision) = row?;
            let (key, version) = id.value();
            if !key.starts_with(&request.prefix) {
                break;
            }
            if version > revision || !is_after(key, request) {
                continue;
            }
            let version = (create_revision.value() != DELETION).then_some(version);
            match found.last_mut() {
                Some((last, newest)) if **last == *key => *newest = version,
                _ => found.push((Arc::from(key), version)),
            }
        }
        Ok(found)
    }
}

/// The first `limit` versions, and the number of those that follow.
struct Page {
    limit: usize,
    versions: Vec<u64>,
    remaining: u64,
}

impl Page {
    fn new(limit: usize) -> Self {
        Self {
            limit: if limit == 0 { usize::MAX } else { limit },
            versions: Vec::new(),
            remaining: 0,
        }
    }

    fn take(&mut self, version: u64) {
        if self.versions.len() < self.limit {
            self.versions.push(version);
        } else {
            self.remaining += 1;
        }
    }
}

/// Where to begin reading.
fn first_key(request: &RangeRequest) -> &str {
    match &request.start_after {
        Some(start_after) if **start_after > *request.prefix => start_after,
        _ => &request.prefix,
    }
}

fn is_after(key: &str, request: &RangeRequest) -> bool {
    request
        .start_after
        .as_deref()
        .is_none_or(|start_after| key > start_after)
}
