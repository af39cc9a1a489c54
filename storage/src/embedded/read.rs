//! Reads: one key, a prefix now or at a past revision, and the log.

use std::cmp::Ordering;
use std::ops::ControlFlow;

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
        let mut page = Page::new(request);
        if revision == self.revision {
            self.walk_present(request, |version| page.take(version))?;
        } else {
            self.walk_past(request, revision.0, |version| page.take(version))?;
        }
        let entries = page
            .versions
            .iter()
            .map(|version| self.entry(*version))
            .collect::<Result<Vec<_>, _>>()?;
        let remaining = request.count_remaining.then_some(page.remaining);
        Ok(Ok(RangeResponse {
            entries,
            revision,
            more: page.remaining > 0,
            remaining,
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

    #[cfg(test)]
    pub(super) fn row_counts(&self) -> Result<(u64, u64, u64), Failure> {
        use redb::ReadableTableMetadata;
        let latest = self.transaction.open_table(LATEST)?.len()?;
        Ok((self.log.len()?, latest, self.transaction.open_table(HISTORY)?.len()?))
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

    /// Calls `visit` with the version of every key that exists now, in the order of the keys, until it breaks.
    fn walk_present(
        &self,
        request: &RangeRequest,
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let latest = self.transaction.open_table(LATEST)?;
        for row in latest.range(first_key(request)..)? {
            let (key, version) = row?;
            let key = key.value();
            if !key.starts_with(&request.prefix) || (is_after(key, request) && visit(version.value().0).is_break()) {
                break;
            }
        }
        Ok(())
    }

    /// As [`walk_present`](Self::walk_present), for the keys that existed at `revision`: a merge of the keys that exist now
    /// with those that have a history.
    fn walk_past(
        &self,
        request: &RangeRequest,
        revision: u64,
        mut visit: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut present = self.present_keys(request)?;
        let mut superseded = self.superseded_keys(request, revision)?;
        let mut now = present.next().transpose()?;
        let mut past = superseded.next().transpose()?;
        loop {
            let order = match (&now, &past) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((other, _))) => key.cmp(other),
            };
            let mut version = None;
            if order.is_ge() {
                version = past.and_then(|(_, version)| version);
                past = superseded.next().transpose()?;
            }
            if order.is_le() {
                version = now
                    .map(|(_, version)| version)
                    .filter(|version| *version <= revision)
                    .or(version);
                now = present.next().transpose()?;
            }
            if let Some(version) = version
                && visit(version).is_break()
            {
                return Ok(());
            }
        }
    }

    /// The keys that exist now, with their versions.
    fn present_keys(
        &self,
        request: &RangeRequest,
    ) -> Result<impl Iterator<Item = Result<(String, u64), Failure>>, Failure> {
        let mut rows = self.transaction.open_table(LATEST)?.range(first_key(request)..)?;
        Ok(std::iter::from_fn(move || {
            loop {
                let (key, version) = match rows.next()? {
                    Ok(row) => row,
                    Err(error) => return Some(Err(error.into())),
                };
                let key = key.value();
                if !key.starts_with(&request.prefix) {
                    return None;
                }
                if is_after(key, request) {
                    return Some(Ok((key.to_owned(), version.value().0)));
                }
            }
        }))
    }

    /// The keys with a history, with their newest superseded version up to `revision`: `None` if they were deleted then.
    fn superseded_keys(
        &self,
        request: &RangeRequest,
        revision: u64,
    ) -> Result<impl Iterator<Item = Result<(String, Option<u64>), Failure>>, Failure> {
        let mut rows = self.transaction.open_table(HISTORY)?.range((first_key(request), 0)..)?;
        let mut found: Option<(String, Option<u64>)> = None;
        Ok(std::iter::from_fn(move || {
            loop {
                let Some(row) = rows.next() else {
                    return found.take().map(Ok);
                };
                let (id, create_revision) = match row {
                    Ok(row) => row,
                    Err(error) => return Some(Err(error.into())),
                };
                let (key, version) = id.value();
                if !key.starts_with(&request.prefix) {
                    return found.take().map(Ok);
                }
                if version > revision || !is_after(key, request) {
                    continue;
                }
                let version = (create_revision.value() != DELETION).then_some(version);
                match &mut found {
                    // The versions of a key come in order, so the last one stays.
                    Some((last, newest)) if last == key => *newest = version,
                    _ => {
                        let complete = found.replace((key.to_owned(), version));
                        if complete.is_some() {
                            return complete.map(Ok);
                        }
                    }
                }
            }
        }))
    }
}

/// The first `limit` versions, and the number of those that follow, or 1 if it is not asked for.
struct Page {
    limit: usize,
    count_remaining: bool,
    versions: Vec<u64>,
    remaining: u64,
}

impl Page {
    fn new(request: &RangeRequest) -> Self {
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        Self {
            limit,
            count_remaining: request.count_remaining,
            versions: Vec::new(),
            remaining: 0,
        }
    }

    fn take(&mut self, version: u64) -> ControlFlow<()> {
        if self.versions.len() < self.limit {
            self.versions.push(version);
            return ControlFlow::Continue(());
        }
        self.remaining += 1;
        if self.count_remaining {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
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
