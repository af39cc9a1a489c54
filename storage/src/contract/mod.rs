//! The contract of [`Store`] as tests: plain functions that take a fresh store, in the manner of
//! `k8s.io/apiserver/pkg/storage/testing`. [`contract_tests!`](crate::contract_tests) makes `#[tokio::test]`s of them all.
//!
//! What those functions of the Go suite ask of a store itself is asked here too; what they ask of decoding, filtering,
//! retrying and bookmarks belongs to the layers above. A list of stores that each break one rule shows that every function
//! can fail (`proofs::broken`).
//!
//! Each function has the store to itself while it runs, and may compact it. None expects it to be empty or at a certain
//! revision, so a shared server will do if the tests run one after the other, each under a prefix of its own.

#![expect(
    clippy::unwrap_used,
    reason = "these functions are tests: what they do not expect is to panic"
)]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;

use crate::{Entry, Error, Precondition, Result, Revision, Store, WatchEvent, WatchStream};

pub mod compaction;
mod etcd_certificates;
pub mod etcd_servers;
pub mod keys;
pub mod model;
pub mod pages;
pub mod progress;
pub mod races;
pub mod reads;
pub mod watchers;
pub mod watches;
pub mod writes;

/// How long an event may take that must come: a deadline for a test that would hang, not a measurement.
const DEADLINE: Duration = Duration::from_secs(30);

/// Hands the names of all functions of the suite to another macro of this crate, after whatever else it is given.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_functions {
    ($receiver:ident, $($given:tt)*) => {
        $crate::$receiver! { @each $($given)*;
            writes::put_raises_the_revision_by_one,
            writes::failed_writes_raise_nothing,
            writes::put_of_an_absent_key_conflicts_with_an_existing_one,
            writes::put_at_a_revision_conflicts_with_any_other,
            writes::the_create_revision_lasts_until_deletion,
            writes::delete_honours_its_precondition,
            writes::revisions_of_an_earlier_life_are_stale,
            writes::a_batch_has_an_outcome_per_operation,
            writes::a_large_batch_keeps_its_order,
            writes::a_guarded_batch_needs_its_guard,
            races::concurrent_puts_at_a_revision_have_one_winner,
            races::concurrent_creations_have_one_winner,
            races::concurrent_increments_are_all_counted,
            races::concurrent_batches_share_no_revision,
            races::a_cancelled_write_is_never_done_in_part,
            keys::a_key_is_not_a_directory,
            keys::keys_and_values_are_opaque,
            keys::large_values_are_kept_whole,
            keys::the_empty_prefix_means_everything,
            reads::a_missing_key_is_read_as_absent,
            reads::a_range_has_the_keys_of_its_prefix_in_order,
            reads::past_states_stay_readable,
            reads::the_present_can_be_read_by_its_revision,
            reads::the_future_cannot_be_read,
            reads::ranges_are_snapshots,
            reads::acknowledged_writes_are_read,
            pages::pages_are_of_one_state,
            pages::start_after_need_not_lie_under_the_prefix,
            pages::a_page_that_is_just_full_is_the_last,
            pages::pages_go_on_while_keys_change,
            pages::a_page_at_a_compacted_revision_is_refused,
            watches::a_watch_begins_in_the_past,
            watches::a_watch_goes_on_live,
            watches::a_watch_sees_its_prefix_only,
            watches::the_future_cannot_be_watched,
            watches::what_has_been_read_can_be_watched,
            watches::a_key_comes_back_with_a_new_create_revision,
            watches::failed_writes_are_not_watched,
            watches::no_change_is_left_out_for_a_later_one,
            watches::a_dropped_watch_leaves_the_others_alone,
            watches::large_events_are_delivered,
            watchers::every_watcher_sees_every_change_once,
            watchers::a_slow_watcher_misses_nothing_unnoticed,
            watchers::nested_prefixes_are_told_apart,
            watchers::reading_then_watching_misses_nothing,
            progress::progress_comes_on_request,
            progress::progress_is_never_ahead_of_events,
            progress::a_new_watch_makes_progress_from_where_it_begins,
            compaction::compacted_states_are_gone,
            compaction::compaction_keeps_the_present,
            compaction::compaction_to_the_past_or_future,
            compaction::a_live_watch_goes_on_through_compaction,
            compaction::a_watch_behind_the_compaction_is_told,
            compaction::what_was_before_survives_compaction,
        }
    };
}

/// Makes a `#[tokio::test]` of every function of the suite. The expression is evaluated for each, and is a future of a pair:
/// the store as `Arc<dyn Store>`, and a guard that is dropped after the test.
#[macro_export]
macro_rules! contract_tests {
    (@each $open:expr; $($module:ident::$name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _guard) = $open.await;
                $crate::contract::$module::$name(store).await;
            }
        )*
    };
    ($open:expr) => {
        $crate::contract_functions! { contract_tests, $open }
    };
}

/// Makes an array of all functions of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_array {
    (@each $(,)?; $($module:ident::$name:ident),* $(,)?) => {
        [$($crate::contract::Function {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |store| Box::pin($crate::contract::$module::$name(store)),
        }),*]
    };
}

/// One function of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its module and name.
    pub name: &'static str,
    /// Runs it on a store. It panics if the store breaks the contract.
    pub run: fn(TestStore) -> BoxFuture<'static, ()>,
}

/// All functions of the suite, for runs that are not made of `#[tokio::test]`s.
#[must_use]
pub fn suite() -> Vec<Function> {
    crate::contract_functions!(contract_array,).to_vec()
}

/// The store under test.
pub type TestStore = Arc<dyn Store>;

async fn put(store: &TestStore, key: &str, value: &str) -> Revision {
    store
        .put(key, value.to_owned().into(), Precondition::None)
        .await
        .unwrap()
}

async fn entry(store: &TestStore, key: &str) -> Option<Entry> {
    store.get(key).await.unwrap().entry
}

/// What an entry comes down to: key, value, create revision, revision.
type Row = (String, String, Revision, Revision);

fn row(entry: &Entry) -> Row {
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    (entry.key.to_string(), value, entry.create_revision, entry.revision)
}

/// The next item of a watch, whatever it is.
async fn next(watch: &mut WatchStream) -> Result<WatchEvent> {
    let item = tokio::time::timeout(DEADLINE, watch.next()).await;
    item.expect("a watch must deliver within the deadline")
        .expect("a watch ends by an error only")
}

/// The next change of a watch.
async fn next_change(watch: &mut WatchStream) -> WatchEvent {
    loop {
        match next(watch).await.unwrap() {
            WatchEvent::Progress { .. } => {}
            change => return change,
        }
    }
}

/// All changes that a watch delivers up to `revision`, as the watch itself says by its progress.
async fn changes_until(watch: &mut WatchStream, revision: Revision) -> Result<Vec<WatchEvent>> {
    let mut changes = Vec::new();
    watch.request_progress();
    loop {
        match next(watch).await? {
            WatchEvent::Progress { revision: reached } if reached >= revision => return Ok(changes),
            WatchEvent::Progress { .. } => watch.request_progress(),
            change => changes.push(change),
        }
    }
}

fn assert_increasing(changes: &[WatchEvent]) {
    for pair in changes.windows(2) {
        assert!(
            pair[0].revision() < pair[1].revision(),
            "{} comes before {}",
            pair[0].revision(),
            pair[1].revision()
        );
    }
}

fn assert_conflict(result: Result<Revision>, current: Option<&Entry>) {
    match result {
        Err(Error::Conflict { current: found, .. }) => assert_eq!(found.as_ref(), current),
        other => panic!("expected a conflict, got {other:?}"),
    }
}
