//! Overrides and templates for the tests, and a run through all passes.

#![expect(clippy::needless_pass_by_value, reason = "the values are literals")]

mod examples;
mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::AdmissionError;
use crate::chain::Plugin;
use crate::overrides::*;
use crate::request::{AdmissionRequest, Cluster};

pub(super) fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        name: "east".to_owned(),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        annotations: BTreeMap::new(),
        properties: [("registry".to_owned(), "eu.example.com".to_owned())].into(),
    })
}

pub(super) fn template() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "web", "image": "web:1"}]}}},
    })
}

/// An override of templates as above; `spec` adds to and replaces what is here.
pub(super) fn made(kind: OverrideKind, name: &str, spec: Value) -> Override {
    try_made(kind, name, spec).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn try_made(kind: OverrideKind, name: &str, spec: Value) -> Result<Override, InvalidOverride> {
    let mut stored = json!({
        "apiVersion": "umbra.dev/v1alpha1",
        "kind": kind.as_str(),
        "metadata": {"name": name, "namespace": "shop", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"resources": [{"apiVersion": "apps/v1", "kind": "Deployment"}], "patches": []},
    });
    for (field, value) in spec.as_object().unwrap() {
        let place = if field == "metadata" {
            &mut stored["metadata"]
        } else {
            &mut stored["spec"][field]
        };
        umbra_apimachinery::patch::merge::apply(place, value);
    }
    match kind {
        OverrideKind::ClusterOverride => Override::from_cluster_override(&serde_json::from_value(stored).unwrap()),
        OverrideKind::Override => Override::from_override(&serde_json::from_value(stored).unwrap()),
    }
}

pub(super) fn merge(value: Value) -> Value {
    json!([{"type": "MergePatch", "value": value}])
}

pub(super) fn operations(value: Value) -> Value {
    json!([{"type": "JSONPatch", "value": value}])
}

pub(super) fn replicas(count: i64) -> Value {
    merge(json!({"spec": {"replicas": count}}))
}

/// All three passes.
pub(super) fn admit(object: Value, overrides: &[Override]) -> Result<AdmissionRequest, AdmissionError> {
    let mut request = AdmissionRequest::new(object, cluster());
    admit_request(&mut request, overrides)?;
    Ok(request)
}

pub(super) fn admit_request(request: &mut AdmissionRequest, overrides: &[Override]) -> Result<(), AdmissionError> {
    let overrides: Vec<Arc<Override>> = overrides.iter().cloned().map(Arc::new).collect();
    for stage in [Stage::Cluster, Stage::Namespace, Stage::Final] {
        let before = request.object.clone();
        if let Err(error) = OverridePlugin::new(stage, &overrides).admit(request) {
            assert_eq!(request.object, before, "a failing pass changed the object");
            return Err(error);
        }
    }
    Ok(())
}

pub(super) fn rendered(overrides: &[Override]) -> Value {
    admit(template(), overrides).unwrap().object
}

pub(super) fn failure(overrides: &[Override]) -> String {
    admit(template(), overrides).unwrap_err().to_string()
}
