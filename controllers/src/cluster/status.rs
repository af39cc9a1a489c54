//! What the status of a ManagedCluster says.

use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use umbra_api::cluster::{CopiedResource, ManagedClusterStatus, condition};
use umbra_child::{Expiry, Health};

use crate::cluster::connection::Problem;
use crate::cluster::facts::Facts;
use crate::copy::ClusterState;

/// `lastProbeTime` is written no more often, in seconds: a thousand clusters then cost 17 writes a second.
const PROBE_TIME_SECONDS: i64 = 60;
/// How long before its end a credential is to be renewed.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Resources that a message names.
const NAMED: usize = 3;

/// The reason of `Reachable` while the credential before is used, because the one stored since does not work.
pub(super) const NEW_CREDENTIALS_FAIL: &str = "NewCredentialsFail";

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            reason,
            message: message.into(),
        }
    }
}

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

/// The finding on a cluster that is not connected.
pub(super) fn not_connected(problem: &Problem) -> Finding {
    Finding::no(problem.reason, &*problem.message)
}

/// The finding on a cluster whose identity is known.
pub(super) fn connected(health: &Health) -> Finding {
    match health {
        Health::Unreachable { since, failure, reason } => {
            let message = format!("no answer since {}: {reason}", to_second(*since));
            Finding::no(failure.reason(), message)
        }
        Health::Unknown | Health::Reachable => Finding::yes("Answers", "the API server answers"),
    }
}

/// The finding on a cluster whose new credential does not work, while the one before does.
pub(super) fn keeping_credential(problem: &Problem) -> Finding {
    let message = format!(
        "the API server answers; the new credential does not work, and the one before is still used: {}",
        problem.message
    );
    Finding::yes(NEW_CREDENTIALS_FAIL, message)
}

/// The finding on a cluster that does not answer with the credential in use, nor with the one stored since.
pub(super) fn neither_credential(health: &Health, problem: &Problem) -> Finding {
    let mut finding = connected(health);
    finding.message.push_str("; the new credential does not work either: ");
    finding.message.push_str(&problem.message);
    finding
}

/// The finding on a credential that says when it ends.
fn expiring(expiry: Expiry, now: Timestamp) -> Finding {
    let Ok(at) = Timestamp::try_from(expiry.at) else {
        return Finding::no("Valid", "the hub's credential ends in the far future");
    };
    let shown = to_second(at);
    let renew = "renew it in the Secret that the cluster is registered with";
    if expiry.renewed {
        Finding::no(
            "RenewedByItself",
            "the hub's credential ends soon and is renewed by itself",
        )
    } else if at <= now {
        Finding::yes("Expired", format!("the hub's credential has ended at {shown}; {renew}"))
    } else if at.duration_since(now) <= AHEAD {
        Finding::yes("ExpiresSoon", format!("the hub's credential ends at {shown}; {renew}"))
    } else {
        Finding::no("Valid", format!("the hub's credential is valid until {shown}"))
    }
}

/// What the status says of a credential that was used last.
fn last_expiry(status: &ManagedClusterStatus) -> Option<Expiry> {
    let renewed = find(status, condition::CREDENTIALS_EXPIRING).is_some_and(|one| one.reason == "RenewedByItself");
    let at = status.credentials_expire.as_ref()?.0;
    Some(Expiry { at: at.into(), renewed })
}

/// The finding on a cluster that nothing is copied from.
pub(super) fn not_copying() -> Finding {
    Finding::no(
        "NotConnected",
        "nothing is copied while the cluster is not connected; copies are as last known",
    )
}

/// The finding on the copies of a cluster.
pub(super) fn copying(state: &ClusterState) -> Finding {
    if !state.discovered {
        return if state.message.is_empty() {
            Finding::no("Discovering", "asking the cluster what it serves")
        } else {
            Finding::no(
                "DiscoveryFailed",
                format!("the cluster does not say what it serves: {}", state.message),
            )
        };
    }
    let all = state.resources.len();
    let named = |names: &[String]| {
        let more = names.len().saturating_sub(NAMED);
        let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more == 0 {
            shown
        } else {
            format!("{shown} and {more} more")
        }
    };
    if state.synced() {
        let refused: Vec<String> = state
            .resources
            .iter()
            .filter(|(_, one)| one.refused)
            .map(|(name, _)| name.to_string())
            .collect();
        let message = match refused.len() {
            0 => format!("{all} resources are up to date"),
            count => format!(
                "{} resources are up to date; the hub may not read {}",
                all - count,
                named(&refused)
            ),
        };
        return Finding::yes("Copied", message);
    }
    let behind = state
        .resources
        .values()
        .filter(|one| !one.synced && !one.refused)
        .count();
    let failing: Vec<String> = state
        .resources
        .iter()
        .filter(|(_, one)| !one.synced && !one.refused && !one.message.is_empty())
        .map(|(name, one)| format!("{name}: {}", one.message))
        .collect();
    let message = format!("{} of {all} resources are up to date", all - behind);
    match failing.is_empty() {
        true => Finding::no("Copying", message),
        false => Finding::no("CopyFailed", format!("{message}; {}", named(&failing))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::ResourceState;
    use umbra_apimachinery::gvk::GroupResource;
    use umbra_child::Failure;

    fn observation(reachable: Finding, synced: Finding) -> Observation<'static> {
        Observation {
            generation: Some(2),
            reachable,
            synced,
            facts: None,
            link: None,
            resources: None,
        }
    }

    #[test]
    fn credentials_that_end_are_told_of_7_days_ahead() {
        const DAY: i64 = 24 * 3600;
        let with = |previous: &ManagedClusterStatus, link: Option<Link>, now: i64| {
            let observation = Observation {
                link,
                ..observation(connected(&Health::Reachable), not_copying())
            };
            let status = next(previous, observation, at(now));
            let said =
                find(&status, condition::CREDENTIALS_EXPIRING).map(|one| (one.status.clone(), one.reason.clone()));
            (status, said.unwrap_or_default())
        };
        let link = |day: i64, renewed| {
            let expiry = Expiry {
                at: at(day * DAY).into(),
                renewed,
            };
            Some(Link {
                expiry: Some(expiry),
                endpoint: String::new(),
            })
        };
        let said = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        let none = ManagedClusterStatus::default();
        let (valid, first) = with(&none, link(100, false), 92 * DAY);
        assert_eq!(first, said("False", "Valid"));
        assert_eq!(valid.credentials_expire, Some(Time(at(100 * DAY))));
        assert_eq!(with(&valid, link(100, false), 93 * DAY).1, said("True", "ExpiresSoon"));
        // Also while the cluster cannot be reached any more, which is what comes of it.
        assert_eq!(with(&valid, None, 101 * DAY).1, said("True", "Expired"));
        let (renewed, second) = with(&valid, link(93, true), 93 * DAY);
        assert_eq!(second, said("False", "RenewedByItself"));
        assert_eq!(with(&renewed, None, 95 * DAY).1, said("False", "RenewedByItself"));
        let (silent, nothing) = with(&valid, Some(Link::default()), 93 * DAY);
        assert_eq!((nothing, silent.credentials_expire), (said("", ""), None));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn where_neither_credential_works_both_are_told_of() {
        let refused = Health::Unreachable {
            since: at(1000),
            failure: Failure::CredentialsRefused,
            reason: "401 Unauthorized".into(),
        };
        let finding = neither_credential(&refused, &Problem::new("DNS", "no such host"));
        assert_eq!((finding.holds, finding.reason), (false, "CredentialsRefused"));
        assert!(
            finding.message.contains("401") && finding.message.contains("no such host"),
            "{finding:?}"
        );
    }

    #[test]
    fn nothing_changes_where_nothing_has_changed() {
        let reached = || connected(&Health::Reachable);
        let copied = || Finding::yes("Copied", "1 resource");
        let first = next(
            &ManagedClusterStatus::default(),
            observation(reached(), copied()),
            at(1000),
        );
        let again = next(&first, observation(reached(), copied()), at(1059));
        assert_eq!(first, again);
        let later = next(&first, observation(reached(), copied()), at(1060));
        assert_eq!(later.last_probe_time, Some(Time(at(1060))));
        assert_eq!(later.conditions, first.conditions);
    }

    #[test]
    fn ready_says_what_is_missing_and_since_when() {
        let copied = || Finding::yes("Copied", "1 resource");
        let first = next(
            &ManagedClusterStatus::default(),
            observation(connected(&Health::Reachable), copied()),
            at(1000),
        );
        let gone = Health::Unreachable {
            since: at(1990),
            failure: Failure::ConnectionRefused,
            reason: "connection refused".into(),
        };
        let second = next(&first, observation(connected(&gone), not_copying()), at(2000));
        let ready = find(&second, condition::READY).unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "ConnectionRefused")
        );
        assert!(ready.message.contains("connection refused"), "{}", ready.message);
        assert_eq!(ready.last_transition_time, Time(at(2000)));
        assert_eq!(second.last_probe_time, Some(Time(at(2000))));
        let gone = Health::Unreachable {
            since: at(1990),
            failure: Failure::ConnectionRefused,
            reason: "no route to host".into(),
        };
        let third = next(&second, observation(connected(&gone), not_copying()), at(2030));
        let ready = find(&third, condition::READY).unwrap();
        assert!(ready.message.contains("no route"));
        assert_eq!(ready.last_transition_time, Time(at(2000)));
    }

    #[test]
    fn copies_that_may_not_be_read_are_named_and_not_waited_for() {
        let state = |synced, refused, message: &str| ResourceState {
            synced,
            refused,
            message: message.to_owned(),
        };
        let mut cluster = ClusterState {
            discovered: true,
            ..ClusterState::default()
        };
        cluster
            .resources
            .insert(GroupResource::new("", "pods"), state(true, false, ""));
        cluster.resources.insert(
            GroupResource::new("apps", "deployments"),
            state(false, true, "forbidden"),
        );
        let finding = copying(&cluster);
        assert!(
            finding.holds && finding.message.contains("deployments.apps"),
            "{finding:?}"
        );
        cluster
            .resources
            .insert(GroupResource::new("", "nodes"), state(false, false, "timed out"));
        let finding = copying(&cluster);
        assert_eq!((finding.holds, finding.reason), (false, "CopyFailed"));
        assert!(
            finding.message.contains("2 of 3") && finding.message.contains("nodes: timed out"),
            "{finding:?}"
        );
    }

    #[test]
    fn the_first_identity_stays() {
        let facts = |uid: &str| Facts {
            uid: uid.to_owned(),
            version: "v1.36.3".to_owned(),
            ..Facts::default()
        };
        let seen = |previous: &ManagedClusterStatus, facts: &Facts| {
            let observation = Observation {
                facts: Some(facts),
                ..observation(connected(&Health::Reachable), not_copying())
            };
            next(previous, observation, at(1000))
        };
        let first = seen(&ManagedClusterStatus::default(), &facts("a"));
        assert_eq!((first.uid.as_str(), first.version.as_str()), ("a", "v1.36.3"));
        assert_eq!(first.properties["kubernetesVersion"], "v1.36.3");
        assert_eq!(seen(&first, &facts("b")).uid, "a");
    }
}
