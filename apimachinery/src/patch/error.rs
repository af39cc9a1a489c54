//! Why a patch was refused.

use thiserror::Error;

/// Why a patch was refused. The document is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// What was sent is no patch of this kind.
    #[error("invalid patch: {reason}")]
    Invalid {
        /// What is wrong, and where.
        reason: String,
    },
    /// One operation of a JSON patch is none.
    #[error("invalid patch: operation {index}: {reason}")]
    InvalidOperation {
        /// Which operation, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// One operation of a JSON patch does not fit the document.
    #[error("operation {index} ({op} {path:?}): {failure}")]
    Operation {
        /// Which operation, from 0.
        index: usize,
        /// Its name: `add`, `remove`, `replace`, `move`, `copy` or `test`.
        op: &'static str,
        /// Its path, as sent.
        path: String,
        /// Why it does not fit.
        failure: OperationFailure,
    },
    /// The patch is well formed but does not fit the document.
    #[error("the patch does not apply: {reason}")]
    NotApplicable {
        /// Why, and where.
        reason: String,
    },
    /// Too many operations.
    #[error("the allowed maximum operations in a JSON patch is {limit}, got {got}")]
    TooManyOperations {
        /// The most that is allowed.
        limit: usize,
        /// How many there are.
        got: usize,
    },
    /// The `copy` operations together copy too much.
    #[error("operation {index} (copy {path:?}): the operations copy more than {limit} bytes in total")]
    CopiesTooLarge {
        /// Which operation exceeded the limit, from 0.
        index: usize,
        /// Its path, as sent.
        path: String,
        /// The most that is allowed, in bytes of JSON.
        limit: usize,
    },
}

/// Why one operation of a JSON patch does not fit the document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OperationFailure {
    /// An object on the way has no such field, or a list no such element.
    #[error("the path does not exist: {} has no {token:?}", place(at))]
    Missing {
        /// Pointer of the object or list.
        at: String,
        /// The field or index it does not have.
        token: String,
    },
    /// A value on the way is neither an object nor a list.
    #[error("the path does not exist: {} is neither an object nor a list", place(at))]
    NotAContainer {
        /// Pointer of the value.
        at: String,
    },
    /// The element of a list was not named by a number.
    #[error("{} is a list, and {token:?} is not an index of a list", place(at))]
    NotAnIndex {
        /// Pointer of the list.
        at: String,
        /// What was written for an index.
        token: String,
    },
    /// `test` found another value.
    #[error("testing the value failed: it is another one")]
    TestFailed,
    /// A value cannot move into itself.
    #[error("a value cannot be moved into itself")]
    MoveIntoItself,
    /// The document as a whole cannot be removed.
    #[error("the whole document cannot be removed")]
    WholeDocument,
}

/// A pointer as a person reads it.
fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        "the document".to_owned()
    } else {
        format!("{pointer:?}")
    }
}

/// What a [`PatchError`] means for the one who sent the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchErrorKind {
    /// The patch is malformed: 400 Bad Request.
    Invalid,
    /// The patch does not fit the document: 422 Unprocessable Entity.
    Failed,
    /// A `test` operation found another value: 422 as well, but a sign that the document has changed.
    TestFailed,
    /// The patch is beyond a limit: 413 Request Entity Too Large.
    TooLarge,
}

impl PatchError {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    /// Whose mistake it is.
    #[must_use]
    pub fn kind(&self) -> PatchErrorKind {
        match self {
            Self::Invalid { .. } | Self::InvalidOperation { .. } => PatchErrorKind::Invalid,
            Self::Operation {
                failure: OperationFailure::TestFailed,
                ..
            } => PatchErrorKind::TestFailed,
            Self::Operation { .. } | Self::NotApplicable { .. } => PatchErrorKind::Failed,
            Self::TooManyOperations { .. } | Self::CopiesTooLarge { .. } => PatchErrorKind::TooLarge,
        }
    }

    /// The status code that Kubernetes answers with.
    ///
    /// Deviation: copies beyond the limit are 413 here, as too many operations are; kube-apiserver answers 422.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self.kind() {
            PatchErrorKind::Invalid => 400,
            PatchErrorKind::Failed | PatchErrorKind::TestFailed => 422,
            PatchErrorKind::TooLarge => 413,
        }
    }
}

impl OperationFailure {
    /// Whether the document lacks what the path names; what `optional` patches skip.
    #[must_use]
    pub fn is_missing_path(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NotAContainer { .. })
    }
}
