//! What conditions say, and when a status changes.

use super::*;
use crate::cluster::connection::Problem;
use crate::copy::{ClusterState, ResourceState};
use umbra_apimachinery::gvk::GroupResource;
use umbra_child::{Failure, Health};

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
        let said = find(&status, condition::CREDENTIALS_EXPIRING).map(|one| (one.status.clone(), one.reason.clone()));
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
