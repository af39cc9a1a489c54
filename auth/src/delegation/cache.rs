//! Remembering answers for a while, and asking once for all who ask the same at once.
//!
//! The rules of `k8s.io/apiserver/pkg/authentication/token/cache`: keys are keyed hashes, so that neither tokens nor long
//! attributes are kept, and nobody can provoke collisions; a question is asked once for all who wait for its answer, and
//! nobody's going away takes the answer from the others. Unlike there, no task is started for that: the question is a
//! future that everyone who waits drives together.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The keyed hash of a question.
type Key = [u8; 32];

/// How long and how many answers are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) lifetime: Duration,
    pub(super) capacity: usize,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Kept among the favourable ones.
    Favourable,
    /// Kept among the others. Apart, so that guesses displace nothing that is worth something.
    Unfavourable,
    /// Not kept: it is no answer.
    Not,
}

/// How questions were answered, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatistics {
    /// From what was remembered.
    pub remembered: u64,
    /// By joining somebody who was asking already.
    pub shared: u64,
    /// By asking.
    pub asked: u64,
    /// How many of those who asked got no answer.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    remembered: AtomicU64,
    shared: AtomicU64,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// Makes keys of questions.
pub(super) struct Hasher(hmac::Context);

impl Hasher {
    /// Adds a text, with its length before it, so that `ab` `c` differs from `a` `bc`.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.count(text.len());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a number: how many texts follow, for instance.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.0.update(&(count as u64).to_be_bytes());
        self
    }

    /// Adds texts, with their number before them.
    pub(super) fn texts(&mut self, texts: &[String]) -> &mut Self {
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
        self
    }
}

/// Remembers answers of type `V`.
pub(super) struct ReviewCache<V: Clone> {
    inner: Arc<Inner<V>>,
}

struct Inner<V: Clone> {
    secret: hmac::Key,
    state: Mutex<State<V>>,
    counters: Counters,
}

struct State<V: Clone> {
    favourable: Expiring<V>,
    unfavourable: Expiring<V>,
    /// Questions under way. Whoever waits holds them; when nobody does, they are gone.
    flights: HashMap<Key, (u64, WeakShared<BoxFuture<'static, V>>)>,
    next_flight: u64,
}

impl<V: Clone> fmt::Debug for ReviewCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReviewCache")
            .field("counters", &self.inner.counters)
            .finish_non_exhaustive()
    }
}

impl<V: Clone + Send + Sync + 'static> ReviewCache<V> {
    pub(super) fn new(favourable: Retention, unfavourable: Retention) -> Self {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the operating system has random numbers");
        Self {
            inner: Arc::new(Inner {
                secret,
                state: Mutex::new(State {
                    favourable: Expiring::new(favourable),
                    unfavourable: Expiring::new(unfavourable),
                    flights: HashMap::new(),
                    next_flight: 0,
                }),
                counters: Counters::default(),
            }),
        }
    }

    /// The answer to the question that `describe` adds to the key: remembered, or what `ask` gives. Cancel safe.
    pub(super) async fn get<F>(&self, describe: impl FnOnce(&mut Hasher), ask: impl FnOnce() -> F) -> V
    where
        F: Future<Output = (V, Keep)> + Send + 'static,
    {
        match self.remembered_or_under_way(self.key(describe), ask) {
            Ok(value) => value,
            Err(flight) => flight.await,
        }
    }

    pub(super) fn key(&self, describe: impl FnOnce(&mut Hasher)) -> Key {
        let mut hasher = Hasher(hmac::Context::with_key(&self.inner.secret));
        describe(&mut hasher);
        let tag = hasher.0.sign();
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    fn remembered_or_under_way<F>(&self, key: Key, ask: impl FnOnce() -> F) -> Result<V, Shared<BoxFuture<'static, V>>>
    where
        F: Future<Output = (V, Keep)> + Send + 'static,
    {
        let counters = &self.inner.counters;
        let mut state = self.inner.state.lock();
        let now = Instant::now();
        if let Some(value) = state
            .favourable
            .get(&key, now)
            .or_else(|| state.unfavourable.get(&key, now))
        {
            counters.remembered.fetch_add(1, Ordering::Relaxed);
            return Ok(value.clone());
        }
        let under_way = state.flights.get(&key).and_then(|(_, flight)| flight.upgrade());
        if let Some(flight) = under_way {
            counters.shared.fetch_add(1, Ordering::Relaxed);
            return Err(flight);
        }
        counters.asked.fetch_add(1, Ordering::Relaxed);
        let number = state.next_flight;
        state.next_flight += 1;
        let landing = Landing {
            inner: Arc::clone(&self.inner),
            key,
            number,
        };
        let asked = ask();
        let flight = async move {
            let (value, keep) = asked.await;
            landing.inner.remember(key, &value, keep);
            drop(landing);
            value
        };
        let flight = flight.boxed().shared();
        let weak = flight.downgrade().expect("the flight has not ended");
        state.flights.insert(key, (number, weak));
        Err(flight)
    }

    pub(super) fn statistics(&self) -> CacheStatistics {
        let counters = &self.inner.counters;
        CacheStatistics {
            remembered: counters.remembered.load(Ordering::Relaxed),
            shared: counters.shared.load(Ordering::Relaxed),
            asked: counters.asked.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
        }
    }

    /// Answers that are kept, and questions under way.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let state = self.inner.state.lock();
        (
            state.favourable.answers.len(),
            state.unfavourable.answers.len(),
            state.flights.len(),
        )
    }
}

impl<V: Clone> Inner<V> {
    fn remember(&self, key: Key, value: &V, keep: Keep) {
        let mut state = self.state.lock();
        let now = Instant::now();
        match keep {
            Keep::Favourable => state.favourable.insert(key, value.clone(), now),
            Keep::Unfavourable => state.unfavourable.insert(key, value.clone(), now),
            Keep::Not => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Forgets a question when it has been answered, or when nobody waits for the answer any longer.
struct Landing<V: Clone> {
    inner: Arc<Inner<V>>,
    key: Key,
    number: u64,
}

impl<V: Clone> Drop for Landing<V> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        // Somebody may be asking anew already.
        if state
            .flights
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number)
        {
            state.flights.remove(&self.key);
        }
    }
}

/// Answers that all live equally long, so that their order is that of their ends.
struct Expiring<V> {
    retention: Retention,
    answers: HashMap<Key, Kept<V>>,
    /// End, number and question of each answer that was put in. One that was put in again has a newer number.
    order: VecDeque<(Instant, u64, Key)>,
    next_number: u64,
}

struct Kept<V> {
    end: Instant,
    number: u64,
    value: V,
}

impl<V> Expiring<V> {
    fn new(retention: Retention) -> Self {
        Self {
            retention,
            answers: HashMap::new(),
            order: VecDeque::new(),
            next_number: 0,
        }
    }

    fn get(&self, key: &Key, now: Instant) -> Option<&V> {
        let kept = self.answers.get(key)?;
        (kept.end > now).then_some(&kept.value)
    }

    /// Keeps an answer, in place of those that have expired and, where there is no room, of the oldest.
    fn insert(&mut self, key: Key, value: V, now: Instant) {
        if self.retention.lifetime.is_zero() || self.retention.capacity == 0 {
            return;
        }
        while let Some((end, number, oldest)) = self.order.front().copied() {
            if end > now && self.order.len() < self.retention.capacity {
                break;
            }
            self.order.pop_front();
            if self.answers.get(&oldest).is_some_and(|kept| kept.number == number) {
                self.answers.remove(&oldest);
            }
        }
        let (end, number) = (now + self.retention.lifetime, self.next_number);
        self.next_number += 1;
        self.answers.insert(key, Kept { end, number, value });
        self.order.push_back((end, number, key));
    }
}

#[cfg(test)]
mod tests;
