//! EndpointSlices: which pods are behind a service (`pkg/controller/endpointslice`).
//!
//! Deviations: slices are numbered, and each is filled before the next begins; ports that are named instead of numbered are
//! looked up in the first pod alone. No packets go anywhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::generic::indexer::StoredObject;

use super::follow::View;
use super::queue::ObjectKey;
use super::writes::{self, controller_reference, parse};
use super::{Reconcile, Shared, all};

/// Endpoints of one slice (`--max-endpoints-per-slice`).
const SLICE: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What services select, by namespace and name.
#[derive(Default)]
pub(crate) struct Selectors(HashMap<Box<str>, BTreeMap<Box<str>, Selector>>);

/// The labels that a service wants of its pods.
type Selector = BTreeMap<String, String>;

fn selector(service: &Value) -> Selector {
    serde_json::from_value(service["spec"]["selector"].clone()).unwrap_or_default()
}

fn selects(selector: &Selector, pod: &StoredObject) -> bool {
    let mut wanted = selector.iter();
    !selector.is_empty() && wanted.all(|(key, value)| pod.labels.get(key) == Some(value.as_str()))
}

impl View for Selectors {
    fn insert(&mut self, object: &Arc<StoredObject>) {
        let Ok(service) = parse(object) else { return };
        let services = self.0.entry(object.namespace.clone()).or_default();
        services.insert(object.name.clone(), selector(&service));
    }

    fn remove(&mut self, object: &StoredObject) {
        if let Some(services) = self.0.get_mut(&object.namespace) {
            services.remove(&object.name);
        }
    }
}

impl Selectors {
    /// The services that select a pod.
    pub(crate) fn of_pod(&self, pod: &StoredObject) -> Vec<ObjectKey> {
        let services = self.0.get(&pod.namespace).into_iter().flatten();
        let selecting = services.filter(|(_, selector)| selects(selector, pod));
        selecting
            .map(|(name, _)| ObjectKey::new(&pod.namespace, name))
            .collect()
    }
}

/// Writes the EndpointSlices of services.
pub(crate) struct EndpointSlices(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for EndpointSlices {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.services.object(key).filter(|service| !service.extra.deleting) else {
            return Ok(None);
        };
        let service = parse(&object)?;
        let selector = selector(&service);
        if selector.is_empty() || service["spec"]["type"] == "ExternalName" {
            return Ok(None);
        }
        let pods = self.pods(&key.namespace, &selector)?;
        let slices = slices(&service, &pods);
        all(slices.iter().map(|slice| self.write(slice)).collect()).await?;
        self.delete_from(key, slices.len()).await?;
        Ok(None)
    }
}

fn slice_name(service: &str, index: usize) -> String {
    format!("{service}-{index}")
}

impl EndpointSlices {
    fn pods(&self, namespace: &str, selector: &Selector) -> Result<Vec<Value>, Status> {
        let store = &self.0.pods.store;
        let snapshot = store.cache().snapshot();
        let pods = snapshot.range(&store.keys().scope(Some(namespace)), None);
        let with_address = |pod: &&Arc<StoredObject>| pod.fields.get("status.podIP").is_some_and(|ip| !ip.is_empty());
        let ended = |pod: &&Arc<StoredObject>| matches!(pod.fields.get("status.phase"), Some("Succeeded" | "Failed"));
        pods.filter(|pod| selects(selector, pod))
            .filter(|pod| with_address(pod) && !ended(pod))
            .map(|pod| parse(pod))
            .collect()
    }

    async fn write(&self, slice: &Value) -> Result<(), Status> {
        let kind = &self.0.endpoint_slices;
        let Some(existing) = kind.object(&ObjectKey::of_value(slice)) else {
            return match writes::create(&kind.store, slice).await {
                // Whoever has the name keeps it.
                Err(status) if status.is(Reason::AlreadyExists) => Ok(()),
                other => other,
            };
        };
        let mut existing = parse(&existing)?;
        let before = existing.clone();
        for field in ["endpoints", "ports"] {
            existing[field] = slice[field].clone();
        }
        if existing == before {
            return Ok(());
        }
        writes::update(&kind.store, "", &existing).await
    }

    /// Deletes slices that are no longer needed.
    async fn delete_from(&self, service: &ObjectKey, first: usize) -> Result<(), Status> {
        for index in first.. {
            let key = ObjectKey::new(&service.namespace, &slice_name(&service.name, index));
            let Some(slice) = self.0.endpoint_slices.object(&key) else {
                return Ok(());
            };
            if slice.labels.get(SERVICE_NAME) != Some(&*service.name) {
                return Ok(());
            }
            writes::delete(&self.0.endpoint_slices.store, &slice, None).await?;
        }
        Ok(())
    }
}

/// The slices of a service with these pods: at least one, as Kubernetes has it.
fn slices(service: &Value, pods: &[Value]) -> Vec<Value> {
    let mut chunks: Vec<&[Value]> = pods.chunks(SLICE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let ports = ports(service, pods.first());
    let mut labels = service["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_else(Map::new);
    labels.insert(SERVICE_NAME.to_owned(), service.name().into());
    labels.insert(
        "endpointslice.kubernetes.io/managed-by".to_owned(),
        "endpointslice-controller.k8s.io".into(),
    );
    let slice = |(index, pods): (usize, &[Value])| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": slice_name(service.name(), index),
                "namespace": service.namespace(),
                "labels": labels,
                "ownerReferences": [controller_reference(service)],
            },
            "addressType": "IPv4",
            "endpoints": pods.iter().map(endpoint).collect::<Vec<Value>>(),
            "ports": ports,
        })
    };
    chunks.into_iter().enumerate().map(slice).collect()
}

fn endpoint(pod: &Value) -> Value {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let serving = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
    let terminating = !pod["metadata"]["deletionTimestamp"].is_null();
    json!({
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
    })
}

fn ports(service: &Value, pod: Option<&Value>) -> Vec<Value> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .filter_map(|port| {
            let number = match port["targetPort"].as_str() {
                Some(name) => named_port(pod?, name)?,
                None => port["targetPort"].clone(),
            };
            let name = port["name"].as_str().unwrap_or_default();
            Some(json!({"name": name, "port": number, "protocol": port["protocol"]}))
        })
        .collect()
}

fn named_port(pod: &Value, name: &str) -> Option<Value> {
    let containers = pod["spec"]["containers"].as_array()?;
    let mut ports = containers
        .iter()
        .flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let port = ports.find(|port| port["name"] == name)?;
    Some(port["containerPort"].clone())
}
