//! The clusters, views and fleets of this hub, decoded: what every root looks at to know whom it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::DeserializeOwned;
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_api::join_request::ClusterJoinRequest;
use umbra_api::root::{Fleet, View};
use umbra_apimachinery::selector::{LabelSelector, LabelSelectorError, LabelSelectorRequirement, Selector};
use umbra_child::Identity;
use umbra_storage::Revision;

use crate::generic::codec::{self, CodecError};
use crate::mirror::MirrorState;

/// Where the hub's own kinds are.
pub const HUB_KINDS: &str = "/umbra/hub/umbra.dev/";

/// The clusters, views, fleets and requests to join there are.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// By name.
    pub clusters: BTreeMap<String, Arc<ManagedCluster>>,
    /// By name.
    pub views: BTreeMap<String, Arc<View>>,
    /// By name.
    pub fleets: BTreeMap<String, Arc<Fleet>>,
    /// By name.
    pub join_requests: BTreeMap<String, Arc<ClusterJoinRequest>>,
}

impl Directory {
    /// The names of the clusters that a selector and a list of names pick: both have to agree where both are given, and
    /// all clusters are picked where neither is. A selector that makes no sense picks nothing.
    #[must_use]
    pub fn select(&self, selector: Option<&meta::LabelSelector>, names: Option<&[String]>) -> BTreeSet<String> {
        let selector = match selector.map(to_selector) {
            None => Selector::everything(),
            Some(Ok(selector)) => selector,
            Some(Err(error)) => {
                tracing::warn!(%error, "a cluster selector makes no sense; it selects nothing");
                Selector::nothing()
            }
        };
        self.clusters
            .iter()
            .filter(|(name, _)| names.is_none_or(|names| names.contains(name)))
            .filter(|(_, cluster)| {
                let labels = cluster.metadata.labels.as_ref();
                selector.matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
            })
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// An object of the hub that cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("it is not of its kind")]
    Kind(#[from] serde_json::Error),
}

impl Directory {
    fn read(&mut self, resource: &str, name: &str, value: &Bytes, revision: Revision) -> Result<(), ReadError> {
        let name = name.to_owned();
        match resource {
            "managedclusters" => drop(self.clusters.insert(name, object(value, revision)?)),
            "views" => drop(self.views.insert(name, object(value, revision)?)),
            "fleets" => drop(self.fleets.insert(name, object(value, revision)?)),
            "clusterjoinrequests" => drop(self.join_requests.insert(name, object(value, revision)?)),
            _ => {}
        }
        Ok(())
    }
}

fn object<T: DeserializeOwned>(value: &Bytes, revision: Revision) -> Result<Arc<T>, ReadError> {
    let object = codec::decode(value, revision.0)?;
    Ok(Arc::new(serde_json::from_value(object)?))
}

/// A label selector of an object, ready to match.
///
/// # Errors
/// Where it has an operator that is not known, or keys or values that no label can have.
pub fn to_selector(selector: &meta::LabelSelector) -> Result<Selector, LabelSelectorError> {
    let expressions = selector.match_expressions.iter().flatten();
    LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: expressions
            .map(|one| LabelSelectorRequirement {
                key: one.key.clone(),
                operator: one.operator.clone(),
                values: one.values.clone().unwrap_or_default(),
            })
            .collect(),
    }
    .to_selector()
}

/// How callers are named in a cluster.
#[must_use]
pub fn identity_of(cluster: &ManagedCluster) -> Identity {
    let identity = &cluster.spec.identity;
    Identity {
        user_prefix: identity.user_prefix.clone(),
        group_prefix: identity.group_prefix.clone(),
        forward_system_groups: identity.forward_system_groups,
    }
}

/// Since when, and why, a cluster cannot be reached; `None` where it can, or where nothing is known yet.
#[must_use]
pub fn unreachable_since(cluster: &ManagedCluster) -> Option<(String, String)> {
    let conditions = &cluster.status.as_ref()?.conditions;
    let reachable = conditions.iter().find(|one| one.type_ == condition::REACHABLE)?;
    (reachable.status == "False").then(|| (reachable.last_transition_time.0.to_string(), reachable.message.clone()))
}

impl MirrorState for Directory {
    /// Objects carry the revision at which they were stored, so that who writes them back can say which one was read.
    fn put(&mut self, key: &str, value: &Bytes, revision: Revision) {
        let Some((resource, name)) = key.split_once('/') else {
            return;
        };
        if let Err(error) = self.read(resource, name, value, revision) {
            tracing::warn!(%error, key, "an object of the hub cannot be read; the last one that could stays in force");
        }
    }

    fn remove(&mut self, key: &str) {
        match key.split_once('/') {
            Some(("managedclusters", name)) => drop(self.clusters.remove(name)),
            Some(("views", name)) => drop(self.views.remove(name)),
            Some(("fleets", name)) => drop(self.fleets.remove(name)),
            Some(("clusterjoinrequests", name)) => drop(self.join_requests.remove(name)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clusters_are_selected_by_label_and_name() {
        let mut directory = Directory::default();
        for (name, region) in [("east", "eu"), ("west", "us"), ("edge", "eu")] {
            let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
                "metadata": {"name": name, "labels": {"region": region}}, "spec": {}});
            directory.put(
                &format!("managedclusters/{name}"),
                &cluster.to_string().into(),
                Revision(2),
            );
        }
        assert_eq!(
            directory.clusters["east"].metadata.resource_version.as_deref(),
            Some("2")
        );
        let eu: meta::LabelSelector = serde_json::from_value(json!({"matchLabels": {"region": "eu"}})).unwrap();
        let bad: meta::LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})).unwrap();
        let names = ["east".to_owned(), "west".to_owned()];
        let select =
            |directory: &Directory, selector, names| directory.select(selector, names).into_iter().collect::<Vec<_>>();
        assert_eq!(select(&directory, None, None), ["east", "edge", "west"]);
        assert_eq!(select(&directory, Some(&eu), None), ["east", "edge"]);
        assert_eq!(select(&directory, Some(&eu), Some(&names[..])), ["east"]);
        assert!(select(&directory, Some(&bad), None).is_empty());
        directory.put("managedclusters/east", &Bytes::from_static(b"{"), Revision(3));
        assert_eq!(directory.clusters.len(), 3);
        directory.remove("managedclusters/east");
        assert_eq!(select(&directory, None, None), ["edge", "west"]);
    }
}
