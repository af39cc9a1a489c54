//! What a worker says of its cluster: the status, and Events about what has changed.

use jiff::Timestamp;
use tokio::time::Instant;
use umbra_api::cluster::{CopiedResource, ManagedCluster, ManagedClusterStatus};
use umbra_child::Health;

use super::Worker;
use super::phase::Phase;
use crate::cluster::connection::Problem;
use crate::cluster::facts::Facts;
use crate::cluster::session::Session;
use crate::cluster::status::{self, Finding, Link, Observation};

impl Worker {
    /// Writes the status, where it is time to and this replica's to do. Gives when there is more to do.
    pub(super) async fn report(&mut self, cluster: &ManagedCluster) -> Option<Instant> {
        let (wanted, due) = match &self.phase {
            Phase::New => return None,
            Phase::Refused(problem) => (self.not_connected(cluster, problem), None),
            Phase::Retrying(last) => (self.not_connected(cluster, &last.problem), Some(last.at)),
            Phase::Connected(session) => (self.connected(cluster, session), session.due()),
        };
        let again = match &self.holding {
            Some(_) => {
                let before = self.reporter.current().clone();
                let again = self.reporter.publish(wanted).await;
                self.events.changed(cluster, &before, self.reporter.current());
                again
            }
            None => None,
        };
        [due, again].into_iter().flatten().min()
    }

    fn not_connected(&self, cluster: &ManagedCluster, problem: &Problem) -> ManagedClusterStatus {
        self.status(
            cluster,
            status::not_connected(problem),
            status::not_copying(),
            (None, None, None),
        )
    }

    fn connected(&self, cluster: &ManagedCluster, session: &Session) -> ManagedClusterStatus {
        let reachable = match (session.health(), &session.renewal) {
            (Ok(Health::Reachable | Health::Unknown), Some(renewal)) => status::keeping_credential(&renewal.problem),
            (Ok(health), Some(renewal)) => status::neither_credential(&health, &renewal.problem),
            (Ok(health), None) => status::connected(&health),
            (Err(problem), _) => status::not_connected(problem),
        };
        let link = Link {
            expiry: session.expiry,
            endpoint: session.child.endpoint().map(|one| one.to_string()).unwrap_or_default(),
        };
        let (synced, resources) = match session.copies() {
            Some((state, resources)) => (status::copying(&state), state.discovered.then_some(resources)),
            None => (status::not_copying(), None),
        };
        self.status(
            cluster,
            reachable,
            synced,
            (Some(&session.facts), Some(link), resources),
        )
    }

    fn status(
        &self,
        cluster: &ManagedCluster,
        reachable: Finding,
        synced: Finding,
        (facts, link, resources): (Option<&Facts>, Option<Link>, Option<Vec<CopiedResource>>),
    ) -> ManagedClusterStatus {
        let generation = cluster.metadata.generation;
        let observation = Observation {
            generation,
            reachable,
            synced,
            facts,
            link,
            resources,
        };
        status::next(self.reporter.current(), observation, Timestamp::now())
    }
}
