//! Strategies made of CustomResourceDefinitions: how Umbra's own kinds are served, and anybody else's.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
};
use serde_json::Value;
use umbra_apimachinery::discovery::{ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::table::ColumnDefinition;
use umbra_openapi::{CustomResource, Dialect, Document, DocumentError};

use super::printer::{JsonPath, PathPrinter};
use super::strategy::{ScalePaths, SelectableField, Strategy, subresource};

/// Strategies, and the documents of their group versions.
pub type Defined = (Vec<Strategy>, BTreeMap<GroupVersion, Document>);

/// A version of a definition that is served.
struct Version<'a> {
    definition: &'a CustomResourceDefinition,
    version: &'a CustomResourceDefinitionVersion,
    kind: GroupVersionKind,
    list_kind: String,
    schema: Option<Value>,
}

/// The kinds of these definitions. Of several versions of one kind the one that is stored is served, because there is no
/// conversion.
///
/// # Errors
/// Where a schema cannot be understood.
pub fn strategies(definitions: &[CustomResourceDefinition]) -> Result<Defined, DocumentError> {
    let versions: Vec<Version<'_>> = definitions.iter().filter_map(Version::stored).collect();
    let mut by_group_version: BTreeMap<GroupVersion, Vec<&Version<'_>>> = BTreeMap::new();
    for version in &versions {
        by_group_version
            .entry(version.kind.group_version())
            .or_default()
            .push(version);
    }
    let mut documents = BTreeMap::new();
    for (group_version, versions) in by_group_version {
        let resources: Vec<CustomResource<'_>> = versions.into_iter().map(Version::resource).collect();
        documents.insert(group_version, Document::custom_resources(&resources)?);
    }
    let strategies = versions.iter().map(|version| version.strategy(&documents)).collect();
    Ok((strategies, documents))
}

impl<'a> Version<'a> {
    fn stored(definition: &'a CustomResourceDefinition) -> Option<Self> {
        let spec = &definition.spec;
        let version = spec.versions.iter().find(|version| version.storage && version.served)?;
        let schema = version
            .schema
            .as_ref()
            .and_then(|schema| schema.open_api_v3_schema.as_ref());
        Some(Self {
            definition,
            version,
            kind: GroupVersionKind::new(&spec.group, &version.name, &spec.names.kind),
            list_kind: spec
                .names
                .list_kind
                .clone()
                .unwrap_or_else(|| format!("{}List", spec.names.kind)),
            schema: schema.and_then(|schema| serde_json::to_value(schema).ok()),
        })
    }

    fn resource(&self) -> CustomResource<'_> {
        CustomResource {
            kind: self.kind.clone(),
            list_kind: &self.list_kind,
            schema: self.schema.as_ref(),
        }
    }

    fn strategy(&self, documents: &BTreeMap<GroupVersion, Document>) -> Strategy {
        let document = documents.get(&self.kind.group_version());
        let schema = document.and_then(|document| document.type_schema(&self.kind));
        let columns = self.version.additional_printer_columns.iter().flatten().map(|column| {
            let definition = ColumnDefinition {
                name: column.name.clone(),
                column_type: column.type_.clone(),
                format: column.format.clone().unwrap_or_default(),
                description: column.description.clone().unwrap_or_default(),
                priority: column.priority.unwrap_or_default(),
            };
            (definition, JsonPath::parse(&column.json_path))
        });
        let mut strategy = Strategy::new(self.descriptor())
            .with_schema(schema, Dialect::CustomResource)
            .with_printer(Arc::new(PathPrinter::new(columns)));
        strategy.counts_generation = true;
        strategy.allow_unconditional_update = false;
        if let Some(scale) = self.scale() {
            strategy.scale = ScalePaths {
                spec_replicas: pointer(&scale.spec_replicas_path),
                status_replicas: pointer(&scale.status_replicas_path),
                selector: scale.label_selector_path.as_deref().map(pointer),
            };
        }
        let fields = self.version.selectable_fields.iter().flatten();
        strategy.selectable_fields = fields
            .map(|field| SelectableField::new(field.json_path.trim_start_matches('.')))
            .collect();
        strategy
    }

    fn scale(&self) -> Option<&CustomResourceSubresourceScale> {
        self.version.subresources.as_ref()?.scale.as_ref()
    }

    fn descriptor(&self) -> ResourceDescriptor {
        let spec = &self.definition.spec;
        let names = &spec.names;
        let mut subresources: Vec<SubresourceDescriptor> = Vec::new();
        if self
            .version
            .subresources
            .as_ref()
            .is_some_and(|one| one.status.is_some())
        {
            subresources.push(subresource("status", self.kind.clone()));
        }
        if self.scale().is_some() {
            subresources.push(subresource(
                "scale",
                GroupVersionKind::new("autoscaling", "v1", "Scale"),
            ));
        }
        ResourceDescriptor {
            resource: self.kind.group_version().resource(&names.plural),
            kind: names.kind.clone(),
            singular: names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase()),
            namespaced: spec.scope == "Namespaced",
            short_names: names.short_names.clone().unwrap_or_default(),
            categories: names.categories.clone().unwrap_or_default(),
            verbs: Vec::new(),
            subresources,
        }
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_own_kinds_are_served_as_defined() {
        let (strategies, documents) = strategies(&umbra_api::hub_definitions()).unwrap();
        assert_eq!(documents.len(), 1);
        let clusters = strategies
            .iter()
            .find(|one| one.descriptor.kind == "ManagedCluster")
            .unwrap();
        assert_eq!(clusters.descriptor.short_names, ["mcl"]);
        assert!(clusters.has_status() && clusters.schema.is_some() && !clusters.descriptor.namespaced);
        assert!(
            clusters
                .printer
                .columns()
                .iter()
                .any(|column| column.name == "Reachable")
        );
    }

    #[test]
    fn paths_of_scale_become_pointers() {
        assert_eq!(pointer(".spec.replicas"), "/spec/replicas");
    }
}
