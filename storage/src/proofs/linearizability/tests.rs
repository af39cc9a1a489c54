//! The checker against histories whose verdict is known, and against one that tries every order.

use proptest::prelude::*;

use super::super::register::{Access, Ending, Expect, Register, Value};
use super::*;

const BUDGET: usize = 1_000_000;

type Step = Interval<Access>;

fn read(called: u64, returned: u64, value: impl Into<Option<Value>>) -> Step {
    let operation = Access::Read(value.into());
    Interval {
        called,
        returned: Some(returned),
        after: None,
        operation,
    }
}

fn write(called: u64, returned: Option<u64>, expect: Expect, becomes: Option<Value>, ending: Ending) -> Step {
    let operation = Access::Write {
        expect,
        becomes,
        ending,
    };
    Interval {
        called,
        returned,
        after: None,
        operation,
    }
}

fn put(called: u64, returned: u64, value: Value) -> Step {
    write(called, Some(returned), Expect::Anything, Some(value), Ending::Done)
}

fn lost(called: u64, value: Value) -> Step {
    write(called, None, Expect::Anything, Some(value), Ending::Unknown)
}

fn is_linearizable(history: &[Step]) -> bool {
    match check::<Register>(history, BUDGET) {
        Verdict::Linearizable => true,
        Verdict::Impossible(_) => false,
        Verdict::Undecided => panic!("the budget does not suffice for {history:?}"),
    }
}

/// Tries every order.
fn brute_force(history: &[Step]) -> bool {
    fn search(history: &[Step], done: &mut Vec<bool>, state: Option<Value>) -> bool {
        let waiting = |done: &[bool], index: usize| !done[index] && history[index].returned.is_some();
        if (0..history.len()).all(|index| !waiting(done, index)) {
            return true;
        }
        for index in 0..history.len() {
            let overtakes = (0..history.len())
                .any(|other| waiting(done, other) && history[other].returned.unwrap() < history[index].called);
            let waits = history[index].after.is_some_and(|before| !done[before]);
            if done[index] || overtakes || waits {
                continue;
            }
            if let Some(next) = Register::step(&state, &history[index].operation) {
                done[index] = true;
                let found = search(history, done, next);
                done[index] = false;
                if found {
                    return true;
                }
            }
        }
        false
    }
    search(history, &mut vec![false; history.len()], None)
}

#[test]
fn known_histories_are_told_apart() {
    let replace = |expected, becomes, ending| {
        move |called, returned| write(called, Some(returned), Expect::Value(expected), Some(becomes), ending)
    };
    let (won, also_won) = (replace(1, 2, Ending::Done), replace(1, 3, Ending::Done));
    let refused = replace(1, 3, Ending::Refused(Some(2)));
    let histories: [(&str, bool, Vec<Step>); 14] = [
        ("nothing happened", true, vec![]),
        ("one after another", true, vec![put(1, 2, 1), read(3, 4, 1)]),
        ("a stale read", false, vec![put(1, 2, 1), put(3, 4, 2), read(5, 6, 1)]),
        ("a read from nowhere", false, vec![put(1, 2, 1), read(3, 4, 9)]),
        ("a read from the future", false, vec![read(1, 2, 1), put(3, 4, 1)]),
        (
            "reads during a put, old then new",
            true,
            vec![put(1, 8, 1), read(2, 3, None), read(4, 5, 1)],
        ),
        (
            "reads during a put, new then old",
            false,
            vec![put(1, 8, 1), read(2, 3, 1), read(4, 5, None)],
        ),
        ("one winner", true, vec![put(1, 2, 1), won(3, 6), refused(4, 5)]),
        ("two winners", false, vec![put(1, 2, 1), won(3, 6), also_won(4, 5)]),
        (
            "refused for a value that came later",
            false,
            vec![put(1, 2, 1), refused(3, 4), won(5, 6)],
        ),
        (
            "a lost put that is never seen",
            true,
            vec![put(1, 2, 1), lost(3, 2), read(5, 6, 1)],
        ),
        (
            "a lost put that is seen late",
            true,
            vec![lost(1, 2), put(2, 3, 1), read(4, 5, 1), read(6, 7, 2)],
        ),
        ("a lost put that is seen early", false, vec![read(1, 2, 2), lost(3, 2)]),
        (
            "a lost put that is seen twice",
            false,
            vec![lost(1, 2), read(2, 3, 2), put(4, 5, 1), read(6, 7, 2)],
        ),
    ];
    for (name, expected, history) in histories {
        assert_eq!(is_linearizable(&history), expected, "{name}");
        assert_eq!(brute_force(&history), expected, "{name}, by trying every order");
    }
}

#[test]
fn what_is_known_to_come_later_does() {
    let mut history = vec![put(1, 10, 1), put(2, 11, 2), read(12, 13, 1)];
    assert!(is_linearizable(&history) && brute_force(&history));
    history[1].after = Some(0);
    assert!(!is_linearizable(&history) && !brute_force(&history));
}

/// Ten clients that put at the same time can do so in 10! orders, but only 10 · 2^10 times is there something new to try.
#[test]
fn what_was_tried_is_remembered() {
    const STEPS: usize = 10 << 10;
    let mut history: Vec<Step> = (0..10).map(|index| put(index + 1, index + 101, index)).collect();
    history.push(read(200, 201, 7));
    assert_eq!(check::<Register>(&history, STEPS), Verdict::Linearizable);
    history.push(read(202, 203, 8));
    assert_eq!(check::<Register>(&history, STEPS), Verdict::Impossible(11));
    assert_eq!(check::<Register>(&history, 100), Verdict::Undecided);
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        3 => Just(Expect::Anything),
        1 => Just(Expect::Absent),
        2 => (0..4_u64).prop_map(Expect::Value),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    let value = || prop::option::of(0..4_u64);
    let ending = prop_oneof![
        4 => Just(Ending::Done),
        2 => value().prop_map(Ending::Refused),
        1 => Just(Ending::Unknown),
    ];
    prop_oneof![
        value().prop_map(Access::Read),
        (expect(), value(), ending).prop_map(|(expect, becomes, ending)| Access::Write {
            expect,
            becomes,
            ending
        }),
    ]
}

/// Random operations at random times, hardly ever linearizable when they are many: so there are few.
fn arbitrary_history() -> impl Strategy<Value = Vec<Step>> {
    let after = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let operation = (0..40_u64, 1..20_u64, access(), after);
    prop::collection::vec(operation, 0..7).prop_map(|operations| {
        let mut history: Vec<Step> = Vec::new();
        for (index, (called, duration, operation, after)) in operations.into_iter().enumerate() {
            let unknown = matches!(
                operation,
                Access::Write {
                    ending: Ending::Unknown,
                    ..
                }
            );
            // Times are distinct: each operation has its own remainder.
            let time = |time: u64| time * 16 + index as u64;
            let known: Vec<usize> = (0..index).filter(|other| history[*other].returned.is_some()).collect();
            history.push(Interval {
                called: time(called),
                returned: (!unknown).then(|| time(called + duration)),
                after: after.filter(|_| !known.is_empty()).map(|choice| *choice.get(&known)),
                operation,
            });
        }
        history
    })
}

/// A history that took place: operations are done one after another at the middle of their intervals.
fn true_history() -> impl Strategy<Value = Vec<Step>> {
    let operation = (0..60_u64, 1..60_u64, 0..4_u8, expect(), prop::bool::weighted(0.1));
    prop::collection::vec(operation, 1..40).prop_map(|operations| {
        let (mut state, mut history): (Option<Value>, Vec<Step>) = (None, Vec::new());
        let mut values = Vec::new();
        for (index, (before, after, kind, expect, forgotten)) in operations.into_iter().enumerate() {
            let index = index as u64;
            let middle = (index + 100) * 10;
            let expect = match expect {
                Expect::Value(choice) if choice < 2 => state.map_or(Expect::Absent, Expect::Value),
                Expect::Value(choice) => values
                    .get(choice as usize)
                    .copied()
                    .map_or(Expect::Absent, Expect::Value),
                other => other,
            };
            let becomes = (kind == 1 || kind == 2).then_some(index);
            let operation = if kind == 0 {
                Access::Read(state)
            } else if super::super::register::takes_place(expect, becomes, state) {
                values.extend(becomes);
                state = becomes;
                Access::Write {
                    expect,
                    becomes,
                    ending: Ending::Done,
                }
            } else {
                Access::Write {
                    expect,
                    becomes,
                    ending: Ending::Refused(state),
                }
            };
            let (operation, returned) = match operation {
                Access::Write { expect, becomes, .. } if forgotten => (
                    Access::Write {
                        expect,
                        becomes,
                        ending: Ending::Unknown,
                    },
                    None,
                ),
                other => (other, Some((middle + after) * 100 + index)),
            };
            history.push(Interval {
                called: (middle - before) * 100 + index,
                returned,
                // Each is done after those before it in the list; some say so.
                after: history
                    .iter()
                    .rposition(|step| step.returned.is_some())
                    .filter(|_| before % 3 == 0),
                operation,
            });
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_verdict_is_that_of_trying_every_order(history in arbitrary_history()) {
        prop_assert_eq!(is_linearizable(&history), brute_force(&history));
    }

    #[test]
    fn what_took_place_is_linearizable(history in true_history()) {
        prop_assert!(is_linearizable(&history));
    }

    /// A read that is made to have seen a value that nobody put, or one that had been replaced before the read began.
    #[test]
    fn what_cannot_have_taken_place_is_not(mut history in true_history(), stale in any::<bool>()) {
        let end = history.iter().filter_map(|step| step.returned).max().unwrap_or(0);
        if stale {
            history.extend([put(end + 1, end + 2, 1_000), put(end + 3, end + 4, 1_001), read(end + 5, end + 6, 1_000)]);
        } else {
            history.push(read(end + 1, end + 2, 1_000));
        }
        prop_assert!(!is_linearizable(&history));
    }
}
