//! A store whose watches break.

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch as signal;

use super::*;
use crate::{GetResponse, RangeResponse, WatchStream};

/// Passes everything on, and ends its watches with an error when told to.
#[derive(Debug)]
struct Flaky {
    store: Embedded,
    breaks: signal::Sender<u64>,
    /// Refuses watches while set.
    down: Mutex<bool>,
}

impl Flaky {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Embedded::in_memory(),
            breaks: signal::Sender::new(0),
            down: Mutex::new(false),
        })
    }

    fn lose_watches(&self) {
        *self.down.lock() = true;
        self.breaks.send_modify(|count| *count += 1);
    }

    fn recover(&self) {
        *self.down.lock() = false;
    }
}

fn lost() -> Error {
    Error::unavailable("the connection was lost")
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        self.store.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.store.range(request).await
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        self.store.batch(operations).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        if *self.down.lock() {
            return Err(lost());
        }
        let mut breaks = self.breaks.subscribe();
        let stream = self.store.watch(prefix, after).await?;
        let progress = stream.progress_requests();
        let broken = async move {
            let _ = breaks.changed().await;
        };
        let events = stream
            .take_until(Box::pin(broken))
            .chain(futures::stream::once(async { Err(lost()) }));
        Ok(WatchStream::new(events, progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.store.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.store.compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
}

#[tokio::test]
async fn resumes_where_it_was_when_the_store_comes_back() {
    let store = Flaky::new();
    let fixture = Fixture::start(Arc::clone(&store) as _, CacheOptions::default()).await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::Now, 100).unwrap();
    let mut revisions = Vec::new();
    for round in 0..3 {
        revisions.push(fixture.put("/objects/a/1", "before").await);
        store.lose_watches();
        revisions.push(fixture.put("/objects/a/1", &format!("during {round}")).await);
        assert!(
            !fixture.cache.snapshot().is_empty() || round == 0,
            "what is known stays"
        );
        store.recover();
        fixture.current().await;
    }
    for revision in revisions {
        assert_eq!(next(&mut watch).await.unwrap().revision, revision);
    }
    assert!(watch.try_next().is_none());
}

#[tokio::test]
async fn starts_over_when_the_history_is_gone() {
    let store = Flaky::new();
    let fixture = Fixture::start(Arc::clone(&store) as _, CacheOptions::default()).await;
    let first = fixture.put("/objects/a/1", "x").await;
    fixture.put("/objects/a/2", "x").await;
    fixture.cache.keep(&fixture.current().await);
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(first), 100).unwrap();
    assert_eq!(&*next(&mut watch).await.unwrap().object.name, "2");
    store.lose_watches();
    // The cache must have lost its watch before anything happens that it is to miss.
    while store.breaks.receiver_count() > 0 {
        tokio::task::yield_now().await;
    }
    fixture.delete("/objects/a/1").await;
    let last = fixture.put("/objects/a/3", "x").await;
    fixture.store.compact(last).await.unwrap();
    store.recover();
    let snapshot = fixture.current().await;
    assert_eq!(keys(&snapshot, "", None), ["/objects/a/2", "/objects/a/3"]);
    assert!(matches!(next(&mut watch).await, Err(Error::Compacted { oldest, .. }) if oldest == last));
    let error = fixture.cache.watch(PREFIX, WatchFrom::After(first), 100).unwrap_err();
    assert!(
        matches!(error, Error::Compacted { oldest, .. } if oldest == last),
        "{error}"
    );
    let revision = fixture.put("/objects/a/4", "x").await;
    let mut watch = fixture.cache.watch(PREFIX, WatchFrom::After(last), 100).unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, revision);
}
