//! Work to do, by key: what is asked for many times while it waits is done once, and no key is worked on twice at a time
//! (`k8s.io/client-go/util/workqueue`).
//!
//! A queue holds each key at most once, so it is bounded by the number of objects there are.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use umbra_registry::copies::retry;

/// What came of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing more to do until something changes.
    Done,
    /// It failed; to be tried again after a while that grows with every failure.
    Retry,
    /// To be looked at again after this time.
    After(Duration),
}

/// A queue of keys.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// What is in `ready`.
    queued: HashSet<K>,
    running: HashSet<K>,
    /// What was asked for while it ran.
    again: HashSet<K>,
    /// What waits for a time; the number keeps equal times apart.
    later: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    number: u64,
    /// Whether nothing is taken.
    closed: bool,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                queued: HashSet::new(),
                running: HashSet::new(),
                again: HashSet::new(),
                later: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                number: 0,
                closed: false,
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Forgets everything, and takes nothing until [`Queue::open`]. For who has just ended all work.
    pub fn close(&self) {
        *self.state.lock() = State {
            closed: true,
            ..Self::default().state.into_inner()
        };
    }

    /// Takes keys again. Whoever opens asks for everything afterwards.
    pub fn open(&self) {
        self.state.lock().closed = false;
    }

    /// Asks for work on `key` now.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Asks for work on `key` after a while; an earlier wish stands.
    pub fn add_after(&self, key: K, pause: Duration) {
        self.state.lock().add_at(key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// The next key to work on. Whoever takes it calls [`Queue::finish`]. Cancel safe.
    pub async fn next(&self) -> K {
        loop {
            let wake = {
                let mut state = self.state.lock();
                let next_due = state.collect_due(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() || !state.later.is_empty() {
                        // Another worker may be waiting for what is left.
                        self.wake.notify_one();
                    }
                    return key;
                }
                next_due
            };
            match wake {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, self.wake.notified()).await;
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Says what came of the work on `key`.
    pub fn finish(&self, key: &K, outcome: Outcome) {
        let mut state = self.state.lock();
        state.running.remove(key);
        if outcome != Outcome::Retry {
            state.failures.remove(key);
        }
        if state.again.remove(key) {
            state.add(key.clone());
        } else {
            match outcome {
                Outcome::Done => {}
                Outcome::After(pause) => state.add_at(key.clone(), Instant::now() + pause),
                Outcome::Retry => {
                    let failures = state.failures.entry(key.clone()).or_default();
                    *failures = failures.saturating_add(1);
                    let pause = retry::pause(*failures);
                    state.add_at(key.clone(), Instant::now() + pause);
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Whether nothing waits, runs or is due at some time.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty() && state.running.is_empty() && state.later.is_empty()
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.closed {
            return;
        }
        if let Some(due) = self.due.remove(&key) {
            self.later.remove(&due);
        }
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, due: Instant) {
        if self.closed || self.queued.contains(&key) || self.again.contains(&key) {
            return;
        }
        if let Some(earlier) = self.due.get(&key) {
            if earlier.0 <= due {
                return;
            }
            self.later.remove(&earlier.clone());
        }
        self.number += 1;
        let due = (due, self.number);
        self.later.insert(due, key.clone());
        self.due.insert(key, due);
    }

    /// Moves what is due to the ready keys; says when the next one is.
    fn collect_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
        None
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_runs_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.next().now_or_never().is_none(), "a runs already");
        queue.finish(&"b", Outcome::Done);
        queue.finish(&"a", Outcome::Done);
        assert_eq!(queue.next().await, "a", "it was asked for again while it ran");
        queue.finish(&"a", Outcome::Done);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_comes_back_and_what_is_asked_for_comes_at_once() {
        let queue = Queue::default();
        queue.add("a");
        let started = Instant::now();
        for _ in 0..5 {
            assert_eq!(queue.next().await, "a");
            queue.finish(&"a", Outcome::Retry);
        }
        assert!(started.elapsed() > Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        queue.finish(&"a", Outcome::After(Duration::from_secs(3600)));
        queue.add("a");
        let asked = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(asked.elapsed(), Duration::ZERO);
        queue.finish(&"a", Outcome::Done);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_forgets_and_takes_nothing() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add_after("b", Duration::from_secs(1));
        queue.close();
        queue.add("c");
        queue.add_after("d", Duration::ZERO);
        assert!(queue.is_idle());
        queue.open();
        queue.add("a");
        assert_eq!(queue.next().await, "a", "what ran has been ended");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_holds() {
        let queue = Queue::default();
        let started = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.next().await, "a");
        assert_eq!(started.elapsed(), Duration::from_secs(1));
        assert!(queue.state.lock().later.is_empty());
    }
}
