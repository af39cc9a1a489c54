//! All authenticators of a server, asked in order.
//!
//! The rules are those of `k8s.io/apiserver/pkg/authentication/request/union` and `…/group`: the first that knows the
//! caller wins; where none does, credentials that were presented and found wanting are an error (401), and the absence of
//! any is not (the caller is anonymous, or refused, as the server is set up). Everyone who is known is in
//! `system:authenticated`.
//!
//! Authenticators are synchronous: they judge by snapshots. Delegated reviews (TokenReview) need the network and come
//! after this union: [`crate::delegation::DelegatedAuthenticator`].

use std::fmt::Debug;
use std::sync::Arc;

use http::HeaderMap;
use rustls_pki_types::{CertificateDer, UnixTime};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{ANONYMOUS, UserInfo};

use crate::delegation::ReviewError;
use crate::peer::PeerError;
use crate::reserved;
use crate::tokens::TokenError;

/// What a request proves itself with.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The client's certificates as the handshake saw them, its own first; empty for none. Not yet verified.
    pub peer_certificates: &'a [CertificateDer<'static>],
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// Judges one kind of credentials.
pub trait RequestAuthenticator: Debug + Send + Sync {
    /// The identity that the credentials prove; `None` where there are none of this kind.
    ///
    /// # Errors
    /// Where there are some and they prove nothing.
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError>;
}

/// Credentials that prove nothing: 401, unless nobody could judge them ([`AuthenticationError::is_unjudged`]).
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The chain does not lead to a trusted authority, has expired, or is not for clients.
    #[error("the client certificate is not trusted: {source}")]
    Certificate {
        /// Why not.
        #[source]
        source: webpki::Error,
    },
    /// The certificate names nobody.
    #[error(transparent)]
    Peer {
        /// Why not.
        source: PeerError,
    },
    /// A front proxy whose name is not allowed.
    #[error("x509: subject with cn={common_name} is not in the allowed list")]
    ProxyNotAllowed {
        /// Its name.
        common_name: String,
    },
    /// The bearer token is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The hub could not be asked about the bearer token.
    #[error("the bearer token cannot be judged: {0}")]
    Unjudged(#[source] Arc<ReviewError>),
    /// Somebody other than a machine of Umbra's own has the name of one ([`crate::reserved`]).
    #[error("the user name {name:?} belongs to machines of Umbra")]
    Reserved {
        /// The name.
        name: String,
    },
    /// Several kinds of credentials, none of which proves anything.
    #[error("[{}]", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<AuthenticationError>),
}

impl AuthenticationError {
    /// Whether some credentials were not judged at all, because whoever judges them did not answer. Then the answer is
    /// 500, not 401: clients throw away credentials that are refused with 401.
    #[must_use]
    pub fn is_unjudged(&self) -> bool {
        match self {
            Self::Unjudged(_) => true,
            Self::Several(errors) => errors.iter().any(Self::is_unjudged),
            Self::Certificate { .. }
            | Self::Peer { .. }
            | Self::ProxyNotAllowed { .. }
            | Self::Token(_)
            | Self::Reserved { .. } => false,
        }
    }

    /// What the client is told. Why credentials prove nothing is for the log alone.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.is_unjudged() {
            return Status::internal("the hub cannot be asked whose credentials these are; try again in a moment");
        }
        Status::failure(Reason::Unauthorized, "Unauthorized")
    }

    /// Whom a credential proves, as far as it may claim that.
    pub(crate) fn unless_reserved(user: UserInfo) -> Result<UserInfo, Self> {
        let name = user.name.clone();
        reserved::without_claims(user).ok_or(Self::Reserved { name })
    }

    /// One error of several; `None` of none.
    pub(crate) fn of(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}

/// The authenticators of a server. Usual order, as in kube-apiserver: front proxy, client certificate, tokens.
#[derive(Debug, Clone, Default)]
pub struct Authenticators {
    authenticators: Vec<Arc<dyn RequestAuthenticator>>,
}

impl Authenticators {
    /// Asks these in order.
    #[must_use]
    pub fn new(authenticators: Vec<Arc<dyn RequestAuthenticator>>) -> Self {
        Self { authenticators }
    }

    /// Asks `first` before all others.
    #[must_use]
    pub fn preceded_by(mut self, first: Arc<dyn RequestAuthenticator>) -> Self {
        self.authenticators.insert(0, first);
        self
    }

    /// Who sends the request; `None` is somebody who does not say.
    ///
    /// # Errors
    /// Where credentials were presented and none of them proves anything: the answer is 401, never anonymous.
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let mut errors = Vec::new();
        for authenticator in &self.authenticators {
            let known = authenticator.authenticate(credentials, now);
            match known.and_then(|user| user.map(AuthenticationError::unless_reserved).transpose()) {
                Ok(Some(user)) if user.name == ANONYMOUS => return Ok(Some(user)),
                Ok(Some(user)) => return Ok(Some(user.authenticated())),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        AuthenticationError::of(errors).map_or(Ok(None), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{BearerAuthenticator, StaticTokens};

    #[derive(Debug)]
    struct Fixed(Result<Option<&'static str>, TokenError>);

    impl RequestAuthenticator for Fixed {
        fn authenticate(&self, _: &Credentials<'_>, _: UnixTime) -> Result<Option<UserInfo>, AuthenticationError> {
            let user = self.0.clone()?;
            Ok(user.map(|name| UserInfo::new(name, ["dev"])))
        }
    }

    fn judge(
        authenticators: Vec<Arc<dyn RequestAuthenticator>>,
        headers: &HeaderMap,
    ) -> Result<Option<UserInfo>, String> {
        let credentials = Credentials {
            peer_certificates: &[],
            headers,
        };
        Authenticators::new(authenticators)
            .authenticate(&credentials, UnixTime::now())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_that_knows_wins_and_failures_are_not_anonymous() {
        let nobody = || Arc::new(Fixed(Ok(None))) as Arc<dyn RequestAuthenticator>;
        let alice = || Arc::new(Fixed(Ok(Some("alice")))) as Arc<dyn RequestAuthenticator>;
        let bob = || Arc::new(Fixed(Ok(Some("bob")))) as Arc<dyn RequestAuthenticator>;
        let broken = || Arc::new(Fixed(Err(TokenError::Invalid))) as Arc<dyn RequestAuthenticator>;
        let none = HeaderMap::new();

        let user = judge(vec![broken(), nobody(), alice(), bob()], &none).unwrap().unwrap();
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
        assert_eq!(judge(vec![nobody(), nobody()], &none), Ok(None));
        assert_eq!(
            judge(vec![nobody(), broken()], &none),
            Err("invalid bearer token".to_owned())
        );
        assert_eq!(
            judge(vec![broken(), broken()], &none),
            Err("[invalid bearer token, invalid bearer token]".to_owned())
        );
        assert_eq!(judge(Vec::new(), &none), Ok(None));
    }

    #[test]
    fn nobody_claims_to_be_a_machine() {
        let mut tokens = StaticTokens::new();
        tokens.insert("a", UserInfo::new("alice", ["umbra:agents", "umbra:replicas", "dev"]));
        tokens.insert("b", UserInfo::new("umbra:bootstrap:east", ["umbra:bootstrappers"]));
        let bearer = Arc::new(BearerAuthenticator::new(vec![Arc::new(tokens)])) as Arc<dyn RequestAuthenticator>;
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            judge(vec![Arc::clone(&bearer)], &headers)
        };
        assert_eq!(
            with("Bearer a").unwrap().unwrap().groups,
            ["dev", "system:authenticated"]
        );
        let refused = with("Bearer b").unwrap_err();
        assert!(refused.contains("belongs to machines"), "{refused}");
    }

    #[test]
    fn an_unknown_token_is_refused() {
        let mut tokens = StaticTokens::new();
        tokens.insert("secret", UserInfo::new("alice", ["dev"]));
        let bearer = Arc::new(BearerAuthenticator::new(vec![Arc::new(tokens)])) as Arc<dyn RequestAuthenticator>;
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            judge(vec![Arc::clone(&bearer)], &headers)
        };
        assert_eq!(with("Bearer secret").unwrap().unwrap().name, "alice");
        assert!(with("Bearer guess").is_err());
        assert_eq!(with("Basic secret"), Ok(None));
    }
}
