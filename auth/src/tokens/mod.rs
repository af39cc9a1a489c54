//! Bearer tokens: where a request carries them, and whom they prove.

mod bearer;
mod bootstrap;
mod claims;
mod service_account;
mod static_tokens;

use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

pub use bearer::{BearerAuthenticator, bearer_token, remove_bearer_protocol};
pub use bootstrap::{BootstrapToken, sha256_hex};
pub use service_account::{
    BoundObject, ServiceAccountSubject, ServiceAccountTokens, ServiceAccounts, SigningKeyError, TokenSigner,
};
pub use static_tokens::{StaticTokens, TokenFileError};

/// Judges one kind of token.
pub trait TokenAuthenticator: std::fmt::Debug + Send + Sync {
    /// The identity that the token proves; `None` where it is not of this kind.
    ///
    /// # Errors
    /// Where the token is of this kind but not valid.
    fn authenticate_token(&self, token: &str, now: UnixTime) -> Result<Option<UserInfo>, TokenError>;
}

/// Why a token is not believed. Says nothing that would help to guess one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nobody knows this token, or it is malformed.
    #[error("invalid bearer token")]
    Invalid,
    /// Whoever was asked refuses the token, and says why.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// The signature is not by a known key.
    #[error("invalid signature of the service account token")]
    Signature,
    /// Its time has passed.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYetValid,
    /// It is meant for somebody else.
    #[error("token audiences {found:?} are invalid for the target audiences {expected:?}")]
    Audience {
        /// Whom it is for.
        found: Vec<String>,
        /// Who judges it.
        expected: Vec<String>,
    },
    /// The service account is gone, or another of the same name has taken its place.
    #[error("service account {namespace}/{name} has been deleted")]
    Deleted {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// More than one token, or a broken one, among the WebSocket subprotocols.
    #[error("{0}")]
    Protocol(&'static str),
}
