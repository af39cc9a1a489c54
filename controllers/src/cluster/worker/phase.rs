//! How far the connection of a cluster has come.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::connection::{Problem, Wanted};
use crate::cluster::session::Session;

/// How far the connection has come.
pub(super) enum Phase {
    /// Nothing has been tried.
    New,
    /// What the hub was told cannot be tried.
    Refused(Problem),
    /// It has been tried in vain, and will be again.
    Retrying(Box<Retrying>),
    Connected(Box<Session>),
}

/// A connection that has been tried in vain.
pub(in crate::cluster) struct Retrying {
    pub(in crate::cluster) wanted: Wanted,
    pub(in crate::cluster) problem: Problem,
    pub(in crate::cluster) attempt: u32,
    pub(in crate::cluster) at: Instant,
    /// The clusters with a tunnel here, where the hub serves tunnels.
    pub(in crate::cluster) tunnels: Option<watch::Receiver<BTreeSet<Arc<str>>>>,
}

impl Retrying {
    /// Waits until an agent of the cluster connects, which is the time to try.
    async fn agent_connects(&mut self, name: &str) {
        let Some(tunnels) = &mut self.tunnels else {
            return std::future::pending().await;
        };
        while tunnels.changed().await.is_ok() {
            if tunnels.borrow_and_update().contains(name) {
                self.at = Instant::now();
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Phase {
    /// Waits for a change of what is connected.
    pub(super) async fn changed(&mut self, name: &str) {
        match self {
            Self::Connected(session) => session.changed().await,
            Self::Retrying(retrying) => retrying.agent_connects(name).await,
            _ => std::future::pending().await,
        }
    }
}
