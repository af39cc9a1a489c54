//! The tables of the file, and what their rows look like.
//!
//! | table | row | holds |
//! |---|---|---|
//! | `log` | revision → record | every change since the last compaction, and the newest value of every key |
//! | `keys` | key → (revision, create revision, checksum) | the keys that exist now |
//! | `versions` | (key, revision) → (create revision, 0 for a deletion; checksum) | the versions that have been superseded, and deletions |
//! | `meta` | name → number | `format`, `revision`, `compacted`, `swept`, `live`, and `checksum` of the latter four |
//!
//! A record is: kind, CRC-32 of the revision and of everything that follows, create revision, revision of the version it
//! supersedes (0: none), length of the key, key, value; integers are little endian, 8 bytes each but the checksum and the
//! length, which have 4. The value is stored once, in the log. A key that is only ever put once costs a row in `log` and one
//! in `keys`; `versions` grows by overwriting and deleting, and every row of it goes when the revision that superseded it is
//! compacted. Because a record names what it supersedes, compaction walks only the records between the old and the new
//! compacted revision.
//!
//! The database has checksums of its pages, but compares them only when it is told to check everything. The checksums of
//! the rows make a damaged row an error whenever it is read. CRC-32 finds every damage of up to 32 adjacent bits and misses
//! one in 2³² of any other kind.
//!
//! Format 1 had no checksums: its records are still read, its tables are rewritten when the file is opened (`open`).

use std::sync::Arc;

use bytes::Bytes;
use redb::TableDefinition;

use super::failure::Failure;
use crate::{Entry, Revision, WatchEvent};

pub(super) const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
pub(super) const KEYS: TableDefinition<'static, &'static str, (u64, u64, u32)> = TableDefinition::new("keys");
pub(super) const VERSIONS: TableDefinition<'static, (&'static str, u64), (u64, u32)> = TableDefinition::new("versions");
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// What format 1 had in place of `keys` and `versions`.
pub(super) const FORMAT_1_LATEST: TableDefinition<'static, &'static str, (u64, u64)> = TableDefinition::new("latest");
pub(super) const FORMAT_1_HISTORY: TableDefinition<'static, (&'static str, u64), u64> = TableDefinition::new("history");

/// The version of this layout.
pub(super) const FORMAT: &str = "format";
/// The revision of the store.
pub(super) const REVISION: &str = "revision";
/// The oldest revision that can be read at.
pub(super) const COMPACTED: &str = "compacted";
/// Up to which revision rows made superfluous by compaction have been removed.
pub(super) const SWEPT: &str = "swept";
/// About how many bytes of the file are in use ([`room`]).
pub(super) const LIVE: &str = "live";
/// The checksum of the four.
pub(super) const CHECKSUM: &str = "checksum";

/// What `versions` says of a deletion in place of a create revision.
pub(super) const DELETION: u64 = 0;

/// Four bits or more apart from each other and from the kinds of format 1, so that no small damage turns one into another.
const PUT_KIND: u8 = 0b1011_0100;
const DELETE_KIND: u8 = 0b0111_1000;
const FORMAT_1_PUT_KIND: u8 = 1;
const FORMAT_1_DELETE_KIND: u8 = 2;
const CHECKSUM_LENGTH: usize = 4;
const HEADER: usize = 1 + CHECKSUM_LENGTH + 8 + 8 + 4;

/// The numbers in `meta` that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) revision: u64,
    pub(super) compacted: u64,
    pub(super) swept: u64,
    pub(super) live: u64,
}

impl Marks {
    /// Whether rows are left that compaction has made superfluous.
    pub(super) fn sweep_pending(&self) -> bool {
        self.swept < self.compacted
    }

    /// Reads them.
    pub(super) fn read(meta: &impl redb::ReadableTable<&'static str, u64>) -> Result<Self, Failure> {
        let number = |name: &str| -> Result<u64, Failure> {
            let value = meta
                .get(name)?
                .ok_or_else(|| Failure::Damaged(format!("its number {name:?} is missing")))?;
            Ok(value.value())
        };
        let marks = Self {
            revision: number(REVISION)?,
            compacted: number(COMPACTED)?,
            swept: number(SWEPT)?,
            live: number(LIVE)?,
        };
        if number(CHECKSUM)? != marks.checksum() {
            return Err(Failure::Damaged("its revision does not match its checksum".to_owned()));
        }
        Ok(marks)
    }

    /// Writes them.
    pub(super) fn write(&self, meta: &mut redb::Table<'_, &'static str, u64>) -> Result<(), Failure> {
        meta.insert(REVISION, self.revision)?;
        meta.insert(COMPACTED, self.compacted)?;
        meta.insert(SWEPT, self.swept)?;
        meta.insert(LIVE, self.live)?;
        meta.insert(CHECKSUM, self.checksum())?;
        Ok(())
    }

    fn checksum(&self) -> u64 {
        checksum("", &[self.revision, self.compacted, self.swept, self.live]).into()
    }
}

/// About how many bytes of the file a record takes, with the rows that refer to it. A page has 4 KiB; a record that does not
/// fit in one has pages of its own, a power of two of them; smaller ones share pages that are two thirds full on average.
pub(super) fn room(record_length: usize) -> u64 {
    const PAGE: usize = 4_096;
    // Key, lengths and checksums of the page; then the row of the key, which is as long as a key is.
    const OVERHEAD: usize = 32;
    const KEY_ROW: u64 = 150;
    let length = record_length + OVERHEAD;
    let record = if length <= PAGE / 2 {
        length * 3 / 2
    } else {
        length.div_ceil(PAGE).next_power_of_two() * PAGE
    };
    record as u64 + KEY_ROW
}

/// The checksum of a row of `keys` or `versions`.
fn checksum(key: &str, numbers: &[u64]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(key.as_bytes());
    hasher.finalize()
}

/// A row of `keys`.
pub(super) fn key_row(key: &str, revision: u64, create_revision: u64) -> (u64, u64, u32) {
    let checksum = checksum(key, &[revision, create_revision]);
    (revision, create_revision, checksum)
}

/// The revision and the create revision of a row of `keys`.
pub(super) fn read_key_row(key: &str, row: (u64, u64, u32)) -> Result<(u64, u64), Failure> {
    let (revision, create_revision, _) = row;
    if key_row(key, revision, create_revision) != row {
        return Err(Failure::Damaged(format!(
            "the row of key {key:?} does not match its checksum"
        )));
    }
    Ok((revision, create_revision))
}

/// A row of `versions`.
pub(super) fn version_row(key: &str, revision: u64, create_revision: u64) -> (u64, u32) {
    (create_revision, checksum(key, &[revision, create_revision]))
}

/// The create revision of a row of `versions`.
pub(super) fn read_version_row(key: &str, revision: u64, row: (u64, u32)) -> Result<u64, Failure> {
    if version_row(key, revision, row.0) != row {
        return Err(Failure::Damaged(format!(
            "the row of key {key:?} at revision {revision} does not match its checksum"
        )));
    }
    Ok(row.0)
}

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
    /// Writes the row of `revision` into `buffer`, which is cleared first.
    pub(super) fn encode(&self, revision: u64, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.reserve(HEADER + self.key.len() + self.value.len());
        buffer.push(if self.deletion { DELETE_KIND } else { PUT_KIND });
        buffer.extend_from_slice(&[0; CHECKSUM_LENGTH]);
        buffer.extend_from_slice(&self.create_revision.to_le_bytes());
        buffer.extend_from_slice(&self.supersedes.to_le_bytes());
        let key_length = u32::try_from(self.key.len()).expect("a key is shorter than 4 GiB");
        buffer.extend_from_slice(&key_length.to_le_bytes());
        buffer.extend_from_slice(self.key.as_bytes());
        buffer.extend_from_slice(self.value);
        let (head, body) = buffer.split_at_mut(1 + CHECKSUM_LENGTH);
        let checksum = Self::checksum(head[0], revision, body);
        head[1..].copy_from_slice(&checksum.to_le_bytes());
    }

    fn checksum(kind: u8, revision: u64, body: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[kind]);
        hasher.update(&revision.to_le_bytes());
        hasher.update(body);
        hasher.finalize()
    }

    /// Reads the row of `revision`.
    pub(super) fn read(revision: u64, row: &'a [u8]) -> Result<Self, Failure> {
        Self::decode(revision, row).ok_or_else(|| Failure::damaged_record(revision))
    }

    /// Reads the row of `revision`; `None` if it is not one.
    fn decode(revision: u64, row: &'a [u8]) -> Option<Self> {
        let (kind, rest) = row.split_first()?;
        let (deletion, rest) = match *kind {
            PUT_KIND | DELETE_KIND => {
                let (checksum, body) = rest.split_first_chunk::<CHECKSUM_LENGTH>()?;
                if u32::from_le_bytes(*checksum) != Self::checksum(*kind, revision, body) {
                    return None;
                }
                (*kind == DELETE_KIND, body)
            }
            FORMAT_1_PUT_KIND => (false, rest),
            FORMAT_1_DELETE_KIND => (true, rest),
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

    fn record() -> Record<'static> {
        Record {
            deletion: false,
            create_revision: 7,
            supersedes: 9,
            key: "/a/ä",
            value: b"\0value",
        }
    }

    #[test]
    fn a_record_survives_encoding() {
        for deletion in [false, true] {
            let record = Record { deletion, ..record() };
            let mut buffer = vec![1, 2, 3];
            record.encode(12, &mut buffer);
            assert_eq!(Record::decode(12, &buffer), Some(record));
            assert_eq!(Record::decode(13, &buffer), None, "it belongs to its revision");
        }
    }

    #[test]
    fn a_record_of_format_1_is_read() {
        let mut row = vec![FORMAT_1_PUT_KIND];
        let mut current = Vec::new();
        record().encode(12, &mut current);
        row.extend_from_slice(&current[1 + CHECKSUM_LENGTH..]);
        assert_eq!(Record::decode(12, &row), Some(record()));
    }

    #[test]
    fn what_is_damaged_is_no_record() {
        let mut buffer = Vec::new();
        record().encode(12, &mut buffer);
        for length in 0..buffer.len() {
            assert_eq!(Record::decode(12, &buffer[..length]), None, "cut to {length} bytes");
        }
        for index in 0..buffer.len() {
            for bit in 0..8 {
                buffer[index] ^= 1 << bit;
                assert_eq!(Record::decode(12, &buffer), None, "bit {bit} of byte {index} flipped");
                buffer[index] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_row_belongs_to_its_key() {
        let row = key_row("/a", 5, 3);
        assert_eq!(read_key_row("/a", row).unwrap(), (5, 3));
        assert!(read_key_row("/b", row).is_err());
        assert!(read_key_row("/a", (4, row.1, row.2)).is_err());
        let row = version_row("/a", 5, DELETION);
        assert_eq!(read_version_row("/a", 5, row).unwrap(), DELETION);
        assert!(read_version_row("/a", 4, row).is_err());
    }
}
