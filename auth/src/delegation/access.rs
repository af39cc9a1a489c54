//! What somebody may do, says the hub (`k8s.io/apiserver/plugin/pkg/authorizer/webhook`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use umbra_apimachinery::user::UserInfo;

use super::cache::{CacheStatistics, Hasher, Keep, Retention, ReviewCache};
use super::retry::{Patience, Patient};
use super::{ReviewError, Reviewer};
use crate::rbac::{Attributes, Decision};

const REVIEW: &str = "SubjectAccessReview";

/// How permissions are reviewed.
#[derive(Debug, Clone)]
pub struct AccessReviewOptions {
    /// How long a permission counts: how long one that was withdrawn is still good. 0: not at all.
    pub allowed_lifetime: Duration,
    /// How long a refusal counts: how long a new permission may have no effect. 0: not at all.
    pub denied_lifetime: Duration,
    /// How many permissions are remembered, and how many refusals: the oldest make room.
    pub capacity: usize,
    /// What one review may cost.
    pub patience: Patience,
}

impl Default for AccessReviewOptions {
    /// 10 s both, as in `NewDelegatingAuthorizationOptions`, and 8,192 as in `webhook.newWithBackoff`.
    fn default() -> Self {
        Self {
            allowed_lifetime: Duration::from_secs(10),
            denied_lifetime: Duration::from_secs(10),
            capacity: 8192,
            patience: Patience::default(),
        }
    }
}

type Verdict = Result<Decision, Arc<ReviewError>>;

/// Has permissions reviewed, and remembers the answers.
#[derive(Debug)]
pub struct AccessReviews {
    reviewer: Arc<dyn Reviewer>,
    patient: Patient,
    cache: ReviewCache<Verdict>,
}

impl AccessReviews {
    /// Asks `reviewer`.
    #[must_use]
    pub fn new(reviewer: Arc<dyn Reviewer>, options: &AccessReviewOptions) -> Self {
        let retention = |lifetime| Retention {
            lifetime,
            capacity: options.capacity,
        };
        Self {
            reviewer,
            patient: Patient::new(options.patience),
            cache: ReviewCache::new(retention(options.allowed_lifetime), retention(options.denied_lifetime)),
        }
    }

    /// Whether `user` may do it. Cancel safe.
    ///
    /// # Errors
    /// Where nobody can say: it is not allowed then, and not forbidden either (500).
    pub async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Arc<ReviewError>> {
        let ask = || {
            let (reviewer, patient) = (Arc::clone(&self.reviewer), self.patient.clone());
            let spec = spec(user, attributes);
            async move {
                let asked = patient.ask(REVIEW, || reviewer.subject_access_review(&spec)).await;
                remembered(asked.map_err(Arc::new))
            }
        };
        self.cache.get(|hasher| describe(hasher, user, attributes), ask).await
    }

    /// What became of the questions so far.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.cache.statistics()
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        self.cache.sizes()
    }
}

/// Everything of which the answer may depend: what [`spec`] sends.
fn describe(hasher: &mut Hasher, user: &UserInfo, attributes: &Attributes<'_>) {
    hasher.text(&user.name).text(&user.uid).texts(&user.groups);
    hasher.count(user.extra.len());
    for (key, values) in &user.extra {
        hasher.text(key).texts(values);
    }
    hasher
        .count(usize::from(attributes.is_resource_request))
        .text(attributes.verb);
    if attributes.is_resource_request {
        hasher.text(attributes.group).text(attributes.resource);
        hasher.text(attributes.subresource);
        hasher.text(attributes.namespace).text(attributes.name);
    } else {
        hasher.text(attributes.path);
    }
}

/// The question. It has no version and no selectors: both would only narrow it.
fn spec(user: &UserInfo, attributes: &Attributes<'_>) -> SubjectAccessReviewSpec {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut spec = SubjectAccessReviewSpec {
        user: given(&user.name),
        uid: given(&user.uid),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    if attributes.is_resource_request {
        spec.resource_attributes = Some(ResourceAttributes {
            verb: given(attributes.verb),
            group: given(attributes.group),
            resource: given(attributes.resource),
            subresource: given(attributes.subresource),
            namespace: given(attributes.namespace),
            name: given(attributes.name),
            ..ResourceAttributes::default()
        });
    } else {
        spec.non_resource_attributes = Some(NonResourceAttributes {
            path: given(attributes.path),
            verb: given(attributes.verb),
        });
    }
    spec
}

fn remembered(asked: Result<SubjectAccessReviewStatus, Arc<ReviewError>>) -> (Verdict, Keep) {
    match asked.map(judge) {
        Ok(decision) if decision.is_allowed() => (Ok(decision), Keep::Favourable),
        Ok(decision) => (Ok(decision), Keep::Unfavourable),
        Err(error) => {
            tracing::warn!(%error, "a permission cannot be judged");
            (Err(error), Keep::Not)
        }
    }
}

/// Reads an answer (`WebhookAuthorizer.Authorize`). What is allowed and denied at once is denied.
pub(super) fn judge(status: SubjectAccessReviewStatus) -> Decision {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let reason = given(status.reason);
    if status.allowed && status.denied != Some(true) {
        return Decision::Allow {
            reason: reason.unwrap_or_default(),
        };
    }
    Decision::NoOpinion {
        reason: reason.or(given(status.evaluation_error)).unwrap_or_default(),
    }
}

/// Whether two questions have the same key, and whether the same is sent.
#[cfg(test)]
pub(super) fn same_question(one: (&UserInfo, &Attributes<'_>), other: (&UserInfo, &Attributes<'_>)) -> (bool, bool) {
    let cache: ReviewCache<Verdict> = ReviewCache::new(
        Retention {
            lifetime: Duration::ZERO,
            capacity: 0,
        },
        Retention {
            lifetime: Duration::ZERO,
            capacity: 0,
        },
    );
    let key = |(user, attributes): (&UserInfo, &Attributes<'_>)| cache.key(|hasher| describe(hasher, user, attributes));
    (key(one) == key(other), spec(one.0, one.1) == spec(other.0, other.1))
}
