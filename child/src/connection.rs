//! The handle on one child.

mod base;
mod endpoints;
mod send;
#[cfg(test)]
mod tests;
mod upgrades;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use http::Uri;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::base::Base;
pub(crate) use self::{
    send::{Probe, Requester},
    upgrades::UpgradeSlot,
};
pub use send::RequestDeadline;

use crate::{
    config::{ChildConfig, Limits},
    credentials::Credentials,
    error::ChildError,
    identity::Identity,
    manager::Health,
    pool::{Expected, Places, Pool, Shared, Sizes},
    transport::{self, Connector},
};

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
        reads_ahead: lane == Lane::Streams,
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

    /// Publishes a state.
    pub(crate) fn set_health(&self, health: Health) {
        self.0.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
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
}

/// What opens streams to the child: what its configuration names, or what dials it.
pub(crate) fn connector(config: &ChildConfig) -> Result<Arc<dyn Connector>, ChildError> {
    transport::connector(config).map_err(|message| ChildError::Configuration {
        cluster: config.name.as_str().into(),
        message,
    })
}
