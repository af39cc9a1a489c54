//! What a client is told when a child cannot be asked, or does not answer as it should: one place for all roots.
//!
//! A child that cannot be reached is 503, one that does not answer in time 504, and one whose answer, or whose relation
//! to the hub, makes no sense 502. Each names the cluster in `details`, because the person who reads it may be working
//! with hundreds. What a child itself answers is relayed as it is.
//!
//! A view is entered by people who may have no rights at all in a cluster of it. They are told which cluster it is and what kind
//! of failure, and nothing of how the hub is connected to it: addresses, credentials, who answers there
//! ([`child_status_in_view`]). Who may enter a cluster root is told the reason.
//!
//! `Retry-After` is said where the hub knows that waiting helps, and nowhere else. Clients of Kubernetes take it for an order:
//! they send *any* request again that was answered with it and 429 or 5xx, writes too, up to ten times, and show nothing of the
//! reason meanwhile (`client-go/rest/with_retry.go`, `request.go`). So
//!
//! * 429 has it: the request was not sent, and others will end;
//! * 503 has it while the hub is about to connect to the child, or to connect anew: the request was not sent either;
//! * 503 has none where the child does not answer. The hub asks it again every 10 s, but does not know when it will be back, and
//!   one command of kubectl, which asks for several things, would be silent for minutes;
//! * 502 and 504 have none: the child may have done what was asked for, and would do it again.

use http::StatusCode;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Reason, Status};
use umbra_child::ChildError;

/// When to try again what may well go through the next time, in seconds.
const RETRY_SECONDS: u32 = 1;

/// The resource of clusters.
#[must_use]
pub fn cluster_resource() -> GroupResource {
    GroupResource::new("umbra.dev", "managedclusters")
}

/// 404 for a cluster that there is not.
#[must_use]
pub fn no_such_cluster(cluster: &str) -> Status {
    Status::not_found(&cluster_resource(), cluster)
}

/// 503 for a cluster that is known not to answer.
#[must_use]
pub fn unreachable(cluster: &str, since: &str, reason: &str) -> Status {
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let message = format!(
        "cluster \"{cluster}\" is unreachable since {since}{because}; check that it runs and that the hub can reach it"
    );
    about(Status::failure(Reason::ServiceUnavailable, message), cluster)
}

/// 503 for a cluster that the hub has no connection to yet, and nothing is known that keeps it from connecting: a moment after
/// the cluster was joined, or the hub started.
#[must_use]
pub fn not_connected(cluster: &str) -> Status {
    let message = format!(
        "the hub has no connection to cluster \"{cluster}\"; the conditions of its ManagedCluster say why, if it does not come up"
    );
    about(Status::failure(Reason::ServiceUnavailable, message), cluster).retry_after(RETRY_SECONDS)
}

/// 502 for an answer that cannot be used.
#[must_use]
pub fn unusable(cluster: &str, why: impl std::fmt::Display) -> Status {
    let message = format!("cluster {cluster}: {why}");
    about(Status::failure(Reason::BadGateway, message), cluster)
}

/// 504 for an answer that did not end in time.
#[must_use]
pub fn too_late(cluster: &str) -> Status {
    let message = format!("cluster {cluster}: the answer took too long");
    about(Status::failure(Reason::Timeout, message), cluster)
}

/// 403 for a write to a cluster whose `spec.access` is `ReadOnly`.
#[must_use]
pub fn read_only(cluster: &str) -> Status {
    let why =
        "its spec.access is ReadOnly: it can be read through the hub but not written to, and nothing can be run there";
    Status::forbidden(&cluster_resource(), cluster, why)
}

/// The status for an error on the way to a child.
#[must_use]
pub fn child_status(error: &ChildError) -> Status {
    let failure = |reason| Status::failure(reason, error.to_string());
    match error {
        ChildError::Status {
            code, message, body, ..
        } => answered(*code, body, message),
        ChildError::Identity(_) => failure(Reason::Forbidden),
        ChildError::Method { .. } => failure(Reason::MethodNotAllowed),
        ChildError::Path(_) | ChildError::Request(_) | ChildError::NotUpgradable => failure(Reason::BadRequest),
        ChildError::Unreachable { cluster, since, reason } => unreachable(cluster, &since.to_string(), reason),
        ChildError::Connect { cluster, .. } | ChildError::WrongCluster { cluster, .. } => {
            about(failure(Reason::ServiceUnavailable), cluster)
        }
        ChildError::Closed { cluster } => {
            about(failure(Reason::ServiceUnavailable), cluster).retry_after(RETRY_SECONDS)
        }
        // What kube-apiserver says when its own queues are full.
        ChildError::Busy { cluster, .. } => about(failure(Reason::TooManyRequests), cluster).retry_after(RETRY_SECONDS),
        ChildError::Timeout { cluster, .. } => about(failure(Reason::Timeout), cluster),
        ChildError::Configuration { cluster, .. }
        | ChildError::Credentials { cluster, .. }
        | ChildError::CredentialsRefused { cluster }
        | ChildError::Http { cluster, .. }
        | ChildError::Body { cluster, .. }
        | ChildError::Protocol { cluster, .. }
        | ChildError::TooLong { cluster, .. }
        | ChildError::Json { cluster, .. } => about(failure(Reason::BadGateway), cluster),
        _ => Status::internal(error),
    }
}

/// The status for an error on the way to a child of a view: what is known of the connection goes to the log.
#[must_use]
pub fn child_status_in_view(error: &ChildError) -> Status {
    let (cluster, kind) = match error {
        ChildError::Connect { cluster, .. } => (cluster, "cannot be reached"),
        ChildError::WrongCluster { cluster, .. } => {
            (cluster, "cannot be reached: another cluster answers at its address")
        }
        ChildError::Configuration { cluster, .. } => (cluster, "cannot be reached as it is registered"),
        ChildError::Credentials { cluster, .. } | ChildError::CredentialsRefused { cluster } => {
            (cluster, "cannot be asked: the hub has no credentials that work there")
        }
        ChildError::Http { cluster, .. } => (cluster, "the request failed on the way"),
        ChildError::Body { cluster, .. } => (cluster, "the answer broke off"),
        ChildError::Unreachable { cluster, since, .. } => {
            tracing::debug!(%error, "a cluster of a view cannot be asked");
            return unreachable(cluster, &since.to_string(), "");
        }
        // They say nothing but what was asked, by whom, or how long and how much it was.
        ChildError::Status { .. }
        | ChildError::Identity(_)
        | ChildError::Method { .. }
        | ChildError::Path(_)
        | ChildError::Request(_)
        | ChildError::NotUpgradable
        | ChildError::Closed { .. }
        | ChildError::Busy { .. }
        | ChildError::Timeout { .. }
        | ChildError::Protocol { .. }
        | ChildError::TooLong { .. }
        | ChildError::Json { .. } => return child_status(error),
        _ => {
            tracing::debug!(%error, "a cluster of a view cannot be asked");
            return Status::internal("a cluster cannot be asked");
        }
    };
    tracing::debug!(%error, "a cluster of a view cannot be asked");
    Status {
        message: format!("cluster {cluster}: {kind}; the conditions of its ManagedCluster say more"),
        ..child_status(error)
    }
}

/// What a child answered with an error code: its own Status, or one made of the code and `otherwise`.
#[must_use]
pub fn answered(code: StatusCode, body: &[u8], otherwise: &str) -> Status {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.kind == "Status" => Status {
            // A Status without a code is legal; the answer has one.
            code: code.as_u16(),
            ..status
        },
        _ => {
            let reason = reason_of(code).map_or("", Reason::as_str).to_owned();
            Status {
                code: code.as_u16(),
                reason,
                ..Status::failure(Reason::InternalError, otherwise)
            }
        }
    }
}

fn about(status: Status, cluster: &str) -> Status {
    status.about(&cluster_resource(), cluster)
}

fn reason_of(code: StatusCode) -> Option<Reason> {
    [
        Reason::BadRequest,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::MethodNotAllowed,
        Reason::NotAcceptable,
        Reason::Conflict,
        Reason::Expired,
        Reason::RequestEntityTooLarge,
        Reason::UnsupportedMediaType,
        Reason::Invalid,
        Reason::TooManyRequests,
        Reason::InternalError,
        Reason::BadGateway,
        Reason::ServiceUnavailable,
        Reason::Timeout,
    ]
    .into_iter()
    .find(|reason| reason.code() == code.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use umbra_child::Failure;
    use umbra_child::identity::IdentityError;

    #[test]
    fn errors_say_which_cluster_and_whether_to_try_again() {
        let cluster = || "east".into();
        let connect = ChildError::Connect {
            cluster: cluster(),
            server: "east:6443".into(),
            reason: "connection refused".into(),
            failure: Failure::ConnectionRefused,
        };
        let given_up = ChildError::Unreachable {
            cluster: cluster(),
            since: jiff::Timestamp::UNIX_EPOCH,
            reason: "no answer".into(),
        };
        let late = ChildError::Timeout {
            cluster: cluster(),
            after: Duration::from_secs(60),
        };
        let broken = ChildError::Body {
            cluster: cluster(),
            source: "reset".into(),
        };
        let nonsense = ChildError::Protocol {
            cluster: cluster(),
            message: "it is none",
        };
        let busy = ChildError::Busy {
            cluster: cluster(),
            limit: 400,
        };
        for (status, code, seconds) in [
            (child_status(&busy), 429, 1),
            (child_status(&ChildError::Closed { cluster: cluster() }), 503, 1),
            (not_connected("east"), 503, 1),
            (unreachable("east", "noon", "no answer"), 503, 0),
            (child_status(&given_up), 503, 0),
            (child_status(&connect), 503, 0),
            (child_status(&late), 504, 0),
            (too_late("east"), 504, 0),
            (child_status(&broken), 502, 0),
            (child_status(&nonsense), 502, 0),
            (
                child_status(&ChildError::CredentialsRefused { cluster: cluster() }),
                502,
                0,
            ),
            (unusable("east", "no JSON"), 502, 0),
        ] {
            assert_eq!(status.code, code, "{status}");
            let details = status.details.as_ref().expect("details");
            let told = (details.name.as_str(), details.retry_after_seconds);
            assert_eq!(told, ("east", seconds), "{status}");
        }
        assert_eq!(child_status(&IdentityError::Anonymous.into()).code, 403);
        let method = ChildError::Method {
            method: http::Method::TRACE,
        };
        assert_eq!(child_status(&method).code, 405);
    }

    /// Who may enter a view has perhaps no rights in the cluster.
    #[test]
    fn views_tell_nothing_of_the_connections_of_the_hub() {
        let cluster = || "east".into();
        let secret = || "10.1.2.3: /etc/token: 6a1f".to_owned();
        let errors = [
            (
                ChildError::Connect {
                    cluster: cluster(),
                    server: secret().into(),
                    reason: secret().into(),
                    failure: Failure::ConnectionRefused,
                },
                503,
            ),
            (
                ChildError::WrongCluster {
                    cluster: cluster(),
                    expected: secret().into(),
                    found: secret().into(),
                },
                503,
            ),
            (
                ChildError::Unreachable {
                    cluster: cluster(),
                    since: jiff::Timestamp::UNIX_EPOCH,
                    reason: secret().into(),
                },
                503,
            ),
            (
                ChildError::Configuration {
                    cluster: cluster(),
                    message: secret(),
                },
                502,
            ),
            (
                ChildError::Body {
                    cluster: cluster(),
                    source: secret().into(),
                },
                502,
            ),
        ];
        for (error, code) in errors {
            assert!(error.to_string().contains("10.1.2.3"), "{error}");
            let told = child_status_in_view(&error);
            assert_eq!(told.code, code, "{told}");
            let text = String::from_utf8(told.to_json()).unwrap();
            assert!(text.contains("cluster ") && text.contains("east"), "{text}");
            assert!(!text.contains("10.1.2.3"), "{text}");
        }
        let late = ChildError::Timeout {
            cluster: cluster(),
            after: Duration::from_secs(10),
        };
        assert_eq!(child_status_in_view(&late), child_status(&late));
    }

    #[test]
    fn what_a_child_answers_is_relayed() {
        let own = Status::not_found(&GroupResource::new("", "pods"), "web");
        let relayed = answered(StatusCode::NOT_FOUND, &own.to_json(), "");
        assert_eq!(relayed, own);
        let text = answered(StatusCode::TOO_MANY_REQUESTS, b"slow down", "slow down");
        assert_eq!(
            (text.code, text.reason.as_str(), text.message.as_str()),
            (429, "TooManyRequests", "slow down")
        );
    }
}
