//! Leaving the judgement to the hub: TokenReview for bearer tokens, SubjectAccessReview for permissions.
//!
//! What an aggregated API server does (`k8s.io/apiserver/pkg/{authentication/authenticatorfactory,
//! authorization/authorizerfactory}/delegating.go`), with the same defaults: answers are remembered for 10 s, a review may
//! take 10 s, five attempts. So a token that is revoked, or a permission that is withdrawn, is refused 10 s later at the
//! latest, not counting what the hub itself remembers.
//!
//! | part | what it does |
//! |---|---|
//! | [`Reviewer`] | asks once; [`HubReviewer`] asks a kube-apiserver |
//! | [`TokenReviews`], [`AccessReviews`] | ask again where that helps, within a deadline, and remember what was answered |
//! | [`DelegatedAuthenticator`] | front proxies, client certificates, then tokens |
//! | [`DelegatedAuthorizer`] | groups and paths that are always allowed, then reviews |
//!
//! Nothing here starts a task. Requests that ask the same at once share one review, which lives as long as any of them
//! waits; each drives it, so that no request depends on another's being polled.
//!
//! Where the hub cannot be asked, nobody gets in: the answer is an error (500), which is neither remembered nor mistaken
//! for a refusal (401, 403).
//!
//! Deviations from kube-apiserver:
//! - A review's deadline covers all of its attempts; there it covers each attempt of an access review.
//! - Also refused connections and 502 and 503 are tried again: a hub's API server that restarts is back within seconds.
//! - Tokens that the hub refuses are remembered too, for a moment ([`TokenReviewOptions::refused_lifetime`]); there only
//!   refusals without a text are, which no kube-apiserver sends.
//! - A hub that is asked about audiences and names none is not believed. There the server's own audiences count.
//! - Failing to authenticate for want of a hub is 500; there it is 401.
//! - What is remembered is bounded by the number of answers, and allowed and refused do not displace each other.

mod access;
mod always_allow;
mod authenticator;
mod authorizer;
mod cache;
mod error;
mod hub;
mod retry;
mod reviewer;
mod tokens;
mod virtual_group;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use access::{AccessReviewOptions, AccessReviews};
pub use always_allow::{AlwaysAllow, PathPatternError};
pub use authenticator::DelegatedAuthenticator;
pub use authorizer::DelegatedAuthorizer;
pub use cache::CacheStatistics;
pub use error::ReviewError;
pub use hub::HubReviewer;
pub use retry::{Backoff, Patience};
pub use reviewer::Reviewer;
pub use tokens::{TokenReviewOptions, TokenReviews};
pub use virtual_group::VirtualGroup;
