//! What is written about a request: one line of JSON, an `Event` of `audit.k8s.io/v1`
//! (`k8s.io/apiserver/pkg/apis/audit/v1/types.go`) of the level `Metadata`.
//!
//! `objectRef` and `verb` speak of what was asked for below the root: of the pod in the cluster and not of the
//! `managedclusters/proxy` it was reached through. Which root that was is in the annotations.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use umbra_apimachinery::request::{RequestInfo, RootName, RootPath};
use umbra_apimachinery::user::UserInfo;

/// When in the life of a request an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Stage {
    /// It is known who asks, and nothing is answered yet. Long-running requests only: others end soon.
    RequestReceived,
    /// The answer has begun. Long-running requests only.
    ResponseStarted,
    /// The answer, or the session that it opened, has ended.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The HTTP status.
    pub(crate) code: u16,
    /// `reason` of the `Status` it was answered with; empty where it was none, or a child's.
    pub(crate) reason: String,
    /// `message` of the same.
    pub(crate) message: String,
}

/// What all events of a request say.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) audit_id: String,
    pub(crate) path: String,
    pub(crate) raw_query: String,
    pub(crate) info: Arc<RequestInfo>,
    /// Who was authenticated; none where nobody was.
    pub(crate) user: Option<Arc<UserInfo>>,
    /// Whom that user acts as.
    pub(crate) impersonated: Option<Arc<UserInfo>>,
    /// Where the request comes from: what front proxies say, then the peer.
    pub(crate) source_ips: Vec<String>,
    pub(crate) user_agent: Arc<str>,
    pub(crate) received: Timestamp,
}

/// One event, not written yet.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) subject: Arc<Subject>,
    pub(crate) stage: Stage,
    pub(crate) at: Timestamp,
    pub(crate) outcome: Option<Arc<Outcome>>,
}

impl Event {
    /// Appends the event and a line feed. JSON has line feeds escaped, so that no name can begin a line of its own.
    pub(crate) fn write_line(&self, lines: &mut Vec<u8>) {
        let begin = lines.len();
        let line = Line::of(self);
        // Nothing in it can fail to be JSON; half a line must not stay in any case.
        if serde_json::to_writer(&mut *lines, &line).is_err() {
            lines.truncate(begin);
            return;
        }
        lines.push(b'\n');
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: &'a str,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[String]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectReference<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus<'a>>,
    request_received_timestamp: MicroTime,
    stage_timestamp: MicroTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    extra: &'a std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

#[derive(Serialize)]
struct ResponseStatus<'a> {
    /// Kubernetes writes one, always empty.
    metadata: Empty,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Annotations<'a> {
    #[serde(rename = "umbra.dev/cluster", skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(rename = "umbra.dev/view", skip_serializing_if = "Option::is_none")]
    view: Option<&'a str>,
    #[serde(rename = "umbra.dev/fleet", skip_serializing_if = "Option::is_none")]
    fleet: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(event: &'a Event) -> Self {
        let subject = &*event.subject;
        let info = &*subject.info;
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: &subject.audit_id,
            stage: event.stage,
            request_uri: if subject.raw_query.is_empty() {
                subject.path.clone()
            } else {
                format!("{}?{}", subject.path, subject.raw_query)
            },
            verb: &info.verb,
            user: User::of(subject.user.as_deref().unwrap_or(&NOBODY)),
            impersonated_user: subject.impersonated.as_deref().map(User::of),
            source_ips: &subject.source_ips,
            user_agent: &subject.user_agent,
            object_ref: info.is_resource_request.then(|| ObjectReference {
                resource: &info.resource,
                namespace: &info.namespace,
                name: if info.name.is_empty() {
                    &info.selected_name
                } else {
                    &info.name
                },
                api_group: &info.group,
                api_version: &info.version,
                subresource: &info.subresource,
            }),
            response_status: event.outcome.as_deref().map(ResponseStatus::of),
            request_received_timestamp: MicroTime(subject.received),
            stage_timestamp: MicroTime(event.at),
            annotations: Annotations::of(&subject.path),
        }
    }
}

static NOBODY: UserInfo = UserInfo {
    name: String::new(),
    uid: String::new(),
    groups: Vec::new(),
    extra: std::collections::BTreeMap::new(),
    machine: None,
};

impl<'a> User<'a> {
    fn of(user: &'a UserInfo) -> Self {
        Self {
            username: &user.name,
            uid: &user.uid,
            groups: &user.groups,
            extra: &user.extra,
        }
    }
}

impl<'a> ResponseStatus<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        Self {
            metadata: Empty {},
            status: if outcome.reason.is_empty() { "" } else { "Failure" },
            message: &outcome.message,
            reason: &outcome.reason,
            code: outcome.code,
        }
    }
}

impl<'a> Annotations<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (mut cluster, mut view, mut fleet) = (None, None, None);
        match RootPath::split(path).root {
            RootName::Hub => return None,
            RootName::Cluster(name) => cluster = Some(name),
            RootName::View(name) => view = Some(name),
            RootName::Fleet(name) => fleet = Some(name),
        }
        Some(Self { cluster, view, fleet })
    }
}

/// As Kubernetes writes times with microseconds (`metav1.MicroTime`): always six digits.
struct MicroTime(Timestamp);

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl Serialize for MicroTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn subject(path: &str) -> Subject {
        Subject {
            audit_id: "0a".to_owned(),
            path: path.to_owned(),
            raw_query: "dryRun=All".to_owned(),
            info: Arc::new(RequestInfo::parse("PATCH", RootPath::split(path).path, "")),
            user: Some(Arc::new(UserInfo::new("tina\n{", ["dev"]))),
            impersonated: None,
            source_ips: vec!["127.0.0.1".to_owned()],
            user_agent: "kubectl/v1.36".into(),
            received: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    fn written(event: &Event) -> Value {
        let mut lines = Vec::new();
        event.write_line(&mut lines);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&lines).unwrap()
    }

    #[test]
    fn a_proxied_request_is_what_it_is_in_the_cluster() {
        let path =
            "/apis/umbra.dev/v1alpha1/managedclusters/east/proxy/apis/apps/v1/namespaces/shop/deployments/web/scale";
        let event = Event {
            subject: Arc::new(subject(path)),
            stage: Stage::ResponseComplete,
            at: "2026-01-02T03:04:05.0123456Z".parse().unwrap(),
            outcome: Some(Arc::new(Outcome {
                code: 403,
                reason: "Forbidden".to_owned(),
                message: "no".to_owned(),
            })),
        };
        assert_eq!(
            written(&event),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "0a",
                "stage": "ResponseComplete", "requestURI": format!("{path}?dryRun=All"), "verb": "patch",
                "user": {"username": "tina\n{", "groups": ["dev"]}, "sourceIPs": ["127.0.0.1"],
                "userAgent": "kubectl/v1.36",
                "objectRef": {"resource": "deployments", "namespace": "shop", "name": "web", "apiGroup": "apps",
                    "apiVersion": "v1", "subresource": "scale"},
                "responseStatus": {"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403},
                "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z",
                "stageTimestamp": "2026-01-02T03:04:05.012345Z",
                "annotations": {"umbra.dev/cluster": "east"},
            })
        );
    }

    #[test]
    fn a_list_of_one_name_is_about_it() {
        let query = "watch=1&fieldSelector=metadata.name%3Dweb";
        let event = Event {
            subject: Arc::new(Subject {
                info: Arc::new(RequestInfo::parse("GET", "/api/v1/namespaces/shop/pods", query)),
                ..subject("/api/v1/namespaces/shop/pods")
            }),
            stage: Stage::ResponseComplete,
            at: Timestamp::UNIX_EPOCH,
            outcome: None,
        };
        let written = written(&event);
        assert_eq!(
            (&written["verb"], &written["objectRef"]["name"]),
            (&json!("watch"), &json!("web"))
        );
    }

    #[test]
    fn what_is_no_resource_has_no_object() {
        let event = Event {
            subject: Arc::new(Subject {
                user: None,
                impersonated: Some(Arc::new(UserInfo::new("bob", ["ops"]))),
                ..subject("/version")
            }),
            stage: Stage::RequestReceived,
            at: Timestamp::UNIX_EPOCH,
            outcome: None,
        };
        let line = written(&event);
        assert_eq!(line["user"], json!({}));
        assert_eq!(line["impersonatedUser"]["username"], "bob");
        for absent in ["objectRef", "responseStatus", "annotations"] {
            assert!(line.get(absent).is_none(), "{absent}");
        }
    }
}
