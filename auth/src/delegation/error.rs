//! Why a review gave no answer.

use std::time::Duration;

use umbra_apimachinery::status::Status;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The hub did not answer a review, or not with one. Nobody is allowed anything on its account.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The hub's API server cannot be reached, or the connection broke.
    #[error("the hub cannot be asked for a {review}: {source}")]
    Unreachable {
        /// The kind of the review.
        review: &'static str,
        /// Why not.
        #[source]
        source: BoxError,
    },
    /// It answered with an error.
    #[error("the hub answers {code} to a {review}: {message}{}", hint(*.code))]
    Status {
        /// The kind of the review.
        review: &'static str,
        /// The HTTP status.
        code: u16,
        /// What its `Status` says.
        message: String,
        /// When to ask again, where it says so.
        retry_after: Option<Duration>,
    },
    /// It answered with something else than a review.
    #[error("the hub's answer to a {review} cannot be read: {source}")]
    Unreadable {
        /// The kind of the review.
        review: &'static str,
        /// Why not.
        #[source]
        source: BoxError,
    },
    /// There was no answer in time, in however many attempts.
    #[error("the hub has not answered a {review} within {} s{}", .after.as_secs_f64(), before(.last.as_deref()))]
    Deadline {
        /// The kind of the review.
        review: &'static str,
        /// How long it was waited for.
        after: Duration,
        /// What became of the attempt before the last.
        last: Option<Box<ReviewError>>,
    },
}

impl ReviewError {
    /// Whether asking again may help (`DefaultShouldRetry` in `k8s.io/apiserver/pkg/util/webhook`, and whatever a
    /// restarting API server and the balancer in front of it say).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { code, retry_after, .. } => {
                retry_after.is_some() || matches!(code, 429 | 500 | 502 | 503 | 504)
            }
            Self::Unreadable { .. } | Self::Deadline { .. } => false,
        }
    }

    /// What somebody who is known is told where nobody can say what they may do: 500, as kube-apiserver does.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::internal(self)
    }

    /// How long the hub wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Unreachable { .. } | Self::Unreadable { .. } | Self::Deadline { .. } => None,
        }
    }
}

/// What to do about it.
fn hint(code: u16) -> &'static str {
    match code {
        401 => "; check the credentials of --authentication-kubeconfig and --authorization-kubeconfig",
        403 => "; bind ClusterRole system:auth-delegator to the identity that asks",
        _ => "",
    }
}

fn before(last: Option<&ReviewError>) -> String {
    last.map(|error| format!("; before that: {error}")).unwrap_or_default()
}
