//! The built-in Kubernetes kinds as stored resources: what a standalone hub keeps, and what a simulated child serves.
//!
//! Schemas and resources are data of [`umbra_openapi::builtin`]; this module adds what no schema says: names, defaults that
//! Kubernetes fills in by code, immutability, deletion, columns. [`controllers`] are the two controllers without which the
//! API does not behave: the namespace controller and the garbage collector. [`bootstrap`] is what exists from the start.
//!
//! Deliberate deviations:
//! * Every kind has one version: `autoscaling/v2` alone, and events of the core group alone.
//! * Events do not expire by themselves.
//! * Services get no cluster IP; nothing here routes packets.

pub mod assembly;
mod behavior;
pub mod bootstrap;
pub mod controllers;
pub mod lifecycle;
pub mod printers;

use std::collections::BTreeSet;
use std::sync::Arc;

use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::{GroupResource, GroupVersion};
use umbra_openapi::{Dialect, Document, builtin};

use crate::generic::strategy::{Behavior, Deletion, NameRule, SelectableField, Strategy};

/// The kinds that a standalone hub stores beside Umbra's own.
const HUB: [&str; 10] = [
    "namespaces",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "events",
    "leases.coordination.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

/// Kinds whose objects count their generations.
const WITH_GENERATION: [&str; 14] = [
    "pods",
    "replicationcontrollers",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "jobs.batch",
    "cronjobs.batch",
    "poddisruptionbudgets.policy",
    "ingresses.networking.k8s.io",
    "ingressclasses.networking.k8s.io",
    "networkpolicies.networking.k8s.io",
    "endpointslices.discovery.k8s.io",
    "priorityclasses.scheduling.k8s.io",
];

/// Kinds that PUT creates.
const CREATED_BY_UPDATE: [&str; 9] = [
    "events",
    "endpoints",
    "limitranges",
    "services",
    "leases.coordination.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

/// Subresources that the generic store serves.
const SERVED_SUBRESOURCES: [&str; 6] = ["status", "scale", "finalize", "eviction", "binding", "token"];

/// The strategies of what a standalone hub stores beside Umbra's own kinds.
#[must_use]
pub fn hub() -> Vec<Strategy> {
    all_where(|resource| HUB.contains(&resource.to_string().as_str()))
}

/// The strategies of all built-in kinds that are stored: a whole cluster.
#[must_use]
pub fn cluster() -> Vec<Strategy> {
    all_where(|resource| resource.group != "apiextensions.k8s.io")
}

/// The strategies of the built-in resources that `wanted` takes.
pub fn all_where(wanted: impl Fn(&GroupResource) -> bool) -> Vec<Strategy> {
    let mut seen = BTreeSet::new();
    builtin::resources()
        .iter()
        .filter(|descriptor| descriptor.serves("create") && descriptor.serves("list"))
        .filter(|descriptor| !(descriptor.resource.group == "autoscaling" && descriptor.resource.version == "v1"))
        .filter(|descriptor| descriptor.resource.group != "events.k8s.io")
        .filter(|descriptor| wanted(&descriptor.group_resource()) && seen.insert(descriptor.group_resource()))
        .map(|descriptor| strategy(descriptor.clone()))
        .collect()
}

/// The published documents of the group versions of these strategies.
#[must_use]
pub fn documents(strategies: &[Strategy]) -> Vec<(GroupVersion, Document)> {
    let versions: BTreeSet<GroupVersion> = strategies
        .iter()
        .map(|strategy| strategy.descriptor.resource.group_version())
        .collect();
    versions
        .into_iter()
        .filter_map(|version| {
            let document = builtin::document(&version)?.clone();
            Some((version, document))
        })
        .collect()
}

/// The strategy of a built-in kind. Subresources that are connections are left out of its descriptor; whoever serves them
/// puts them back.
#[must_use]
pub fn strategy(mut descriptor: ResourceDescriptor) -> Strategy {
    descriptor
        .subresources
        .retain(|subresource| SERVED_SUBRESOURCES.contains(&subresource.name.as_str()));
    let resource = descriptor.group_resource();
    let text = resource.to_string();
    let schema = builtin::type_schema(&descriptor.group_version_kind());
    let mut strategy = Strategy::new(descriptor).with_schema(schema, Dialect::BuiltIn);
    strategy.names = match (resource.group.as_str(), text.as_str()) {
        ("rbac.authorization.k8s.io", _) => NameRule::PathSegment,
        (_, "namespaces") => NameRule::Label,
        (_, "services") => NameRule::ServiceLabel,
        _ => NameRule::Subdomain,
    };
    strategy.deletion = match text.as_str() {
        "pods" => Deletion::Graceful,
        "namespaces" => Deletion::Namespace,
        _ => Deletion::Immediate,
    };
    strategy.counts_generation = WITH_GENERATION.contains(&text.as_str());
    strategy.allow_create_on_update = CREATED_BY_UPDATE.contains(&text.as_str());
    strategy.allow_unconditional_update = text != "leases.coordination.k8s.io";
    strategy.selectable_fields = selectable_fields(&text);
    strategy.printer = printers::printer(&resource);
    strategy.behavior = behavior(&resource);
    strategy
}

fn behavior(resource: &GroupResource) -> Arc<dyn Behavior> {
    match resource.to_string().as_str() {
        "namespaces" => Arc::new(behavior::core::Namespaces),
        "secrets" => Arc::new(behavior::core::Secrets),
        "configmaps" => Arc::new(behavior::core::ConfigMaps),
        "services" => Arc::new(behavior::core::Services),
        "events" => Arc::new(behavior::core::Events),
        "persistentvolumeclaims" => Arc::new(behavior::core::VolumeClaims),
        "pods" => Arc::new(behavior::workload::Pods),
        "deployments.apps" => Arc::new(behavior::workload::Deployments),
        "replicasets.apps" => Arc::new(behavior::workload::ReplicaSets),
        "statefulsets.apps" => Arc::new(behavior::workload::StatefulSets),
        "daemonsets.apps" => Arc::new(behavior::workload::DaemonSets),
        "jobs.batch" => Arc::new(behavior::workload::Jobs),
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => Arc::new(behavior::rbac::Roles),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            Arc::new(behavior::rbac::Bindings)
        }
        _ => Arc::new(crate::generic::strategy::Plain),
    }
}

/// The field labels that kube-apiserver knows (`AddFieldLabelConversionFunc` in `pkg/apis/*/conversion.go`).
fn selectable_fields(resource: &str) -> Vec<SelectableField> {
    let fields: &[&str] = match resource {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ],
        "secrets" => &["type"],
        "namespaces" => &["status.phase"],
        "services" => &["spec.clusterIP", "spec.type"],
        _ => &[],
    };
    let mut fields: Vec<SelectableField> = fields.iter().map(|field| SelectableField::new(field)).collect();
    match resource {
        "pods" => fields.push(SelectableField::new("spec.hostNetwork").absent_is("false")),
        "nodes" => fields.push(SelectableField::new("spec.unschedulable").absent_is("false")),
        "events" => fields.push(SelectableField {
            field: "source".to_owned(),
            pointer: "/source/component".to_owned(),
            default: String::new(),
        }),
        "replicasets.apps" | "replicationcontrollers" => {
            fields.push(SelectableField::new("status.replicas").absent_is("0"));
        }
        "jobs.batch" => fields.push(SelectableField {
            field: "status.successful".to_owned(),
            pointer: "/status/succeeded".to_owned(),
            default: "0".to_owned(),
        }),
        _ => {}
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_has_what_it_needs() {
        let strategies = hub();
        assert_eq!(strategies.len(), HUB.len());
        assert!(strategies.iter().all(|strategy| strategy.schema.is_some()));
        assert_eq!(documents(&strategies).len(), 3);
    }

    #[test]
    fn lists_name_resources_that_exist() {
        let strategies = cluster();
        let known: BTreeSet<String> = strategies
            .iter()
            .map(|strategy| strategy.descriptor.group_resource().to_string())
            .collect();
        for name in HUB.iter().chain(&WITH_GENERATION).chain(&CREATED_BY_UPDATE) {
            assert!(known.contains(*name), "{name}");
        }
        assert_eq!(known.len(), strategies.len());
        let pods = strategies.iter().find(|one| one.descriptor.kind == "Pod").unwrap();
        let subresources: Vec<&str> = pods
            .descriptor
            .subresources
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(subresources, ["binding", "eviction", "status"]);
    }
}
