//! Events about ManagedClusters, so that `kubectl describe managedcluster` tells the story.
//!
//! One is recorded when a condition turns or its reason changes, and not while it stays: each tells of something that happened.
//! An Event of the same reason is counted up instead of written anew (as `EventLogger` of `client-go/tools/record` does), so a
//! cluster that comes and goes has as many Events as there are reasons, also on a hub where Events do not expire.
//!
//! Recording never keeps the controller waiting: what a bounded queue does not hold is dropped, and so is what the hub refuses.
//!
//! Deliberate deviation: they are Events of the core group, because that is what a standalone hub has, and kube-apiserver shows
//! them as `events.k8s.io`, too.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use umbra_api::cluster::{ManagedCluster, ManagedClusterStatus};

use crate::cluster::FIELD_MANAGER;
use crate::cluster::status::NEW_CREDENTIALS_FAIL;

/// Where Events about objects without a namespace go (`record.Eventf` of client-go).
const NAMESPACE: &str = "default";
/// Events that wait to be written.
const QUEUE: usize = 256;
/// How long the hub may take for one.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a message may be (`events.k8s.io` validation: 1024 bytes).
const MESSAGE_LIMIT: usize = 1024;

/// Records Events. Clones record to the same queue.
#[derive(Debug, Clone)]
pub(super) struct Events(mpsc::Sender<Occurrence>);

/// Something that happened to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Occurrence {
    cluster: String,
    uid: String,
    /// `Normal` or `Warning`.
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Events {
    /// A queue, and what writes its Events until `cancel`.
    pub(super) fn new(client: Client, cancel: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel::<Occurrence>(QUEUE);
        let api: Api<Event> = Api::namespaced(client, NAMESPACE);
        let write = async move {
            while let Some(occurrence) = receiver.recv().await {
                let (cluster, reason) = (&occurrence.cluster, &occurrence.reason);
                match tokio::time::timeout(DEADLINE, record(&api, &occurrence)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%cluster, %reason, %error, "an Event is not written"),
                    Err(_) => tracing::debug!(%cluster, %reason, "an Event is not written: the hub takes too long"),
                }
            }
        };
        let writing = async move {
            cancel.run_until_cancelled(write).await;
        };
        (Self(sender), writing)
    }

    /// Records what has changed between two statuses of `cluster`.
    pub(super) fn changed(
        &self,
        cluster: &ManagedCluster,
        before: &ManagedClusterStatus,
        after: &ManagedClusterStatus,
    ) {
        for occurrence in occurrences(cluster, before, after, Timestamp::now()) {
            if self.0.try_send(occurrence).is_err() {
                tracing::debug!(cluster = ?cluster.metadata.name, "an Event is dropped: too many wait");
            }
        }
    }
}

fn occurrences(
    cluster: &ManagedCluster,
    before: &ManagedClusterStatus,
    after: &ManagedClusterStatus,
    at: Timestamp,
) -> Vec<Occurrence> {
    use umbra_api::cluster::condition::{CREDENTIALS_EXPIRING, REACHABLE, SYNCED};
    let turned = after.conditions.iter().filter(|now| {
        // `Ready` says what the others say; copying has many states and two that matter.
        let told = match now.type_.as_str() {
            REACHABLE | CREDENTIALS_EXPIRING => true,
            SYNCED => now.status == "True" || now.reason == "CopyFailed",
            _ => false,
        };
        let then = before.conditions.iter().find(|one| one.type_ == now.type_);
        told && then.is_none_or(|then| (&then.status, &then.reason) != (&now.status, &now.reason))
    });
    let turned = turned.filter_map(|now| {
        // Requests get through, and somebody has to do something all the same.
        let good = (now.type_ == CREDENTIALS_EXPIRING) == (now.status == "False") && now.reason != NEW_CREDENTIALS_FAIL;
        if now.type_ == CREDENTIALS_EXPIRING && good {
            return None;
        }
        Some(Occurrence {
            cluster: cluster.metadata.name.clone()?,
            uid: cluster.metadata.uid.clone()?,
            kind: if good { "Normal" } else { "Warning" },
            reason: match now.type_.as_str() {
                // "Answers" and "Copied" alone do not say that something has changed.
                REACHABLE if good && now.reason == "Answers" => "Reachable".to_owned(),
                SYNCED if good => "Synced".to_owned(),
                _ => now.reason.clone(),
            },
            message: shortened(&now.message),
            at,
        })
    });
    turned.chain(moved(cluster, before, after, at)).collect()
}

/// Another endpoint of the cluster is in use.
fn moved(
    cluster: &ManagedCluster,
    before: &ManagedClusterStatus,
    after: &ManagedClusterStatus,
    at: Timestamp,
) -> Option<Occurrence> {
    let (from, to) = (&before.endpoint, &after.endpoint);
    if from == to || from.is_empty() || to.is_empty() {
        return None;
    }
    Some(Occurrence {
        cluster: cluster.metadata.name.clone()?,
        uid: cluster.metadata.uid.clone()?,
        kind: "Normal",
        reason: "EndpointChanged".to_owned(),
        message: shortened(&format!("requests go to {to} from now on, and no longer to {from}")),
        at,
    })
}

fn shortened(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_LIMIT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

/// Writes an Event, or counts it up.
async fn record(api: &Api<Event>, occurrence: &Occurrence) -> Result<(), Error> {
    let event = event(occurrence);
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let present = match api.create(&parameters, &event).await {
        Err(Error::Api(status)) if status.code == 409 => api.get(name).await?,
        created => return created.map(drop),
    };
    let again = json!({
        "count": present.count.unwrap_or(1).saturating_add(1),
        "lastTimestamp": event.last_timestamp,
        "message": event.message,
        "type": event.type_,
    });
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &parameters, &Patch::Merge(again)).await.map(drop)
}

/// The Event. Its name is that of the cluster and the reason, and the beginning of the cluster's UID, because another cluster of
/// the same name has Events of its own.
fn event(occurrence: &Occurrence) -> Event {
    let Occurrence {
        cluster,
        uid,
        kind,
        reason,
        message,
        at,
    } = occurrence;
    let identity: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let time = Time(at.round(jiff::Unit::Second).unwrap_or(*at));
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{cluster}.{}.{}",
                reason.to_lowercase(),
                identity.to_lowercase()
            )),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(umbra_api::API_VERSION.to_owned()),
            kind: Some("ManagedCluster".to_owned()),
            name: Some(cluster.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some(reason.clone()),
        message: Some(message.clone()),
        type_: Some((*kind).to_owned()),
        source: Some(EventSource {
            component: Some(FIELD_MANAGER.to_owned()),
            ..EventSource::default()
        }),
        reporting_component: Some(FIELD_MANAGER.to_owned()),
        first_timestamp: Some(time.clone()),
        last_timestamp: Some(time),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn cluster() -> ManagedCluster {
        serde_json::from_value(json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
            "metadata": {"name": "east", "uid": "1A2b3c4d-5e6f-0000"}, "spec": {}}))
        .unwrap()
    }

    fn status(conditions: &[(&str, &str, &str)]) -> ManagedClusterStatus {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({"type": kind, "status": status, "reason": reason, "message": "é".repeat(600),
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({"conditions": conditions})).unwrap()
    }

    fn told(before: &[(&str, &str, &str)], after: &[(&str, &str, &str)]) -> Vec<(&'static str, String)> {
        occurrences(&cluster(), &status(before), &status(after), Timestamp::UNIX_EPOCH)
            .into_iter()
            .map(|one| (one.kind, one.reason))
            .collect()
    }

    #[test]
    fn changes_are_told_and_nothing_else() {
        let up = [("Reachable", "True", "Answers"), ("Ready", "True", "Ready")];
        let refused = [
            ("Reachable", "False", "ConnectionRefused"),
            ("Ready", "False", "ConnectionRefused"),
        ];
        let lost = [("Reachable", "False", "Timeout")];
        assert_eq!(told(&[], &up), [("Normal", "Reachable".to_owned())]);
        assert_eq!(told(&up, &up), []);
        assert_eq!(told(&up, &refused), [("Warning", "ConnectionRefused".to_owned())]);
        assert_eq!(told(&refused, &lost), [("Warning", "Timeout".to_owned())]);
        let copying = [("Synced", "False", "Copying")];
        assert_eq!(told(&[], &copying), []);
        assert_eq!(
            told(&copying, &[("Synced", "True", "Copied")]),
            [("Normal", "Synced".to_owned())]
        );
        let kept = [("Reachable", "True", "NewCredentialsFail")];
        assert_eq!(told(&up, &kept), [("Warning", "NewCredentialsFail".to_owned())]);
        assert_eq!(told(&kept, &up), [("Normal", "Reachable".to_owned())]);
        let valid = [("CredentialsExpiring", "False", "Valid")];
        assert_eq!(told(&[], &valid), []);
        assert_eq!(
            told(&valid, &[("CredentialsExpiring", "True", "ExpiresSoon")]),
            [("Warning", "ExpiresSoon".to_owned())]
        );
    }

    #[test]
    fn another_endpoint_is_told_of() {
        let at = |endpoint: &str| ManagedClusterStatus {
            endpoint: endpoint.to_owned(),
            ..ManagedClusterStatus::default()
        };
        let told =
            |before: &str, after: &str| occurrences(&cluster(), &at(before), &at(after), Timestamp::UNIX_EPOCH).pop();
        let moved = told("https://a.test", "https://b.test").unwrap();
        assert_eq!((moved.kind, moved.reason.as_str()), ("Normal", "EndpointChanged"));
        assert!(moved.message.contains("https://b.test") && moved.message.contains("https://a.test"));
        // The first connection is no change, and neither is an end of having several.
        for (before, after) in [
            ("", "https://a.test"),
            ("https://a.test", ""),
            ("https://a.test", "https://a.test"),
        ] {
            assert_eq!(told(before, after), None);
        }
    }

    #[test]
    fn events_are_valid() {
        let lost = status(&[("Reachable", "False", "ConnectionRefused")]);
        let all = occurrences(
            &cluster(),
            &ManagedClusterStatus::default(),
            &lost,
            Timestamp::UNIX_EPOCH,
        );
        let event = event(&all[0]);
        assert_eq!(event.metadata.name.as_deref(), Some("east.connectionrefused.1a2b3c4d"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("1A2b3c4d-5e6f-0000"));
        assert!(
            event
                .message
                .is_some_and(|message| message.len() <= MESSAGE_LIMIT && message.len() > 1000)
        );
    }
}
