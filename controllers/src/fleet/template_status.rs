//! The status of templates: the sums of what the clusters' objects say.

use std::sync::Arc;

use serde_json::{Map, Value};
use umbra_api::rendering::Rendering;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::fleet::TemplateKey;
use umbra_registry::fleet::printer::is_applied;

use super::controller::Inner;
use super::queue::Outcome;
use super::write::Place;

/// The counts of each kind's status that are summed over clusters.
const SUMMED: [(&str, &str, &[&str]); 5] = [
    (
        "apps",
        "deployments",
        &[
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ],
    ),
    (
        "apps",
        "replicasets",
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    ),
    (
        "apps",
        "statefulsets",
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
    ),
    (
        "apps",
        "daemonsets",
        &[
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberMisscheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ],
    ),
    ("batch", "jobs", &["active", "succeeded", "failed", "ready"]),
];

impl Inner {
    /// Writes the status of a template: the sums of its objects' statuses, for kinds that count.
    pub(super) async fn report_template(&self, key: &TemplateKey) -> Result<Outcome, Status> {
        let counted = SUMMED
            .iter()
            .find(|(group, resource, _)| key.resource == GroupResource::new(*group, *resource));
        let Some((_, _, fields)) = counted else {
            return Ok(Outcome::Done);
        };
        let state = self.state().await?;
        let Some(template) = state.template(key) else {
            return Ok(Outcome::Done);
        };
        let generation = template["metadata"]["generation"].as_i64();
        let objects: Vec<(Arc<Rendering>, Option<Value>)> = state
            .renderings_of(key)
            .into_values()
            .map(|rendering| {
                let live = self.live(&rendering);
                (rendering, live)
            })
            .collect();
        let live: Vec<&Value> = objects.iter().filter_map(|(_, live)| live.as_ref()).collect();
        let sums = sums(fields, &live);
        let observed = objects
            .iter()
            .all(|(rendering, live)| is_observed(rendering, live.as_ref(), generation));
        let place = Place {
            resource: &key.resource,
            namespace: key.namespace.as_deref(),
            name: &key.name,
        };
        self.writer
            .update_status(place, template.uid(), |status: &mut Value| {
                if !status.is_object() {
                    *status = Value::Object(Map::new());
                }
                for (field, sum) in &sums {
                    status[*field] = (*sum).into();
                }
                // Jobs have no such field.
                if observed && key.resource.group == "apps" {
                    status["observedGeneration"] = generation.into();
                }
            })
            .await?;
        Ok(Outcome::Done)
    }
}

fn sums(fields: &[&'static str], objects: &[&Value]) -> Vec<(&'static str, i64)> {
    let sum = |field: &str| {
        objects
            .iter()
            .filter_map(|object| object["status"][field].as_i64())
            .sum()
    };
    fields.iter().map(|field| (*field, sum(field))).collect()
}

/// Whether the object in the cluster is that of the template's generation, and its controller has seen it.
fn is_observed(rendering: &Rendering, live: Option<&Value>, generation: Option<i64>) -> bool {
    let seen = live.is_some_and(|live| {
        live["status"]["observedGeneration"].as_i64().unwrap_or_default()
            >= live["metadata"]["generation"].as_i64().unwrap_or_default()
    });
    rendering.spec.template.generation == generation && is_applied(rendering) && seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses_are_summed() {
        let objects = [
            json!({"status": {"replicas": 2, "readyReplicas": 1}}),
            json!({"status": {"replicas": 3}}),
            json!({}),
        ];
        assert_eq!(
            sums(&["replicas", "readyReplicas"], &objects.iter().collect::<Vec<_>>()),
            [("replicas", 5), ("readyReplicas", 1)]
        );
    }
}
