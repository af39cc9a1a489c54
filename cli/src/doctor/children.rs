//! The children: whether the hub reaches them, what it copies, what they are, and how long the hub's credentials last.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_apimachinery::request::RootName;
use umbra_child::version::OLDEST_MINOR;

use super::asking::{Hub, Read};
use super::clock;
use super::credentials;
use super::finding::Finding;

const CHILDREN: &str = "children";
/// How many children are asked at once.
const AT_ONCE: usize = 16;
/// More minor versions between children than this, and a client of the view misses too much: kube-apiserver and kubelet may be
/// three apart.
const SPREAD: u32 = 3;
/// How many names are listed.
const LISTED: usize = 8;

/// Looks at all children.
pub(super) async fn check(hub: &Hub) -> Vec<Finding> {
    let resource = ApiResource {
        group: umbra_api::GROUP.to_owned(),
        version: umbra_api::VERSION.to_owned(),
        api_version: umbra_api::API_VERSION.to_owned(),
        kind: "ManagedCluster".to_owned(),
        plural: "managedclusters".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(hub.client.clone(), &resource);
    let listed = Read::of(api.list(&ListParams::default()).await.map(|list| list.items));
    let objects = match listed.known(CHILDREN, "the children") {
        Ok(Some(objects)) => objects.clone(),
        Ok(None) => return vec![Finding::not_checked(CHILDREN, "umbra does not answer")],
        Err(finding) => return vec![finding],
    };
    let children: Vec<Child> = objects.iter().map(Child::of).collect();
    let mut findings = judge(&children);
    let asked = stream::iter(&children)
        .map(|child| async move { (clock_of(hub, child).await, credential_of(hub, child).await) });
    let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    let (clocks, credentials): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    findings.extend(clocks.into_iter().flatten());
    findings.extend(credentials::gather(credentials, hub.now));
    findings
}

/// A child.
#[derive(Debug, Clone)]
pub(super) struct Child {
    name: String,
    cluster: ManagedCluster,
    /// When the hub's credential ends, where the status says so.
    expires: Option<Timestamp>,
}

impl Child {
    fn of(object: &DynamicObject) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let expires = object.data["status"]["credentialsExpire"].as_str();
        let cluster = serde_json::to_value(object).and_then(serde_json::from_value);
        Self {
            expires: expires.and_then(|text| text.parse().ok()),
            // What a newer hub says in ways that are not known here is left out.
            cluster: cluster
                .unwrap_or_else(|_| ManagedCluster::new(&name, umbra_api::cluster::ManagedClusterSpec::default())),
            name,
        }
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        let status = self.cluster.status.as_ref()?;
        status.conditions.iter().find(|one| one.type_ == kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|one| one.status == "True")
    }

    fn version(&self) -> &str {
        self.cluster
            .status
            .as_ref()
            .map_or("", |status| status.version.as_str())
    }
}

/// Everything that the objects say.
fn judge(children: &[Child]) -> Vec<Finding> {
    if children.is_empty() {
        return vec![Finding::ok(
            CHILDREN,
            "no cluster has joined yet: umbra join NAME --context CONTEXT",
        )];
    }
    let mut findings = Vec::new();
    let mut ready = Vec::new();
    for child in children {
        match fault(child) {
            Some(finding) => findings.push(finding),
            None => ready.push(child.name.as_str()),
        }
    }
    if !ready.is_empty() {
        let (count, all) = (ready.len(), children.len());
        let names = ready.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        let more = if count > LISTED { ", …" } else { "" };
        findings.insert(
            0,
            Finding::ok(
                CHILDREN,
                format!("{count} of {all} reachable and copied: {names}{more}"),
            ),
        );
    }
    findings.extend(versions(children));
    findings
}

/// What keeps a child from being ready.
fn fault(child: &Child) -> Option<Finding> {
    let name = &child.name;
    let Some(reachable) = child.condition(condition::REACHABLE) else {
        return Some(Finding::warning(
            CHILDREN,
            format!("{name}: no replica has looked at it yet"),
            "wait a moment; if it stays so, umbra's log says why",
        ));
    };
    if reachable.status != "True" {
        let message = format!("{name} is not reachable ({}): {}", reachable.reason, reachable.message);
        return Some(Finding::wrong(CHILDREN, message, advice(child, &reachable.reason)));
    }
    if let Some(synced) = child.condition(condition::SYNCED).filter(|one| one.status != "True") {
        let resources = child.cluster.status.iter().flat_map(|status| &status.resources);
        let mut why = resources
            .filter(|one| !one.message.is_empty())
            .map(|one| format!("{}: {}", one.resource, one.message));
        let why = why.next().map_or_else(String::new, |why| format!("; {why}"));
        let message = format!(
            "{name} is not copied completely ({}): {}{why}",
            synced.reason, synced.message
        );
        let advice = format!(
            "wait while it is being copied; where something is forbidden, the hub's credential needs more, or spec.sync.exclude of \
             ManagedCluster {name} leaves it out"
        );
        return Some(Finding::warning(CHILDREN, message, advice));
    }
    if let Some(ready) = child.condition(condition::READY).filter(|one| one.status != "True") {
        let message = format!("{name} is not ready ({}): {}", ready.reason, ready.message);
        return Some(Finding::warning(
            CHILDREN,
            message,
            format!("kubectl describe managedcluster {name}"),
        ));
    }
    None
}

/// What to do about a child that is not reached, by the reason of its condition.
fn advice(child: &Child, reason: &str) -> String {
    let name = &child.name;
    let connection = &child.cluster.spec.connection;
    let secret = connection.credentials_secret_ref.as_ref();
    let secret = secret.map_or_else(
        || "that spec.connection names".to_owned(),
        |one| format!("{}/{}", one.namespace, one.name),
    );
    match reason {
        "NoCredentials" | "CredentialsRefused" => {
            format!("put a kubeconfig that works into the key kubeconfig of Secret {secret}; the hub sees it at once")
        }
        "InvalidConnection" => {
            format!("correct spec.connection of ManagedCluster {name} or the kubeconfig in Secret {secret}")
        }
        "AnotherCluster" | "WrongCluster" => {
            format!("correct its address; where the cluster was made anew: umbra leave {name}, and umbra join {name}")
        }
        "UnexpectedAnswer" => format!("look whether {} is the API server of the cluster", connection.server),
        _ if connection.server.is_empty() => {
            "look whether the agent in the cluster runs and reaches the hub".to_owned()
        }
        _ => format!(
            "look whether the cluster runs, and whether the hub reaches {}: firewalls, DNS, proxies",
            connection.server
        ),
    }
}

/// Versions that are too old, or too far apart.
fn versions(children: &[Child]) -> Vec<Finding> {
    const VERSIONS: &str = "versions";
    let minors: BTreeMap<(u32, u32), &Child> = children
        .iter()
        .filter_map(|child| Some((numbers(child.version())?, child)))
        .collect();
    let mut findings: Vec<Finding> = minors
        .iter()
        .filter(|((major, minor), _)| (*major, *minor) < (1, OLDEST_MINOR))
        .map(|(_, child)| {
            let message = format!(
                "{} runs Kubernetes {}, which Umbra does not support",
                child.name,
                child.version()
            );
            Finding::warning(VERSIONS, message, format!("update it to 1.{OLDEST_MINOR} or newer"))
        })
        .collect();
    let (Some((oldest, old)), Some((newest, new))) = (minors.first_key_value(), minors.last_key_value()) else {
        return findings;
    };
    let (old_version, new_version) = (old.version(), new.version());
    let message = if oldest == newest {
        format!("children run Kubernetes {new_version}")
    } else {
        format!(
            "children run Kubernetes {old_version} ({}) to {new_version} ({})",
            old.name, new.name
        )
    };
    if oldest.0 == newest.0 && newest.1 - oldest.1 <= SPREAD {
        findings.push(Finding::ok(VERSIONS, message));
    } else {
        let advice = "update the oldest: clients of a view can count on the oldest version only, and templates have to be valid for it";
        findings.push(Finding::warning(VERSIONS, message, advice));
    }
    findings
}

/// Major and minor of `v1.36.3`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(|one: char| !one.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What is to be said of the clock of a child that is reached; it is compared with this machine's, as is the hub's.
async fn clock_of(hub: &Hub, child: &Child) -> Option<Finding> {
    if !child.is(condition::REACHABLE) {
        return None;
    }
    let sent = Timestamp::now();
    let answer = hub
        .fetch(&format!("{}/version", RootName::Cluster(&child.name).prefix()))
        .await
        .ok()?;
    // Of an error nobody knows whose clock it has.
    if answer.code != 200 {
        return None;
    }
    let ahead = clock::ahead(&answer.headers, sent, Timestamp::now())?;
    clock::judge("clock", &child.name, "this machine", ahead)
}

async fn credential_of(hub: &Hub, child: &Child) -> credentials::Credential {
    let found = |expiry| credentials::Credential {
        cluster: child.name.clone(),
        expiry,
    };
    if child.expires.is_some() {
        return found(Ok(child.expires));
    }
    let Some(reference) = &child.cluster.spec.connection.credentials_secret_ref else {
        return found(Ok(None));
    };
    let secrets: Api<Secret> = Api::namespaced(hub.client.clone(), &reference.namespace);
    found(match hub.get(secrets, &reference.name).await {
        // That it is missing is in the child's conditions.
        Read::Missing => Ok(None),
        Read::Unknown(why) => Err(why),
        Read::There(secret) => Ok(secret
            .data
            .and_then(|data| credentials::ends(&data.get("kubeconfig")?.0))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::{Level, levels};
    use super::*;

    fn child(name: &str, version: &str, conditions: &[(&str, &str, &str)]) -> Child {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({"type": kind, "status": status, "reason": reason, "message": "so it is",
                    "lastTransitionTime": "2026-11-21T08:00:00Z"})
            })
            .collect();
        let object = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": name},
            "spec": {"connection": {"server": "https://c", "credentialsSecretRef": {"namespace": "n", "name": "s"}}},
            "status": {"version": version, "conditions": conditions, "credentialsExpire": "2026-11-22T08:00:00Z"}});
        Child::of(&serde_json::from_value(object).unwrap())
    }

    const GOOD: [(&str, &str, &str); 3] = [
        ("Reachable", "True", "A"),
        ("Synced", "True", "A"),
        ("Ready", "True", "A"),
    ];

    #[test]
    fn children_that_are_well_are_one_line() {
        let children = [child("a", "v1.36.3", &GOOD), child("b", "v1.34.0", &GOOD)];
        assert_eq!(children[0].expires, Some("2026-11-22T08:00:00Z".parse().unwrap()));
        let findings = judge(&children);
        assert_eq!(levels(&findings), [Level::Ok, Level::Ok], "{findings:?}");
        assert_eq!(findings[0].message, "2 of 2 reachable and copied: a, b");
        assert_eq!(levels(&judge(&[])), [Level::Ok]);
    }

    #[test]
    fn faults_come_with_what_helps() {
        for (conditions, level, part) in [
            (
                vec![("Reachable", "False", "Unreachable")],
                Level::Wrong,
                "reaches https://c",
            ),
            (
                vec![("Reachable", "False", "CredentialsRefused")],
                Level::Wrong,
                "Secret n/s",
            ),
            (
                vec![("Reachable", "False", "AnotherCluster")],
                Level::Wrong,
                "umbra leave a",
            ),
            (vec![("Reachable", "Unknown", "New")], Level::Wrong, "https://c"),
            (
                vec![("Reachable", "True", "A"), ("Synced", "False", "Copying")],
                Level::Warning,
                "sync.exclude",
            ),
            (
                vec![("Reachable", "True", "A"), ("Ready", "False", "X")],
                Level::Warning,
                "describe",
            ),
            (vec![], Level::Warning, "wait"),
        ] {
            let findings = judge(&[child("a", "", &conditions)]);
            assert_eq!(levels(&findings), [level], "{conditions:?}");
            let advice = findings[0].advice.clone().unwrap();
            assert!(advice.contains(part), "{part}: {advice}");
        }
    }

    #[test]
    fn versions_that_are_old_or_far_apart_are_told() {
        let versions = |all: &[&str]| {
            let children: Vec<Child> = all.iter().map(|version| child(version, version, &GOOD)).collect();
            levels(&versions(&children))
        };
        assert_eq!(versions(&["v1.36.3", "v1.33.1-gke.5"]), [Level::Ok]);
        assert_eq!(versions(&["v1.36.3", "v1.32.0"]), [Level::Warning]);
        assert_eq!(versions(&["v1.23.3", "v1.24.0"]), [Level::Warning, Level::Ok]);
        assert_eq!(versions(&["", "master"]), []);
    }
}
