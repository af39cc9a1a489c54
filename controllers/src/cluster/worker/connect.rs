//! Seeing to it that the connection is the one that is wanted.

use tokio::time::Instant;
use umbra_api::cluster::ManagedCluster;
use umbra_child::tunnel::Tunnels;
use umbra_child::{Child, ChildConfig};
use umbra_registry::copies::retry;

use super::Worker;
use super::phase::{Phase, Retrying};
use crate::cluster::connection::{Problem, Wanted};
use crate::cluster::facts::{self, Facts};
use crate::cluster::session::{Copier, Session, check_identity};
use crate::copy::everywhere;

/// Cancels a child when dropped, so that a worker that is cancelled leaves no connection.
struct Temporary(Child);

impl Drop for Temporary {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Worker {
    /// Sees to it that the connection is the one that is wanted, as far as it can be.
    pub(super) async fn connect(&mut self, cluster: &ManagedCluster, wanted: &Result<Wanted, Problem>) {
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(problem) => return self.disconnect(Phase::Refused(problem.clone())).await,
        };
        let last = match &mut self.phase {
            Phase::Connected(session) if session.wanted == *wanted => {
                session.renewal = None;
                return;
            }
            Phase::Connected(session) => session.renewal.as_ref(),
            Phase::Retrying(last) => Some(&**last),
            Phase::New | Phase::Refused(_) => None,
        };
        let attempt = match last.filter(|last| last.wanted == *wanted) {
            Some(last) if last.at > Instant::now() => return,
            Some(last) => last.attempt.saturating_add(1),
            None => 1,
        };
        let config = wanted.config(cluster, self.parts.tunnels.as_ref());
        let rotates = config.as_ref().is_ok_and(|config| self.rotates(wanted, config));
        let connected = match config {
            Ok(config) => self.try_connect(config).await,
            Err(problem) => Err(problem),
        };
        match connected {
            Ok((child, facts)) => {
                if let Phase::Connected(session) = &mut self.phase {
                    session.stop_copying().await;
                }
                let session = Session::new(
                    wanted.clone(),
                    child,
                    facts,
                    everywhere(&self.parts.sync, &cluster.spec.sync),
                );
                self.phase = Phase::Connected(Box::new(session));
            }
            Err(problem) => self.keep_or_retry((wanted.clone(), rotates), problem, attempt).await,
        }
    }

    /// Whether what is wanted differs from the present connection by its credential alone. Another server, proxy or authority is
    /// none: who names one no longer wants the one before, and does not have it kept by mistake.
    fn rotates(&self, wanted: &Wanted, config: &ChildConfig) -> bool {
        match &self.phase {
            Phase::Connected(session) => {
                session.wanted.same_connection(wanted) && session.child.config().same_endpoints(config)
            }
            _ => false,
        }
    }

    /// A credential that does not work yet does not end a connection that works with the one before.
    async fn keep_or_retry(&mut self, (wanted, rotates): (Wanted, bool), problem: Problem, attempt: u32) {
        match &mut self.phase {
            Phase::Connected(session) if rotates && problem.is_of_credential() => {
                session.renewal = Some(Retrying {
                    at: Instant::now() + retry::pause(attempt),
                    wanted,
                    problem,
                    attempt,
                    tunnels: None,
                });
            }
            _ => self.retry(wanted, problem, attempt).await,
        }
    }

    async fn try_connect(&self, config: ChildConfig) -> Result<(Child, Facts), Problem> {
        let recorded = self.reporter.current().uid.clone();
        // Not one of the children yet: nothing may be passed on to it before it has said who it is. Its connections ask.
        let asked = ChildConfig {
            cluster_uid: (!recorded.is_empty()).then(|| recorded.clone()),
            ..config.clone()
        };
        let stranger = Temporary(Child::new(asked).map_err(|error| facts::problem(&error))?);
        let facts = match stranger.0.prepare().await {
            Ok(()) => facts::read(&stranger.0).await,
            Err(error) => Err(facts::problem(&error)),
        };
        stranger.0.close().await;
        let facts = facts?;
        check_identity(&recorded, &facts)?;
        let config = ChildConfig {
            cluster_uid: Some(facts.uid.clone()),
            ..config
        };
        let child = self
            .parts
            .children
            .insert(config)
            .await
            .map_err(|error| facts::problem(&error))?;
        Ok((child, facts))
    }

    /// Follows a cluster that is connected.
    pub(super) async fn follow(&mut self, cluster: &ManagedCluster) {
        let Phase::Connected(session) = &mut self.phase else {
            return;
        };
        let copier = self.holding.as_ref().map(|one| Copier {
            store: &one.store,
            tracker: &self.tracker,
            cancel: one.held.lost(),
        });
        let uid = match self.reporter.current().uid.as_str() {
            "" => session.facts.uid.clone(),
            recorded => recorded.to_owned(),
        };
        if let Err(problem) = session
            .step(&uid, &everywhere(&self.parts.sync, &cluster.spec.sync), copier)
            .await
        {
            let wanted = session.wanted.clone();
            self.retry(wanted, problem, 1).await;
        }
    }

    async fn retry(&mut self, wanted: Wanted, problem: Problem, attempt: u32) {
        let at = Instant::now() + retry::pause(attempt);
        let retrying = Retrying {
            wanted,
            problem,
            attempt,
            at,
            tunnels: self.parts.tunnels.as_ref().map(Tunnels::subscribe),
        };
        self.disconnect(Phase::Retrying(Box::new(retrying))).await;
    }

    /// Stops copying and passing on; copies stay as they are.
    pub(super) async fn disconnect(&mut self, phase: Phase) {
        if let Phase::Connected(session) = &mut self.phase {
            session.stop_copying().await;
        }
        self.parts.children.remove(&self.name).await;
        self.phase = phase;
    }
}
