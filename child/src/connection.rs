//! The handle on one child.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{Request, Response, StatusCode, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::{Body, boxed, empty},
    config::{ChildConfig, Limits, redacted},
    credentials::{Credentials, Current},
    error::ChildError,
    identity::Identity,
    manager::Health,
    pool::{DialFailure, Expected, Places, Pool, Shared, Sizes, as_http1},
    transport::{self, Connector, Preferred},
};

/// What kube-apiserver gives requests that are not long-running (`--request-timeout`).
const HEADER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a stream without a deadline waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Where the UID of a cluster is.
const IDENTITY: &str = "/api/v1/namespaces/kube-system";

/// What a lane's connections may carry; how many requests there may be is for [`Limits`] to say.
fn sizes(lane: Lane, limits: Limits) -> Sizes {
    let (requests, window) = match lane {
        Lane::Requests => (limits.requests, 1 << 20),
        Lane::Watches => (limits.watches, 512 << 10),
        Lane::Streams => (limits.streams, 256 << 10),
    };
    Sizes {
        streams: 80,
        requests,
        window,
    }
}

/// Which connections a request uses. Lanes share nothing but the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Requests that end soon.
    Requests,
    /// The hub's own watches, always read.
    Watches,
    /// What users stream: watches, logs, proxied programs. Readers may stall. No deadline for the response headers, because
    /// the log of a silent container has none until it says something.
    Streams,
}

/// A request extension: how long the response headers may take, instead of 60 s. Bodies have no deadline.
#[derive(Debug, Clone, Copy)]
pub struct RequestDeadline(pub Duration);

/// A request extension: one of the probes, which wait behind nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe;

/// Which places a request takes one of.
#[derive(Clone, Copy)]
enum Turn {
    /// Those of its lane, for which it waits no longer than this.
    Within(Duration),
    /// That of the probes: how many requests users send says nothing about whether the child answers.
    Probe,
}

/// A handle on one child. Clones are the same child.
#[derive(Clone)]
pub struct Child(Arc<Inner>);

struct Inner {
    config: ChildConfig,
    shared: Shared,
    identity: ArcSwap<Identity>,
    base: Base,
    requests: Pool,
    watches: Pool,
    streams: Pool,
    upgrades: Places,
    /// For the probe, of which there is one at a time.
    probes: Places,
    health: watch::Sender<Health>,
}

/// Where the API of the child begins.
struct Base {
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    /// Without a trailing slash; empty for most.
    path: String,
}

/// Counts an upgraded connection for as long as it is spliced; an extension of the response of [`Child::upgrade`].
#[derive(Clone)]
pub(crate) struct UpgradeSlot(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name())
            .field("server", &self.0.shared.server)
            .finish_non_exhaustive()
    }
}

impl Child {
    /// A child that is reached as its configuration says. Nothing is opened yet.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be used.
    pub fn new(config: ChildConfig) -> Result<Self, ChildError> {
        let connector = connector(&config)?;
        Self::with_connector(config, connector, CancellationToken::new())
    }

    /// A child that is reached through `connector`, whose tasks end when `cancel` is cancelled.
    ///
    /// # Errors
    ///
    /// When the server's URL cannot be used.
    pub fn with_connector(
        config: ChildConfig,
        connector: Arc<dyn Connector>,
        cancel: CancellationToken,
    ) -> Result<Self, ChildError> {
        let cluster: Arc<str> = config.name.as_str().into();
        let base = Base::new(&config).map_err(|message| ChildError::Configuration {
            cluster: Arc::clone(&cluster),
            message,
        })?;
        let uid = config.cluster_uid.as_deref().filter(|uid| !uid.is_empty());
        let expected = uid.map(|uid| {
            let mut namespace = Uri::from_static(IDENTITY);
            base.rebase(&mut namespace)?;
            Ok::<_, ChildError>(Expected {
                uid: uid.into(),
                namespace,
            })
        });
        let limits = config.limits;
        let shared = Shared {
            server: base.authority.as_str().into(),
            cluster,
            connector,
            credentials: Arc::new(Credentials::new(config.credentials.clone())),
            expected: expected.transpose()?,
            tracker: TaskTracker::new(),
            cancel,
        };
        Ok(Self(Arc::new(Inner {
            identity: ArcSwap::from_pointee(config.identity.clone()),
            base,
            requests: Pool::new(shared.clone(), sizes(Lane::Requests, limits)),
            watches: Pool::new(shared.clone(), sizes(Lane::Watches, limits)),
            streams: Pool::new(shared.clone(), sizes(Lane::Streams, limits)),
            upgrades: Places::new(limits.upgrades),
            probes: Places::new(1),
            health: watch::Sender::new(Health::Unknown),
            shared,
            config,
        })))
    }

    /// The name of the `ManagedCluster`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.shared.cluster
    }

    /// How the child was configured when this handle was made. Credentials and identity may have changed since.
    #[must_use]
    pub fn config(&self) -> &ChildConfig {
        &self.0.config
    }

    /// How users of the hub are called on this child, now.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.0.identity.load_full()
    }

    /// Calls users differently from now on.
    pub fn set_identity(&self, identity: Identity) {
        self.0.identity.store(Arc::new(identity));
    }

    /// Allows as much at once from now on. What is under way goes on and does not count.
    pub fn set_limits(&self, limits: Limits) {
        for (lane, pool) in self.pools() {
            pool.set_limit(sizes(lane, limits).requests);
        }
        self.0.upgrades.set(limits.upgrades);
    }

    fn pools(&self) -> [(Lane, &Pool); 3] {
        [
            (Lane::Requests, &self.0.requests),
            (Lane::Watches, &self.0.watches),
            (Lane::Streams, &self.0.streams),
        ]
    }

    /// The endpoint that connections lead to now, where the child has several.
    #[must_use]
    pub fn endpoint(&self) -> Option<Arc<str>> {
        self.0.shared.connector.way()
    }

    /// Makes the hub's credentials where they are still to be made. An exec plugin has 60 s, however short the deadlines of the
    /// requests that use what it prints.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub async fn prepare(&self) -> Result<(), ChildError> {
        self.current_credentials().await.map(drop)
    }

    /// The hub's credentials.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.0.shared.credentials
    }

    /// What the probes say. The receiver is told of every change.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.subscribe()
    }

    /// Publishes a state and forgets connections that have proved dead.
    pub(crate) fn set_health(&self, health: Health) {
        self.0.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
    }

    /// Forgets the connections of short requests; the next one dials.
    pub(crate) fn discard_connections(&self) {
        self.0.requests.discard();
    }

    /// Goes another way, where there is one: what is under way goes on where it is, and what comes next dials. Whether there is
    /// one.
    pub(crate) fn avoid_endpoint(&self) -> bool {
        let avoided = self.0.shared.connector.avoid();
        if avoided {
            self.discard_all();
        }
        avoided
    }

    fn discard_all(&self) {
        for (_, pool) in self.pools() {
            pool.discard();
        }
    }

    /// Asks `path` of an endpoint that is preferred to the one in use; the way there, where it serves the right cluster.
    /// `None` where there is none or it does not.
    pub(crate) async fn try_preferred(&self, path: &str) -> Option<usize> {
        let shared = &self.0.shared;
        let current = shared.credentials.current().await.ok()?;
        let preferred = shared.connector.try_preferred(current.certificate.as_ref()).await?;
        let Preferred { way, connected } = preferred.ok()?;
        let mut sender = shared.speak_http1(connected, &current).await.ok()?;
        let mut request = Request::get(path).body(empty()).ok()?;
        self.0.base.rebase(request.uri_mut()).ok()?;
        if let Some(header) = &current.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let uri = request.uri().clone();
        as_http1(&mut request, &uri);
        let response = sender.send_request(request).await.ok()?;
        crate::manager::serves(response.status()).then_some(way)
    }

    /// Goes `way` from now on; as [`Child::avoid_endpoint`].
    pub(crate) fn settle_on(&self, way: usize) {
        self.0.shared.connector.settle(way);
        self.discard_all();
    }

    /// Ends everything: connections, spliced sessions, probes.
    pub fn cancel(&self) {
        self.0.shared.cancel.cancel();
    }

    /// Ends everything and waits until it has ended.
    pub async fn close(&self) {
        self.cancel();
        self.0.shared.tracker.close();
        self.0.shared.tracker.wait().await;
    }

    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.0.shared.cancel
    }

    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.0.shared.tracker
    }

    #[cfg(test)]
    pub(crate) fn watch_connections(&self) -> usize {
        self.0.watches.connections()
    }

    /// The path at which the child's server has its API; empty for most.
    pub(crate) fn base_path(&self) -> &str {
        &self.0.base.path
    }

    /// The host and port of the child's server.
    pub(crate) fn authority(&self) -> &str {
        self.0.base.authority.as_str()
    }

    /// Sends a short request as the hub itself, with the hub's credentials. Only path and query of the URI count.
    ///
    /// # Errors
    ///
    /// When there is no response: never because of its status. Fails at once while the child is unreachable.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.send_on(Lane::Requests, request).await
    }

    /// Sends a watch of the hub itself. Read its body without pause: what reads slowly must drop it.
    ///
    /// # Errors
    ///
    /// As [`Child::send`], but tries also while the child is unreachable.
    pub async fn send_watch(&self, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.send_on(Lane::Watches, request).await
    }

    /// Sends a request on the connections of `lane`.
    ///
    /// After a 401, credentials that can be renewed are, and a request without a body is sent once more.
    ///
    /// # Errors
    ///
    /// As [`Child::send`].
    pub async fn send_on(&self, lane: Lane, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        if lane != Lane::Watches {
            self.check_circuit()?;
        }
        self.send_regardless(lane, request).await
    }

    /// Fails while the probes say that the child does not answer.
    fn check_circuit(&self) -> Result<(), ChildError> {
        match &*self.0.health.borrow() {
            Health::Unreachable { since, reason, .. } => Err(ChildError::Unreachable {
                cluster: Arc::clone(self.name()),
                since: *since,
                reason: Arc::clone(reason),
            }),
            Health::Unknown | Health::Reachable => Ok(()),
        }
    }

    /// The same, whatever the probes say.
    pub(crate) async fn send_regardless(
        &self,
        lane: Lane,
        request: Request<Body>,
    ) -> Result<Response<Body>, ChildError> {
        if self.0.shared.cancel.is_cancelled() {
            return Err(ChildError::Closed {
                cluster: Arc::clone(self.name()),
            });
        }
        let deadline = match (request.extensions().get::<RequestDeadline>(), lane) {
            (Some(RequestDeadline(deadline)), _) => Some(*deadline),
            (None, Lane::Streams) => None,
            (None, Lane::Requests | Lane::Watches) => Some(HEADER_DEADLINE),
        };
        let turn = match request.extensions().get::<Probe>() {
            Some(Probe) => Turn::Probe,
            None => Turn::Within(deadline.unwrap_or(TURN)),
        };
        let exchange = self.exchange(lane, request, turn);
        match deadline {
            None => exchange.await,
            Some(after) => tokio::time::timeout(after, exchange).await.unwrap_or_else(|_| {
                Err(ChildError::Timeout {
                    cluster: Arc::clone(self.name()),
                    after,
                })
            }),
        }
    }

    async fn exchange(&self, lane: Lane, mut request: Request<Body>, turn: Turn) -> Result<Response<Body>, ChildError> {
        self.0.base.rebase(request.uri_mut())?;
        let again = request.body().is_end_stream().then(|| {
            let mut again = Request::new(());
            again.method_mut().clone_from(request.method());
            again.uri_mut().clone_from(request.uri());
            again.headers_mut().clone_from(request.headers());
            again.map(|()| empty())
        });
        let (response, used) = self.once(lane, request, turn).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.credentials().refused(&used) {
            return Ok(response);
        }
        match again {
            Some(again) => {
                drop(response);
                Ok(self.once(lane, again, turn).await?.0)
            }
            None => Ok(response),
        }
    }

    async fn once(
        &self,
        lane: Lane,
        mut request: Request<Body>,
        turn: Turn,
    ) -> Result<(Response<Body>, Current), ChildError> {
        let mut current = self.authenticate(&mut request).await?;
        let pool = match lane {
            Lane::Requests => &self.0.requests,
            Lane::Watches => &self.0.watches,
            Lane::Streams => &self.0.streams,
        };
        let place = match turn {
            Turn::Within(patience) => pool.place(patience).await?,
            Turn::Probe => self.0.probes.try_take().map_err(|full| self.0.shared.busy(full))?,
        };
        let lease = match pool.lease(&current).await {
            // A new connection is the first to see that the credentials do not count any more.
            Err(ChildError::CredentialsRefused { .. }) if self.credentials().refused(&current) => {
                current = self.authenticate(&mut request).await?;
                pool.lease(&current).await?
            }
            lease => lease?,
        };
        let response = pool.send(lease, request, &current, place).await?;
        Ok((response, current))
    }

    /// Puts the hub's own credentials into the request, instead of whatever is there.
    async fn authenticate(&self, request: &mut Request<Body>) -> Result<Current, ChildError> {
        let current = self.current_credentials().await?;
        match &current.header {
            Some(header) => request.headers_mut().insert(AUTHORIZATION, header.clone()),
            None => request.headers_mut().remove(AUTHORIZATION),
        };
        Ok(current)
    }

    async fn current_credentials(&self) -> Result<Current, ChildError> {
        let current = self.credentials().current().await;
        current.map_err(|source| ChildError::Credentials {
            cluster: Arc::clone(self.name()),
            source,
        })
    }

    /// Sends a request that asks for an upgrade, on an HTTP/1.1 connection of its own. When the response is 101, its
    /// upgrade is to be taken with `hyper::upgrade::on`. `Connection` and `Upgrade` must be set.
    ///
    /// # Errors
    ///
    /// When there is no response within 60 s, or as many upgraded connections are open as there may be ([`Limits`]). Fails at
    /// once while the child is unreachable.
    pub async fn upgrade(&self, mut request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.check_circuit()?;
        let cluster = || Arc::clone(self.name());
        let slot = self.0.upgrades.try_take();
        let slot = slot.map_err(|full| self.0.shared.busy(full))?;
        self.0.base.rebase(request.uri_mut())?;
        let exchange = async {
            let mut current = self.authenticate(&mut request).await?;
            let shared = &self.0.shared;
            let mut connected = shared.connect_http1(&current).await;
            if matches!(connected, Err(DialFailure::CredentialsRefused)) && self.credentials().refused(&current) {
                current = self.authenticate(&mut request).await?;
                connected = shared.connect_http1(&current).await;
            }
            let mut sender = connected.map_err(|failure| shared.connect_error(failure))?;
            let uri = request.uri().clone();
            as_http1(&mut request, &uri);
            let response = sender.send_request(request).await.map_err(|source| ChildError::Http {
                cluster: cluster(),
                source,
            })?;
            if response.status() == StatusCode::UNAUTHORIZED {
                self.credentials().refused(&current);
            }
            Ok::<_, ChildError>(response)
        };
        let response = tokio::time::timeout(HEADER_DEADLINE, exchange)
            .await
            .map_err(|_| ChildError::Timeout {
                cluster: cluster(),
                after: HEADER_DEADLINE,
            })??;
        let mut response = response.map(boxed);
        response.extensions_mut().insert(UpgradeSlot(Arc::new(slot)));
        Ok(response)
    }
}

/// What opens streams to the child: what its configuration names, or what dials it.
pub(crate) fn connector(config: &ChildConfig) -> Result<Arc<dyn Connector>, ChildError> {
    transport::connector(config).map_err(|message| ChildError::Configuration {
        cluster: config.name.as_str().into(),
        message,
    })
}

impl Base {
    fn new(config: &ChildConfig) -> Result<Self, String> {
        let server = &redacted(&config.server);
        let unusable = |error: http::uri::InvalidUri| format!("the server {server} cannot be used: {error}");
        let host = server
            .host_str()
            .ok_or_else(|| format!("the server {server} has no host"))?;
        let authority = match server.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            scheme: server.scheme().parse().map_err(unusable)?,
            authority: authority.parse().map_err(unusable)?,
            path: server.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Makes path and query absolute at this server.
    fn rebase(&self, uri: &mut Uri) -> Result<(), ChildError> {
        let path = match uri.path_and_query() {
            Some(path) if self.path.is_empty() => path.clone(),
            Some(path) => PathAndQuery::try_from(format!("{}{path}", self.path)).map_err(http::Error::from)?,
            None => PathAndQuery::try_from(format!("{}/", self.path)).map_err(http::Error::from)?,
        };
        *uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
