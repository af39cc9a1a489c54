//! What goes wrong below the embedded store, and what a user is told of it.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::Error;

/// A failure that ends the transaction it happens in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The database failed.
    #[error("{0}")]
    Database(#[source] redb::Error),
    /// The database holds what was never written to it.
    #[error("{0}")]
    Damaged(String),
    /// The database gave up, as it does where it finds what it never wrote.
    #[error("the database gave up: {0}")]
    Panicked(String),
}

impl Failure {
    /// A row of the log that is missing or cannot be read.
    pub(super) fn damaged_record(revision: u64) -> Self {
        Self::Damaged(format!("its log has no readable record of revision {revision}"))
    }

    /// Runs what calls the database, which panics on some damaged files.
    pub(super) fn guard<T, E: From<Self>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // What a panic leaves half done belongs to the database, which is not used again.
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Self::Panicked(text_of(&*panic)).into()))
    }

    /// Whether the file is at fault, and not what carries it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Panicked(_) => true,
            Self::Database(redb::Error::Io(error)) => is_damage(error),
            Self::Database(error) => !matches!(
                error,
                redb::Error::DatabaseClosed | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)
            ),
        }
    }

    /// Whether the database was taken away from under a reader; another one takes its place.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Database(redb::Error::DatabaseClosed | redb::Error::PreviousIo)
        )
    }

    /// What happened to the file, and what to do about it.
    pub(super) fn explain(&self, action: &str, path: &Path) -> String {
        match self {
            Self::Database(redb::Error::Io(error)) if !is_damage(error) => explain_io(error, action, path),
            _ if self.is_damage() => explain_damage(&self.to_string(), path),
            _ => format!("{action} {} failed: {self}", path.display()),
        }
    }

    /// The failure as callers of the store see it.
    pub(super) fn to_error(&self, action: &'static str, path: &Path) -> Error {
        let message = self.explain(action, path);
        if self.is_damage() {
            Error::Damaged {
                message: message.into(),
            }
        } else {
            Error::Io {
                action,
                source: Arc::new(Explained(message)),
            }
        }
    }
}

/// What happened and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Explained(String);

/// What happened to the file at `path`, and what to do about it.
pub(super) fn explain_io(error: &io::Error, action: &str, path: &Path) -> String {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space there",
        io::ErrorKind::ReadOnlyFilesystem => "make that file system writable",
        io::ErrorKind::FileTooLarge => "raise the limit of file sizes",
        io::ErrorKind::PermissionDenied => "let this user read and write it",
        _ => "look after that disk",
    };
    format!("{action} {} failed: {error}; {advice}", path.display())
}

/// That the file at `path` is damaged, and what to do about it.
pub(super) fn explain_damage(message: &str, path: &Path) -> String {
    let directory = path.parent().unwrap_or(Path::new("."));
    format!(
        "{} is damaged: {message}; restore it from a backup: umbra restore FILE --force --data-dir {}",
        path.display(),
        directory.display()
    )
}

/// An end of the file where there should be more of it, or what the database says of what it cannot make sense of.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "for no reason given".to_owned())
}

// redb has an error for each of its layers, and one that all of them convert to.
macro_rules! from_layer {
    ($($layer:ident),*) => {
        $(impl From<redb::$layer> for Failure {
            fn from(error: redb::$layer) -> Self {
                Self::Database(error.into())
            }
        })*
    };
}
from_layer!(StorageError, TableError, TransactionError, CommitError, DatabaseError);
