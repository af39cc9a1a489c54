//! Asking a kube-apiserver.

use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{SubjectAccessReviewSpec, SubjectAccessReviewStatus};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ReviewError, Reviewer};

const JSON: &str = "application/json";
/// The longest answer that is read. It repeats the question, and names groups: of 1 MiB of headers, at most.
const ANSWER_LIMIT: usize = 4 << 20;
/// How much of an error without a `Status` is repeated.
const MESSAGE_LIMIT: usize = 200;

/// Asks the hub's API server.
///
/// The client's own retries are best turned off (`kube::Config::default_retry`): whoever uses a [`Reviewer`] tries again
/// by itself, within a deadline. Answers are read here and not by the client, which writes those it cannot read to the
/// log, and an answer to a token review holds the token.
#[derive(Clone)]
pub struct HubReviewer {
    client: kube::Client,
}

impl std::fmt::Debug for HubReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubReviewer").finish_non_exhaustive()
    }
}

/// What is sent; the rest of the object may be absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a, S> {
    api_version: &'static str,
    kind: &'static str,
    spec: &'a S,
}

/// What of the object that comes back counts.
#[derive(Deserialize)]
struct Answer<T> {
    status: T,
}

/// What of a `Status` counts.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Failure {
    message: String,
    details: Option<FailureDetails>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct FailureDetails {
    retry_after_seconds: u64,
}

impl HubReviewer {
    /// Asks whom `client` talks to, with its credentials, which need `system:auth-delegator`.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    async fn ask<S: Serialize + Sync, T: DeserializeOwned>(
        &self,
        question: Question<'_, S>,
        path: &'static str,
    ) -> Result<T, ReviewError> {
        let review = question.kind;
        let unreadable = |source| ReviewError::Unreadable { review, source };
        let body = serde_json::to_vec(&question).expect("strings and lists of strings are JSON");
        let request = Request::post(path)
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .body(Body::from(body))
            .expect("the path is a URI");
        let unreachable = |source| ReviewError::Unreachable { review, source };
        let sent = self.client.send(request).await;
        let response = sent.map_err(|error| unreachable(Box::new(error)))?;
        let (parts, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_LIMIT).collect().await;
        let bytes = match collected {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(unreadable(error)),
            Err(error) => return Err(unreachable(error)),
        };
        if !parts.status.is_success() {
            return Err(failure(review, parts.status.as_u16(), &parts.headers, &bytes));
        }
        let answer: Answer<T> = serde_json::from_slice(&bytes).map_err(|error| {
            // Not the error itself: it may quote the answer.
            let text = format!("it is no review; line {}, column {}", error.line(), error.column());
            unreadable(text.into())
        })?;
        Ok(answer.status)
    }
}

fn failure(review: &'static str, code: u16, headers: &HeaderMap, body: &[u8]) -> ReviewError {
    let failure: Failure = serde_json::from_slice(body).unwrap_or_else(|_| Failure {
        // What a balancer says, for instance.
        message: String::from_utf8_lossy(body)
            .trim()
            .chars()
            .take(MESSAGE_LIMIT)
            .collect(),
        details: None,
    });
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    // Kubernetes sends seconds, never a date.
    let seconds = header.and_then(|value| value.parse().ok()).or(failure
        .details
        .map(|details| details.retry_after_seconds)
        .filter(|seconds| *seconds > 0));
    ReviewError::Status {
        review,
        code,
        message: failure.message,
        retry_after: seconds.map(Duration::from_secs),
    }
}

#[async_trait]
impl Reviewer for HubReviewer {
    async fn token_review(&self, spec: &TokenReviewSpec) -> Result<TokenReviewStatus, ReviewError> {
        let question = Question {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec,
        };
        self.ask(question, "/apis/authentication.k8s.io/v1/tokenreviews").await
    }

    async fn subject_access_review(
        &self,
        spec: &SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ReviewError> {
        let question = Question {
            api_version: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            spec,
        };
        self.ask(question, "/apis/authorization.k8s.io/v1/subjectaccessreviews")
            .await
    }
}
