//! What the status of a ManagedCluster says.

mod finding;
#[cfg(test)]
mod tests;

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use umbra_api::cluster::{CopiedResource, ManagedClusterStatus, condition};
use umbra_child::Expiry;

use self::finding::expiring;
pub(super) use self::finding::{
    Finding, NEW_CREDENTIALS_FAIL, connected, copying, keeping_credential, neither_credential, not_connected,
    not_copying,
};
use crate::cluster::facts::Facts;

/// `lastProbeTime` is written no more often, in seconds: a thousand clusters then cost 17 writes a second.
const PROBE_TIME_SECONDS: i64 = 60;

/// What a connection is now.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// When the hub's credential ends, where it says so.
    pub(super) expiry: Option<Expiry>,
    /// The endpoint in use; empty where there is one alone.
    pub(super) endpoint: String,
}

/// What is known of a cluster now.
#[derive(Debug)]
pub(super) struct Observation<'a> {
    /// The generation of the ManagedCluster that this is about.
    pub(super) generation: Option<i64>,
    pub(super) reachable: Finding,
    pub(super) synced: Finding,
    /// `None`: what was known before still is.
    pub(super) facts: Option<&'a Facts>,
    /// `None`: there is none, and what was known of the last one still is.
    pub(super) link: Option<Link>,
    /// `None`: what was known before still is.
    pub(super) resources: Option<Vec<CopiedResource>>,
}

/// What the status says of a credential that was used last.
fn last_expiry(status: &ManagedClusterStatus) -> Option<Expiry> {
    let renewed = find(status, condition::CREDENTIALS_EXPIRING).is_some_and(|one| one.reason == "RenewedByItself");
    let at = status.credentials_expire.as_ref()?.0;
    Some(Expiry { at: at.into(), renewed })
}

/// The status after `previous`; the same where nothing has changed. Conditions of others are kept.
pub(super) fn next(
    previous: &ManagedClusterStatus,
    observation: Observation<'_>,
    now: Timestamp,
) -> ManagedClusterStatus {
    let now = to_second(now);
    let Observation {
        generation,
        reachable,
        synced,
        facts,
        link,
        resources,
    } = observation;
    let ready = match (&reachable, &synced) {
        (Finding { holds: true, .. }, Finding { holds: true, .. }) => {
            Finding::yes("Ready", "requests reach the cluster and its copies are up to date")
        }
        (Finding { holds: true, .. }, not) | (not, _) => not.clone(),
    };
    let was_reachable = find(previous, condition::REACHABLE).map(|one| one.status.clone());
    let mut status = previous.clone();
    let findings = [
        (condition::REACHABLE, reachable),
        (condition::SYNCED, synced),
        (condition::READY, ready),
    ];
    for (kind, finding) in findings {
        set_condition(&mut status, kind, finding, generation, now);
    }
    let expiry = match &link {
        Some(link) => link.expiry,
        None => last_expiry(previous),
    };
    match expiry {
        Some(expiry) => set_condition(
            &mut status,
            condition::CREDENTIALS_EXPIRING,
            expiring(expiry, now),
            generation,
            now,
        ),
        None => status
            .conditions
            .retain(|one| one.type_ != condition::CREDENTIALS_EXPIRING),
    }
    if let Some(link) = link {
        let at = link.expiry.and_then(|expiry| Timestamp::try_from(expiry.at).ok());
        status.credentials_expire = at.map(|at| Time(to_second(at)));
        status.endpoint = link.endpoint;
    }
    let probed = previous
        .last_probe_time
        .as_ref()
        .map(|time| now.as_second() - time.0.as_second());
    let turned = find(&status, condition::REACHABLE).map(|one| one.status.clone()) != was_reachable;
    if turned || probed.is_none_or(|seconds| seconds >= PROBE_TIME_SECONDS) {
        status.last_probe_time = Some(Time(now));
    }
    if let Some(facts) = facts {
        status.version.clone_from(&facts.version);
        status.nodes = facts.nodes;
        if status.uid.is_empty() {
            status.uid.clone_from(&facts.uid);
        }
        status
            .properties
            .insert("kubernetesVersion".to_owned(), facts.version.clone());
        status.properties.insert("platform".to_owned(), facts.platform.clone());
    }
    if let Some(resources) = resources {
        status.resources = resources;
    }
    status
}

fn find<'a>(status: &'a ManagedClusterStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|one| one.type_ == kind)
}

/// The time of the last transition changes with the status alone (`meta.SetStatusCondition` of apimachinery).
fn set_condition(
    status: &mut ManagedClusterStatus,
    kind: &str,
    finding: Finding,
    generation: Option<i64>,
    now: Timestamp,
) {
    let holds = if finding.holds { "True" } else { "False" };
    let since = find(status, kind)
        .filter(|one| one.status == holds)
        .map(|one| one.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: holds.to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match status.conditions.iter_mut().find(|one| one.type_ == kind) {
        Some(present) => *present = condition,
        None => status.conditions.push(condition),
    }
}

/// Times of Kubernetes objects have whole seconds.
fn to_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
