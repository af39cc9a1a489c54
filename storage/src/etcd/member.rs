//! One member of the cluster: its connections, and what is known of it.
//!
//! Each member has a client of its own, because a client over several endpoints goes on choosing one that is gone. Requests
//! have a connection to themselves, so that they do not wait behind the events of watches in the same flow control window;
//! watches share connections, a bounded number on each.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, StatusResponse};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::failure::describe;
use super::version::Version;

/// How many watches share a connection. Servers allow at least 100 streams on one (RFC 9113, section 6.5.2); Go's allow 250
/// where they serve TLS, and the next watch would wait there for ever.
const WATCHES_PER_CONNECTION: usize = 80;

/// What etcd answers.
pub(super) type Reply<T> = Result<T, etcd_client::Error>;

/// What a member says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Its number, with which it signs every answer.
    pub(super) id: u64,
    /// Its version, if it has ever said one that can be read.
    pub(super) version: Option<Version>,
}

/// One member.
pub(super) struct Member {
    pub(super) endpoint: String,
    options: ConnectOptions,
    requests: AsyncMutex<Option<Client>>,
    watches: AsyncMutex<Vec<(Client, Arc<()>)>>,
    facts: Mutex<Option<Facts>>,
}

/// The connection of a watch. It counts as one of those that share it until it is dropped.
#[derive(Clone)]
pub(super) struct WatchConnection {
    pub(super) client: Client,
    shared: Arc<()>,
}

/// Why an attempt at one member has failed.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// There was no answer in time.
    Timeout(Duration),
    /// The answer was an error, or there was no connection.
    Etcd(etcd_client::Error),
}

impl AttemptError {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Timeout(deadline) => format!("no answer within {} ms", deadline.as_millis()),
            Self::Etcd(error) => describe(error),
        }
    }
}

impl Member {
    pub(super) fn new(endpoint: String, options: ConnectOptions) -> Self {
        Self {
            endpoint,
            options,
            requests: AsyncMutex::new(None),
            watches: AsyncMutex::new(Vec::new()),
            facts: Mutex::new(None),
        }
    }

    /// Makes a request.
    pub(super) async fn attempt<T, F: Future<Output = Reply<T>> + Send>(
        &self,
        deadline: Duration,
        call: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, AttemptError> {
        let answer = async { call(self.client().await?).await };
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(AttemptError::Etcd),
            Err(_) => {
                self.forget_connection();
                Err(AttemptError::Timeout(deadline))
            }
        }
    }

    /// The client for requests. Connecting takes no time but where there is a user to be authenticated.
    async fn client(&self) -> Result<Client, etcd_client::Error> {
        let mut client = self.requests.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let connected = Client::connect([&self.endpoint], Some(self.options.clone())).await?;
        Ok(client.insert(connected).clone())
    }

    /// Takes a new connection for the next request: this one may lead to nobody.
    fn forget_connection(&self) {
        // Who holds the lock is connecting.
        if let Ok(mut client) = self.requests.try_lock() {
            *client = None;
        }
    }

    /// Gets a new token for the user.
    pub(super) async fn authenticate(&self, deadline: Duration) -> Result<(), AttemptError> {
        self.attempt(deadline, |client| async move { client.refresh_token().await })
            .await
    }

    /// A connection for one more watch.
    pub(super) async fn watch_connection(&self) -> Result<WatchConnection, etcd_client::Error> {
        let mut connections = self.watches.lock().await;
        let vacant = connections
            .iter()
            // One count is the list's.
            .find(|(_, shared)| Arc::strong_count(shared) <= WATCHES_PER_CONNECTION);
        if let Some((client, shared)) = vacant {
            return Ok(WatchConnection {
                client: client.clone(),
                shared: Arc::clone(shared),
            });
        }
        let client = Client::connect([&self.endpoint], Some(self.options.clone())).await?;
        let shared = Arc::new(());
        connections.push((client.clone(), Arc::clone(&shared)));
        Ok(WatchConnection { client, shared })
    }

    /// Gives a connection to no other watch: it may lead to nobody.
    pub(super) async fn forget_watch_connection(&self, connection: &WatchConnection) {
        let mut connections = self.watches.lock().await;
        connections.retain(|(_, shared)| !Arc::ptr_eq(shared, &connection.shared));
    }

    /// Gives none of the connections to another watch: the token that they were made with is not current.
    pub(super) async fn forget_watch_connections(&self) {
        self.watches.lock().await.clear();
    }

    /// Keeps what the member says of itself.
    pub(super) fn learn(&self, status: &StatusResponse) -> Facts {
        let facts = Facts {
            id: status.header().map_or(0, etcd_client::ResponseHeader::member_id),
            version: Version::parse(status.version()),
        };
        *self.facts.lock() = Some(facts.clone());
        facts
    }

    /// What the member last said of itself.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.lock().clone()
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Member")
            .field("endpoint", &self.endpoint)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
