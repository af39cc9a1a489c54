//! The kinds of `umbra.dev/v1alpha1`.
//!
//! The types are the source of everything that is said about a kind: serde gives the wire form and the defaults,
//! `schemars` the OpenAPI schema (documentation comments are the descriptions that `kubectl explain` shows), and
//! `kube::CustomResource` names, scope, printer columns, categories and subresources. [`definitions`] lists them in the
//! form of CustomResourceDefinitions, which is also how the hub serves them: one mechanism for Umbra's kinds and for
//! anybody else's.

pub mod cluster;
pub mod join_request;
pub mod overrides;
pub mod placement;
pub mod rendering;
pub mod root;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of all kinds here.
pub const GROUP: &str = "umbra.dev";
/// The version of all kinds here.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all kinds here.
pub const API_VERSION: &str = "umbra.dev/v1alpha1";
/// The namespace on the hub that holds the credentials of children.
pub const SYSTEM_NAMESPACE: &str = "umbra-system";
/// The view and the fleet of this name exist from the start and take every cluster.
pub const ALL: &str = "all";
/// The group whose members administer the hub, and which `umbra join` makes administrators of a child.
pub const ADMINISTRATORS: &str = "umbra:admins";
/// The field manager of everything that Umbra writes into a child.
pub const FIELD_MANAGER: &str = "umbra";

/// The kinds of the hub root.
#[must_use]
pub fn hub_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        cluster::ManagedCluster::crd(),
        root::View::crd(),
        root::Fleet::crd(),
        join_request::ClusterJoinRequest::crd(),
    ]
}

/// The kinds of a fleet root, beside the templates.
#[must_use]
pub fn fleet_definitions() -> Vec<CustomResourceDefinition> {
    vec![
        placement::Placement::crd(),
        placement::ClusterPlacement::crd(),
        overrides::Override::crd(),
        overrides::ClusterOverride::crd(),
        rendering::Rendering::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_says_what_clients_need() {
        for definition in hub_definitions().into_iter().chain(fleet_definitions()) {
            let name = definition.metadata.name.unwrap();
            let names = definition.spec.names;
            assert!(names.categories.unwrap().contains(&"umbra".to_owned()), "{name}");
            assert!(!names.short_names.unwrap().is_empty(), "{name}");
            let [version] = &definition.spec.versions[..] else {
                panic!("{name} has one version")
            };
            assert!(version.subresources.as_ref().unwrap().status.is_some(), "{name}");
            assert!(
                !version.additional_printer_columns.as_ref().unwrap().is_empty(),
                "{name}"
            );
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            let spec = &schema.properties.as_ref().unwrap()["spec"];
            assert!(spec.description.is_some(), "{name}");
            for (field, property) in spec.properties.as_ref().unwrap() {
                assert!(property.description.is_some(), "{name} spec.{field}");
            }
        }
    }
}
