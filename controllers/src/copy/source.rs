//! Where the copy controller reads from: a child, as the hub itself.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use umbra_apimachinery::status::Status;

/// Why a child could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The child answered with a failure.
    #[error("{0}")]
    Status(Box<Status>),
    /// The child did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The child answered what cannot be read.
    #[error("the cluster's answer to {path} cannot be read")]
    Malformed {
        /// What was asked for.
        path: String,
        /// Why it cannot be read.
        #[source]
        source: serde_json::Error,
    },
}

impl SourceError {
    /// Whether the revision that was asked for is no longer there.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Status(status) if status.code == 410)
    }

    /// Whether the resource is not served, or not to be read by the hub.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        // Forbidden, not found, method not allowed.
        matches!(self, Self::Status(status) if (403..=405).contains(&status.code))
    }
}

/// The lines of a watch.
pub type Lines = BoxStream<'static, Result<Bytes, SourceError>>;

/// Reads from a child.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The body of a GET of `path`, which begins with a slash and may have a query.
    ///
    /// # Errors
    /// Where the answer is not a success.
    async fn get(&self, path: &str, accept: &str) -> Result<Bytes, SourceError>;

    /// The lines of a watch. Dropping the stream ends it.
    ///
    /// # Errors
    /// Where the watch does not begin.
    async fn watch(&self, path: &str, accept: &str) -> Result<Lines, SourceError>;
}
