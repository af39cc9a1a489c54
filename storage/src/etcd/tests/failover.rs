//! Members that die, stand still and come back.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Writes one key after the other until it is stopped, and tells which writes were acknowledged. One that fails is made
/// again under another key, so that no key is put twice.
struct Writer {
    task: tokio::task::JoinHandle<Vec<(String, Revision)>>,
    acknowledged: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Writer {
    fn start(opened: &Opened) -> Self {
        let store = opened.store.clone();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = opened.tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            for index in 0.. {
                if stopped.is_cancelled() {
                    break;
                }
                let key = format!("/failover/{index:06}");
                match store.put(&key, "x".into(), Precondition::Absent).await {
                    Ok(revision) => {
                        acknowledged.push((key, revision));
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Error::Io { .. } | Error::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            acknowledged
        });
        Self {
            task,
            acknowledged: count,
            stop,
        }
    }

    /// Waits until another write is acknowledged.
    async fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        until("another acknowledged write", || async {
            self.acknowledged.load(Ordering::Relaxed) > before
        })
        .await;
    }

    async fn stop(self) -> Vec<(String, Revision)> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn failing(servers: &EtcdServers) -> EtcdOptions {
    EtcdOptions {
        request_deadline: Duration::from_secs(4),
        watch_buffer: 100_000,
        ..options(servers, "/hub")
    }
}

/// Whether the cluster takes a write.
async fn goes_on(store: &Etcd) {
    until("a write after the fault", || async {
        store.put("/goes-on", "x".into(), Precondition::None).await.is_ok()
    })
    .await;
}

/// The watch has delivered what the store holds, each change once and in order.
async fn assert_complete(store: &Etcd, mut watch: WatchStream, acknowledged: &[(String, Revision)]) {
    let end = put(store, "/failover/z", "end").await;
    let mut seen = Vec::new();
    loop {
        match next(&mut watch).await.unwrap() {
            WatchEvent::Put { entry, previous: None } => {
                seen.push((entry.key.to_string(), entry.revision));
                if entry.revision >= end {
                    break;
                }
            }
            other => panic!("expected a creation, got {other:?}"),
        }
    }
    // A write that was given up may still be on its way in a member that stood still, and land after the last.
    let range = RangeRequest::prefix("/failover/").at(end);
    let range = store.range(range).await.unwrap();
    let mut held: Vec<_> = range
        .entries
        .iter()
        .map(|entry| (entry.key.to_string(), entry.revision))
        .collect();
    held.sort_by_key(|(_, revision)| *revision);
    assert_eq!(seen, held, "what is watched is what is there");
    assert!(!acknowledged.is_empty());
    for write in acknowledged {
        assert!(held.contains(write), "{write:?} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_the_loss_of_each_member_in_turn() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let Some(mut servers) = EtcdServers::start(3, version).await else {
            continue;
        };
        let opened = open(failing(&servers)).await;
        let start = opened.store.current_revision().await.unwrap();
        let watch = opened.store.watch("/failover/", start).await.unwrap();
        let writer = Writer::start(&opened);
        for member in 0..3 {
            servers.kill(member);
            writer.goes_on().await;
            servers.restart(member).await;
        }
        let leader = servers.leader().await;
        servers.kill(leader);
        writer.goes_on().await;
        servers.restart(leader).await;
        assert_complete(&opened.store, watch, &writer.stop().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_stand_still_hang_nobody() {
    let Some(servers) = EtcdServers::start(3, EtcdVersion::V36).await else {
        return;
    };
    let opened = open(failing(&servers)).await;
    let start = opened.store.current_revision().await.unwrap();
    let watch = opened.store.watch("/failover/", start).await.unwrap();
    let writer = Writer::start(&opened);
    for member in 0..3 {
        servers.pause(member);
        // Each read has its deadline: with two members left it must succeed within it.
        let mut others = opened.store.watch("/goes-on", start).await.unwrap();
        until("a read beside the member", || async {
            opened.store.current_revision().await.is_ok()
        })
        .await;
        writer.goes_on().await;
        goes_on(&opened.store).await;
        next(&mut others).await.unwrap();
        servers.resume(member);
    }
    assert_complete(&opened.store, watch, &writer.stop().await).await;
}

#[tokio::test]
async fn reads_go_on_beside_a_member_that_stands_still() {
    let Some(servers) = EtcdServers::start(3, EtcdVersion::V36).await else {
        return;
    };
    let opened = open(options(&servers, "/hub")).await;
    let leader = servers.leader().await;
    let follower = (leader + 1) % 3;
    put(&opened.store, "/a", "1").await;
    servers.pause(follower);
    for _ in 0..3 {
        opened.store.get("/a").await.unwrap();
        opened.store.ready().await.unwrap();
    }
    servers.resume(follower);
}

#[tokio::test]
async fn a_watch_survives_the_restart_of_the_only_member() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let Some(mut servers) = EtcdServers::start(1, version).await else {
            continue;
        };
        let opened = open(failing(&servers)).await;
        let start = put(&opened.store, "/failover/0", "1").await;
        let mut watch = opened.store.watch("/failover/", start).await.unwrap();
        put(&opened.store, "/failover/1", "1").await;
        next_put(&mut watch, "/failover/1").await;
        servers.kill(0);
        assert!(opened.store.ready().await.is_err());
        let error = opened.store.get("/failover/1").await.unwrap_err().to_string();
        assert!(error.contains(&servers.endpoints()[0]), "{error}");
        servers.restart(0).await;
        let revision = put(&opened.store, "/failover/2", "1").await;
        assert_eq!(next_put(&mut watch, "/failover/2").await, revision);
        watch.request_progress();
        let progress = next(&mut watch).await.unwrap();
        assert!(
            matches!(progress, WatchEvent::Progress { revision: reached } if reached >= revision),
            "{progress:?}"
        );
        opened.store.ready().await.unwrap();
    }
}

/// What a watch has missed while it had no stream is compacted: it must say so, not go on.
#[tokio::test]
async fn a_watch_tells_of_compaction_behind_its_back() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let Some(servers) = EtcdServers::start(1, version).await else {
            continue;
        };
        let opened = open(failing(&servers)).await;
        // Beside one event that waits there is no room for the next: the watch ends its stream until that is read.
        let small = open(EtcdOptions {
            watch_buffer: 1,
            ..failing(&servers)
        })
        .await;
        let start = put(&opened.store, "/failover/a", "1").await;
        let mut watch = small.store.watch("/failover/", start).await.unwrap();
        put(&opened.store, "/failover/b", "1").await;
        next_put(&mut watch, "/failover/b").await;
        put(&opened.store, "/failover/c", "1").await;
        let deletion = opened.store.delete("/failover/a", Precondition::None).await.unwrap();
        // etcd would serve the watch from this very revision on, but what the deletion has removed is gone.
        opened.store.compact(deletion).await.unwrap();
        next_put(&mut watch, "/failover/c").await;
        let end = next(&mut watch).await;
        assert!(
            matches!(end, Err(Error::Compacted { oldest, .. }) if oldest == deletion),
            "{end:?}"
        );
        assert!(watch.next().await.is_none());
    }
}
