//! What can be wrong with a store, each with the functions of the contract suite that have to notice it.

/// Makes the enumeration and the table of it.
macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident => [$($function:literal),* $(,)?]),* $(,)?) => {
        /// A rule that is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fault {
            $($(#[$meta])* $name),*
        }

        /// Every fault, with the functions that have to notice it.
        pub(super) const NOTICED_BY: &[(Fault, &[&str])] = &[$((Fault::$name, &[$($function),*])),*];
    };
}

faults! {
    /// Every write raises the revision by two.
    RevisionsAreSkipped => ["writes::put_raises_the_revision_by_one"],
    /// So do writes that fail.
    FailedWritesCount => ["writes::failed_writes_raise_nothing"],
    /// `Absent` always holds.
    AbsentIgnored => ["writes::put_of_an_absent_key_conflicts_with_an_existing_one"],
    /// `Revision` always holds.
    RevisionIgnored => ["writes::put_at_a_revision_conflicts_with_any_other"],
    /// Every put is a creation.
    CreateRevisionMoves => ["writes::the_create_revision_lasts_until_deletion"],
    /// Deletions have no preconditions.
    DeleteIgnoresPrecondition => ["writes::delete_honours_its_precondition"],
    /// A revision that the key had before it was deleted is as good as its present one.
    LivesAreOne => ["writes::revisions_of_an_earlier_life_are_stale"],
    /// A batch whose operation fails says that all failed.
    OneFailsAll => ["writes::a_batch_has_an_outcome_per_operation"],
    /// The last operation of a batch is done first.
    BatchesAreReversed => ["writes::a_large_batch_keeps_its_order"],
    /// A batch is done whether its guard holds or not.
    GuardsAreIgnored => ["writes::a_guarded_batch_needs_its_guard"],
    /// Others write between a write's look at its key and its change.
    NotAtomic => [
        "races::concurrent_puts_at_a_revision_have_one_winner",
        "races::concurrent_creations_have_one_winner",
        "races::concurrent_increments_are_all_counted",
    ],
    /// All of a batch has one revision.
    BatchesShareARevision => ["races::concurrent_batches_share_no_revision"],
    /// A write that is given up leaves a revision without a change.
    CancelledWritesLeaveHoles => ["races::a_cancelled_write_is_never_done_in_part"],
    /// A slash at the end of a key is nothing.
    KeysAreTrimmed => ["keys::a_key_is_not_a_directory"],
    /// Capital letters are small ones.
    KeysFoldCase => ["keys::keys_and_values_are_opaque"],
    /// A key with an empty value does not exist.
    EmptyIsAbsent => ["keys::keys_and_values_are_opaque"],
    /// Values end after a MiB.
    ValuesAreCut => ["keys::large_values_are_kept_whole", "watches::large_events_are_delivered"],
    /// Nothing is under the empty prefix.
    EmptyPrefixIsNothing => ["keys::the_empty_prefix_means_everything"],
    /// That a key is missing is an error.
    MissingIsNotFound => ["reads::a_missing_key_is_read_as_absent"],
    /// Ranges are in the order of revisions.
    RangesAreUnordered => ["reads::a_range_has_the_keys_of_its_prefix_in_order"],
    /// Every state is the present one.
    PastIsPresent => [
        "reads::past_states_stay_readable",
        "pages::pages_are_of_one_state",
        "pages::pages_go_on_while_keys_change",
    ],
    /// The present revision is not there yet.
    PresentIsFuture => ["reads::the_present_can_be_read_by_its_revision"],
    /// The future is the present.
    FutureIsPresent => ["reads::the_future_cannot_be_read"],
    /// A range is read in two steps.
    RangesAreTorn => ["reads::ranges_are_snapshots"],
    /// Reads do not see the last write.
    StaleReads => ["reads::acknowledged_writes_are_read"],
    /// Reads name a revision that is not there yet.
    ReadsAreAhead => ["watches::what_has_been_read_can_be_watched"],
    /// A page that is full has another one after it.
    MoreIsGuessed => ["pages::a_page_that_is_just_full_is_the_last"],
    /// What is asked for after a key need not have the prefix.
    StartAfterForgetsPrefix => ["pages::start_after_need_not_lie_under_the_prefix"],
    /// States that were given up are made up.
    CompactedIsServed => ["pages::a_page_at_a_compacted_revision_is_refused", "compaction::compacted_states_are_gone"],
    /// A watch knows no past.
    WatchesStartLive => ["watches::a_watch_begins_in_the_past"],
    /// A watch knows nothing but the past.
    WatchesEndWithThePast => ["watches::a_watch_goes_on_live"],
    /// A watch leaves out the first change.
    WatchesSkipTheFirst => ["watchers::reading_then_watching_misses_nothing"],
    /// A watch begins with what was there before.
    WatchesRepeatTheFirst => [
        "watchers::reading_then_watching_misses_nothing",
        "progress::a_new_watch_makes_progress_from_where_it_begins",
    ],
    /// A watch of `…/a/` sees `…/ab`.
    WatchesTakeNeighbours => ["watches::a_watch_sees_its_prefix_only", "watchers::nested_prefixes_are_told_apart"],
    /// The future can be watched.
    FutureIsWatched => ["watches::the_future_cannot_be_watched"],
    /// A key that comes back is the old one.
    LivesShareCreateRevision => ["watches::a_key_comes_back_with_a_new_create_revision"],
    /// A write that fails is an event.
    FailuresAreEvents => ["watches::failed_writes_are_not_watched"],
    /// Of the changes of a key that wait for a watcher it gets the last one.
    EventsAreMerged => ["watches::no_change_is_left_out_for_a_later_one"],
    /// When one watcher goes, the others get nothing any more.
    DroppedWatchesEndOthers => ["watches::a_dropped_watch_leaves_the_others_alone"],
    /// Every event comes twice.
    EventsAreDoubled => ["watchers::every_watcher_sees_every_change_once"],
    /// What is too much for a watcher is left out.
    SlowWatchersSkip => ["watchers::a_slow_watcher_misses_nothing_unnoticed"],
    /// Progress does not come.
    ProgressNever => ["progress::progress_comes_on_request"],
    /// Progress overtakes events.
    ProgressIsAhead => [
        "progress::progress_is_never_ahead_of_events",
        "progress::a_new_watch_makes_progress_from_where_it_begins",
    ],
    /// Compaction takes what was not changed since.
    CompactionForgetsTheOld => ["compaction::compaction_keeps_the_present"],
    /// Compaction to the past brings it back.
    CompactionGoesBack => ["compaction::compaction_to_the_past_or_future"],
    /// Compaction ends watches.
    CompactionEndsWatches => ["compaction::a_live_watch_goes_on_through_compaction"],
    /// A watch that compaction has overtaken goes on after it.
    LaggardsJump => ["compaction::a_watch_behind_the_compaction_is_told"],
    /// What was before a change is not known once it is compacted.
    PreviousIsForgotten => ["compaction::what_was_before_survives_compaction"],
    /// The last write does not survive a crash; a matter of the crash test.
    LastWriteIsNotDurable => [],
}
