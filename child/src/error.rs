//! What can go wrong on the way to a child.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;

use crate::{
    body::BodyError, failure::Failure, identity::IdentityError, kubeconfig::KubeconfigError, path::InvalidPath,
};

/// Why a request to a child has no answer, or not the one that was needed. Every variant that concerns a cluster names
/// it, because the person who reads the message may be working with hundreds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The registration cannot be used as it is.
    #[error("cluster {cluster}: {message}")]
    Configuration {
        /// The cluster.
        cluster: Arc<str>,
        /// What is wrong and what to do.
        message: String,
    },
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The hub's credentials for the child cannot be obtained.
    #[error("cluster {cluster}: cannot obtain credentials: {source}")]
    Credentials {
        /// The cluster.
        cluster: Arc<str>,
        /// Why.
        #[source]
        source: Arc<CredentialsError>,
    },
    /// The child refused the hub's credentials (401), also after they were renewed.
    #[error(
        "cluster {cluster}: refused the hub's credentials (401 Unauthorized); renew the Secret the cluster is registered with"
    )]
    CredentialsRefused {
        /// The cluster.
        cluster: Arc<str>,
    },
    /// No connection could be established.
    #[error("cluster {cluster}: cannot connect to {server}: {reason}")]
    Connect {
        /// The cluster.
        cluster: Arc<str>,
        /// What was dialled.
        server: Arc<str>,
        /// Why it failed. Text, because all requests that waited for one connection share its failure.
        reason: Arc<str>,
        /// What kind of failure it is.
        failure: Failure,
    },
    /// Another cluster answers than the one that was joined. Nothing was sent to it.
    #[error(
        "cluster {cluster}: another cluster answers at its address: its namespace kube-system has the UID {found}, not {expected}; \
         nothing is passed on to it"
    )]
    WrongCluster {
        /// The cluster.
        cluster: Arc<str>,
        /// The UID of the cluster that was joined.
        expected: Arc<str>,
        /// The UID of the one that answers.
        found: Arc<str>,
    },
    /// The probes have given the child up; the request was not sent.
    #[error("cluster {cluster}: unreachable since {since}: {reason}")]
    Unreachable {
        /// The cluster.
        cluster: Arc<str>,
        /// When the first of the failed probes began.
        since: Timestamp,
        /// How the last probe failed.
        reason: Arc<str>,
    },
    /// The response headers did not arrive in time.
    #[error("cluster {cluster}: no answer within {} s", after.as_secs_f32())]
    Timeout {
        /// The cluster.
        cluster: Arc<str>,
        /// The deadline that passed.
        after: Duration,
    },
    /// As many requests as allowed are under way, and none ended before the deadline.
    #[error("cluster {cluster}: more than {limit} requests at once")]
    Busy {
        /// The cluster.
        cluster: Arc<str>,
        /// How many may be under way in the lane.
        limit: usize,
    },
    /// The exchange broke before the response headers were complete.
    #[error("cluster {cluster}: request failed: {source}")]
    Http {
        /// The cluster.
        cluster: Arc<str>,
        /// What broke.
        #[source]
        source: ProtocolError,
    },
    /// The response broke off.
    #[error("cluster {cluster}: response broke off: {source}")]
    Body {
        /// The cluster.
        cluster: Arc<str>,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The response, or one line of it, is longer than allowed.
    #[error("cluster {cluster}: response longer than {limit} bytes")]
    TooLong {
        /// The cluster.
        cluster: Arc<str>,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The child answered a request of the hub itself with an error.
    #[error("cluster {cluster}: {message} ({code})")]
    Status {
        /// The cluster.
        cluster: Arc<str>,
        /// The HTTP status.
        code: StatusCode,
        /// `reason` of the `Status` object; empty when the body was none.
        reason: String,
        /// `message` of the `Status` object, or the beginning of the body.
        message: String,
        /// The body as it came, at most 1 MiB.
        body: Bytes,
    },
    /// The response is not the JSON it should be.
    #[error("cluster {cluster}: unexpected response: {source}")]
    Json {
        /// The cluster.
        cluster: Arc<str>,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is none that a request like this can have.
    #[error("cluster {cluster}: the answer makes no sense: {message}")]
    Protocol {
        /// The cluster.
        cluster: Arc<str>,
        /// What is wrong with it.
        message: &'static str,
    },
    /// Requests of this method are not sent on.
    #[error("{method} requests are not sent to clusters")]
    Method {
        /// The method.
        method: Method,
    },
    /// The path of the request could reach something else than it says.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The request cannot be sent: its URI or a header is malformed.
    #[error("request cannot be sent: {0}")]
    Request(#[from] http::Error),
    /// The caller's identity cannot be taken to a child.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request asks for a protocol upgrade, but its connection cannot be upgraded.
    #[error("this connection cannot be upgraded; use HTTP/1.1")]
    NotUpgradable,
    /// The cluster was removed, or the process is shutting down.
    #[error("cluster {cluster}: the connection is closed")]
    Closed {
        /// The cluster.
        cluster: Arc<str>,
    },
}

impl ChildError {
    /// Whether the child could not be reached at all, so that the request was certainly not processed.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::WrongCluster { .. } | Self::Unreachable { .. } | Self::Closed { .. }
        )
    }

    /// Whether the child has said that it has not processed the request, which may be sent again.
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http { source, .. } if source.is_unprocessed())
    }

    /// The HTTP status of the child's own answer, for [`ChildError::Status`].
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Status { code, .. } = self {
            Some(*code)
        } else {
            None
        }
    }
}

/// How an exchange broke, in the protocol it was made in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// On a connection of HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// On a connection of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The headers or trailers of the response are longer than Go's servers allow.
    #[error("its headers have more than {limit} bytes")]
    HeadersTooLong {
        /// The limit.
        limit: usize,
    },
}

impl ProtocolError {
    /// Whether the peer has certainly not processed the request: it went away before (RFC 9113, section 6.8), or refused the
    /// stream (section 8.7).
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Http2(error) => {
                error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
            }
            Self::Http1(_) | Self::HeadersTooLong { .. } => false,
        }
    }
}

/// Why the hub has no credentials for a child.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Certificate or key cannot be read.
    #[error("client certificate or key: {0}")]
    Certificate(String),
    /// The token file cannot be read.
    #[error("token file {path}: {source}")]
    TokenFile {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token cannot be put into a header.
    #[error("the token is empty or contains characters that a header cannot carry")]
    Token,
    /// The exec plugin is not installed.
    #[error("executable {command} not found{}{hint}", if hint.is_empty() { "" } else { ": " })]
    ExecNotFound {
        /// The command.
        command: String,
        /// `installHint` of the kubeconfig.
        hint: String,
    },
    /// The exec plugin failed.
    #[error("executable {command}: {message}")]
    Exec {
        /// The command.
        command: String,
        /// What happened.
        message: String,
    },
}
