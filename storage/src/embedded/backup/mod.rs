//! Backups: everything that exists at one revision, in one file that is checked before it is used.
//!
//! A backup is taken while the store serves: it is one read transaction, so that it is consistent and writes go on beside it.
//! It has the objects with their revisions and no history, and so it is as compact as a store can be. Files of the caller
//! travel with it.
//!
//! # Revisions after a restore
//! Clients know revisions of the time between the backup and the loss; those revisions must never come to mean something
//! else. So a restored store is [`REVISION_GAP`] ahead of the backup, and everything before is compacted: a watch or a list
//! at a revision from before the restore, lost or not, is answered as expired, and its client lists anew. It is what
//! `etcdutl snapshot restore --bump-revision 1000000000 --mark-compacted` does to etcd. Objects keep their own revisions: a
//! conditional write of somebody who knows a lost version of an object fails, because the object has an older one.
//!
//! # Format
//! `UMBRABAK`, the version (4 bytes), then sections, then the SHA-256 of everything before it. A section is a letter, the
//! length of what follows (4 bytes), and: `H` revision and time in seconds since 1970; `F` length of a name (4 bytes), the
//! name, the content of a file; `O` create revision, revision, length of the key (4 bytes), key, value; `X` why the backup
//! was broken off; `E` the number of objects and the number of files. Integers are little endian, 8 bytes unless said
//! otherwise. `H` comes first, then `F`, then `O` in the order of the keys, then `E`.

mod read;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::PathBuf;

pub use read::verify;
pub use restore::restore;
pub use write::copy;

use crate::{Error, Revision};

/// How much the revision rises by a restore. Enough for every write that the lost time can have seen: a day at 10,000 a
/// second, a year at 30; little enough for revisions to last (a restore a day uses a twentieth of 2⁶³ in a million years).
pub const REVISION_GAP: u64 = 1_000_000_000;

/// The version of the format.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"UMBRABAK";
const HEADER: u8 = b'H';
const FILE: u8 = b'F';
const OBJECT: u8 = b'O';
const ABORTED: u8 = b'X';
const END: u8 = b'E';
const DIGEST_LENGTH: usize = 32;

/// A file that travels with a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its path relative to the directory of the store, with `/` between the parts.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for BackupFile {
    /// Without the content, which may be a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BackupFile")
            .field("name", &self.name)
            .field("bytes", &self.content.len())
            .finish()
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    /// The revision of the store at which it was taken.
    pub revision: Revision,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// How many objects it has.
    pub objects: u64,
    /// How large it is.
    pub bytes: u64,
    /// The names of the files that travel with it.
    pub files: Vec<String>,
}

/// Why a backup could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read or written.
    #[error("{action}: {source}")]
    Io {
        /// What failed.
        action: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("this is not a backup of umbra")]
    NotABackup,
    /// A newer program made it.
    #[error("the backup has the format {found}, and this umbra knows formats up to {supported}; use a newer umbra")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        supported: u32,
    },
    /// Its content is not what was written.
    #[error("the backup is damaged or incomplete: {message}; use another one")]
    Damaged {
        /// What was found.
        message: String,
    },
    /// Whoever made it broke off.
    #[error("the backup was broken off: {reason}")]
    Aborted {
        /// Why.
        reason: String,
    },
    /// The store could not be read.
    #[error("the store cannot be backed up")]
    Store(#[source] Error),
    /// The store could not be made.
    #[error("{} cannot be restored", .path.display())]
    Restore {
        /// The file of the store.
        path: PathBuf,
        /// What is the matter.
        #[source]
        source: super::OpenError,
    },
}

impl BackupError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    fn damaged(message: impl Into<String>) -> Self {
        Self::Damaged {
            message: message.into(),
        }
    }
}
