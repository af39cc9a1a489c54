//! Reads: one key, a prefix now or at a past revision, and the log.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata};

use super::failure::Failure;
use super::tables::{DELETION, KEYS, LOG, META, Marks, Record, VERSIONS, read_key_row, read_version_row};
use crate::{Entry, Error, GetResponse, RangeRequest, RangeResponse, Result, Revision, WatchEvent};

/// Events that one read of the log returns at most, and records that it looks at: a few milliseconds each.
const REPLAY_EVENTS: usize = 1_000;
const REPLAY_RECORDS: usize = 50_000;
/// Bytes of values that one read of the log returns at most; one event may exceed it.
const REPLAY_BYTES: usize = 4 << 20;

/// One read transaction: everything it returns is of one state.
pub(super) struct Reader<'t> {
    transaction: &'t ReadTransaction,
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

impl<'t> Reader<'t> {
    pub(super) fn begin(transaction: &'t ReadTransaction) -> Result<Self, Failure> {
        let marks = Marks::read(&transaction.open_table(META)?)?;
        Ok(Self {
            transaction,
            log: transaction.open_table(LOG)?,
            revision: Revision(marks.revision),
            compacted: Revision(marks.compacted),
        })
    }

    pub(super) fn get(&self, key: &str) -> Result<GetResponse, Failure> {
        let keys = self.transaction.open_table(KEYS)?;
        let entry = match keys.get(key)? {
            None => None,
            Some(row) => {
                let (revision, _) = read_key_row(key, row.value())?;
                Some(self.entry(Version::new(key, revision))?)
            }
        };
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
            let record = Record::read(revision, value.value())?;
            if !record.key.starts_with(prefix) {
                continue;
            }
            let previous = match record.supersedes {
                0 => None,
                superseded => Some(self.entry(Version::new(record.key, superseded))?),
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
        let versions = self.transaction.open_table(VERSIONS)?.len()?;
        Ok((self.log.len()?, self.key_count()?, versions))
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

    /// Calls `visit` with the newest record of every key that exists, in the order of the keys, until it breaks. Nothing is
    /// copied.
    pub(super) fn walk_records(
        &self,
        mut visit: impl FnMut(Revision, &Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        for row in self.transaction.open_table(KEYS)?.range::<&str>(..)? {
            let (key, row) = row?;
            let (revision, create_revision) = read_key_row(key.value(), row.value())?;
            let row = self
                .log
                .get(revision)?
                .ok_or_else(|| Failure::damaged_record(revision))?;
            let record = Record::read(revision, row.value())?;
            if record.deletion || record.key != key.value() || record.create_revision != create_revision {
                return Err(Failure::damaged_record(revision));
            }
            if visit(Revision(revision), &record).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How many keys exist.
    pub(super) fn key_count(&self) -> Result<u64, Failure> {
        Ok(self.transaction.open_table(KEYS)?.len()?)
    }

    fn entry(&self, version: Version) -> Result<Entry, Failure> {
        let revision = version.revision;
        let row = self
            .log
            .get(revision)?
            .ok_or_else(|| Failure::damaged_record(revision))?;
        let record = Record::read(revision, row.value())?;
        if record.deletion || version != Version::new(record.key, revision) {
            return Err(Failure::Damaged(format!(
                "its log has something else at revision {revision} than the key that refers to it"
            )));
        }
        Ok(record.entry(revision))
    }

    /// Calls `visit` with the version of every key that exists now, in the order of the keys, until it breaks.
    fn walk_present(
        &self,
        request: &RangeRequest,
        mut visit: impl FnMut(Version) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let keys = self.transaction.open_table(KEYS)?;
        for row in keys.range(first_key(request)..)? {
            let (key, row) = row?;
            let key = key.value();
            if !key.starts_with(&request.prefix) {
                break;
            }
            let (revision, _) = read_key_row(key, row.value())?;
            if is_after(key, request) && visit(Version::new(key, revision)).is_break() {
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
        mut visit: impl FnMut(Version) -> ControlFlow<()>,
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
                    .filter(|version| version.revision <= revision)
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
    ) -> Result<impl Iterator<Item = Result<(String, Version), Failure>>, Failure> {
        let mut rows = self.transaction.open_table(KEYS)?.range(first_key(request)..)?;
        Ok(std::iter::from_fn(move || {
            loop {
                let (key, row) = match rows.next()? {
                    Ok(row) => row,
                    Err(error) => return Some(Err(error.into())),
                };
                let key = key.value();
                if !key.starts_with(&request.prefix) {
                    return None;
                }
                if is_after(key, request) {
                    let version = read_key_row(key, row.value());
                    return Some(version.map(|(revision, _)| (key.to_owned(), Version::new(key, revision))));
                }
            }
        }))
    }

    /// The keys with a history, with their newest superseded version up to `revision`: `None` if they were deleted then.
    fn superseded_keys(
        &self,
        request: &RangeRequest,
        revision: u64,
    ) -> Result<impl Iterator<Item = Result<(String, Option<Version>), Failure>>, Failure> {
        let mut rows = self
            .transaction
            .open_table(VERSIONS)?
            .range((first_key(request), 0)..)?;
        let mut found: Option<(String, Option<Version>)> = None;
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
                let create_revision = match read_version_row(key, version, create_revision.value()) {
                    Ok(create_revision) => create_revision,
                    Err(failure) => return Some(Err(failure)),
                };
                let version = (create_revision != DELETION).then(|| Version::new(key, version));
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

/// A version of a key as a row refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    revision: u64,
    /// A checksum of the key: what it takes to see that the log has another one there, without a copy of the key.
    key: u32,
}

impl Version {
    fn new(key: &str, revision: u64) -> Self {
        Self {
            revision,
            key: crc32fast::hash(key.as_bytes()),
        }
    }
}

/// The first `limit` versions, and the number of those that follow, or 1 if it is not asked for.
struct Page {
    limit: usize,
    count_remaining: bool,
    versions: Vec<Version>,
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

    fn take(&mut self, version: Version) -> ControlFlow<()> {
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
