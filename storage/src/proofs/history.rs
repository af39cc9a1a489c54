//! Concurrent histories of a store: what clients did and when, what the log of the store says happened, and whether the two
//! agree.
//!
//! Two checks that know nothing of each other:
//!
//! * Each key on its own is given to the checker of linearizability, which ignores revisions.
//! * The log is taken as the order of everything ([`verify`]). Revisions have to agree with real time: no write has a
//!   revision, and no read shows one, that is older than what had been answered before it was called. Every acknowledged
//!   write is in the log at its revision, every refused one is not, every change in the log was asked for, and every read,
//!   of one key or of many, shows exactly the state at the revision that it names. That covers what the first check
//!   cannot: several keys at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::linearizability::{Interval, Verdict, check};
use super::register::{Access, Ending, Expect, Register, Value, takes_place};
use crate::{Entry, Revision, WatchEvent};

/// Steps that the search for an order of one key may take.
const BUDGET: usize = 2_000_000;

/// Something that a client did.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// When it was called, by the clock of the history.
    pub(super) called: u64,
    /// When the answer came; `None` where it says that the outcome is unknown.
    pub(super) returned: Option<u64>,
    /// What was done.
    pub(super) call: Call,
}

/// What a client did.
#[derive(Debug, Clone)]
pub(super) enum Call {
    /// Read one key.
    Get {
        key: Arc<str>,
        found: Option<Seen>,
        at: Revision,
    },
    /// Read all keys.
    Range {
        found: BTreeMap<Arc<str>, Seen>,
        at: Revision,
    },
    /// Wrote.
    Write {
        key: Arc<str>,
        expect: Expect,
        becomes: Option<Value>,
        outcome: Outcome,
    },
}

/// A value and the revision at which it was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) value: Value,
    pub(super) revision: Revision,
}

/// What a client knows of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It took place at this revision.
    Done(Revision),
    /// It did not take place, because the key was so.
    Refused(Option<Seen>),
    /// It did not take place, for a reason of the store's.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// A change that took place, as a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Arc<str>,
    pub(super) becomes: Option<Value>,
    pub(super) revision: Revision,
}

/// What an entry of these histories comes down to.
pub(super) fn seen(entry: &Entry) -> Seen {
    let value = std::str::from_utf8(&entry.value)
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    Seen {
        value: value.expect("only numbers were put"),
        revision: entry.revision,
    }
}

impl Change {
    /// What an event comes down to; `None` for progress.
    pub(super) fn of(event: &WatchEvent) -> Option<Self> {
        let (key, becomes) = match event {
            WatchEvent::Put { entry, .. } => (&entry.key, Some(seen(entry).value)),
            WatchEvent::Delete { key, .. } => (key, None),
            WatchEvent::Progress { .. } => return None,
        };
        Some(Self {
            key: key.clone(),
            becomes,
            revision: event.revision(),
        })
    }
}

/// Whether the history is linearizable and agrees with the log, which holds all changes after `start`, a revision at which
/// none of its keys existed.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn verify(records: &[Record], log: &[Change], start: Revision) -> Result<(), String> {
    let log = Log::new(log, start)?;
    log.account_for(records)?;
    log.follow(records)?;
    let keys: BTreeSet<_> = log
        .states
        .keys()
        .cloned()
        .chain(records.iter().filter_map(key_of))
        .collect();
    for key in keys {
        verify_key(&key, records, &log)?;
    }
    Ok(())
}

fn key_of(record: &Record) -> Option<Arc<str>> {
    match &record.call {
        Call::Get { key, .. } | Call::Write { key, .. } => Some(key.clone()),
        Call::Range { .. } => None,
    }
}

/// Gives what was done to one key to the checker of linearizability.
fn verify_key(key: &Arc<str>, records: &[Record], log: &Log) -> Result<(), String> {
    let mut history = Vec::new();
    let deletions = log
        .changes
        .values()
        .filter(|change| change.key == *key && change.becomes.is_none())
        .count();
    let acknowledged = records.iter().filter(|record| {
        matches!(&record.call, Call::Write { key: written, becomes: None, outcome: Outcome::Done(_), .. } if written == key)
    });
    let deleted_by_nobody = deletions > acknowledged.count();
    for record in records {
        let operation = match &record.call {
            Call::Get { key: read, found, .. } if read == key => Access::Read(found.map(|seen| seen.value)),
            Call::Range { found, .. } => Access::Read(found.get(key).map(|seen| seen.value)),
            Call::Write {
                key: written,
                expect,
                becomes,
                outcome,
            } if written == key => {
                let ending = match outcome {
                    Outcome::Done(_) => Ending::Done,
                    Outcome::Refused(current) => Ending::Refused(current.map(|seen| seen.value)),
                    // What is not in the log has not taken place: there is no need to try it everywhere.
                    Outcome::Unknown if becomes.is_some_and(|value| !log.values.contains_key(&value)) => continue,
                    Outcome::Unknown if becomes.is_none() && !deleted_by_nobody => continue,
                    Outcome::Unknown => Ending::Unknown,
                    Outcome::NotDone => continue,
                };
                Access::Write {
                    expect: *expect,
                    becomes: *becomes,
                    ending,
                }
            }
            _ => continue,
        };
        // What was called at the same time is one batch, done in its order on each key.
        let in_batch = |step: &Interval<Access>| step.called == record.called && step.returned.is_some();
        history.push(Interval {
            called: record.called,
            returned: record.returned,
            after: history.iter().rposition(in_batch),
            operation,
        });
    }
    match check::<Register>(&history, BUDGET) {
        Verdict::Linearizable => Ok(()),
        Verdict::Impossible(longest) => Err(format!(
            "no order of the {} operations on {key}: at most {longest} fit together",
            history.len()
        )),
        Verdict::Undecided => Err(format!(
            "no order of the {} operations on {key} was found in time",
            history.len()
        )),
    }
}

/// The changes, by revision, by key and by value.
struct Log {
    changes: BTreeMap<Revision, Change>,
    states: BTreeMap<Arc<str>, Vec<(Revision, Option<Value>)>>,
    values: BTreeMap<Value, Revision>,
    start: Revision,
}

impl Log {
    fn new(changes: &[Change], start: Revision) -> Result<Self, String> {
        let mut log = Self {
            changes: BTreeMap::new(),
            states: BTreeMap::new(),
            values: BTreeMap::new(),
            start,
        };
        let mut newest = start;
        for change in changes {
            if change.revision <= newest {
                return Err(format!("the log has {} after {newest}", change.revision));
            }
            newest = change.revision;
            if let Some(value) = change.becomes
                && log.values.insert(value, newest).is_some()
            {
                return Err(format!("the value {value} took effect twice"));
            }
            log.states
                .entry(change.key.clone())
                .or_default()
                .push((newest, change.becomes));
            log.changes.insert(newest, change.clone());
        }
        Ok(log)
    }

    /// What the key had right after the revision.
    fn at(&self, key: &str, revision: Revision) -> Option<Seen> {
        let changes = self.states.get(key)?;
        let count = changes.partition_point(|(changed, _)| *changed <= revision);
        let (revision, value) = *changes[..count].last()?;
        value.map(|value| Seen { value, revision })
    }

    /// Every change was asked for, and every write that is known to have taken place or not to have is there or not.
    fn account_for(&self, records: &[Record]) -> Result<(), String> {
        let mut claimed = BTreeSet::new();
        let mut unknown_deletions: BTreeMap<&str, usize> = BTreeMap::new();
        let mut unknown_values = BTreeSet::new();
        for record in records {
            let Call::Write {
                key, becomes, outcome, ..
            } = &record.call
            else {
                continue;
            };
            match outcome {
                Outcome::Done(revision) => {
                    let found = self.changes.get(revision);
                    if found.is_none_or(|change| change.key != *key || change.becomes != *becomes) {
                        return Err(format!("the acknowledged {record:?} is {found:?} in the log"));
                    }
                    if !claimed.insert(*revision) {
                        return Err(format!("two writes were given the revision {revision}"));
                    }
                }
                Outcome::Unknown => match becomes {
                    Some(value) => drop(unknown_values.insert((key, *value))),
                    None => *unknown_deletions.entry(key).or_default() += 1,
                },
                Outcome::Refused(_) | Outcome::NotDone => {
                    if let Some(revision) = becomes.and_then(|value| self.values.get(&value)) {
                        return Err(format!("{record:?} took place at {revision}"));
                    }
                }
            }
        }
        for (revision, change) in &self.changes {
            let asked_for = claimed.contains(revision)
                || match change.becomes {
                    Some(value) => unknown_values.contains(&(&change.key, value)),
                    None => unknown_deletions.get_mut(&*change.key).is_some_and(|left| {
                        let any = *left > 0;
                        *left = left.saturating_sub(1);
                        any
                    }),
                };
            if !asked_for {
                return Err(format!("nobody asked for {change:?}"));
            }
        }
        Ok(())
    }

    /// Goes through the history in real time: nothing is older than what had been answered before.
    fn follow(&self, records: &[Record]) -> Result<(), String> {
        let mut times = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            times.entry(record.called).or_insert_with(Vec::new).push((index, true));
            if let Some(returned) = record.returned {
                times.entry(returned).or_insert_with(Vec::new).push((index, false));
            }
        }
        let mut floor = self.start;
        let mut called_at = vec![self.start; records.len()];
        for (index, is_call) in times.into_values().flatten() {
            if is_call {
                called_at[index] = floor;
                if let Call::Write {
                    outcome: Outcome::Unknown,
                    becomes: Some(value),
                    ..
                } = &records[index].call
                    && self.values.get(value).is_some_and(|revision| *revision <= floor)
                {
                    return Err(format!("{:?} took place before it was called", records[index]));
                }
            } else {
                floor = floor.max(self.place(&records[index].call, called_at[index])?);
            }
        }
        Ok(())
    }

    /// The oldest revision at which the call can have had its outcome, if what was answered before it was at `floor`.
    fn place(&self, call: &Call, floor: Revision) -> Result<Revision, String> {
        let stale = |at: Revision| format!("{call:?} is of {at}, and {floor} had been answered before it was called");
        match call {
            Call::Get { key, found, at } => {
                if *at < floor {
                    return Err(stale(*at));
                }
                let expected = self.at(key, *at);
                (*found == expected)
                    .then_some(*at)
                    .ok_or_else(|| format!("{call:?}, but it was {expected:?}"))
            }
            Call::Range { found, at } => {
                if *at < floor {
                    return Err(stale(*at));
                }
                let keys = self.states.keys();
                let expected: BTreeMap<_, _> = keys.filter_map(|key| Some((key.clone(), self.at(key, *at)?))).collect();
                (*found == expected)
                    .then_some(*at)
                    .ok_or_else(|| format!("{call:?}, but it was {expected:?}"))
            }
            Call::Write {
                outcome: Outcome::Done(revision),
                ..
            } => (*revision > floor).then_some(*revision).ok_or_else(|| stale(*revision)),
            Call::Write {
                key,
                expect,
                becomes,
                outcome: Outcome::Refused(current),
            } => {
                let value = current.map(|seen| seen.value);
                let later = self
                    .changes
                    .range(floor.next()..)
                    .filter(|(_, change)| change.key == *key);
                [floor]
                    .into_iter()
                    .chain(later.map(|(revision, _)| *revision))
                    .find(|revision| self.at(key, *revision) == *current && !takes_place(*expect, *becomes, value))
                    .ok_or_else(|| format!("{call:?}, but since {floor} it never was so"))
            }
            Call::Write { .. } => Ok(floor),
        }
    }
}
