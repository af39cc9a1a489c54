//! The store against real servers. Where a program is missing, the tests say so and are skipped.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::*;
use crate::contract::etcd_servers::{EtcdServers, EtcdServersOptions, EtcdVersion};
use crate::{Error, Precondition, WatchEvent};

mod access;
mod calls;
mod contract;
mod failover;

/// How long something may take that must come: a deadline for a test that would hang, not a measurement.
const DEADLINE: Duration = Duration::from_mins(1);

/// A store that ends with the test.
struct Opened {
    store: Etcd,
    tasks: TaskTracker,
    _shutdown: DropGuard,
}

/// Options for these servers, with deadlines that are short enough for tests in which members fail.
fn options(servers: &EtcdServers, prefix: &str) -> EtcdOptions {
    let tls = servers.client_certificate().map(|client| EtcdTls {
        ca: client.authority.clone(),
        identity: Some(EtcdIdentity {
            certificate: client.certificate.clone(),
            key: client.key.clone(),
        }),
    });
    let credentials = servers.user().map(|(user, password)| EtcdCredentials {
        user: user.clone(),
        password: password.clone(),
    });
    EtcdOptions {
        prefix: prefix.to_owned(),
        tls,
        credentials,
        history: None,
        heartbeat: Duration::from_secs(1),
        ..EtcdOptions::new(servers.endpoints())
    }
}

async fn open(options: EtcdOptions) -> Opened {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let store = Etcd::connect(options, &tasks, shutdown.clone()).await.unwrap();
    Opened {
        store,
        tasks,
        _shutdown: shutdown.drop_guard(),
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    let value = value.to_owned().into();
    store.put(key, value, Precondition::None).await.unwrap()
}

async fn next(watch: &mut WatchStream) -> Result<WatchEvent> {
    let item = tokio::time::timeout(DEADLINE, watch.next()).await;
    item.expect("a watch must deliver within the deadline")
        .expect("a watch ends by an error only")
}

/// The next change, which has to be a put of this key.
async fn next_put(watch: &mut WatchStream, key: &str) -> Revision {
    loop {
        match next(watch).await.unwrap() {
            WatchEvent::Progress { .. } => {}
            WatchEvent::Put { entry, .. } if &*entry.key == key => return entry.revision,
            other => panic!("expected a put of {key}, got {other:?}"),
        }
    }
}

/// Waits until `condition` holds.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, holds)
        .await
        .unwrap_or_else(|_| panic!("{what} must come about"));
}
