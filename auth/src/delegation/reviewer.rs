//! Asking once.

use std::fmt::Debug;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{SubjectAccessReviewSpec, SubjectAccessReviewStatus};

use super::ReviewError;

/// Judges tokens and permissions. One call is one attempt: no retries, nothing remembered. Cancel safe.
#[async_trait]
pub trait Reviewer: Debug + Send + Sync {
    /// Whose token it is.
    ///
    /// # Errors
    /// Where nobody answers; a token that is refused is an answer.
    async fn token_review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ReviewError>;

    /// Whether somebody may do something.
    ///
    /// # Errors
    /// Where nobody answers; a permission that is refused is an answer.
    async fn subject_access_review(
        &self,
        spec: &SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ReviewError>;
}
