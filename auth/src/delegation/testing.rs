//! A hub that says what it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{self as authentication, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{SubjectAccessReviewSpec, SubjectAccessReviewStatus};
use parking_lot::Mutex;

use super::{ReviewError, Reviewer};

#[derive(Debug, Default)]
pub(super) struct FakeHub {
    /// User and audiences of each good token.
    pub(super) tokens: Mutex<BTreeMap<String, (String, Vec<String>)>>,
    /// Who may do which verb.
    pub(super) permissions: Mutex<BTreeSet<(String, String)>>,
    /// What it says to the next questions, before it says the truth.
    pub(super) failures: Mutex<VecDeque<ReviewError>>,
    /// How long it thinks.
    pub(super) latency: Duration,
    calls: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl FakeHub {
    pub(super) fn thinking(latency: Duration) -> Self {
        Self {
            latency,
            ..Self::default()
        }
    }

    pub(super) fn issue(&self, token: &str, user: &str, audiences: &[&str]) {
        let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        self.tokens
            .lock()
            .insert(token.to_owned(), (user.to_owned(), audiences));
    }

    pub(super) fn revoke(&self, token: &str) {
        self.tokens.lock().remove(token);
    }

    pub(super) fn allow(&self, user: &str, verb: &str) {
        self.permissions.lock().insert((user.to_owned(), verb.to_owned()));
    }

    pub(super) fn forbid(&self, user: &str, verb: &str) {
        self.permissions.lock().remove(&(user.to_owned(), verb.to_owned()));
    }

    pub(super) fn fail_with(&self, codes: &[u16]) {
        let failures = codes.iter().map(|code| status(*code, None));
        self.failures.lock().extend(failures);
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::Relaxed)
    }

    async fn think(&self) -> Result<(), ReviewError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_under_way.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(self.latency).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.failures.lock().pop_front().map_or(Ok(()), Err)
    }
}

pub(super) fn status(code: u16, retry_after: Option<Duration>) -> ReviewError {
    ReviewError::Status {
        review: "Review",
        code,
        message: "no".to_owned(),
        retry_after,
    }
}

#[async_trait]
impl Reviewer for FakeHub {
    async fn token_review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ReviewError> {
        self.think().await?;
        let Some((user, audiences)) = self.tokens.lock().get(&spec.token).cloned() else {
            return Ok(TokenReviewStatus {
                error: Some("[invalid bearer token]".to_owned()),
                ..TokenReviewStatus::default()
            });
        };
        Ok(TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(audiences),
            user: Some(authentication::UserInfo {
                username: Some(user),
                ..authentication::UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        })
    }

    async fn subject_access_review(
        &self,
        spec: &SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ReviewError> {
        self.think().await?;
        let resource = spec.resource_attributes.clone().and_then(|attributes| attributes.verb);
        let path = spec
            .non_resource_attributes
            .clone()
            .and_then(|attributes| attributes.verb);
        let question = (
            spec.user.clone().unwrap_or_default(),
            resource.or(path).unwrap_or_default(),
        );
        let allowed = self.permissions.lock().contains(&question);
        Ok(SubjectAccessReviewStatus {
            allowed,
            reason: Some(if allowed { "RBAC: a binding" } else { "no binding" }.to_owned()),
            ..SubjectAccessReviewStatus::default()
        })
    }
}
