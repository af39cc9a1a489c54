//! What placements and overrides say about how they stand in the clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;
use umbra_admission::overrides::{OverrideIdentity, OverrideKind};
use umbra_api::overrides::OverrideStatus;
use umbra_api::placement::{PlacedCluster, PlacementStatus, condition};
use umbra_api::rendering::{self, Rendering};
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::Status;
use umbra_registry::fleet::printer::is_applied;
use umbra_registry::fleet::{PlacementKind, PlacementObject, TemplateKey, rendering_name};

use super::controller::Inner;
use super::dispatch::copy_key_of;
use super::plan::is_failing;
use super::queue::Outcome;
use super::render::replicas_of;
use super::schedule::{self, FleetCluster};
use super::state::{FleetState, PlacementKey, display, fleet_clusters, places};
use super::write::Place;

/// The condition of an override.
const APPLIED: &str = "Applied";

/// Sets a condition; its time of transition stays where its status does.
pub(super) fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) {
    let status = if is_true { "True" } else { "False" };
    let existing = conditions.iter().position(|one| one.type_ == kind);
    let since = existing
        .map(|index| &conditions[index])
        .filter(|one| one.status == status)
        .map_or_else(|| Time(Timestamp::now()), |one| one.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match existing {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

/// Something wrong with one rendering.
struct Fault {
    reason: String,
    message: String,
}

/// What is wrong with a rendering; nothing where its cluster has it and it is the latest.
fn fault(rendering: &Rendering) -> Option<Fault> {
    let conditions = rendering.status.iter().flat_map(|status| &status.conditions);
    let failing = conditions
        .filter(|one| one.status == "False")
        .min_by_key(|one| one.type_ != rendering::condition::RENDERED);
    match failing {
        Some(failing) => Some(Fault {
            reason: failing.reason.clone(),
            message: failing.message.clone(),
        }),
        None if is_applied(rendering) => None,
        None => Some(Fault {
            reason: "Pending".to_owned(),
            message: "not applied yet".to_owned(),
        }),
    }
}

fn and_more(message: &str, faults: usize) -> String {
    match faults {
        0 | 1 => message.to_owned(),
        more => format!("{message} (and {} more)", more - 1),
    }
}

/// What a placement says, computed.
struct PlacementReport {
    clusters: Vec<PlacedCluster>,
    selected: i64,
    scheduled: (bool, String, String),
    applied: (bool, String, String),
}

impl Inner {
    /// Writes the status of a placement.
    pub(super) async fn report_placement(&self, key: &PlacementKey) -> Result<Outcome, Status> {
        let state = self.state().await?;
        let Some(placement) = state.placement(key) else {
            return Ok(Outcome::Done);
        };
        let report = self.placement_report(&state, &placement);
        let generation = placement.metadata.generation;
        let resource = match key.kind {
            PlacementKind::Placement => GroupResource::new(umbra_api::GROUP, "placements"),
            PlacementKind::ClusterPlacement => GroupResource::new(umbra_api::GROUP, "clusterplacements"),
        };
        let place = Place {
            resource: &resource,
            namespace: placement.namespace(),
            name: &key.name,
        };
        let uid = placement.metadata.uid.clone().unwrap_or_default();
        self.writer
            .update_status(place, &uid, |status: &mut PlacementStatus| {
                status.observed_generation = generation;
                status.selected = Some(report.selected);
                status.clusters.clone_from(&report.clusters);
                for (kind, (is_true, reason, message)) in [
                    (condition::SCHEDULED, &report.scheduled),
                    (condition::APPLIED, &report.applied),
                ] {
                    set_condition(&mut status.conditions, kind, *is_true, reason, message, generation);
                }
            })
            .await?;
        Ok(Outcome::Done)
    }

    fn placement_report(&self, state: &FleetState, placement: &PlacementObject) -> PlacementReport {
        let key = PlacementKey::of(placement);
        let clusters = fleet_clusters(&self.directory.state(), self.api.name());
        let templates: Vec<(&TemplateKey, &Arc<Value>)> = state
            .templates()
            .filter(|(key, template)| places(placement, key, template))
            .collect();
        let mut own: BTreeMap<String, Vec<Arc<Rendering>>> = BTreeMap::new();
        for rendering in state.renderings() {
            if PlacementKey::of_rendering(&rendering).as_ref() == Some(&key) {
                own.entry(rendering.spec.cluster.clone()).or_default().push(rendering);
            }
        }
        let current: BTreeSet<String> = own.keys().cloned().collect();
        let selected = selected(placement, self.api.name(), &clusters, &current, &templates);
        let names: BTreeSet<&String> = selected.iter().flatten().chain(&current).collect();
        let mut faults: Vec<Fault> = Vec::new();
        let mut placed = Vec::new();
        for name in names {
            let renderings = own.get(name).map_or(&[][..], Vec::as_slice);
            let is_selected = selected.as_ref().is_ok_and(|selected| selected.contains(name));
            // Templates that nobody has rendered for this cluster yet; those of an older placement are not missing.
            let missing = templates
                .iter()
                .filter(|(key, _)| is_selected && !has_rendering(state, key, name))
                .count();
            placed.push(self.placed_cluster(name, renderings, missing, &mut faults));
        }
        let scheduled = match &selected {
            Ok(selected) => (
                true,
                "Scheduled".to_owned(),
                format!("{} clusters are selected", selected.len()),
            ),
            Err(error) => (false, error.reason.to_owned(), error.message.clone()),
        };
        let applied = match (templates.is_empty(), faults.first(), &selected) {
            (_, Some(first), _) => (false, first.reason.clone(), and_more(&first.message, faults.len())),
            (true, None, _) => (false, "NoTemplates".to_owned(), no_templates(placement)),
            (false, None, Err(error)) => (false, error.reason.to_owned(), error.message.clone()),
            (false, None, Ok(_)) => (
                true,
                "Applied".to_owned(),
                "every selected cluster has its renderings".to_owned(),
            ),
        };
        PlacementReport {
            selected: i64::try_from(selected.map_or(current.len(), |selected| selected.len())).unwrap_or(i64::MAX),
            clusters: placed,
            scheduled,
            applied,
        }
    }

    fn placed_cluster(
        &self,
        name: &str,
        renderings: &[Arc<Rendering>],
        missing: usize,
        faults: &mut Vec<Fault>,
    ) -> PlacedCluster {
        let mut placed = PlacedCluster {
            name: name.to_owned(),
            ..PlacedCluster::default()
        };
        let mut applied = 0;
        for rendering in renderings {
            applied += u32::from(is_applied(rendering));
            if let Some(replicas) = replicas_of(&rendering.spec.object) {
                *placed.replicas.get_or_insert(0) += replicas;
                let ready = self
                    .live_status(rendering)
                    .and_then(|status| status["readyReplicas"].as_i64());
                *placed.ready.get_or_insert(0) += ready.unwrap_or_default();
            }
            if let Some(fault) = fault(rendering) {
                let message = format!("{} in cluster {name}: {}", display(rendering), fault.message);
                if placed.message.is_empty() {
                    placed.message.clone_from(&fault.message);
                }
                faults.push(Fault { message, ..fault });
            }
        }
        if missing > 0 {
            faults.push(Fault {
                reason: "Pending".to_owned(),
                message: format!("{missing} templates are not rendered for cluster {name} yet"),
            });
        }
        placed.applied = format!("{applied}/{}", renderings.len() + missing);
        placed
    }

    /// The status of the object in its cluster, as far as it is known.
    fn live_status(&self, rendering: &Rendering) -> Option<Value> {
        Some(self.live(rendering)?["status"].take())
    }

    /// The object in its cluster, as far as it is known.
    pub(super) fn live(&self, rendering: &Rendering) -> Option<Value> {
        let resource = GroupResource::parse(&rendering.spec.template.resource);
        let snapshot = self.copies.cache(&resource).snapshot();
        let copy = snapshot.get(&copy_key_of(rendering, &resource))?;
        serde_json::from_slice(&copy.bytes).ok()
    }

    /// Writes the status of an override.
    pub(super) async fn report_override(&self, identity: &OverrideIdentity) -> Result<Outcome, Status> {
        let state = self.state().await?;
        let Some(found) = state.override_(identity) else {
            return Ok(Outcome::Done);
        };
        let generation = found.metadata.generation;
        let (is_true, reason, message) = match &found.parsed {
            Err(error) => (false, "Invalid".to_owned(), error.clone()),
            Ok(_) => override_report(&state, identity),
        };
        let resource = match identity.kind {
            OverrideKind::Override => GroupResource::new(umbra_api::GROUP, "overrides"),
            OverrideKind::ClusterOverride => GroupResource::new(umbra_api::GROUP, "clusteroverrides"),
        };
        let place = Place {
            resource: &resource,
            namespace: identity.namespace.as_deref(),
            name: &identity.name,
        };
        let uid = found.metadata.uid.clone().unwrap_or_default();
        self.writer
            .update_status(place, &uid, |status: &mut OverrideStatus| {
                status.observed_generation = generation;
                set_condition(&mut status.conditions, APPLIED, is_true, &reason, &message, generation);
            })
            .await?;
        Ok(Outcome::Done)
    }
}

fn selected(
    placement: &PlacementObject,
    fleet: &str,
    clusters: &BTreeMap<String, FleetCluster>,
    current: &BTreeSet<String>,
    templates: &[(&TemplateKey, &Arc<Value>)],
) -> Result<Vec<String>, schedule::Unschedulable> {
    let selected = schedule::select(&placement.spec, fleet, clusters, current)?;
    for replicas in templates.iter().filter_map(|(_, template)| replicas_of(template)) {
        schedule::divide(replicas, &selected, &placement.spec.replicas)?;
    }
    Ok(selected)
}

fn has_rendering(state: &FleetState, key: &TemplateKey, cluster: &str) -> bool {
    let key = super::state::RenderingKey {
        namespace: key.rendering_namespace().to_owned(),
        name: rendering_name(key, cluster),
    };
    state.rendering(&key).is_some()
}

fn no_templates(placement: &PlacementObject) -> String {
    let wanted: Vec<String> = placement
        .spec
        .resources
        .iter()
        .map(|one| {
            let name = one.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
            format!("{} of {}{name}", one.kind, one.api_version)
        })
        .collect();
    let place = placement.namespace().map_or_else(
        || "the fleet".to_owned(),
        |namespace| format!("namespace {namespace} of the fleet"),
    );
    format!(
        "there is no template in {place} that spec.resources selects ({})",
        wanted.join(", ")
    )
}

fn override_report(state: &FleetState, identity: &OverrideIdentity) -> (bool, String, String) {
    let in_reach = match &identity.namespace {
        Some(namespace) => state.renderings_in(namespace),
        None => state.renderings(),
    };
    let kind = identity.kind.as_str();
    let is_blamed = |rendering: &Rendering| {
        let blamed = rendering
            .status
            .as_ref()
            .and_then(|status| status.failed_override.as_ref());
        blamed.is_some_and(|blamed| blamed.kind == kind && blamed.name == identity.name) && is_failing(rendering)
    };
    let failing: Vec<&Arc<Rendering>> = in_reach.iter().filter(|one| is_blamed(one)).collect();
    if let Some(fault) = failing.first().and_then(|one| fault(one)) {
        return (false, fault.reason, and_more(&fault.message, failing.len()));
    }
    let takes_part = |rendering: &&Arc<Rendering>| {
        let mut overrides = rendering.spec.overrides.iter();
        overrides.any(|one| one.kind == kind && one.name == identity.name)
    };
    match in_reach.iter().filter(takes_part).count() {
        0 => (
            true,
            "NothingSelected".to_owned(),
            "it selects nothing that is placed now".to_owned(),
        ),
        count => (
            true,
            "Applied".to_owned(),
            format!("it takes part in {count} renderings"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, "Applied", false, "Pending", "", Some(1));
        conditions[0].last_transition_time = Time(Timestamp::UNIX_EPOCH);
        set_condition(&mut conditions, "Applied", false, "Conflict", "no", Some(2));
        assert_eq!(conditions[0].last_transition_time.0, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("Conflict", Some(2))
        );
        set_condition(&mut conditions, "Applied", true, "Applied", "", Some(2));
        assert!(conditions.len() == 1 && conditions[0].last_transition_time.0 > Timestamp::UNIX_EPOCH);
    }
}
