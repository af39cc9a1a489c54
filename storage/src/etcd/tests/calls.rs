//! Calls beyond the contract suite.

use super::*;
use crate::Guard;

#[tokio::test]
async fn the_versions_decide_on_progress() {
    for (version, expected) in [(EtcdVersion::V34, false), (EtcdVersion::V36, true)] {
        let Some(servers) = EtcdServers::start(1, version).await else {
            continue;
        };
        let opened = open(options(&servers, "/hub")).await;
        assert_eq!(opened.store.progress_on_request(), expected, "{version:?}");
    }
}

#[tokio::test]
async fn a_guard_that_does_not_hold_refuses_every_write() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let opened = open(options(&servers, "/hub")).await;
    let store = &opened.store;
    let held = put(store, "/lease", "me").await;
    let guard = |revision| Guard {
        key: "/lease".into(),
        revision,
    };
    let operations = || {
        vec![
            Operation::put("/a", "1", Precondition::None),
            Operation::delete("/missing", Precondition::None),
            Operation::delete("/missing", Precondition::Absent),
        ]
    };
    let outcomes = store.batch_while(&guard(held), operations()).await;
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert!(
        outcomes[1..]
            .iter()
            .all(|outcome| matches!(outcome, Err(Error::NotFound { .. }))),
        "{outcomes:?}"
    );

    let other = put(store, "/lease", "somebody else").await;
    let before = store.current_revision().await.unwrap();
    for wrong in [
        guard(held),
        guard(Revision(0)),
        Guard {
            key: "/no-lease".into(),
            revision: held,
        },
    ] {
        for outcome in store.batch_while(&wrong, operations()).await {
            match outcome {
                Err(Error::Conflict { key, current }) => {
                    let found = (wrong.key == guard(held).key).then_some(other);
                    assert_eq!((key, current.map(|entry| entry.revision)), (wrong.key.clone(), found));
                }
                outcome => panic!("expected a conflict, got {outcome:?}"),
            }
        }
    }
    assert_eq!(store.current_revision().await.unwrap(), before);
}

#[tokio::test]
async fn keys_of_the_backend_are_never_seen() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let Some(servers) = EtcdServers::start(1, version).await else {
            continue;
        };
        let opened = open(options(&servers, "/hub")).await;
        let store = &opened.store;
        let start = store.current_revision().await.unwrap();
        let mut outer = store.watch("/", start).await.unwrap();
        put(store, "/p/a", "1").await;
        // In 3.4 the progress of each of these watches is a key under the prefix of the outer one.
        for prefix in ["/p/", "/p", "/q/"] {
            let mut watch = store.watch(prefix, start).await.unwrap();
            watch.request_progress();
            while !matches!(next(&mut watch).await.unwrap(), WatchEvent::Progress { .. }) {}
        }
        put(store, "/z", "1").await;
        next_put(&mut outer, "/p/a").await;
        next_put(&mut outer, "/z").await;
        let range = store
            .range(RangeRequest::prefix("/").limit(2).counting())
            .await
            .unwrap();
        let keys: Vec<_> = range.entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, ["/p/a", "/z"], "{version:?}");
    }
}

/// More entries than etcd is asked for at a time.
#[tokio::test]
async fn a_long_range_is_one_state() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let opened = open(options(&servers, "/hub")).await;
    let store = &opened.store;
    let operations = (0..2_500).map(|index| Operation::put(format!("/long/{index:04}"), "x", Precondition::None));
    for outcome in store.batch(operations.collect()).await {
        outcome.unwrap();
    }
    let range = RangeRequest::prefix("/long/").counting();
    let read = async {
        let whole = store.range(range.clone()).await.unwrap();
        assert_eq!(
            (whole.entries.len(), whole.more, whole.remaining),
            (2_500, false, Some(0))
        );
        assert!(whole.entries.iter().all(|entry| entry.revision <= whole.revision));
    };
    let write = async {
        for _ in 0..20 {
            put(store, "/long/2499", "y").await;
        }
    };
    futures::join!(read, write);
    let part = store.range(range.limit(2_400)).await.unwrap();
    assert_eq!(
        (part.entries.len(), part.more, part.remaining),
        (2_400, true, Some(100))
    );
}

#[tokio::test]
async fn replicas_agree_on_compaction() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let with = || EtcdOptions {
        history: Some(Duration::from_millis(300)),
        compaction_interval: Duration::from_millis(100),
        ..options(&servers, "/hub")
    };
    let (first, second) = (open(with()).await, open(with()).await);
    let revision = put(&first.store, "/a", "1").await;
    put(&first.store, "/a", "2").await;
    until("compaction", || async {
        let past = second.store.range(RangeRequest::prefix("/").at(revision)).await;
        matches!(past, Err(Error::Compacted { .. }))
    })
    .await;
    // Each turn is one write, however many there are to take it.
    let key = first.store.core.keys.own("", "compaction");
    let read = servers.client(0).await.unwrap().get(key, None).await.unwrap();
    let (version, turns) = (read.kvs()[0].version(), read.kvs()[0].create_revision());
    assert!(
        read.header().unwrap().revision() - turns < version + 2,
        "two writes beside the {version} turns"
    );
}

#[tokio::test]
async fn closing_ends_watches_and_refuses_calls() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let store = &Etcd::connect(options(&servers, "/hub"), &tasks, shutdown.clone())
        .await
        .unwrap();
    let revision = put(store, "/a", "1").await;
    let mut watch = store.watch("/", revision).await.unwrap();
    shutdown.cancel();
    assert!(matches!(next(&mut watch).await, Err(Error::Unavailable { .. })));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.get("/a").await, Err(Error::Unavailable { .. })));
    assert!(store.ready().await.is_err());
    tasks.close();
    tokio::time::timeout(DEADLINE, tasks.wait())
        .await
        .expect("the tasks end");
}

#[tokio::test]
async fn a_dropped_watch_ends_its_task() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let opened = open(options(&servers, "/hub")).await;
    let before = opened.tasks.len();
    let watch = opened.store.watch("/", Revision(1)).await.unwrap();
    assert_eq!(opened.tasks.len(), before + 1);
    drop(watch);
    until("the end of the task", || async { opened.tasks.len() == before }).await;
}
