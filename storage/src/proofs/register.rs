//! One key as a sequential object.
//!
//! Every value that is put is put once, so that a value stands for the revision at which it was put: a put that asks for a
//! revision asks for a value here. That keeps revisions out of this check; `history` checks them on their own.

use super::linearizability::Specification;

/// What stands for a value.
pub(super) type Value = u64;

/// One key.
#[derive(Debug)]
pub(super) struct Register;

/// What a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Nothing.
    Anything,
    /// The key to be absent.
    Absent,
    /// The key to have this value.
    Value(Value),
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It took place.
    Done,
    /// It did not, because the key had this value or none.
    Refused(Option<Value>),
    /// Nobody knows.
    Unknown,
}

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It was read, and had this value or none.
    Read(Option<Value>),
    /// It was written to.
    Write {
        /// What the write asked for.
        expect: Expect,
        /// The value that was put, or none if the key was deleted.
        becomes: Option<Value>,
        /// How it ended.
        ending: Ending,
    },
}

impl Specification for Register {
    type State = Option<Value>;
    type Operation = Access;

    fn initial() -> Self::State {
        None
    }

    fn step(state: &Self::State, operation: &Self::Operation) -> Option<Self::State> {
        match operation {
            Access::Read(value) => (value == state).then_some(*state),
            Access::Write {
                expect,
                becomes,
                ending,
            } => {
                let takes_place = takes_place(*expect, *becomes, *state);
                match ending {
                    Ending::Done => takes_place.then_some(*becomes),
                    Ending::Refused(current) => (!takes_place && current == state).then_some(*state),
                    Ending::Unknown => Some(if takes_place { *becomes } else { *state }),
                }
            }
        }
    }
}

/// Whether such a write takes place where the key has this value or none.
pub(super) fn takes_place(expect: Expect, becomes: Option<Value>, current: Option<Value>) -> bool {
    let holds = match expect {
        Expect::Anything => true,
        Expect::Absent => current.is_none(),
        Expect::Value(value) => current == Some(value),
    };
    // There is nothing to delete of a key that is not there.
    holds && (becomes.is_some() || current.is_some())
}
