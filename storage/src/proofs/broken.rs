//! The contract suite against stores that each break one rule: every one of its functions can fail, and fails for a reason
//! that it is there for.
//!
//! The clock stands still and jumps when nothing else is to be done, so that what would hang is found at once.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;

use super::fault::{Fault, NOTICED_BY};
use super::reference::Reference;
use crate::contract::model::random::random;
use crate::contract::{Function, suite};

/// Whether the function is content with a store that has the fault.
async fn passes(function: Function, fault: Option<Fault>) -> bool {
    let store = Arc::new(Reference::new(fault));
    AssertUnwindSafe((function.run)(store)).catch_unwind().await.is_ok()
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

/// Whether random steps find nothing wrong with a store that has the fault.
async fn model_is_content(fault: Option<Fault>) -> bool {
    let store = Arc::new(Reference::new(fault));
    let steps = random(store, 7, 1_500, async |store| store);
    AssertUnwindSafe(steps).catch_unwind().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_model_notices_broken_stores() {
    assert!(model_is_content(None).await, "the reference is like the model");
    for fault in [
        Fault::RevisionsAreSkipped,
        Fault::FailedWritesCount,
        Fault::CreateRevisionMoves,
        Fault::LivesShareCreateRevision,
        Fault::DeleteIgnoresPrecondition,
        Fault::BatchesAreReversed,
        Fault::BatchesShareARevision,
        Fault::KeysAreTrimmed,
        Fault::PastIsPresent,
        Fault::PresentIsFuture,
        Fault::StaleReads,
        Fault::MoreIsGuessed,
        Fault::StartAfterForgetsPrefix,
        Fault::CompactedIsServed,
        Fault::CompactionForgetsTheOld,
        Fault::CompactionEndsWatches,
        Fault::WatchesStartLive,
        Fault::WatchesEndWithThePast,
        Fault::WatchesSkipTheFirst,
        Fault::EventsAreMerged,
        Fault::EventsAreDoubled,
        Fault::FailuresAreEvents,
        Fault::ProgressIsAhead,
        Fault::PreviousIsForgotten,
    ] {
        assert!(!model_is_content(Some(fault)).await, "the model must notice {fault:?}");
    }
}
