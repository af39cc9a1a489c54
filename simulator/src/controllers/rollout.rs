//! What a Deployment wants of its ReplicaSets: a pure function of what is there
//! (`pkg/controller/deployment/{sync,rolling,recreate,progress}.go` and `util/deployment_util.go` of Kubernetes).
//!
//! Deviations: a Deployment that is scaled in the middle of a rolling update is not scaled in proportion; the update goes
//! on toward the new number. ReplicaSets without an owner are not adopted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::metadata::ObjectAccess;

use super::writes::{controller_reference, count, set_condition, template_hash};

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells the pods of one template from those of another.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations of a Deployment that its ReplicaSets do not get (`annotationsToSkip`).
const OWN_ANNOTATIONS: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// ReplicaSets to be created.
    pub(crate) create: Vec<Value>,
    /// ReplicaSets to be replaced.
    pub(crate) update: Vec<Value>,
    /// Names of ReplicaSets to be deleted.
    pub(crate) delete: Vec<String>,
    /// The Deployment with its new revision annotation, where that changes.
    pub(crate) annotated: Option<Value>,
    /// The Deployment's status.
    pub(crate) status: Value,
    /// When to look again, though nothing may change.
    pub(crate) again: Option<Duration>,
}

/// A number or a share of `total`.
fn resolve(value: &Value, total: i64, round_up: bool) -> i64 {
    let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')) else {
        return value.as_i64().unwrap_or_default();
    };
    let share = percent.parse::<i64>().unwrap_or_default() * total;
    if round_up { (share + 99) / 100 } else { share / 100 }
}

/// The bounds of a rolling update: how many pods may be missing, and how many may be too many (`ResolveFenceposts`).
fn bounds(deployment: &Value) -> (i64, i64) {
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        return (0, 0);
    }
    let replicas = desired(deployment);
    let rolling = &strategy["rollingUpdate"];
    let surge = resolve(&rolling["maxSurge"], replicas, true);
    let unavailable = resolve(&rolling["maxUnavailable"], replicas, false);
    // Something has to move.
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (unavailable.min(replicas), surge)
}

fn desired(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn revision(object: &Value) -> i64 {
    object
        .annotation(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// The template without the label that the Deployment's own template does not have.
fn plain_template(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

/// What is to be done for a Deployment that controls these ReplicaSets.
pub(crate) fn plan(deployment: &Value, sets: &[Value], now: Timestamp) -> Plan {
    let mut sets: Vec<&Value> = sets
        .iter()
        .filter(|set| set["metadata"]["deletionTimestamp"].is_null())
        .collect();
    sets.sort_by(|a, b| {
        let order = |set: &Value| (set.metadata_str("creationTimestamp").to_owned(), set.name().to_owned());
        order(a).cmp(&order(b))
    });
    let template = &deployment["spec"]["template"];
    let current = sets.iter().position(|set| plain_template(set) == *template);
    let newest = current.map(|index| sets.remove(index));
    let work = Work {
        deployment,
        old: sets,
        new: newest,
        now,
    };
    work.plan()
}

struct Work<'a> {
    deployment: &'a Value,
    /// ReplicaSets of former templates, oldest first.
    old: Vec<&'a Value>,
    /// The ReplicaSet of the present template.
    new: Option<&'a Value>,
    now: Timestamp,
}

impl Work<'_> {
    fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let paused = self.deployment["spec"]["paused"] == true;
        let revision = self.next_revision();
        match self.new {
            None if paused || self.waits_for_recreation() => {}
            None => plan.create.push(self.new_set(revision)),
            Some(set) => {
                let replicas = if paused {
                    self.scaled_while_paused(set)
                } else {
                    self.new_replicas(set)
                };
                plan.update.extend(self.changed(set, replicas, Some(revision)));
            }
        }
        if !paused {
            plan.update.extend(self.scale_down());
        }
        if self.new.is_some() && self.deployment.annotation(REVISION) != Some(&revision.to_string()) {
            let mut annotated = self.deployment.clone();
            annotate(&mut annotated, REVISION, revision.to_string());
            plan.annotated = Some(annotated);
        }
        let name = self.new.map_or_else(|| self.new_name(), |set| set.name().to_owned());
        plan.status = self.status(&name, paused, &mut plan.again);
        if self.is_complete(&plan.status) {
            plan.delete = self.history_to_forget();
        }
        plan
    }

    fn sets(&self) -> impl Iterator<Item = &Value> {
        self.old.iter().copied().chain(self.new)
    }

    fn next_revision(&self) -> i64 {
        let last = self.old.iter().map(|set| revision(set)).max().unwrap_or_default();
        self.new.map(revision).filter(|own| *own > last).unwrap_or(last + 1)
    }

    fn hash(&self) -> String {
        let salt = count(&self.deployment["status"], "collisionCount");
        template_hash(&self.deployment["spec"]["template"], salt)
    }

    fn new_name(&self) -> String {
        format!("{}-{}", self.deployment.name(), self.hash())
    }

    fn new_set(&self, revision: i64) -> Value {
        let hash = self.hash();
        let mut template = self.deployment["spec"]["template"].clone();
        template["metadata"]["labels"][TEMPLATE_HASH] = hash.as_str().into();
        let mut selector = self.deployment["spec"]["selector"].clone();
        selector["matchLabels"][TEMPLATE_HASH] = hash.as_str().into();
        let mut set = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": self.new_name(),
                "namespace": self.deployment.namespace(),
                "labels": template["metadata"]["labels"],
                "ownerReferences": [controller_reference(self.deployment)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        });
        let seconds = &self.deployment["spec"]["minReadySeconds"];
        if !seconds.is_null() {
            set["spec"]["minReadySeconds"] = seconds.clone();
        }
        set["spec"]["replicas"] = self.new_replicas(&set).into();
        self.annotate_set(&mut set, revision);
        set
    }

    /// How many pods of the new template there may be (`NewRSNewReplicas`).
    fn new_replicas(&self, set: &Value) -> i64 {
        let (wanted, has) = (desired(self.deployment), desired(set));
        if has >= wanted {
            return wanted;
        }
        if self.deployment["spec"]["strategy"]["type"] == "Recreate" {
            return if self.waits_for_recreation() { has } else { wanted };
        }
        let (_, surge) = bounds(self.deployment);
        let all: i64 = self.old.iter().map(|set| desired(set)).sum::<i64>() + has;
        let room = wanted + surge - all;
        has + room.clamp(0, wanted - has)
    }

    /// Whether pods of former templates have to go first.
    fn waits_for_recreation(&self) -> bool {
        let recreates = self.deployment["spec"]["strategy"]["type"] == "Recreate";
        recreates
            && self
                .old
                .iter()
                .any(|set| desired(set) > 0 || count(&set["status"], "replicas") > 0)
    }

    /// A paused Deployment is scaled where it has one template in use.
    fn scaled_while_paused(&self, set: &Value) -> i64 {
        if self.old.iter().all(|set| desired(set) == 0) {
            desired(self.deployment)
        } else {
            desired(set)
        }
    }

    /// Former ReplicaSets with fewer replicas (`reconcileOldReplicaSets`).
    fn scale_down(&self) -> Vec<Value> {
        let mut sizes: Vec<i64> = self.old.iter().map(|set| desired(set)).collect();
        let before = sizes.clone();
        if self.deployment["spec"]["strategy"]["type"] == "Recreate" {
            sizes.fill(0);
        } else if let Some(new) = self.new {
            self.shrink(new, &mut sizes);
        }
        let changes = self.old.iter().zip(before.iter().zip(&sizes));
        changes
            .filter(|(_, (before, after))| before != after)
            .filter_map(|(set, (_, after))| self.changed(set, *after, None))
            .collect()
    }

    fn shrink(&self, new: &Value, sizes: &mut [i64]) {
        let (unavailable, _) = bounds(self.deployment);
        let least = desired(self.deployment) - unavailable;
        let available = |set: &Value| count(&set["status"], "availableReplicas");
        let all: i64 = sizes.iter().sum::<i64>() + desired(new);
        let missing = desired(new) - available(new);
        // Pods that are not available go first: they are missed by nobody.
        let mut most = (all - least - missing).max(0);
        for (size, set) in sizes.iter_mut().zip(&self.old) {
            let unhealthy = (*size - available(set)).clamp(0, most);
            *size -= unhealthy;
            most -= unhealthy;
        }
        let healthy: i64 = self.sets().map(available).sum();
        let mut spare = (healthy - least).clamp(0, most);
        for size in sizes {
            let fewer = spare.min(*size);
            *size -= fewer;
            spare -= fewer;
        }
    }

    /// The ReplicaSet with that many replicas and up to date annotations; `None` where it is so already.
    fn changed(&self, set: &Value, replicas: i64, revision: Option<i64>) -> Option<Value> {
        let mut changed = set.clone();
        changed["spec"]["replicas"] = replicas.into();
        match revision {
            Some(revision) => self.annotate_set(&mut changed, revision),
            None => self.annotate_sizes(&mut changed),
        }
        (changed != *set).then_some(changed)
    }

    fn annotate_sizes(&self, set: &mut Value) {
        let (wanted, (_, surge)) = (desired(self.deployment), bounds(self.deployment));
        annotate(set, DESIRED_REPLICAS, wanted.to_string());
        annotate(set, MAX_REPLICAS, (wanted + surge).to_string());
    }

    fn annotate_set(&self, set: &mut Value, revision: i64) {
        let own = self.deployment["metadata"]["annotations"].as_object();
        for (key, value) in own.into_iter().flatten() {
            if !OWN_ANNOTATIONS.contains(&key.as_str()) {
                annotate(set, key, value.as_str().unwrap_or_default().to_owned());
            }
        }
        annotate(set, REVISION, revision.to_string());
        self.annotate_sizes(set);
    }

    fn status(&self, set_name: &str, paused: bool, again: &mut Option<Duration>) -> Value {
        let sum = |field: &str| self.sets().map(|set| count(&set["status"], field)).sum::<i64>();
        let (replicas, available) = (sum("replicas"), sum("availableReplicas"));
        let updated = self.new.map_or(0, |set| count(&set["status"], "replicas"));
        let old = &self.deployment["status"];
        let mut status = Map::new();
        let numbers = [
            ("observedGeneration", count(&self.deployment["metadata"], "generation")),
            ("replicas", replicas),
            ("updatedReplicas", updated),
            ("readyReplicas", sum("readyReplicas")),
            ("availableReplicas", available),
            ("unavailableReplicas", (desired(self.deployment) - available).max(0)),
            ("collisionCount", count(old, "collisionCount")),
        ];
        for (field, number) in numbers {
            if number != 0 || field == "observedGeneration" {
                status.insert(field.to_owned(), number.into());
            }
        }
        let mut status = Value::Object(status);
        let mut conditions = old["conditions"].clone();
        self.set_available(&mut conditions, available);
        if paused {
            self.set_progressing(&mut conditions, "Unknown", "DeploymentPaused", "Deployment is paused");
        } else {
            *again = self.judge_progress(&mut conditions, &status, set_name);
        }
        status["conditions"] = conditions;
        status
    }

    fn set_available(&self, conditions: &mut Value, available: i64) {
        let enough = available >= desired(self.deployment) - bounds(self.deployment).0;
        let (status, reason, message) = if enough {
            (
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        let condition = json!({
            "type": "Available", "status": status, "reason": reason, "message": message,
            "lastUpdateTime": age::rfc3339(self.now),
        });
        if !holds(conditions, &condition) {
            set_condition(conditions, condition, self.now);
        }
    }

    fn set_progressing(&self, conditions: &mut Value, status: &str, reason: &str, message: &str) {
        let condition = json!({
            "type": "Progressing", "status": status, "reason": reason, "message": message,
            "lastUpdateTime": age::rfc3339(self.now),
        });
        if !holds(conditions, &condition) {
            set_condition(conditions, condition, self.now);
        }
    }

    fn is_complete(&self, status: &Value) -> bool {
        let wanted = desired(self.deployment);
        ["updatedReplicas", "replicas", "availableReplicas"]
            .iter()
            .all(|field| count(status, field) == wanted)
            && self.new.is_some()
    }

    /// The condition `Progressing` (`syncRolloutStatus`); says when the deadline passes.
    fn judge_progress(&self, conditions: &mut Value, status: &Value, set_name: &str) -> Option<Duration> {
        if self.is_complete(status) {
            let message = format!("ReplicaSet \"{set_name}\" has successfully progressed.");
            self.set_progressing(conditions, "True", "NewReplicaSetAvailable", &message);
            return None;
        }
        let old = &self.deployment["status"];
        let outdated = |status: &Value| count(status, "replicas") - count(status, "updatedReplicas");
        let progresses = ["updatedReplicas", "readyReplicas", "availableReplicas"]
            .iter()
            .any(|field| count(status, field) > count(old, field))
            || outdated(status) < outdated(old);
        let known = conditions
            .as_array()
            .and_then(|all| all.iter().find(|one| one["type"] == "Progressing"))
            .cloned();
        let starts = known
            .as_ref()
            .is_none_or(|known| known["reason"] == "NewReplicaSetAvailable");
        if starts || progresses {
            // Progress moves the time from which the deadline counts.
            let condition = json!({
                "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
                "message": format!("ReplicaSet \"{set_name}\" is progressing."),
                "lastUpdateTime": age::rfc3339(self.now),
            });
            set_condition(conditions, condition, self.now);
        }
        let deadline = self.deployment["spec"]["progressDeadlineSeconds"].as_i64()?;
        let since = if starts || progresses {
            self.now
        } else {
            known
                .as_ref()
                .and_then(|known| age::parse(known["lastUpdateTime"].as_str()?))?
        };
        let left = SignedDuration::from_secs(deadline) - self.now.duration_since(since);
        if left.is_positive() {
            return Some(left.unsigned_abs());
        }
        let message = format!("ReplicaSet \"{set_name}\" has timed out progressing.");
        self.set_progressing(conditions, "False", "ProgressDeadlineExceeded", &message);
        None
    }

    /// Former ReplicaSets beyond the limit of the history (`cleanupDeployment`).
    fn history_to_forget(&self) -> Vec<String> {
        let Some(limit) = self.deployment["spec"]["revisionHistoryLimit"].as_u64() else {
            return Vec::new();
        };
        let mut empty: Vec<&&Value> = self
            .old
            .iter()
            .filter(|set| desired(set) == 0 && count(&set["status"], "replicas") == 0)
            .collect();
        empty.sort_by_key(|set| revision(set));
        let excess = empty.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        empty[..excess].iter().map(|set| set.name().to_owned()).collect()
    }
}

/// Whether the condition is there already, but for its times.
fn holds(conditions: &Value, condition: &Value) -> bool {
    let existing = conditions
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["type"] == condition["type"]);
    existing.is_some_and(|existing| {
        ["status", "reason", "message"]
            .iter()
            .all(|field| existing[field] == condition[field])
    })
}

fn annotate(object: &mut Value, key: &str, value: String) {
    let metadata = object.metadata_mut();
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
