//! What is told of a deletion that some clusters have done, and others have not.

use std::cmp::Reverse;

use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Details, Reason, Status};

use crate::child_errors::cluster_resource;

/// How many failures are told with their reasons, of some hundred bytes each; of others, the clusters.
const REASONS: usize = 10;

/// The failure of a deletion in these clusters, which says in which it is done. That of one cluster alone is told as it is.
///
/// # Panics
/// Without failures.
pub(super) fn incomplete(resource: &GroupResource, mut failures: Vec<(String, Status)>, done: &[String]) -> Status {
    for (cluster, status) in &mut failures {
        name_cluster(status, cluster);
    }
    let mut told = worst(&failures).clone();
    let total = failures.len() + done.len();
    if total == 1 {
        return told;
    }
    // Clients obey it by themselves, and would delete what has been made since.
    let may_be_repeated = done.is_empty() && failures.iter().all(|(_, status)| says_when_to_retry(status));
    if let Some(details) = told.details.as_mut().filter(|_| !may_be_repeated) {
        details.retry_after_seconds = 0;
    }
    told.message = format!(
        "deleting {resource} failed in {} of {total} clusters, which may have deleted some of them: {}; done in {}",
        failures.len(),
        reasons(&failures),
        if done.is_empty() {
            "no cluster".to_owned()
        } else {
            done.join(", ")
        }
    );
    told
}

/// The failure whose code is told for all. A client may take 404 for done, so anything else goes first; then what may go through
/// another time, or may have been done.
fn worst(failures: &[(String, Status)]) -> &Status {
    let statuses = failures.iter().map(|(_, status)| status);
    let worst = statuses.min_by_key(|status| (status.code == Reason::NotFound.code(), Reverse(status.code)));
    worst.expect("something has failed")
}

fn says_when_to_retry(status: &Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| details.retry_after_seconds > 0)
}

fn reasons(failures: &[(String, Status)]) -> String {
    let (told, named) = failures.split_at(failures.len().min(REASONS));
    let mut reasons: Vec<String> = told.iter().map(|(_, status)| status.message.clone()).collect();
    if !named.is_empty() {
        let named: Vec<&str> = named.iter().map(|(cluster, _)| cluster.as_str()).collect();
        reasons.push(format!("and in: {}", named.join(", ")));
    }
    reasons.join("; ")
}

/// Names the cluster, where the status does not.
fn name_cluster(status: &mut Status, cluster: &str) {
    let clusters = cluster_resource();
    let is_about_it = |details: &Details| {
        details.name == cluster && details.group == clusters.group && details.kind == clusters.resource
    };
    let names_it = status.details.as_deref().is_some_and(is_about_it)
        || status.message.starts_with(&format!("cluster {cluster} "));
    if !names_it {
        status.message = format!("cluster \"{cluster}\": {}", status.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: Reason, clusters: &[&str]) -> Vec<(String, Status)> {
        let failed = |cluster: &&str| ((*cluster).to_owned(), Status::failure(reason, "no"));
        clusters.iter().map(failed).collect()
    }

    #[test]
    fn one_failure_alone_is_told_as_it_is() {
        let busy = vec![(
            "east".to_owned(),
            Status::failure(Reason::TooManyRequests, "busy").retry_after(1),
        )];
        let told = incomplete(&GroupResource::new("", "pods"), busy, &[]);
        assert_eq!((told.code, told.message.as_str()), (429, "cluster \"east\": busy"));
        assert!(says_when_to_retry(&told));
    }

    #[test]
    fn what_a_client_may_take_for_done_is_told_last() {
        let pods = GroupResource::new("", "pods");
        for (one, other, code) in [
            (Reason::NotFound, Reason::Forbidden, 403),
            (Reason::Conflict, Reason::Timeout, 504),
            (Reason::NotFound, Reason::NotFound, 404),
        ] {
            let failures = [failed(one, &["east"]), failed(other, &["west"])].concat();
            assert_eq!(incomplete(&pods, failures, &[]).code, code);
        }
    }

    #[test]
    fn every_cluster_is_named() {
        let names: Vec<String> = (0..REASONS + 2).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let failures = failed(Reason::BadGateway, &names);
        let told = incomplete(&GroupResource::new("", "pods"), failures, &["west".to_owned()]);
        assert!(
            told.message.starts_with(
                "deleting pods failed in 12 of 13 clusters, which may have deleted some of them: cluster \"c0\": no; "
            ),
            "{told}"
        );
        assert!(
            told.message.ends_with("\"c9\": no; and in: c10, c11; done in west"),
            "{told}"
        );
    }

    #[test]
    fn nothing_is_repeated_that_is_done() {
        let pods = GroupResource::new("", "pods");
        let waiting = |cluster: &str| {
            (
                cluster.to_owned(),
                Status::failure(Reason::ServiceUnavailable, "").retry_after(1),
            )
        };
        let both = || vec![waiting("east"), waiting("west")];
        assert!(says_when_to_retry(&incomplete(&pods, both(), &[])));
        assert!(!says_when_to_retry(&incomplete(&pods, both(), &["north".to_owned()])));
        let one_is_late = [both(), failed(Reason::BadGateway, &["north"])].concat();
        assert!(!says_when_to_retry(&incomplete(&pods, one_is_late, &[])));
    }
}
