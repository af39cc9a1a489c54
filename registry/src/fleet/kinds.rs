//! The kinds of a fleet that are there whatever its clusters serve: those of `umbra.dev`, and namespaces.

use std::sync::Arc;

use serde_json::{Value, json};
use umbra_apimachinery::discovery::{ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupResource, GroupVersion, GroupVersionKind};
use umbra_openapi::{Dialect, DocumentError, builtin};

use super::cache::FleetCache;
use super::printer::TemplatePrinter;
use super::validation::{CheckOverride, CheckPlacement};
use crate::generic::Strategy;
use crate::generic::definition::{self, Defined};
use crate::generic::strategy::{Behavior, Deletion, NameRule, SUBRESOURCE_VERBS, subresource};

/// The group version of the fleet's own kinds.
#[must_use]
pub fn umbra_version() -> GroupVersion {
    GroupVersion::new(umbra_api::GROUP, umbra_api::VERSION)
}

/// The kinds of `umbra.dev`, and the documents of their group versions.
///
/// # Errors
/// Where a schema cannot be published, which is a fault of this program.
pub fn umbra_kinds() -> Result<Defined, DocumentError> {
    let (strategies, documents) = definition::strategies(&umbra_api::fleet_definitions())?;
    Ok((strategies.into_iter().map(checked).collect(), documents))
}

/// With what the schema of the kind cannot say. The fleet's controllers write what they have computed from the present state
/// whatever was there before, so updates need no revision.
fn checked(mut strategy: Strategy) -> Strategy {
    strategy.allow_unconditional_update = true;
    match strategy.descriptor.kind.as_str() {
        "Placement" => strategy.with_behavior(CheckPlacement { cluster_scoped: false }),
        "ClusterPlacement" => strategy.with_behavior(CheckPlacement { cluster_scoped: true }),
        "Override" => strategy.with_behavior(CheckOverride { cluster_scoped: false }),
        "ClusterOverride" => strategy.with_behavior(CheckOverride { cluster_scoped: true }),
        // `{name}.{resource}@{cluster}` is no DNS name.
        "Rendering" => strategy.with_names(NameRule::PathSegment),
        _ => strategy,
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
