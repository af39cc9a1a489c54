//! Progress of watches.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{TestStore, changes_until, next, put};
use crate::{Precondition, Revision, WatchEvent};

/// Progress that was asked for reaches the revision of the store, though nothing happens under the prefix.
pub async fn progress_comes_on_request(store: TestStore) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/watches/progress/", start).await.unwrap();
    let other = put(&store, "/watches/elsewhere/a", "1").await;
    assert_eq!(changes_until(&mut watch, other).await.unwrap(), []);
    let own = put(&store, "/watches/progress/a", "1").await;
    let after = put(&store, "/watches/elsewhere/a", "2").await;
    let changes = changes_until(&mut watch, after).await.unwrap();
    assert_eq!(
        changes.iter().map(WatchEvent::revision).collect::<Vec<_>>(),
        [own],
        "changes come before the progress"
    );
}

/// While others write, progress at a revision means that every change up to it has been delivered, and none comes after.
pub async fn progress_is_never_ahead_of_events(store: TestStore) {
    const WRITES: usize = 150;
    let prefix = "/progress/ahead/";
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch(prefix, start).await.unwrap();
    let end = AtomicU64::new(u64::MAX);
    let writer = async {
        let (mut watched, mut last) = (Vec::new(), 0);
        for round in 0..WRITES {
            let own = round % 3 != 0;
            let key = if own {
                "/progress/ahead/a"
            } else {
                "/progress/elsewhere/a"
            };
            let revision = store
                .put(key, round.to_string().into(), Precondition::None)
                .await
                .unwrap();
            last = revision.0;
            if own {
                watched.push(revision);
            }
        }
        end.store(last, Ordering::Relaxed);
        watched
    };
    let reader = async {
        let (mut delivered, mut progress) = (Vec::new(), vec![(0, start)]);
        watch.request_progress();
        // The end is what the last write says: whoever asks for progress may raise the revision, too.
        while progress.last().unwrap().1.0 < end.load(Ordering::Relaxed) {
            match next(&mut watch).await.unwrap() {
                WatchEvent::Progress { revision } => {
                    assert!(revision >= progress.last().unwrap().1, "progress never goes back");
                    progress.push((delivered.len(), revision));
                    // A store may answer at once for ever: let the writer have its turn.
                    tokio::task::yield_now().await;
                }
                change => delivered.push(change.revision()),
            }
            watch.request_progress();
        }
        (delivered, progress)
    };
    let (watched, (delivered, progress)) = futures::join!(writer, reader);
    assert_eq!(delivered, watched);
    for (count, revision) in progress {
        let expected = watched.iter().take_while(|change| **change <= revision).count();
        assert_eq!(
            count, expected,
            "changes that were delivered before the progress at {revision}"
        );
    }
}

/// Progress that is asked for while a watch still reads the past comes after that past, and is never older than where the
/// watch begins.
pub async fn a_new_watch_makes_progress_from_where_it_begins(store: TestStore) {
    let key = "/progress/new/a";
    let start = put(&store, key, "start").await;
    for round in 0..300 {
        put(&store, key, &round.to_string()).await;
    }
    let end = store.current_revision().await.unwrap();
    for after in [start, Revision(start.0.midpoint(end.0)), end] {
        let mut watch = store.watch("/progress/new/", after).await.unwrap();
        let mut position = after;
        while position < end {
            watch.request_progress();
            match next(&mut watch).await.unwrap() {
                WatchEvent::Progress { revision } => {
                    assert_eq!(revision, position, "no change is passed over");
                    tokio::task::yield_now().await;
                }
                change => {
                    assert_eq!(change.revision(), position.next());
                    position = change.revision();
                }
            }
        }
        assert_eq!(changes_until(&mut watch, end).await.unwrap(), []);
    }
}
