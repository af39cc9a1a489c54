//! Writes the status of one ManagedCluster, and no more often than it must.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Error};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use umbra_api::cluster::{ManagedCluster, ManagedClusterStatus};
use umbra_registry::copies::retry;

use crate::cluster::FIELD_MANAGER;

/// Between two writes, unless a condition has changed: copying moves counters and messages all the time.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes the status of one ManagedCluster.
pub(super) struct Reporter {
    api: Api<ManagedCluster>,
    name: String,
    /// The status on the hub, as far as it is known here.
    current: ManagedClusterStatus,
    /// The resource version it has.
    version: u64,
    written: Option<Instant>,
    failures: u32,
    /// No earlier, after a failure.
    not_before: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(api: Api<ManagedCluster>, name: &str) -> Self {
        Self {
            api,
            name: name.to_owned(),
            current: ManagedClusterStatus::default(),
            version: 0,
            written: None,
            failures: 0,
            not_before: None,
        }
    }

    /// The status on the hub.
    pub(super) fn current(&self) -> &ManagedClusterStatus {
        &self.current
    }

    /// Takes what the hub says, unless what was written last is newer.
    pub(super) fn observe(&mut self, cluster: &ManagedCluster) {
        let version = version(cluster);
        if version > self.version {
            self.version = version;
            self.current = cluster.status.clone().unwrap_or_default();
        }
    }

    /// Forgets what is known, for another object of the same name.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.api.clone(), &self.name);
    }

    /// Makes the status on the hub `wanted`, now or later. Gives when to ask again, where that is later.
    pub(super) async fn publish(&mut self, wanted: ManagedClusterStatus) -> Option<Instant> {
        if wanted == self.current {
            return None;
        }
        let now = Instant::now();
        if let Some(not_before) = self.not_before.filter(|time| *time > now) {
            return Some(not_before);
        }
        let due = self.written.map(|written| written + PAUSE).filter(|due| *due > now);
        if due.is_some() && outcomes(&wanted) == outcomes(&self.current) {
            return due;
        }
        match self.write(&wanted).await {
            Ok(()) => None,
            // Deleted; nobody reads it any more.
            Err(Error::Api(status)) if status.code == 404 => None,
            Err(error) => {
                self.failures += 1;
                tracing::warn!(cluster = %self.name, %error, "the status of the cluster cannot be written");
                self.not_before = Some(now + retry::pause(self.failures));
                self.not_before
            }
        }
    }

    async fn write(&mut self, wanted: &ManagedClusterStatus) -> Result<(), Error> {
        let patch = difference(&to_map(&self.current), &to_map(wanted));
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"status": patch}));
        let written = self.api.patch_status(&self.name, &parameters, &patch).await?;
        self.version = self.version.max(version(&written));
        self.current = wanted.clone();
        self.written = Some(Instant::now());
        (self.failures, self.not_before) = (0, None);
        Ok(())
    }
}

/// What of the conditions is worth an immediate write.
fn outcomes(status: &ManagedClusterStatus) -> Vec<(&str, &str, &str)> {
    status
        .conditions
        .iter()
        .map(|one| (&*one.type_, &*one.status, &*one.reason))
        .collect()
}

/// The hub's resource versions are revisions of its store.
fn version(cluster: &ManagedCluster) -> u64 {
    cluster
        .metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

fn to_map(status: &ManagedClusterStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("a status is an object of texts, numbers, lists and maps"),
    }
}

/// The merge patch (RFC 7396) that makes `to` of `from`.
fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to {
        match (from.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), difference(old, new).into());
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_what_differs() {
        let from = json!({"same": 1, "gone": 2, "deep": {"same": 1, "gone": 2}, "list": [1]});
        let to = json!({"same": 1, "deep": {"same": 1, "new": 3}, "list": [1, 2]});
        let patch = difference(from.as_object().unwrap(), to.as_object().unwrap());
        let expected = json!({"gone": null, "deep": {"gone": null, "new": 3}, "list": [1, 2]});
        assert_eq!(Value::Object(patch), expected);
    }
}
