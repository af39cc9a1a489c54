//! What hangs below an object: `status`, `scale`, `finalize`, `eviction`, `binding`, and what a handler answers.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::selector::LabelSelector;
use umbra_apimachinery::status::Status;

use super::body;
use super::delete::DeleteOptions;
use super::metadata;
use super::store::{ResourceStore, Write};
use super::strategy::Strategy;
use super::update::{Change, Changed};
use crate::request::RequestContext;
use crate::resource::{Body, Object, WriteOutcome, WriteRequest, WriteVerb};

/// Answers POST to a subresource that is computed and not stored, such as `serviceaccounts/token`.
#[async_trait]
pub trait SubresourceHandler: Send + Sync {
    /// The answer, for the object as it is stored now.
    ///
    /// # Errors
    /// What the client is told.
    async fn create(&self, context: &RequestContext, object: &Value, body: Value) -> Result<Value, Status>;
}

/// Answers subresources that are connections or streams: `log`, `exec`, `portforward`.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Answers a request whose path is the one below the root.
    ///
    /// # Errors
    /// What the client is told; 404 where there is no such subresource.
    async fn connect(
        &self,
        context: &RequestContext,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status>;
}

/// What a subresource shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Projection {
    /// The object itself.
    Object,
    /// An `autoscaling/v1` Scale.
    Scale,
}

impl Projection {
    pub(super) fn of(subresource: &str) -> Self {
        match subresource {
            "scale" => Self::Scale,
            _ => Self::Object,
        }
    }

    pub(super) fn is_object(self) -> bool {
        self == Self::Object
    }

    pub(super) fn kind(self, strategy: &Strategy) -> GroupVersionKind {
        match self {
            Self::Object => strategy.kind(),
            Self::Scale => GroupVersionKind::new("autoscaling", "v1", "Scale"),
        }
    }

    /// The object as the subresource shows it.
    pub(super) fn show(self, strategy: &Strategy, object: &Value) -> Value {
        match self {
            Self::Object => object.clone(),
            Self::Scale => scale_of(strategy, object),
        }
    }

    /// The object with what was written through the subresource.
    pub(super) fn put_back(
        self,
        store: &ResourceStore,
        name: &str,
        shown: Value,
        existing: &Value,
    ) -> Result<Value, Status> {
        match self {
            Self::Object => Ok(shown),
            Self::Scale => scaled(store, name, &shown, existing),
        }
    }
}

fn scale_of(strategy: &Strategy, object: &Value) -> Value {
    let paths = &strategy.scale;
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let mut kept = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": kept,
        "spec": {"replicas": count(&paths.spec_replicas)},
        "status": {"replicas": count(&paths.status_replicas)},
    });
    let selector = paths.selector.as_deref().and_then(|pointer| object.pointer(pointer));
    if let Some(text) = selector.and_then(selector_text) {
        scale["status"]["selector"] = text.into();
    }
    scale
}

/// A label selector in its serialized form, whichever form it is kept in.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let selector: LabelSelector = serde_json::from_value(selector.clone()).ok()?;
    selector.to_selector().ok().map(|selector| selector.to_string())
}

fn scaled(store: &ResourceStore, name: &str, scale: &Value, existing: &Value) -> Result<Value, Status> {
    let replicas = &scale["spec"]["replicas"];
    let wanted = if replicas.is_null() { Some(0) } else { replicas.as_i64() };
    let Some(wanted) = wanted.filter(|wanted| (0..=i64::from(i32::MAX)).contains(wanted)) else {
        let why = "must be greater than or equal to 0";
        return Err(store.invalid(name, vec![metadata::invalid("spec.replicas", replicas, why)]));
    };
    let mut object = existing.clone();
    let (parent, field) = store.strategy.scale.spec_replicas.rsplit_once('/').unwrap_or_default();
    let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) else {
        return Err(Status::internal(format!("{name} has no place for replicas")));
    };
    parent.insert(field.to_owned(), wanted.into());
    take_preconditions(&mut object, scale);
    Ok(object)
}

/// UID and revision that what was sent asks for; without them, those of the object stay.
fn take_preconditions(object: &mut Value, sent: &Value) {
    for field in ["uid", "resourceVersion"] {
        let asked = sent.metadata_str(field);
        if !asked.is_empty() {
            object.set_metadata(field, asked);
        }
    }
}

/// PUT of a Scale.
struct Rescale<'a> {
    store: &'a ResourceStore,
    name: &'a str,
    scale: Value,
}

impl Change for Rescale<'_> {
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status> {
        let existing = existing.ok_or_else(|| self.store.not_found(self.name))?;
        scaled(self.store, self.name, &self.scale, existing).map(Changed::plain)
    }
}

/// PUT to `namespaces/finalize`: the finalizers inside, and nothing else.
struct Finalize<'a> {
    store: &'a ResourceStore,
    name: &'a str,
    sent: Value,
}

impl Change for Finalize<'_> {
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status> {
        let mut object = existing.ok_or_else(|| self.store.not_found(self.name))?.clone();
        object["spec"]["finalizers"] = match &self.sent["spec"]["finalizers"] {
            Value::Null => json!([]),
            finalizers => finalizers.clone(),
        };
        take_preconditions(&mut object, &self.sent);
        Ok(Changed::plain(object))
    }
}

/// POST to `pods/binding`: puts the pod on a node (`BindingREST.setPodNodeAndMetadata`).
struct Bind<'a> {
    store: &'a ResourceStore,
    name: &'a str,
    node: String,
}

impl Change for Bind<'_> {
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status> {
        let mut pod = existing.ok_or_else(|| self.store.not_found(self.name))?.clone();
        let conflict = |why: String| Status::conflict(&self.store.resource(), self.name, why);
        if metadata::is_deleting(&pod) {
            return Err(conflict(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                self.name
            )));
        }
        if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            return Err(conflict(format!(
                "pod {} is already assigned to node \"{node}\"",
                self.name
            )));
        }
        pod["spec"]["nodeName"] = self.node.as_str().into();
        let scheduled = json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": age::rfc3339(Timestamp::now()),
        });
        let conditions = &mut pod["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        Ok(Changed::plain(pod))
    }
}

impl ResourceStore {
    /// What `subresource` shows of a serialized object.
    pub(super) fn project(&self, subresource: &str, object: Object) -> Result<Object, Status> {
        if subresource.is_empty() || subresource == "status" {
            return Ok(object);
        }
        if subresource != "scale" {
            return Err(Status::method_not_supported(&self.resource(), "get"));
        }
        let parsed: Value = serde_json::from_slice(&object.json)
            .map_err(|error| Status::internal(format!("a stored object is damaged: {error}")))?;
        Ok(super::create::without_revision(&scale_of(&self.strategy, &parsed)))
    }

    pub(super) fn project_outcome(&self, subresource: &str, outcome: WriteOutcome) -> Result<WriteOutcome, Status> {
        Ok(match outcome {
            WriteOutcome::Done(object) => WriteOutcome::Done(self.project(subresource, object)?),
            other => other,
        })
    }

    pub(super) async fn write_subresource(
        &self,
        write: &Write<'_>,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        if self.strategy.descriptor.subresource(write.subresource).is_none() {
            return Err(Status::no_such_path());
        }
        match (request.verb, write.subresource) {
            (WriteVerb::Update, "status") => self.update(write, request).await,
            (WriteVerb::Patch(patch_type), "status" | "scale") => self.patch(write, patch_type, request).await,
            (WriteVerb::Update, "scale") => {
                let scale = self.decode_scale(write, request)?;
                let change = Rescale {
                    store: self,
                    name: write.name,
                    scale,
                };
                let outcome = self.change(write, &change).await?.into();
                self.project_outcome("scale", outcome)
            }
            (WriteVerb::Update, "finalize") => {
                let sent = self.decode_object(write, &request.body, &request.content_type)?;
                let change = Finalize {
                    store: self,
                    name: write.name,
                    sent,
                };
                self.change(write, &change).await.map(Into::into)
            }
            (WriteVerb::Create, "eviction") => self.evict(write, request).await,
            (WriteVerb::Create, "binding") => self.bind(write, request).await,
            (WriteVerb::Create, subresource) => match self.handlers.get(subresource) {
                Some(handler) => self.handle(write, request, handler).await,
                None => Err(Status::method_not_supported(&self.resource(), "create")),
            },
            (verb, _) => Err(Status::method_not_supported(&self.resource(), verb_name(verb))),
        }
    }

    fn decode_scale(&self, write: &Write<'_>, request: &WriteRequest) -> Result<Value, Status> {
        let mut scale = body::decode(&request.body, &request.content_type)?.value;
        body::check_kind(&mut scale, &Projection::Scale.kind(&self.strategy))?;
        if scale.name() != write.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                scale.name(),
                write.name
            )));
        }
        Ok(scale)
    }

    /// Deletes a pod on behalf of a drain.
    ///
    /// Deviation: PodDisruptionBudgets are not consulted; nothing here computes them.
    async fn evict(&self, write: &Write<'_>, request: &WriteRequest) -> Result<WriteOutcome, Status> {
        let eviction = body::decode(&request.body, &request.content_type)?.value;
        let options: DeleteOptions = match &eviction["deleteOptions"] {
            Value::Null => DeleteOptions::default(),
            options => serde_json::from_value(options.clone())
                .map_err(|error| Status::bad_request(format!("deleteOptions make no sense: {error}")))?,
        };
        self.delete_with(write, &options).await?;
        Ok(created_status())
    }

    async fn bind(&self, write: &Write<'_>, request: &WriteRequest) -> Result<WriteOutcome, Status> {
        let binding = body::decode(&request.body, &request.content_type)?.value;
        let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
        if node.is_empty() {
            return Err(self.invalid(write.name, vec![metadata::required("target.name", "")]));
        }
        let change = Bind {
            store: self,
            name: write.name,
            node,
        };
        self.change(write, &change).await?;
        Ok(created_status())
    }

    async fn handle(
        &self,
        write: &Write<'_>,
        request: &WriteRequest,
        handler: &Arc<dyn SubresourceHandler>,
    ) -> Result<WriteOutcome, Status> {
        let key = self.keys.key(write.namespace, write.name);
        let current = self.load(&key).await?.ok_or_else(|| self.not_found(write.name))?;
        let sent = body::decode(&request.body, &request.content_type)?.value;
        let answer = handler.create(write.context, &current.object, sent).await?;
        Ok(WriteOutcome::Created(super::create::without_revision(&answer)))
    }
}

/// The answer to evictions and bindings: a Status of success, created.
fn created_status() -> WriteOutcome {
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "code": 201});
    WriteOutcome::Created(super::create::without_revision(&status))
}

fn verb_name(verb: WriteVerb) -> &'static str {
    match verb {
        WriteVerb::Create => "create",
        WriteVerb::Update => "update",
        WriteVerb::Patch(_) => "patch",
        WriteVerb::Delete => "delete",
        WriteVerb::DeleteCollection => "deletecollection",
    }
}
