use serde_json::{Value, json};
use umbra_api::overrides as api;
use umbra_apimachinery::gvk::GroupResource;

use super::*;
use crate::request::{Cluster, NamespaceState, Operation};
use crate::validation::{FieldError, Verdict};

fn request() -> AdmissionRequest {
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 2},
    });
    let cluster = Cluster {
        name: "east".to_owned(),
        ..Cluster::default()
    };
    AdmissionRequest::new(object, Arc::new(cluster))
}

fn patching(patch: &Value) -> Vec<Arc<Override>> {
    let stored: api::ClusterOverride = serde_json::from_value(json!({
        "apiVersion": "umbra.dev/v1alpha1",
        "kind": "ClusterOverride",
        "metadata": {"name": "o", "generation": 1},
        "spec": {
            "resources": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
            "patches": [{"type": "MergePatch", "value": patch}],
        },
    }))
    .unwrap();
    vec![Arc::new(Override::from_cluster_override(&stored).unwrap())]
}

fn with_verdict(verdict: &Verdict) -> Arc<dyn ObjectValidator> {
    let verdict = verdict.clone();
    Arc::new(
        move |_: &Cluster, _: &Value, _: Option<&Value>, warnings: &mut Vec<String>| {
            warnings.push("seen".to_owned());
            verdict.clone()
        },
    )
}

fn admitted(patch: &Value, verdict: &Verdict) -> (AdmissionRequest, Result<(), AdmissionError>) {
    let mut request = request();
    let result = Chain::standard(patching(patch), with_verdict(verdict)).admit(&mut request);
    (request, result)
}

#[test]
fn plugins_run_in_the_order_of_the_design() {
    let chain = Chain::standard(Vec::new(), with_verdict(&Verdict::Valid));
    let order = r#"["NamespaceLifecycle", "ClusterOverrides", "Overrides", "FinalClusterOverrides", "IdentityCheck", "SchemaValidation"]"#;
    assert_eq!(format!("{chain:?}"), order);
}

#[test]
fn what_is_admitted_is_changed_and_recorded() {
    let (request, result) = admitted(&json!({"spec": {"replicas": 3}}), &Verdict::Valid);
    result.unwrap();
    assert_eq!(request.object["spec"]["replicas"], 3);
    assert_eq!(request.warnings, ["seen"]);
    let [applied] = &request.applied[..] else {
        panic!("one override took part")
    };
    let shown = umbra_api::rendering::AppliedOverride::from(applied);
    assert_eq!((shown.name.as_str(), shown.stage, shown.generation), ("o", 1, 1));
    assert_eq!(shown.paths, ["/spec/replicas"]);
}

#[test]
fn what_is_not_admitted_stays_as_it_was() {
    let invalid = Verdict::Invalid(vec![FieldError::new("spec.replicas", "FieldValueInvalid", "too many")]);
    for (patch, verdict) in [
        (json!({"spec": {"replicas": 3}}), invalid),
        (json!({"metadata": {"name": "db"}}), Verdict::Valid),
        (json!({"spec": {"replicas": 3}}), Verdict::UnknownKind),
    ] {
        let (after, result) = admitted(&patch, &verdict);
        assert!(result.is_err());
        assert_eq!(after.object, request().object);
        assert_eq!(after.budget, request().budget);
        assert!(after.applied.is_empty() && after.warnings.is_empty());
    }
}

#[test]
fn identity_stays() {
    for (patch, field) in [
        (json!({"apiVersion": "apps/v2"}), "apiVersion"),
        (json!({"kind": "Pod"}), "kind"),
        (json!({"metadata": {"name": "db"}}), "metadata.name"),
        (json!({"metadata": {"namespace": null}}), "metadata.namespace"),
        (json!({"metadata": {"uid": "1"}}), "metadata.uid"),
        (json!({"metadata": null}), "metadata.name"),
    ] {
        let error = admitted(&patch, &Verdict::Valid).1.unwrap_err();
        assert_eq!(error.reason(), "IdentityChanged");
        let text = error.to_string();
        assert!(text.contains(&format!("{field} changed")), "{text}");
        assert!(
            text.contains("by patch 0 of ClusterOverride o; take that out of the patch"),
            "{text}"
        );
    }
    admitted(&json!({"metadata": {"labels": {"a": "b"}}}), &Verdict::Valid)
        .1
        .unwrap();
}

#[test]
fn faults_are_blamed_on_who_wrote_the_field() {
    let fault = |field: &str| FieldError::new(field, "FieldValueInvalid", "Invalid value: -1");
    let verdict = Verdict::Invalid(vec![fault("spec.replicas"), fault("spec.selector")]);
    let error = admitted(&json!({"spec": {"replicas": -1}}), &verdict).1.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Deployment shop/web is not valid in cluster east: spec.replicas: Invalid value: -1 (written by patch 0 of \
         ClusterOverride o); spec.selector: Invalid value: -1"
    );
    assert_eq!(error.culprit().unwrap().name, "o");
    let status = error.to_status(&GroupResource::new("apps", "deployments"));
    assert_eq!(status.code, 422);
}

#[test]
fn nothing_is_created_in_namespaces_that_go_or_are_not_there() {
    let chain = Chain::standard(Vec::new(), with_verdict(&Verdict::Valid));
    for (state, reason, code) in [
        (NamespaceState::Terminating, "NamespaceTerminating", 403),
        (NamespaceState::Missing, "NamespaceMissing", 404),
    ] {
        let mut request = request();
        request.namespace = state;
        let error = chain.admit(&mut request).unwrap_err();
        assert_eq!(error.reason(), reason);
        assert_eq!(error.to_status(&GroupResource::new("apps", "deployments")).code, code);
        request.operation = Operation::Update;
        chain.admit(&mut request).unwrap();
    }
}

#[test]
fn validators_see_the_result_and_what_was_there() {
    let validator = |cluster: &Cluster, object: &Value, old: Option<&Value>, _: &mut Vec<String>| {
        assert_eq!(cluster.name, "east");
        assert_eq!(object["spec"]["replicas"], 3);
        assert_eq!(old, Some(&json!({"old": true})));
        Verdict::Unavailable("not synced yet".to_owned())
    };
    let mut request = request();
    request.operation = Operation::Update;
    request.old_object = Some(Arc::new(json!({"old": true})));
    let chain = Chain::standard(patching(&json!({"spec": {"replicas": 3}})), Arc::new(validator));
    let error = chain.admit(&mut request).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Deployment shop/web could not be validated for cluster east: not synced yet"
    );
}
