//! What goes wrong below the embedded store.

use crate::Error;

/// A failure that ends the transaction it happens in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The database failed.
    #[error(transparent)]
    Database(redb::Error),
    /// The database holds what was never written to it.
    #[error("{0}")]
    Damaged(String),
}

impl Failure {
    /// A row of the log that is missing or cannot be read.
    pub(super) fn damaged_record(revision: u64) -> Self {
        Self::Damaged(format!("the log has no readable record of revision {revision}"))
    }

    /// The failure as callers of the store see it.
    pub(super) fn into_error(self, action: &'static str) -> Error {
        match self {
            Self::Database(source) => Error::io(action, source),
            Self::Damaged(message) => Error::Damaged {
                message: message.into(),
            },
        }
    }
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
