//! What somebody may do, where the hub knows.

use std::sync::Arc;

use umbra_apimachinery::user::UserInfo;

use super::{AccessReviews, AlwaysAllow, CacheStatistics, ReviewError};
use crate::rbac::{Attributes, Decision};

/// Decides requests: what is always allowed, then what the hub says (`DelegatingAuthorizationOptions.toAuthorizer`).
///
/// The question may be about anything that the hub's roles can name, whether or not the hub serves it: the gates of the
/// roots (`get` on `umbra.dev` `views/proxy` by name), the groups of [`super::VirtualGroup`], paths.
#[derive(Debug)]
pub struct DelegatedAuthorizer {
    always: AlwaysAllow,
    reviews: AccessReviews,
}

impl DelegatedAuthorizer {
    /// Allows what `always` allows, and else asks `reviews`.
    #[must_use]
    pub fn new(always: AlwaysAllow, reviews: AccessReviews) -> Self {
        Self { always, reviews }
    }

    /// Whether `user` may do it. Cancel safe.
    ///
    /// # Errors
    /// Where nobody can say: to be answered with 500, as kube-apiserver does, not with 403.
    pub async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Arc<ReviewError>> {
        if self.always.allows(user, attributes) {
            return Ok(Decision::Allow { reason: String::new() });
        }
        self.reviews.authorize(user, attributes).await
    }

    /// The same where there is no place for an error: what nobody can judge is not allowed, and the reason says why.
    pub async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let decided = self.authorize(user, attributes).await;
        decided.unwrap_or_else(|error| Decision::NoOpinion {
            reason: error.to_string(),
        })
    }

    /// What became of the questions so far.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.reviews.statistics()
    }
}
