//! Asking again, within a deadline, and not too much at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::ReviewError;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Duration,
    /// How much longer before each further one.
    pub factor: f64,
    /// Up to this part of the wait is added to it, at random.
    pub jitter: f64,
    /// Attempts in all, at least 1.
    pub attempts: u32,
}

impl Default for Backoff {
    /// `DefaultAuthWebhookRetryBackoff` of `k8s.io/apiserver/pkg/server/options`: five attempts, 4 to 5 s of waiting.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            factor: 1.5,
            jitter: 0.2,
            attempts: 5,
        }
    }
}

impl Backoff {
    /// The waits between the attempts.
    fn waits(self) -> impl Iterator<Item = Duration> + Send {
        (1..self.attempts).scan(self.initial, move |next, _| {
            let wait = *next;
            *next = wait.mul_f64(self.factor);
            Some(wait.mul_f64(1.0 + self.jitter * rand::random::<f64>()))
        })
    }
}

/// What one question may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// All attempts together.
    pub deadline: Duration,
    /// The waits between them.
    pub backoff: Backoff,
    /// Attempts under way at once, of all questions; the others wait, within their deadlines.
    pub concurrency: usize,
}

impl Default for Patience {
    /// 10 s (`TokenRequestTimeout`, `ClientTimeout`). 100 attempts at once, as many as a Go client has on one connection
    /// to a kube-apiserver (`MaxConcurrentStreams` in `secure_serving.go`): at 5 ms each, 20,000 in a second.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            backoff: Backoff::default(),
            concurrency: 100,
        }
    }
}

/// Asks as patiently as it was told to.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    patience: Patience,
    turns: Arc<Semaphore>,
}

impl Patient {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            turns: Arc::new(Semaphore::new(patience.concurrency.max(1))),
        }
    }

    /// Attempts until there is an answer, trying again makes no sense, or the deadline has passed.
    pub(super) async fn ask<T, F>(&self, review: &'static str, attempt: impl Fn() -> F) -> Result<T, ReviewError>
    where
        F: Future<Output = Result<T, ReviewError>>,
    {
        let mut last = None;
        let asked = tokio::time::timeout(self.patience.deadline, self.attempts(attempt, &mut last)).await;
        asked.unwrap_or_else(|_| {
            Err(ReviewError::Deadline {
                review,
                after: self.patience.deadline,
                last: last.map(Box::new),
            })
        })
    }

    async fn attempts<T, F>(&self, attempt: impl Fn() -> F, last: &mut Option<ReviewError>) -> Result<T, ReviewError>
    where
        F: Future<Output = Result<T, ReviewError>>,
    {
        let mut waits = self.patience.backoff.waits();
        loop {
            let turn = self.turns.acquire().await.expect("the semaphore is never closed");
            let answer = attempt().await;
            drop(turn);
            let error = match answer {
                Err(error) if error.is_transient() => error,
                answer => return answer,
            };
            let wait = waits
                .next()
                .map(|wait| wait.max(error.retry_after().unwrap_or_default()));
            let Some(wait) = wait.filter(|wait| *wait < self.patience.deadline) else {
                return Err(error);
            };
            tracing::debug!(%error, ?wait, "a review is tried again");
            *last = Some(error);
            tokio::time::sleep(wait).await;
        }
    }
}
