//! The kinds of a fleet that are there whatever its clusters serve: those of `umbra.dev`, and namespaces.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::{Value, json};
use umbra_apimachinery::discovery::{ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
use umbra_apimachinery::table::ColumnDefinition;
use umbra_openapi::{CustomResource, Dialect, Document, DocumentError, builtin};

use super::cache::FleetCache;
use super::printer::TemplatePrinter;
use super::validation::{CheckOverride, CheckPlacement};
use crate::generic::Strategy;
use crate::generic::printer::{JsonPath, PathPrinter};
use crate::generic::strategy::{Behavior, Deletion, NameRule, SUBRESOURCE_VERBS, subresource};

/// The group version of the fleet's own kinds.
#[must_use]
pub fn umbra_version() -> GroupVersion {
    GroupVersion::new(umbra_api::GROUP, umbra_api::VERSION)
}

/// The kinds of `umbra.dev`, and the document of their group version.
///
/// # Errors
/// Where a schema cannot be published, which is a fault of this program.
pub fn umbra_kinds() -> Result<(Vec<Strategy>, Document), DocumentError> {
    let definitions = umbra_api::fleet_definitions();
    let schemas: Vec<(GroupVersionKind, String, Option<Value>)> = definitions
        .iter()
        .flat_map(|definition| {
            definition
                .spec
                .versions
                .iter()
                .map(move |version| (definition, version))
        })
        .map(|(definition, version)| {
            let spec = &definition.spec;
            let kind = GroupVersionKind::new(&spec.group, &version.name, &spec.names.kind);
            let list = spec
                .names
                .list_kind
                .clone()
                .unwrap_or_else(|| format!("{}List", spec.names.kind));
            let schema = version
                .schema
                .as_ref()
                .and_then(|schema| schema.open_api_v3_schema.as_ref());
            (kind, list, schema.and_then(|schema| serde_json::to_value(schema).ok()))
        })
        .collect();
    let resources: Vec<CustomResource<'_>> = schemas
        .iter()
        .map(|(kind, list_kind, schema)| CustomResource {
            kind: kind.clone(),
            list_kind,
            schema: schema.as_ref(),
        })
        .collect();
    let document = Document::custom_resources(&resources)?;
    let strategies = definitions
        .iter()
        .flat_map(|definition| {
            definition
                .spec
                .versions
                .iter()
                .map(move |version| (definition, version))
        })
        .map(|(definition, version)| strategy(definition, version, &document))
        .collect();
    Ok((strategies, document))
}

fn strategy(
    definition: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    document: &Document,
) -> Strategy {
    let descriptor = descriptor(definition, version);
    let kind = descriptor.group_version_kind();
    let columns = version.additional_printer_columns.iter().flatten().map(|column| {
        let definition = ColumnDefinition {
            name: column.name.clone(),
            column_type: column.type_.clone(),
            format: column.format.clone().unwrap_or_default(),
            description: column.description.clone().unwrap_or_default(),
            priority: column.priority.unwrap_or_default(),
        };
        (definition, JsonPath::parse(&column.json_path))
    });
    let schema = document.type_schema(&kind);
    let strategy = Strategy::new(descriptor)
        .with_schema(schema, Dialect::CustomResource)
        .with_printer(Arc::new(PathPrinter::new(columns)));
    match kind.kind.as_str() {
        "Placement" => strategy.with_behavior(CheckPlacement { cluster_scoped: false }),
        "ClusterPlacement" => strategy.with_behavior(CheckPlacement { cluster_scoped: true }),
        "Override" => strategy.with_behavior(CheckOverride { cluster_scoped: false }),
        "ClusterOverride" => strategy.with_behavior(CheckOverride { cluster_scoped: true }),
        // `{name}.{resource}@{cluster}` is no DNS name.
        "Rendering" => strategy.with_names(NameRule::PathSegment),
        _ => strategy,
    }
}

fn descriptor(definition: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion) -> ResourceDescriptor {
    let spec = &definition.spec;
    let names = &spec.names;
    let kind = GroupVersionKind::new(&spec.group, &version.name, &names.kind);
    let has_status = version.subresources.as_ref().is_some_and(|one| one.status.is_some());
    ResourceDescriptor {
        resource: GroupVersionResource::new(&spec.group, &version.name, &names.plural),
        singular: names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase()),
        namespaced: spec.scope == "Namespaced",
        short_names: names.short_names.clone().unwrap_or_default(),
        categories: names.categories.clone().unwrap_or_default(),
        verbs: Vec::new(),
        subresources: has_status
            .then(|| subresource("status", kind.clone()))
            .into_iter()
            .collect(),
        kind: kind.kind,
    }
}

/// Namespaces of a fleet: templates like any other, in which other templates are.
#[must_use]
pub fn namespaces(cache: &Arc<FleetCache>) -> Strategy {
    let resource = GroupResource::new("", "namespaces");
    let kind = GroupVersionKind::new("", "v1", "Namespace");
    let finalize = SubresourceDescriptor {
        name: "finalize".to_owned(),
        kind: kind.clone(),
        verbs: vec![SUBRESOURCE_VERBS[2].to_owned()],
    };
    let descriptor = ResourceDescriptor {
        resource: resource.with_version("v1"),
        kind: kind.kind.clone(),
        singular: "namespace".to_owned(),
        namespaced: false,
        short_names: vec!["ns".to_owned()],
        categories: Vec::new(),
        verbs: Vec::new(),
        subresources: vec![finalize, subresource("status", kind.clone())],
    };
    let mut strategy = Strategy::new(descriptor)
        .with_schema(builtin::type_schema(&kind), Dialect::BuiltIn)
        .with_names(NameRule::Label)
        .with_printer(Arc::new(TemplatePrinter::new(resource, false, Arc::clone(cache))))
        .with_behavior(NamespaceBehavior);
    strategy.counts_generation = true;
    strategy.deletion = Deletion::Namespace;
    strategy
}

/// What a namespace starts with: the finalizer of what is inside, and a phase.
#[derive(Debug, Clone, Copy)]
struct NamespaceBehavior;

impl Behavior for NamespaceBehavior {
    fn prepare_for_create(&self, object: &mut Value) {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
        object["status"] = json!({"phase": "Active"});
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value) {
        super::template::clean(object);
    }
}
