//! How templates print: where they are placed, not what they contain.
//!
//! The columns that the children print are of objects that run; a template does not, and most of those cells would be
//! empty or wrong.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use umbra_api::rendering::{Rendering, condition};
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::table::ColumnDefinition;

use super::cache::{FleetCache, FleetObject};
use super::names::TemplateKey;
use crate::generic::printer::Printer;

/// Prints the templates of one resource.
pub struct TemplatePrinter {
    resource: GroupResource,
    namespaced: bool,
    cache: Arc<FleetCache>,
}

impl std::fmt::Debug for TemplatePrinter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplatePrinter")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

impl TemplatePrinter {
    /// Prints templates of `resource`; `cache` knows their renderings.
    #[must_use]
    pub fn new(resource: GroupResource, namespaced: bool, cache: Arc<FleetCache>) -> Self {
        Self {
            resource,
            namespaced,
            cache,
        }
    }

    /// Whether objects of the kind become ready, as replicas or completions.
    fn has_readiness(&self) -> bool {
        matches!(self.resource.group.as_str(), "apps") && self.resource.resource != "controllerrevisions"
            || (self.resource.group == "batch" && self.resource.resource == "jobs")
    }

    /// How many clusters have the template, of how many that should.
    fn placed(&self, template: &Value) -> String {
        let key = TemplateKey {
            resource: self.resource.clone(),
            namespace: self.namespaced.then(|| template.namespace().to_owned()),
            name: template.name().to_owned(),
        };
        let prefix = format!(
            "{}umbra.dev/renderings/{}/{}",
            self.cache.prefix(),
            key.rendering_namespace(),
            key.rendering_prefix()
        );
        let snapshot = self.cache.snapshot();
        let renderings = snapshot.range(&prefix, None).filter_map(|object| match &object.extra {
            FleetObject::Rendering(rendering) if rendering.metadata.deletion_timestamp.is_none() => Some(rendering),
            _ => None,
        });
        let (mut applied, mut all) = (0, 0);
        for rendering in renderings {
            all += 1;
            applied += u32::from(is_applied(rendering));
        }
        format!("{applied}/{all}")
    }
}

/// Whether the cluster has what the rendering says now.
#[must_use]
pub fn is_applied(rendering: &Rendering) -> bool {
    let Some(status) = &rendering.status else { return false };
    status.observed_generation == rendering.metadata.generation
        && status
            .conditions
            .iter()
            .any(|one| one.type_ == condition::APPLIED && one.status == "True")
}

/// Ready and wanted, in the words of each kind's status; summed over the clusters by the status controller.
fn readiness(template: &Value) -> Value {
    let status = &template["status"];
    let count = |fields: &[&str]| fields.iter().find_map(|field| status[*field].as_i64());
    match (
        count(&["readyReplicas", "numberReady", "succeeded"]),
        count(&["replicas", "desiredNumberScheduled", "active"]),
    ) {
        (None, None) => Value::Null,
        (ready, wanted) => {
            let ready = ready.unwrap_or_default();
            format!("{ready}/{}", wanted.unwrap_or_default().max(ready)).into()
        }
    }
}

impl Printer for TemplatePrinter {
    fn columns(&self) -> Vec<ColumnDefinition> {
        let mut columns = vec![
            ColumnDefinition::name(),
            ColumnDefinition::string(
                "Placed",
                "How many clusters have the template, of how many it is placed on.",
            ),
        ];
        if self.has_readiness() {
            columns.push(ColumnDefinition::string(
                "Ready",
                "How much of it is ready, over all clusters.",
            ));
        }
        columns.push(ColumnDefinition::age());
        columns
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![object.name().into(), self.placed(object).into()];
        if self.has_readiness() {
            cells.push(readiness(object));
        }
        let created = age::parse(object.metadata_str("creationTimestamp"));
        cells.push(created.map_or(Value::Null, |created| age::human_duration(created, now).into()));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_is_said_where_there_is_any() {
        for (status, expected) in [
            (json!({"replicas": 6, "readyReplicas": 4}), json!("4/6")),
            (json!({"replicas": 2}), json!("0/2")),
            (json!({"desiredNumberScheduled": 3, "numberReady": 3}), json!("3/3")),
            (json!({"succeeded": 2}), json!("2/2")),
            (json!({}), Value::Null),
        ] {
            assert_eq!(readiness(&json!({"status": status})), expected);
        }
    }
}
