//! Which clusters a placement selects, and how replicas are divided among them. Pure: the same state gives the same
//! answer, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use umbra_admission::Cluster;
use umbra_api::placement::{PlacementSpec, ReplicaStrategy, Replicas};
use umbra_apimachinery::selector::Selector;
use umbra_registry::directory::to_selector;

/// A cluster of the fleet, as far as scheduling and rendering look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetCluster {
    /// Name, labels, annotations and properties.
    pub info: Arc<Cluster>,
    /// What keeps placements away.
    pub taints: Vec<Taint>,
    /// Whether requests reach it and its copies are up to date.
    pub ready: bool,
}

/// Why a placement is not scheduled; nothing changes then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unschedulable {
    /// A word for the condition.
    pub reason: &'static str,
    /// What is the matter and what to do.
    pub message: String,
}

/// The clusters that a placement selects, by name. `current` are those that have its renderings: with `max` they are kept
/// rather than exchanged for others, and a taint `NoSchedule` does not take them away.
///
/// Order of choice: clusters that are there already, then those without an untolerated `PreferNoSchedule`, then those that
/// are ready, then by name.
///
/// # Errors
/// Where there are fewer than `min`, or none.
pub fn select(
    spec: &PlacementSpec,
    fleet: &str,
    clusters: &BTreeMap<String, FleetCluster>,
    current: &BTreeSet<String>,
) -> Result<Vec<String>, Unschedulable> {
    let selector = match spec.cluster_selector.as_ref().map(to_selector) {
        None => Selector::everything(),
        Some(Ok(selector)) => selector,
        Some(Err(error)) => {
            return Err(Unschedulable {
                reason: "InvalidSelector",
                message: format!("spec.clusterSelector: {error}"),
            });
        }
    };
    let matching: Vec<&FleetCluster> = clusters
        .values()
        .filter(|cluster| {
            spec.cluster_names
                .as_ref()
                .is_none_or(|names| names.contains(&cluster.info.name))
        })
        .filter(|cluster| selector.matches(|key| cluster.info.labels.get(key).map(String::as_str)))
        .collect();
    let mut tolerated: Vec<&FleetCluster> = matching
        .iter()
        .copied()
        .filter(|cluster| is_tolerated(cluster, &spec.tolerations, current.contains(&cluster.info.name)))
        .collect();
    let wanted = spec.clusters.min.unwrap_or(0).max(1) as usize;
    if tolerated.len() < wanted {
        return Err(too_few(spec, fleet, clusters, &matching, tolerated.len()));
    }
    tolerated.sort_by_key(|cluster| {
        let name = cluster.info.name.as_str();
        let avoided = untolerated(cluster, &spec.tolerations).any(|taint| taint.effect == "PreferNoSchedule");
        (!current.contains(name), avoided, !cluster.ready, name)
    });
    let most = spec.clusters.max.map_or(usize::MAX, |max| max as usize);
    let mut names: Vec<String> = tolerated
        .iter()
        .take(most)
        .map(|cluster| cluster.info.name.clone())
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(Unschedulable {
            reason: "NoClusters",
            message:
                "spec.clusters.max is 0, so no cluster is chosen; nothing is changed. To withdraw what is placed, \
                      delete the placement"
                    .to_owned(),
        });
    }
    Ok(names)
}

fn too_few(
    spec: &PlacementSpec,
    fleet: &str,
    clusters: &BTreeMap<String, FleetCluster>,
    matching: &[&FleetCluster],
    tolerated: usize,
) -> Unschedulable {
    let names = |clusters: &mut dyn Iterator<Item = &FleetCluster>| {
        let names: Vec<&str> = clusters.map(|cluster| cluster.info.name.as_str()).take(10).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let all = names(&mut clusters.values());
    let reason = if tolerated == 0 { "NoClusters" } else { "TooFewClusters" };
    let message = if clusters.is_empty() {
        format!("fleet {fleet} has no clusters; join one, or change the fleet's selector")
    } else if matching.is_empty() {
        format!(
            "no cluster of fleet {fleet} matches (clusters: {all}); correct spec.clusterSelector or spec.clusterNames, or \
             label a cluster"
        )
    } else if tolerated < matching.len() && tolerated == 0 {
        let tainted = names(&mut matching.iter().copied());
        format!("all matching clusters have taints that are not tolerated ({tainted}); add spec.tolerations")
    } else {
        let min = spec.clusters.min.unwrap_or_default();
        format!("{tolerated} clusters can be selected, spec.clusters.min asks for {min}; nothing is changed")
    };
    Unschedulable { reason, message }
}

fn is_tolerated(cluster: &FleetCluster, tolerations: &[Toleration], is_current: bool) -> bool {
    untolerated(cluster, tolerations).all(|taint| match taint.effect.as_str() {
        "NoExecute" => false,
        "NoSchedule" => is_current,
        _ => true,
    })
}

fn untolerated<'a>(cluster: &'a FleetCluster, tolerations: &'a [Toleration]) -> impl Iterator<Item = &'a Taint> {
    let taints = cluster.taints.iter();
    taints.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// `v1.Toleration.ToleratesTaint` (`k8s.io/api/core/v1/toleration.go`), without the operators `Lt` and `Gt`.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    }
}

/// How many of `replicas` each cluster gets. `Weighted` divides by the method of largest remainders; equal remainders go to
/// the clusters that come first by name, so the division depends on nothing but its input. `clusters` are sorted.
///
/// # Errors
/// Where all weights are zero and there is something to divide.
pub fn divide(replicas: i64, clusters: &[String], how: &Replicas) -> Result<BTreeMap<String, i64>, Unschedulable> {
    let replicas = replicas.max(0);
    if how.strategy == ReplicaStrategy::Duplicate {
        return Ok(clusters.iter().map(|name| (name.clone(), replicas)).collect());
    }
    // Without any weights all weigh the same.
    let absent = u32::from(how.weights.is_empty());
    let weights: Vec<i128> = clusters
        .iter()
        .map(|name| i128::from(how.weights.get(name).copied().unwrap_or(absent)))
        .collect();
    let total: i128 = weights.iter().sum();
    if total == 0 && replicas > 0 {
        return Err(Unschedulable {
            reason: "NoWeights",
            message: format!(
                "spec.replicas.weights gives none of the selected clusters ({}) a weight above 0, so {replicas} replicas go \
                 nowhere; nothing is changed",
                clusters.join(", ")
            ),
        });
    }
    let total = total.max(1);
    let all = i128::from(replicas);
    let mut shares: Vec<(usize, i128, i128)> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| (index, all * weight / total, all * weight % total))
        .collect();
    let missing = all - shares.iter().map(|share| share.1).sum::<i128>();
    shares.sort_by_key(|(index, _, remainder)| (-remainder, *index));
    for share in shares.iter_mut().take(usize::try_from(missing).unwrap_or_default()) {
        share.1 += 1;
    }
    let divided = shares.into_iter().map(|(index, share, _)| {
        let share = i64::try_from(share).expect("a share is not more than all replicas");
        (clusters[index].clone(), share)
    });
    Ok(divided.collect())
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
