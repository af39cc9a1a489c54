//! Whether a concurrent history can be put into an order.
//!
//! A history is linearizable if its operations can be put into one sequence in which each has the outcome that it had, and
//! in which every operation that returned before another was called comes before it (Herlihy and Wing, Linearizability,
//! TOPLAS 1990). The search is the one of Wing and Gong (Testing and verifying concurrent objects, 1993) with the memory of
//! Lowe (Testing for linearizability, 2017): what has been linearized together with the state that it led to is tried once.
//! Its form, a linked list of calls and returns from which linearized operations are lifted, is that of Horn and Kroening
//! (Faster linearizability checking via P-compositionality, 2015), which Porcupine uses too. Because a history of
//! independent objects is linearizable if that of each object is, the caller checks one key at a time.
//!
//! Operations that overlap may still be known to have been done one after the other, as those of one batch on one key are:
//! [`Interval::after`].
//!
//! An operation whose outcome is unknown has no return: it may come anywhere after its call, or not at all.
//!
//! The crates that exist do not do: `todc-utils` has no operations without a return, and the tester of `stateright` keeps no
//! memory of what it has tried, which makes it exponential where this one is not.

use std::collections::HashSet;
use std::hash::Hash;

/// A sequential object.
pub(super) trait Specification {
    /// What the object can be in.
    type State: Clone + Eq + Hash;
    /// What was asked of it, with the outcome.
    type Operation;

    /// The state before the first operation.
    fn initial() -> Self::State;

    /// The state after `operation`, if it can have had its outcome in `state`.
    fn step(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation and when it took place, by a clock on which no two events have the same time.
#[derive(Debug, Clone)]
pub(super) struct Interval<O> {
    /// When it was called.
    pub(super) called: u64,
    /// When it returned; `None` if nobody knows whether it took place.
    pub(super) returned: Option<u64>,
    /// An operation of the history that is known to have been done before it, for a reason of its own.
    pub(super) after: Option<usize>,
    /// What it was.
    pub(super) operation: O,
}

/// What the search has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. At most so many operations could be put into one.
    Impossible(usize),
    /// The search was given up.
    Undecided,
}

/// Searches for an order of `history`, in at most `budget` steps.
pub(super) fn check<S: Specification>(history: &[Interval<S::Operation>], budget: usize) -> Verdict {
    let mut remaining = Remaining::new(history);
    let mut linearized = Set::new(history.len());
    let mut tried = HashSet::new();
    let mut state = S::initial();
    let mut order: Vec<(usize, S::State)> = Vec::new();
    let mut longest = 0;
    let mut position = remaining.first();
    while let Some(event) = position {
        match remaining.events[event] {
            Event::Call(operation) => {
                position = remaining.after(event);
                if history[operation]
                    .after
                    .is_some_and(|before| !linearized.contains(before))
                {
                    continue;
                }
                let Some(next) = S::step(&state, &history[operation].operation) else {
                    continue;
                };
                linearized.insert(operation);
                if !tried.insert((linearized.clone(), next.clone())) {
                    linearized.remove(operation);
                    continue;
                }
                if tried.len() > budget {
                    return Verdict::Undecided;
                }
                order.push((operation, std::mem::replace(&mut state, next)));
                longest = longest.max(order.len());
                remaining.lift(operation);
                position = remaining.first();
            }
            // Its operation had to come before: what was chosen last was wrong.
            Event::Return => {
                let Some((operation, before)) = order.pop() else {
                    return Verdict::Impossible(longest);
                };
                state = before;
                linearized.remove(operation);
                remaining.put_back(operation);
                position = remaining.after(remaining.calls[operation]);
            }
        }
    }
    // No return is left over: what is left need not have taken place.
    Verdict::Linearizable
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Call(usize),
    Return,
}

/// The calls and returns that are not yet linearized, as a list in order of time.
struct Remaining {
    events: Vec<Event>,
    /// Of each event and, at the end, of the list itself: which one follows and which one is before.
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where the call and the return of each operation are.
    calls: Vec<usize>,
    returns: Vec<Option<usize>>,
}

impl Remaining {
    fn new<O>(history: &[Interval<O>]) -> Self {
        let mut times = Vec::new();
        for (operation, interval) in history.iter().enumerate() {
            times.push((interval.called, operation, true));
            times.extend(interval.returned.map(|returned| (returned, operation, false)));
        }
        times.sort_unstable();
        let count = times.len();
        let (mut calls, mut returns) = (vec![0; history.len()], vec![None; history.len()]);
        let mut events = Vec::with_capacity(count);
        for (event, (_, operation, is_call)) in times.into_iter().enumerate() {
            if is_call {
                calls[operation] = event;
                events.push(Event::Call(operation));
            } else {
                returns[operation] = Some(event);
                events.push(Event::Return);
            }
        }
        Self {
            events,
            next: (1..=count).chain([0]).collect(),
            before: [count].into_iter().chain(0..count).collect(),
            calls,
            returns,
        }
    }

    /// The place in `next` and `before` that stands for the list itself.
    fn end(&self) -> usize {
        self.events.len()
    }

    fn first(&self) -> Option<usize> {
        self.after(self.end())
    }

    fn after(&self, event: usize) -> Option<usize> {
        let next = self.next[event];
        (next != self.end()).then_some(next)
    }

    fn lift(&mut self, operation: usize) {
        for event in [Some(self.calls[operation]), self.returns[operation]]
            .into_iter()
            .flatten()
        {
            let (before, next) = (self.before[event], self.next[event]);
            self.next[before] = next;
            self.before[next] = before;
        }
    }

    /// Undoes the last `lift` that is not undone.
    fn put_back(&mut self, operation: usize) {
        for event in [self.returns[operation], Some(self.calls[operation])]
            .into_iter()
            .flatten()
        {
            let (before, next) = (self.before[event], self.next[event]);
            self.next[before] = event;
            self.before[next] = event;
        }
    }
}

/// A set of operations, small enough to be remembered for each step of the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }
}

#[cfg(test)]
mod tests;
