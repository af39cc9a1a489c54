//! Whose bearer token it is, says the hub (`k8s.io/apiserver/plugin/pkg/authenticator/token/webhook`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus};
use umbra_apimachinery::user::UserInfo;

use super::cache::{CacheStatistics, Keep, Retention, ReviewCache};
use super::retry::{Patience, Patient};
use super::{ReviewError, Reviewer};
use crate::authenticate::AuthenticationError;
use crate::reserved;
use crate::tokens::TokenError;

const REVIEW: &str = "TokenReview";

/// How tokens are reviewed.
#[derive(Debug, Clone)]
pub struct TokenReviewOptions {
    /// Whom tokens have to be meant for, one of these at least; empty leaves that to the hub, which then wants them to be
    /// meant for itself.
    pub audiences: Vec<String>,
    /// How long the hub's word on a good token counts: how long a token that was revoked is still good. 0: not at all.
    pub accepted_lifetime: Duration,
    /// How long a refused token is refused without asking. Short, because a token may be younger than what the hub's API
    /// server has heard of its service account.
    pub refused_lifetime: Duration,
    /// How many good tokens are remembered, and how many refused ones: the oldest make room.
    pub capacity: usize,
    /// What one review may cost.
    pub patience: Patience,
}

impl Default for TokenReviewOptions {
    /// 10 s as in `NewDelegatingAuthenticationOptions`, 32,768 tokens as in `token/cache` (twice what the largest clusters
    /// use); refused ones for 1 s, which takes the edge off a client that tries in a loop.
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            accepted_lifetime: Duration::from_secs(10),
            refused_lifetime: Duration::from_secs(1),
            capacity: 32_768,
            patience: Patience::default(),
        }
    }
}

/// Why a token is not believed.
#[derive(Debug, Clone)]
enum Refusal {
    Refused(TokenError),
    Unjudged(Arc<ReviewError>),
}

type Verdict = Result<Arc<UserInfo>, Refusal>;

/// Has tokens reviewed, and remembers the answers.
#[derive(Debug)]
pub struct TokenReviews {
    reviewer: Arc<dyn Reviewer>,
    audiences: Vec<String>,
    patient: Patient,
    cache: ReviewCache<Verdict>,
}

impl TokenReviews {
    /// Asks `reviewer`.
    #[must_use]
    pub fn new(reviewer: Arc<dyn Reviewer>, options: TokenReviewOptions) -> Self {
        let retention = |lifetime| Retention {
            lifetime,
            capacity: options.capacity,
        };
        Self {
            reviewer,
            audiences: options.audiences,
            patient: Patient::new(options.patience),
            cache: ReviewCache::new(
                retention(options.accepted_lifetime),
                retention(options.refused_lifetime),
            ),
        }
    }

    /// Whose token it is, with [`umbra_apimachinery::user::AUTHENTICATED`] among the groups. Cancel safe.
    ///
    /// # Errors
    /// [`AuthenticationError::Token`] where it is nobody's, [`AuthenticationError::Unjudged`] where nobody can say.
    pub async fn authenticate_token(&self, token: &str) -> Result<Arc<UserInfo>, AuthenticationError> {
        let ask = || {
            let (reviewer, patient) = (Arc::clone(&self.reviewer), self.patient.clone());
            let spec = TokenReviewSpec {
                audiences: (!self.audiences.is_empty()).then(|| self.audiences.clone()),
                token: token.to_owned(),
            };
            async move {
                let asked = patient.ask(REVIEW, || reviewer.token_review(&spec)).await;
                remembered(asked.map_err(Arc::new), spec.audiences.as_deref().unwrap_or_default())
            }
        };
        // The audiences are the same for every token, so they are no part of the question.
        let verdict = self.cache.get(|hasher| _ = hasher.text(token), ask).await;
        verdict.map_err(|refusal| match refusal {
            Refusal::Refused(error) => AuthenticationError::Token(error),
            Refusal::Unjudged(error) => AuthenticationError::Unjudged(error),
        })
    }

    /// What became of the tokens so far.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.cache.statistics()
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        self.cache.sizes()
    }
}

fn remembered(asked: Result<TokenReviewStatus, Arc<ReviewError>>, wanted: &[String]) -> (Verdict, Keep) {
    match asked.map(|status| judge(status, wanted)) {
        Ok(Ok(user)) => (Ok(Arc::new(user)), Keep::Favourable),
        Ok(Err(error)) => (Err(Refusal::Refused(error)), Keep::Unfavourable),
        Err(error) => {
            tracing::warn!(%error, "a token cannot be judged");
            (Err(Refusal::Unjudged(error)), Keep::Not)
        }
    }
}

/// Reads an answer (`WebhookTokenAuthenticator.AuthenticateToken`).
fn judge(status: TokenReviewStatus, wanted: &[String]) -> Result<UserInfo, TokenError> {
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|reason| !reason.is_empty());
        return Err(reason.map_or(TokenError::Invalid, TokenError::Refused));
    }
    let found = status.audiences.unwrap_or_default();
    if !wanted.is_empty() && !wanted.iter().any(|audience| found.contains(audience)) {
        return Err(TokenError::Audience {
            found,
            expected: wanted.to_vec(),
        });
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.filter(|name| !name.is_empty());
    let user = UserInfo {
        name: name.ok_or_else(|| TokenError::Refused("the hub names no user for it".to_owned()))?,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
        machine: None,
    };
    let name = user.name.clone();
    let user = reserved::without_claims(user);
    let user =
        user.ok_or_else(|| TokenError::Refused(format!("the user name {name:?} belongs to machines of Umbra")))?;
    Ok(user.authenticated())
}
