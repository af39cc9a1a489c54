//! The object that a cluster gets of a template: the template as it is, with the cluster's replicas, through the
//! admission chain.

use std::sync::Arc;

use serde_json::Value;
use umbra_admission::overrides::Override;
use umbra_admission::validation::{FieldError, ObjectValidator, Verdict};
use umbra_admission::{AdmissionError, AdmissionRequest, Chain, Cluster, NamespaceState};
use umbra_api::rendering::AppliedOverride;
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::Cause;
use umbra_openapi::validate;
use umbra_registry::fleet::template::dialect_of;

/// What kubectl keeps of what was applied to the template; in a cluster it would be about something else.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is known of the kind in the cluster.
#[derive(Debug, Clone)]
pub enum KindInCluster {
    /// The cluster serves it and says what it looks like.
    Known(TypeSchema),
    /// The cluster serves it and does not say what it looks like: it judges by itself.
    WithoutSchema,
    /// The cluster does not serve it.
    NotServed,
    /// It is not known, and why.
    Unavailable(String),
}

/// What to render.
#[derive(Debug)]
pub struct RenderRequest<'a> {
    /// The template.
    pub template: &'a Value,
    /// For which cluster.
    pub cluster: Arc<Cluster>,
    /// The cluster's share of the replicas, where they are divided.
    pub replicas: Option<i64>,
    /// The overrides in force, whether they select the template or not.
    pub overrides: Arc<[Arc<Override>]>,
    /// The kind in the cluster.
    pub kind: KindInCluster,
    /// The state of the template's namespace in the cluster.
    pub namespace: NamespaceState,
}

/// A rendering.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The object.
    pub object: Value,
    /// The overrides that took part, in the order in which they were applied.
    pub overrides: Vec<AppliedOverride>,
}

/// Renders a template for a cluster.
///
/// # Errors
/// What an override, or the cluster's schema, has against it.
pub fn render(request: RenderRequest<'_>) -> Result<Rendered, AdmissionError> {
    let object = object_of(request.template, request.replicas);
    let mut admission = AdmissionRequest::new(object, request.cluster);
    if admission.target().namespace.is_some() {
        admission.namespace = request.namespace;
    }
    let chain = Chain::standard(request.overrides, Arc::new(Validator(request.kind)));
    chain.admit(&mut admission)?;
    Ok(Rendered {
        overrides: admission.applied.iter().map(AppliedOverride::from).collect(),
        object: admission.object,
    })
}

/// The template without what belongs to the fleet's own object, and with that many replicas.
fn object_of(template: &Value, replicas: Option<i64>) -> Value {
    let mut object = template.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        if fields["kind"] == "Namespace" && fields["apiVersion"] == "v1" {
            // The finalizers of what is inside are each cluster's own.
            fields.remove("spec");
        }
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|field, _| matches!(field.as_str(), "name" | "namespace" | "labels" | "annotations"));
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    if let Some(replicas) = replicas
        && replicas_of(template).is_some()
    {
        object["spec"]["replicas"] = replicas.into();
    }
    object
}

/// How many replicas a template or a rendering asks for; `None` for kinds without.
#[must_use]
pub fn replicas_of(object: &Value) -> Option<i64> {
    object["spec"]["replicas"].as_i64()
}

struct Validator(KindInCluster);

impl ObjectValidator for Validator {
    fn validate(&self, _: &Cluster, object: &Value, _: Option<&Value>, _: &mut Vec<String>) -> Verdict {
        let schema = match &self.0 {
            KindInCluster::Known(schema) => schema,
            KindInCluster::WithoutSchema => return Verdict::Valid,
            KindInCluster::NotServed => return Verdict::UnknownKind,
            KindInCluster::Unavailable(reason) => return Verdict::Unavailable(reason.clone()),
        };
        let faults: Vec<FieldError> = validate::validate(object, schema, dialect_of(schema))
            .into_iter()
            .map(Cause::from)
            .map(|cause| FieldError::new(cause.field, cause.reason, cause.message))
            .collect();
        if faults.is_empty() {
            Verdict::Valid
        } else {
            Verdict::Invalid(faults)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(template: &Value, overrides: Vec<Value>, kind: KindInCluster) -> RenderRequest<'_> {
        let overrides: Vec<Arc<Override>> = overrides
            .into_iter()
            .map(|stored| Arc::new(Override::from_override(&serde_json::from_value(stored).unwrap()).unwrap()))
            .collect();
        RenderRequest {
            template,
            cluster: Arc::new(Cluster {
                name: "east".to_owned(),
                ..Cluster::default()
            }),
            replicas: Some(3),
            overrides: overrides.into(),
            kind,
            namespace: NamespaceState::Active,
        }
    }

    fn web() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [], "labels": {"app": "web"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 1, "template": {}},
            "status": {"replicas": 9},
        })
    }

    #[test]
    fn a_rendering_is_the_template_without_what_is_the_fleets() {
        let rendered = render(request(&web(), vec![], KindInCluster::WithoutSchema)).unwrap();
        assert_eq!(
            rendered.object,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
                "spec": {"replicas": 3, "template": {}},
            })
        );
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}});
        let rendered = render(request(&map, vec![], KindInCluster::WithoutSchema)).unwrap();
        assert_eq!(rendered.object, map);
    }

    #[test]
    fn overrides_that_took_part_are_named_and_those_that_fail_are_to_blame() {
        let web = web();
        let stored = |path: &str| {
            json!({
                "apiVersion": "umbra.dev/v1alpha1", "kind": "Override",
                "metadata": {"name": "more", "namespace": "shop", "generation": 4},
                "spec": {"resources": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
                    "patches": [{"type": "JSONPatch", "value": [{"op": "replace", "path": path, "value": 5}]}]},
            })
        };
        let rendered = render(request(
            &web,
            vec![stored("/spec/replicas")],
            KindInCluster::WithoutSchema,
        ))
        .unwrap();
        assert_eq!(replicas_of(&rendered.object), Some(5));
        assert_eq!(
            (rendered.overrides[0].name.as_str(), rendered.overrides[0].generation),
            ("more", 4)
        );
        assert_eq!(rendered.overrides[0].paths, ["/spec/replicas"]);
        let error = render(request(
            &web,
            vec![stored("/spec/nothing")],
            KindInCluster::WithoutSchema,
        ))
        .unwrap_err();
        assert_eq!(error.culprit().map(|by| by.name.as_str()), Some("more"));
        assert!(error.to_string().contains("patch 0"), "{error}");
    }

    #[test]
    fn the_cluster_has_to_have_the_kind() {
        let error = render(request(&web(), vec![], KindInCluster::NotServed)).unwrap_err();
        assert_eq!(error.reason(), "UnknownKind");
        let error = render(request(&web(), vec![], KindInCluster::Unavailable("it is down".into()))).unwrap_err();
        assert_eq!(error.reason(), "NotValidated");
    }
}
