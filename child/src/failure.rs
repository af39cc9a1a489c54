//! Why a child does not answer, in one word that a person or a program can act on.
//!
//! A failure becomes the reason of the condition `Reachable` of the ManagedCluster and of the Event about it, so each names
//! something that another person repairs: the address, the network, the certificate, the credential, the registration.

use std::{error::Error, fmt, io};

use crate::error::{ChildError, ProtocolError};

/// Why a child does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody listens at its address.
    ConnectionRefused,
    /// It does not answer in time.
    Timeout,
    /// The name of its server is not known.
    Dns,
    /// No TLS connection: the certificate is not trusted, has expired, or is for another name.
    Tls,
    /// The proxy on the way does not connect.
    Proxy,
    /// No route leads to its address.
    NoRoute,
    /// The connection broke off.
    ConnectionLost,
    /// It answers 502, 503 or 504, or breaks the protocol.
    NotServing,
    /// It refuses the hub's credentials (401).
    CredentialsRefused,
    /// The hub has no usable credentials.
    NoCredentials,
    /// Another cluster answers at its address.
    WrongCluster,
    /// It does not say which cluster it is.
    IdentityUnknown,
    /// None of these.
    Unreachable,
}

impl Failure {
    /// The reason of a condition or an Event.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "ConnectionRefused",
            Self::Timeout => "Timeout",
            Self::Dns => "DNS",
            Self::Tls => "TLS",
            Self::Proxy => "Proxy",
            Self::NoRoute => "NoRoute",
            Self::ConnectionLost => "ConnectionLost",
            Self::NotServing => "NotServing",
            Self::CredentialsRefused => "CredentialsRefused",
            Self::NoCredentials => "NoCredentials",
            Self::WrongCluster => "WrongCluster",
            Self::IdentityUnknown => "IdentityUnknown",
            Self::Unreachable => "Unreachable",
        }
    }

    /// Of an error of a connection that was being made or has broken.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(known) = inner.downcast_ref::<ConnectError>() {
                return known.failure;
            }
            if inner.is::<rustls::Error>() {
                return Self::Tls;
            }
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
                Self::NoRoute
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::ConnectionLost,
            _ => Self::Unreachable,
        }
    }

    fn of_protocol(error: &ProtocolError) -> Self {
        match error {
            ProtocolError::Http1(error) => Self::of_http1(error),
            ProtocolError::HeadersTooLong { .. } => Self::NotServing,
            ProtocolError::Http2(error) => match error.get_io() {
                Some(io) if Self::of_io(io) != Self::Unreachable => Self::of_io(io),
                Some(_) => Self::ConnectionLost,
                // It goes away, or has left while the request was under way.
                None if error.is_go_away() && error.is_remote() => Self::ConnectionLost,
                None => Self::NotServing,
            },
        }
    }

    fn of_http1(error: &hyper::Error) -> Self {
        let mut cause = error.source();
        let mut io = None;
        while let Some(error) = cause {
            io = io.or_else(|| error.downcast_ref::<io::Error>());
            cause = error.source();
        }
        match io.map(Self::of_io) {
            Some(Self::Unreachable) | None if error.is_closed() || error.is_incomplete_message() => {
                Self::ConnectionLost
            }
            Some(failure) => failure,
            None if error.is_timeout() => Self::Timeout,
            None => Self::NotServing,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl ChildError {
    /// What kind of failure this is, of those that concern reaching the child.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect { failure, .. } => *failure,
            Self::Timeout { .. } => Failure::Timeout,
            Self::Credentials { .. } => Failure::NoCredentials,
            Self::CredentialsRefused { .. } => Failure::CredentialsRefused,
            Self::WrongCluster { .. } => Failure::WrongCluster,
            Self::Http { source, .. } => Failure::of_protocol(source),
            Self::Body { .. } => Failure::ConnectionLost,
            Self::Json { .. } | Self::Status { .. } | Self::TooLong { .. } | Self::Protocol { .. } => {
                Failure::NotServing
            }
            _ => Failure::Unreachable,
        }
    }
}

/// A connection that could not be made, where the error alone would not say what failed.
#[derive(Debug)]
pub(crate) struct ConnectError {
    failure: Failure,
    message: String,
}

impl ConnectError {
    /// An error whose text is `message`.
    pub(crate) fn io(failure: Failure, message: impl Into<String>) -> io::Error {
        let kind = match failure {
            Failure::Timeout => io::ErrorKind::TimedOut,
            Failure::ConnectionRefused => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::Other,
        };
        let message = message.into();
        io::Error::new(kind, Self { failure, message })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_connections_have_a_reason() {
        let of = |kind: io::ErrorKind| Failure::of_io(&kind.into()).reason();
        assert_eq!(of(io::ErrorKind::ConnectionRefused), "ConnectionRefused");
        assert_eq!(of(io::ErrorKind::NetworkUnreachable), "NoRoute");
        assert_eq!(of(io::ErrorKind::UnexpectedEof), "ConnectionLost");
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert_eq!(
            Failure::of_io(&io::Error::new(io::ErrorKind::InvalidData, expired)),
            Failure::Tls
        );
        let unknown = ConnectError::io(Failure::Dns, "no such host");
        assert_eq!(
            (Failure::of_io(&unknown), unknown.to_string()),
            (Failure::Dns, "no such host".to_owned())
        );
    }
}
