//! The contract suite against stores that each break one rule: every one of its functions can fail, and fails for a reason
//! that it is there for.
//!
//! The clock stands still and jumps when nothing else is to be done, so that what would hang is found at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fault::{Fault, NOTICED_BY};
use super::reference::Reference;
use crate::contract::{Function, suite};

/// Whether the function is content with a store that has the fault.
async fn passes(function: Function, fault: Option<Fault>) -> bool {
    let store = Arc::new(Reference::new(fault));
    match tokio::spawn((function.run)(store)).await {
        Ok(()) => true,
        Err(error) => {
            assert!(error.is_panic(), "a function ends or panics");
            false
        }
    }
}

fn named(name: &str) -> Function {
    let function = suite().into_iter().find(|function| function.name == name);
    function.unwrap_or_else(|| panic!("there is no function {name}"))
}

#[tokio::test(start_paused = true)]
async fn the_reference_keeps_the_contract() {
    for function in suite() {
        assert!(passes(function, None).await, "{}", function.name);
    }
}

#[tokio::test(start_paused = true)]
async fn every_broken_store_is_noticed() {
    let mut missed = Vec::new();
    for (fault, functions) in NOTICED_BY {
        for name in *functions {
            if passes(named(name), Some(*fault)).await {
                missed.push(format!("{name} does not notice {fault:?}"));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_function_can_fail() {
    let able: BTreeSet<&str> = NOTICED_BY
        .iter()
        .flat_map(|(_, functions)| functions.iter().copied())
        .collect();
    let all: BTreeSet<&str> = suite().iter().map(|function| function.name).collect();
    assert_eq!(all, able);
}
