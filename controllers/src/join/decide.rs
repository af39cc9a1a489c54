//! What is to be done with one request.

use jiff::{SignedDuration, Timestamp};
use umbra_api::cluster::{Approval, ConnectionMode, ManagedCluster};
use umbra_api::join_request::{ClusterJoinRequest, bootstrap_token_used, bootstrap_user, condition};
use umbra_auth::tokens::sha256_hex;
use umbra_registry::directory::Directory;

/// How long nobody decides about a request before it goes (`pendingExpiration` in
/// `k8s.io/kubernetes/pkg/controller/certificates/cleaner`).
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// How long a denied request stays to be seen, or longer: for as long as its certificate or the token lasts.
const DENIED: SignedDuration = SignedDuration::from_hours(48);
/// How long a request stays whose certificate has expired: its agent has to join again anyway.
const EXPIRED: SignedDuration = SignedDuration::from_hours(1);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Say that it is approved or denied, for the ManagedCluster of this UID.
    Decide {
        cluster_uid: String,
        condition: &'static str,
        reason: &'static str,
        message: String,
    },
    /// Write down, in its ManagedCluster, that the bootstrap token with this hash is for this request and no other.
    UseToken {
        hash: String,
    },
    /// Issue the certificate, for the ManagedCluster of this UID.
    Sign {
        cluster_uid: String,
    },
    /// Take it away.
    Delete(&'static str),
}

/// Decides about `request`, as things are `now`.
pub(super) fn decide(directory: &Directory, request: &ClusterJoinRequest, now: Timestamp) -> Action {
    if request.metadata.deletion_timestamp.is_some() {
        return Action::Nothing;
    }
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let status = request.status.clone().unwrap_or_default();
    let cluster = directory.clusters.get(&request.spec.cluster_name);
    let uid = |cluster: &ManagedCluster| cluster.metadata.uid.clone().unwrap_or_default();
    let owner = &status.managed_cluster_uid;
    if !owner.is_empty() && cluster.map(|cluster| uid(cluster)).as_ref() != Some(owner) {
        return Action::Delete("its ManagedCluster is gone");
    }
    // What was said about an earlier cluster of the name is not said about this one.
    if cluster.is_some_and(|cluster| is_older(request, cluster)) {
        return Action::Delete("it was made for an earlier ManagedCluster of the name");
    }
    // Whoever decided: the token was for this request, and a denied agent does not come back by it.
    if let Some(hash) = cluster.and_then(|cluster| unmarked_token(cluster, request)) {
        return Action::UseToken { hash };
    }
    if request.has(condition::DENIED) {
        // As long as it is there, tokens approve nothing more for the cluster.
        let token = cluster.and_then(|cluster| cluster.spec.connection.tunnel.as_ref());
        let token = token.and_then(|settings| settings.bootstrap_token_expires.as_ref());
        let of_no_use = status.expires.is_none_or(|expires| now > expires.0) && token.is_none_or(|token| now > token.0);
        return match of_no_use && now > created + DENIED {
            true => Action::Delete("it was denied two days ago or earlier"),
            false => Action::Nothing,
        };
    }
    if status.expires.as_ref().is_some_and(|expires| now > expires.0 + EXPIRED) {
        return Action::Delete("its certificate has expired");
    }
    if !request.has(condition::APPROVED) {
        if now > created + PENDING {
            return Action::Delete("nobody has decided about it for a day");
        }
        return cluster.map_or(Action::Nothing, |cluster| by_rule(directory, cluster, request));
    }
    let Some(cluster) = cluster else {
        return Action::Delete("it is approved for a ManagedCluster that is not there");
    };
    let is_signed = status.request_hash == sha256_hex(request.spec.request.as_bytes());
    match cluster.spec.connection.mode == ConnectionMode::Tunnel && !is_signed {
        true => Action::Sign {
            cluster_uid: uid(cluster),
        },
        false => Action::Nothing,
    }
}

/// Whether a request was made before its cluster, or with a token of an earlier one. Both times are the hub's, in seconds.
fn is_older(request: &ClusterJoinRequest, cluster: &ManagedCluster) -> bool {
    let times = (
        &request.metadata.creation_timestamp,
        &cluster.metadata.creation_timestamp,
    );
    let older = matches!(times, (Some(request), Some(cluster)) if request.0 < cluster.0);
    let with_token = request.spec.username == bootstrap_user(&request.spec.cluster_name);
    older || (with_token && cluster.metadata.uid.as_deref() != Some(request.spec.uid.as_str()))
}

/// The hash of the present bootstrap token of `cluster`, where `request` came with it and was decided about, and the cluster does not
/// say yet that it was used.
fn unmarked_token(cluster: &ManagedCluster, request: &ClusterJoinRequest) -> Option<String> {
    let settings = cluster.spec.connection.tunnel.as_ref()?;
    let is_its_own = request.spec.username == bootstrap_user(&request.spec.cluster_name)
        && request.bootstrap_token() == Some(settings.bootstrap_token_hash.as_str());
    let unmarked = is_its_own && request.is_decided() && bootstrap_token_used(cluster).is_none();
    unmarked.then(|| settings.bootstrap_token_hash.clone())
}

/// The rule about requests that came with a bootstrap token.
fn by_rule(directory: &Directory, cluster: &ManagedCluster, request: &ClusterJoinRequest) -> Action {
    let name = &request.spec.cluster_name;
    let with_token = request.spec.username == bootstrap_user(name)
        && cluster.metadata.uid.as_deref() == Some(request.spec.uid.as_str());
    // Somebody has thrown an agent of this cluster out; it is not to come back by its token.
    let mut others = directory
        .join_requests
        .values()
        .filter(|other| other.spec.cluster_name == *name);
    if others.any(|other| other.has(condition::DENIED)) {
        return Action::Nothing;
    }
    let Some(settings) = cluster.spec.connection.tunnel.as_ref() else {
        return Action::Nothing;
    };
    let with_this_token = with_token && request.bootstrap_token() == Some(settings.bootstrap_token_hash.as_str());
    if !with_this_token || settings.approval != Approval::Token {
        return Action::Nothing;
    }
    let cluster_uid = cluster.metadata.uid.clone().unwrap_or_default();
    let known = cluster.status.as_ref().map_or("", |status| status.uid.as_str());
    if !known.is_empty() && known != request.spec.cluster_uid {
        return Action::Decide {
            cluster_uid,
            condition: condition::DENIED,
            reason: "AnotherCluster",
            message: format!(
                "{name} is the cluster whose namespace kube-system has the UID {known}, and the agent is in another one; \
                 `umbra leave {name}` first to replace the cluster"
            ),
        };
    }
    match bootstrap_token_used(cluster) {
        None => Action::UseToken {
            hash: settings.bootstrap_token_hash.clone(),
        },
        Some(used) if request.metadata.uid.as_deref() == Some(used) => Action::Decide {
            cluster_uid,
            condition: condition::APPROVED,
            reason: "BootstrapToken",
            message: format!("the agent has the bootstrap token of {name}"),
        },
        // Two asked at the same time with one token. A person may approve this one too.
        Some(_) => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use umbra_api::join_request::{BOOTSTRAP_TOKEN, BOOTSTRAP_TOKEN_USED};

    use super::*;

    fn directory(tunnel: &Value, status: &Value) -> Directory {
        directory_with(tunnel, status, |_| {})
    }

    /// A cluster whose token is used by the request that these tests are about.
    fn directory_with(tunnel: &Value, status: &Value, change: impl FnOnce(&mut Value)) -> Directory {
        let mut cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
            "metadata": {"name": "east", "uid": "m1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {BOOTSTRAP_TOKEN_USED: "h/r1"}},
            "status": status, "spec": {"connection": {"mode": "Tunnel", "tunnel": tunnel}}});
        cluster["spec"]["connection"]["tunnel"]["bootstrapTokenHash"] = "h".into();
        change(&mut cluster);
        let mut directory = Directory::default();
        let cluster = Arc::new(serde_json::from_value(cluster).unwrap());
        directory.clusters.insert("east".to_owned(), cluster);
        directory
    }

    fn request(change: impl FnOnce(&mut Value)) -> ClusterJoinRequest {
        let mut request = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest",
            "metadata": {"name": "east-1", "uid": "r1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {BOOTSTRAP_TOKEN: "h"}},
            "spec": {"clusterName": "east", "clusterUID": "k1", "request": "csr", "username": "umbra:bootstrap:east",
                "uid": "m1"},
            "status": {}});
        change(&mut request);
        serde_json::from_value(request).unwrap()
    }

    fn approved(request: &mut Value) {
        request["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "r", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn decided(directory: &Directory, request: &ClusterJoinRequest) -> Option<&'static str> {
        match decide(directory, request, at("2026-01-01T01:00:00Z")) {
            Action::Decide { condition, .. } => Some(condition),
            _ => None,
        }
    }

    #[test]
    fn a_token_approves_its_cluster_and_no_other() {
        let plain = directory(&json!({}), &json!({}));
        assert_eq!(decided(&plain, &request(|_| {})), Some(condition::APPROVED));
        let known = directory(&json!({}), &json!({"uid": "k1"}));
        assert_eq!(decided(&known, &request(|_| {})), Some(condition::APPROVED));
        let other = directory(&json!({}), &json!({"uid": "k2"}));
        assert_eq!(decided(&other, &request(|_| {})), Some(condition::DENIED));

        let manual = directory(&json!({"approval": "Manual"}), &json!({}));
        assert_eq!(decided(&manual, &request(|_| {})), None);
        for forged in [
            json!({"username": "umbra:bootstrap:west"}),
            json!({"username": "system:serviceaccount:a:b"}),
            // The token of an earlier cluster of this name: it goes.
            json!({"uid": "m0"}),
            json!({"clusterName": "west"}),
        ] {
            let request = request(|request| {
                for (key, value) in forged.as_object().unwrap() {
                    request["spec"][key] = value.clone();
                }
            });
            assert_eq!(decided(&plain, &request), None, "{forged}");
        }
    }

    #[test]
    fn a_token_approves_one_request() {
        let decided = |used: Value, request: &ClusterJoinRequest| {
            let cluster = directory_with(&json!({}), &json!({}), |cluster| {
                cluster["metadata"]["annotations"] = used;
            });
            decide(&cluster, request, at("2026-01-01T01:00:00Z"))
        };
        let hash = "h".to_owned();
        let used_by = |used: &str| json!({BOOTSTRAP_TOKEN_USED: used});
        assert_eq!(
            decided(json!({}), &request(|_| {})),
            Action::UseToken { hash: hash.clone() }
        );
        // What an earlier token was used for says nothing of this one.
        assert_eq!(decided(used_by("g/r0"), &request(|_| {})), Action::UseToken { hash });
        assert_eq!(decided(used_by("h/r0"), &request(|_| {})), Action::Nothing);
        assert!(matches!(
            decided(used_by("h/r1"), &request(|_| {})),
            Action::Decide { .. }
        ));
        // Made with a token that was replaced since, or that nobody knows of.
        let with = |token: Value| request(|request| request["metadata"]["annotations"] = token);
        assert_eq!(
            decided(json!({}), &with(json!({BOOTSTRAP_TOKEN: "g"}))),
            Action::Nothing
        );
        assert_eq!(decided(json!({}), &with(json!({}))), Action::Nothing);
    }

    #[test]
    fn a_token_is_used_by_whatever_was_decided_about_it() {
        let unused = |tunnel: &Value| {
            directory_with(tunnel, &json!({}), |cluster| {
                cluster["metadata"]["annotations"] = json!({});
            })
        };
        let now = at("2026-01-01T01:00:00Z");
        let manual = unused(&json!({"approval": "Manual"}));
        assert_eq!(
            decide(&manual, &request(|_| {}), now),
            Action::Nothing,
            "nobody has decided"
        );
        let denied = |request: &mut Value| {
            approved(request);
            request["status"]["conditions"][0]["type"] = "Denied".into();
        };
        let uses = Action::UseToken { hash: "h".to_owned() };
        for directory in [&manual, &unused(&json!({}))] {
            assert_eq!(decide(directory, &request(denied), now), uses);
            assert_eq!(decide(directory, &request(approved), now), uses, "before it is signed");
        }
        // With an earlier token, or none; and what only looks as if.
        for (key, value) in [
            ("annotations", json!({BOOTSTRAP_TOKEN: "g"})),
            ("annotations", json!({})),
        ] {
            let other = request(|request| {
                denied(request);
                request["metadata"][key] = value;
            });
            assert_eq!(decide(&manual, &other, now), Action::Nothing);
        }
        let by_person = request(|request| {
            denied(request);
            request["spec"]["username"] = "alice".into();
        });
        assert_eq!(decide(&manual, &by_person, now), Action::Nothing);
        // It says so already.
        let marked = directory(&json!({"approval": "Manual"}), &json!({}));
        assert_eq!(decide(&marked, &request(denied), now), Action::Nothing);
    }

    #[test]
    fn what_was_approved_for_a_cluster_is_not_signed_for_the_next_of_its_name() {
        let now = at("2026-01-01T01:00:00Z");
        let another = |uid: &str, created: &str| {
            directory_with(&json!({}), &json!({}), |cluster| {
                cluster["metadata"]["uid"] = uid.into();
                cluster["metadata"]["creationTimestamp"] = created.into();
            })
        };
        let by_person = request(|request| {
            approved(request);
            request["spec"]["username"] = "alice".into();
            request["spec"]["uid"] = "".into();
        });
        let signs = |directory: &Directory, request: &ClusterJoinRequest| {
            matches!(decide(directory, request, now), Action::Sign { .. })
        };
        let goes = |directory: &Directory, request: &ClusterJoinRequest| {
            matches!(decide(directory, request, now), Action::Delete(_))
        };
        assert!(signs(&another("m1", "2025-12-31T00:00:00Z"), &by_person));
        assert!(goes(&another("m2", "2026-01-01T00:00:01Z"), &by_person));
        assert!(goes(&Directory::default(), &by_person));
        // With a token even in the same second.
        assert!(signs(&another("m1", "2026-01-01T00:00:00Z"), &request(approved)));
        assert!(goes(&another("m2", "2026-01-01T00:00:00Z"), &request(approved)));
        // Nobody has decided: it waits for the cluster, and is not of one that comes later.
        assert_eq!(decide(&Directory::default(), &request(|_| {}), now), Action::Nothing);
        assert!(goes(&another("m2", "2026-01-01T00:30:00Z"), &request(|_| {})));
    }

    #[test]
    fn whoever_was_thrown_out_does_not_come_back_by_token() {
        let mut directory = directory(&json!({"bootstrapTokenExpires": "2026-02-01T00:00:00Z"}), &json!({}));
        let denied = request(|request| {
            approved(request);
            request["status"]["conditions"][0]["type"] = "Denied".into();
        });
        let late = at("2026-01-20T00:00:00Z");
        assert_eq!(
            decide(&directory, &denied, late),
            Action::Nothing,
            "kept for as long as the token counts"
        );
        let other = |cluster: &str| {
            let mut other = denied.clone();
            other.spec.cluster_name = cluster.to_owned();
            Arc::new(other)
        };
        directory.join_requests.insert("other".to_owned(), other("west"));
        assert_eq!(decided(&directory, &request(|_| {})), Some(condition::APPROVED));
        directory.join_requests.insert("other".to_owned(), other("east"));
        assert_eq!(decided(&directory, &request(|_| {})), None);
    }

    #[test]
    fn what_is_approved_is_signed_once_for_each_key() {
        let directory = directory(&json!({}), &json!({}));
        let now = at("2026-01-01T01:00:00Z");
        let sign = Action::Sign {
            cluster_uid: "m1".to_owned(),
        };
        assert_eq!(decide(&directory, &request(approved), now), sign);
        let signed = |hash: String| {
            request(|request| {
                approved(request);
                request["status"]["requestHash"] = hash.into();
                request["status"]["managedClusterUID"] = "m1".into();
            })
        };
        assert_eq!(decide(&directory, &signed(sha256_hex(b"csr")), now), Action::Nothing);
        assert_eq!(decide(&directory, &signed(sha256_hex(b"before")), now), sign);
        // Denied wins.
        let denied = request(|request| {
            approved(request);
            let mut denied = request["status"]["conditions"][0].clone();
            denied["type"] = "Denied".into();
            request["status"]["conditions"].as_array_mut().unwrap().push(denied);
        });
        assert_eq!(decide(&directory, &denied, now), Action::Nothing);
        assert!(matches!(
            decide(&directory, &denied, at("2026-01-04T00:00:00Z")),
            Action::Delete(_)
        ));
    }

    #[test]
    fn what_is_of_no_use_goes() {
        let manual = directory(&json!({"approval": "Manual"}), &json!({}));
        let late = at("2026-01-02T01:00:00Z");
        assert!(matches!(decide(&manual, &request(|_| {}), late), Action::Delete(_)));
        let another = request(|request| {
            approved(request);
            request["status"]["conditions"][0]["type"] = "Denied".into();
            request["status"]["managedClusterUID"] = "m0".into();
        });
        assert!(matches!(
            decide(&manual, &another, at("2026-01-01T01:00:00Z")),
            Action::Delete(_)
        ));
        let expired = request(|request| {
            approved(request);
            request["status"]["managedClusterUID"] = "m1".into();
            request["status"]["expires"] = "2026-01-01T12:00:00Z".into();
        });
        assert!(matches!(decide(&manual, &expired, late), Action::Delete(_)));
        assert!(!matches!(
            decide(&manual, &expired, at("2026-01-01T12:30:00Z")),
            Action::Delete(_)
        ));
    }
}
