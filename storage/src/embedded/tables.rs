//! The tables of the file, and what their rows look like.
//!
//! | table | row | holds |
//! |---|---|---|
//! | `log` | revision → record | every change since the last compaction, and the newest value of every key |
//! | `latest` | key → (revision, create revision) | the keys that exist now |
//! | `history` | (key, revision) → create revision, 0 for a deletion | the versions that have been superseded, and deletions |
//! | `meta` | name → number | `format`, `revision`, `compacted`, `swept` |
//!
//! A record is: kind (1 put, 2 deletion), create revision, revision of the version it supersedes (0: none), length of the
//! key, key, value; integers are little endian, 8 bytes each but the length, which has 4. The value is stored once, in the
//! log. A key that is only ever put once costs a row in `log` and one in `latest`; `history` grows by overwriting and
//! deleting, and every row of it goes when the revision that superseded it is compacted. Because a record names what it
//! supersedes, compaction walks only the records between the old and the new compacted revision.

use std::sync::Arc;

use bytes::Bytes;
use redb::TableDefinition;

use crate::{Entry, Revision, WatchEvent};

pub(super) const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
pub(super) const LATEST: TableDefinition<'static, &'static str, (u64, u64)> = TableDefinition::new("latest");
pub(super) const HISTORY: TableDefinition<'static, (&'static str, u64), u64> = TableDefinition::new("history");
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// The version of this layout.
pub(super) const FORMAT: &str = "format";
/// The revision of the store.
pub(super) const REVISION: &str = "revision";
/// The oldest revision that can be read at.
pub(super) const COMPACTED: &str = "compacted";
/// Up to which revision rows made superfluous by compaction have been removed.
pub(super) const SWEPT: &str = "swept";

/// What `history` says of a deletion in place of a create revision.
pub(super) const DELETION: u64 = 0;

const PUT_KIND: u8 = 1;
const DELETE_KIND: u8 = 2;
const HEADER: usize = 1 + 8 + 8 + 4;

/// A row of the log, borrowed from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) deletion: bool,
    pub(super) create_revision: u64,
    /// The version that this one supersedes; 0: none.
    pub(super) supersedes: u64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Writes the row into `buffer`, which is cleared first.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.reserve(HEADER + self.key.len() + self.value.len());
        buffer.push(if self.deletion { DELETE_KIND } else { PUT_KIND });
        buffer.extend_from_slice(&self.create_revision.to_le_bytes());
        buffer.extend_from_slice(&self.supersedes.to_le_bytes());
        let key_length = u32::try_from(self.key.len()).expect("a key is shorter than 4 GiB");
        buffer.extend_from_slice(&key_length.to_le_bytes());
        buffer.extend_from_slice(self.key.as_bytes());
        buffer.extend_from_slice(self.value);
    }

    /// Reads a row; `None` if it is not one.
    pub(super) fn decode(row: &'a [u8]) -> Option<Self> {
        let (kind, rest) = row.split_first()?;
        let deletion = match *kind {
            PUT_KIND => false,
            DELETE_KIND => true,
            _ => return None,
        };
        let (create_revision, rest) = rest.split_first_chunk::<8>()?;
        let (supersedes, rest) = rest.split_first_chunk::<8>()?;
        let (key_length, rest) = rest.split_first_chunk::<4>()?;
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_length) as usize)?;
        Some(Self {
            deletion,
            create_revision: u64::from_le_bytes(*create_revision),
            supersedes: u64::from_le_bytes(*supersedes),
            key: std::str::from_utf8(key).ok()?,
            value,
        })
    }

    /// The entry that a put made.
    pub(super) fn entry(&self, revision: u64) -> Entry {
        Entry {
            key: Arc::from(self.key),
            value: Bytes::copy_from_slice(self.value),
            create_revision: Revision(self.create_revision),
            revision: Revision(revision),
        }
    }

    /// The event of this row, given the entry it supersedes; `None` for a deletion of nothing, which is never written.
    pub(super) fn event(&self, revision: u64, previous: Option<Entry>) -> Option<WatchEvent> {
        if self.deletion {
            let previous = previous?;
            return Some(WatchEvent::Delete {
                key: Arc::clone(&previous.key),
                previous,
                revision: Revision(revision),
            });
        }
        // Deleting and putting again starts anew: what a put supersedes is an entry, never a deletion.
        Some(WatchEvent::Put {
            entry: self.entry(revision),
            previous,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_encoding() {
        let record = Record {
            deletion: false,
            create_revision: 7,
            supersedes: 9,
            key: "/a/ä",
            value: b"\0value",
        };
        let mut buffer = vec![1, 2, 3];
        record.encode(&mut buffer);
        assert_eq!(Record::decode(&buffer), Some(record));
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        let mut buffer = Vec::new();
        Record {
            deletion: true,
            create_revision: 1,
            supersedes: 1,
            key: "/key",
            value: b"",
        }
        .encode(&mut buffer);
        for length in 0..buffer.len() {
            assert_eq!(Record::decode(&buffer[..length]), None, "cut to {length} bytes");
        }
        buffer[0] = 3;
        assert_eq!(Record::decode(&buffer), None);
    }
}
