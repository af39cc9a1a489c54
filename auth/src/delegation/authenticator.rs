//! Who is asking, where the hub knows.

use std::sync::Arc;

use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

use super::TokenReviews;
use crate::authenticate::{AuthenticationError, Authenticators, Credentials, RequestAuthenticator};
use crate::tokens::bearer_token;

/// All authenticators of an aggregated server: first those that need nobody else (front proxy, client certificate,
/// usually [`crate::trust::ClientTrust::authenticators`]), then the hub, for bearer tokens that none of them knows
/// (`DelegatingAuthenticatorConfig.New`).
#[derive(Debug, Clone)]
pub struct DelegatedAuthenticator {
    local: Authenticators,
    tokens: Option<Arc<TokenReviews>>,
}

impl DelegatedAuthenticator {
    /// Asks `local` and then `tokens`. Without the latter, a bearer token that `local` does not know is no credential.
    #[must_use]
    pub fn new(local: Authenticators, tokens: Option<Arc<TokenReviews>>) -> Self {
        Self { local, tokens }
    }

    /// Asks `first` before all others.
    #[must_use]
    pub fn preceded_by(mut self, first: Arc<dyn RequestAuthenticator>) -> Self {
        self.local = self.local.preceded_by(first);
        self
    }

    /// Who sends the request; `None` is somebody who does not say. Cancel safe.
    ///
    /// # Errors
    /// Where credentials were presented and none of them proves anything: 401, or 500 where
    /// [`AuthenticationError::is_unjudged`].
    pub async fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        let mut errors = match self.local.authenticate(credentials, now) {
            Ok(Some(user)) => return Ok(Some(Arc::new(user))),
            Ok(None) => Vec::new(),
            Err(AuthenticationError::Several(errors)) => errors,
            Err(error) => vec![error],
        };
        if let Some(tokens) = &self.tokens {
            let judged = match bearer_token(credentials.headers) {
                Ok(Some(token)) => tokens.authenticate_token(&token).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error.into()),
            };
            match judged {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        AuthenticationError::of(errors).map_or(Ok(None), Err)
    }
}
