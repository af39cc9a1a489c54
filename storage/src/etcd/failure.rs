//! What a failure of etcd means: whether anything was changed, and whether another member could do better.

use std::error::Error as _;

use tonic::{Code, ConnectError};

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The revision asked for has been compacted.
    Compacted,
    /// The revision asked for is in the future.
    FutureRevision,
    /// The request did not get as far as changing anything, and may succeed elsewhere or later.
    NotDone,
    /// Nothing was changed because the credentials, or the token that stands for them, are not current.
    StaleCredentials,
    /// Nothing was changed, and nothing will be by asking again.
    Refused,
    /// Anything may have happened.
    Unknown,
}

/// The texts are those of `go.etcd.io/etcd/api/v3rpc/rpctypes/error.go`.
pub(super) fn kind(error: &etcd_client::Error) -> Kind {
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        // What the client says before it sends.
        etcd_client::Error::InvalidArgs(_)
        | etcd_client::Error::InvalidUri(_)
        | etcd_client::Error::InvalidMetadataValue(_) => return Kind::Refused,
        etcd_client::Error::EndpointError(_) | etcd_client::Error::TransportError(_) => return Kind::NotDone,
        _ => return Kind::Unknown,
    };
    match (status.code(), status.message()) {
        (Code::OutOfRange, text) if text.contains("required revision has been compacted") => Kind::Compacted,
        (Code::OutOfRange, text) if text.contains("required revision is a future revision") => Kind::FutureRevision,
        (Code::Unauthenticated, _) => Kind::StaleCredentials,
        (_, text) if text.contains("revision of auth store is old") => Kind::StaleCredentials,
        (Code::Unavailable, text) if text.contains("no leader") || text.contains("not supported for learner") => {
            Kind::NotDone
        }
        (Code::Unavailable, _) if never_connected(status) => Kind::NotDone,
        (Code::ResourceExhausted, text) if text.contains("too many requests") => Kind::NotDone,
        (
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::DataLoss,
            _,
        ) => Kind::Refused,
        _ => Kind::Unknown,
    }
}

/// Whether the user may not do what was asked for.
pub(super) fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

/// Whether there was no connection to send the request on.
fn never_connected(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// What went wrong, in as few words as say it: the innermost cause, and what to look at where that is known.
pub(super) fn describe(error: &etcd_client::Error) -> String {
    let innermost = match error {
        etcd_client::Error::GRpcStatus(status) => {
            let mut innermost = status.message().to_owned();
            let mut source = status.source();
            while let Some(error) = source {
                innermost = error.to_string();
                source = error.source();
            }
            innermost
        }
        other => other.to_string(),
    };
    match hint(&innermost) {
        Some(hint) => format!("{innermost} ({hint})"),
        None => innermost,
    }
}

fn hint(text: &str) -> Option<&'static str> {
    let hints = [
        (
            "BadSignature",
            "the authority given has not signed the server's certificate: check the CA certificate",
        ),
        (
            "UnknownIssuer",
            "the authority given has not signed the server's certificate: check the CA certificate",
        ),
        (
            "NotValidForName",
            "the server's certificate is for another name than the endpoint has",
        ),
        ("CertificateRequired", "the server asks for a client certificate"),
        ("BadCertificate", "the server does not accept the client certificate"),
        (
            "UnknownCA",
            "the server does not know the authority of the client certificate",
        ),
        ("DecryptError", "the server does not accept the client certificate"),
        ("invalid user ID or password", "check the user and the password"),
        (
            "authentication is not enabled",
            "leave out the user and the password, or enable authentication in etcd",
        ),
        (
            "user name is empty",
            "authentication is enabled in etcd: a user and a password are needed",
        ),
        (
            "permission denied",
            "grant the user read and write on the keys under the prefix",
        ),
        (
            "database space exceeded",
            "compact, defragment, and disarm the alarm NOSPACE",
        ),
        ("request is too large", "see etcd's --max-request-bytes"),
    ];
    let found = hints.iter().find(|(cause, _)| text.contains(cause));
    found.map(|(_, hint)| *hint)
}

/// A write that etcd was asked for and that got no answer which says what became of it.
#[derive(Debug, thiserror::Error)]
#[error("etcd at {endpoint} may or may not have done it: {reason}")]
pub(super) struct OutcomeUnknown {
    pub(super) endpoint: String,
    pub(super) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, text: &str) -> etcd_client::Error {
        etcd_client::Error::GRpcStatus(tonic::Status::new(code, text))
    }

    #[test]
    fn only_what_etcd_refused_is_known_not_to_be_done() {
        for (error, expected) in [
            (
                status(
                    Code::OutOfRange,
                    "etcdserver: mvcc: required revision has been compacted",
                ),
                Kind::Compacted,
            ),
            (
                status(
                    Code::OutOfRange,
                    "etcdserver: mvcc: required revision is a future revision",
                ),
                Kind::FutureRevision,
            ),
            (
                status(Code::OutOfRange, "Error, decoded message length too large"),
                Kind::Unknown,
            ),
            (status(Code::Unavailable, "etcdserver: no leader"), Kind::NotDone),
            (
                status(Code::Unavailable, "etcdserver: request timed out"),
                Kind::Unknown,
            ),
            (
                status(
                    Code::Unavailable,
                    "etcdserver: request timed out, possibly due to previous leader failure",
                ),
                Kind::Unknown,
            ),
            (status(Code::Unavailable, "etcdserver: server stopped"), Kind::Unknown),
            (status(Code::Unavailable, "connection reset"), Kind::Unknown),
            (status(Code::Unknown, "transport error"), Kind::Unknown),
            (status(Code::Cancelled, "Timeout expired"), Kind::Unknown),
            (
                status(Code::ResourceExhausted, "etcdserver: too many requests"),
                Kind::NotDone,
            ),
            (
                status(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
                Kind::Refused,
            ),
            (
                status(Code::InvalidArgument, "etcdserver: request is too large"),
                Kind::Refused,
            ),
            (
                status(Code::InvalidArgument, "etcdserver: revision of auth store is old"),
                Kind::StaleCredentials,
            ),
            (
                status(Code::Unauthenticated, "etcdserver: invalid auth token"),
                Kind::StaleCredentials,
            ),
            (
                status(Code::PermissionDenied, "etcdserver: permission denied"),
                Kind::Refused,
            ),
        ] {
            assert_eq!(kind(&error), expected, "{error}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let error = status(
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        );
        assert!(describe(&error).ends_with("(check the user and the password)"));
    }
}
