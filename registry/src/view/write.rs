//! Writes: sent to the owning child as the caller, in the form of the child.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use umbra_apimachinery::names::{CLUSTER_LABEL, QualifiedName};
use umbra_apimachinery::status::{Cause, Status};

use super::answer::Awaits;
use super::body::{BodyError, BodyTranslator, named_cluster};
use super::exchange::{Asked, object_path};
use super::resource::ViewResource;
use super::sight::Authority;
use super::target::Target;
use crate::child_errors::read_only;
use crate::generic::{body, read};
use crate::request::{PatchType, RequestContext};
use crate::resource::{WriteOutcome, WriteRequest, WriteVerb};

/// How long a child may take for a write: what kube-apiserver gives requests.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A revision that no object has: the largest that etcd counts to (`i64`).
const NO_REVISION: &str = "9223372036854775807";

impl ViewResource {
    /// Sends a write on.
    pub(super) async fn write_through(
        &self,
        context: &RequestContext,
        request: WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        if request.verb == WriteVerb::DeleteCollection {
            return self.delete_collection(context, &request).await;
        }
        let mut sent = read_body(context, &request)?;
        let target = self.target_of_write(context, &request, &sent).await?;
        self.demand_write(context, &request, &target).await?;
        if self.services.is_read_only(&target.cluster) {
            return Err(read_only(&target.cluster));
        }
        let namespace = request.namespace.as_deref();
        self.translate(context, &request, &target, &mut sent).await?;
        let named = if request.name.is_empty() {
            ""
        } else {
            target.name.as_str()
        };
        let path = object_path(&self.served.descriptor.resource, namespace, named, &request.subresource);
        let asked = Asked {
            method: method(request.verb),
            path: with_query(path, &request.query),
            accept: "application/json",
            content_type: content_type(&request),
            body: if sent.is_null() {
                Bytes::new()
            } else {
                sent.to_string().into()
            },
        };
        let answer = self.services.exchange(context, &target.cluster, asked, PATIENCE).await;
        let answer = answer.map_err(|status| self.qualified_status(status, &target))?;
        let awaits = match request.verb {
            _ if request.options.dry_run => Awaits::Nothing,
            _ if is_being_deleted(&answer.body) => Awaits::ObjectOrEnd,
            WriteVerb::Delete => Awaits::End,
            _ => Awaits::Object,
        };
        self.outcome(context, namespace, &target, &answer, awaits).await
    }

    /// Where the hub decides, makes sure that it allows the write. The child decides after it.
    async fn demand_write(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        target: &Target,
    ) -> Result<(), Status> {
        if matches!(self.authority, Authority::Children) {
            return Ok(());
        }
        let (namespace, subresource) = (request.namespace.as_deref(), request.subresource.as_str());
        // As in a path: what is created in a collection has no name there.
        let name = if request.name.is_empty() { "" } else { &target.name };
        let verb = verb_of(request.verb);
        self.demand(context, verb, subresource, namespace, name).await?;
        // An apply creates what is not there, and so does an update of some kinds (Services, RBAC).
        let creates = matches!(request.verb, WriteVerb::Update | WriteVerb::Patch(PatchType::Apply));
        let may_create = creates && subresource.is_empty();
        if may_create && !self.has_copy(context, namespace, target).await? {
            self.demand(context, "create", "", namespace, name).await?;
        }
        Ok(())
    }

    async fn has_copy(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
    ) -> Result<bool, Status> {
        if !target.is_copied() {
            return Ok(false);
        }
        let key = self.key(&target.cluster, namespace, &target.name);
        Ok(self.present_copies(context).await?.get(&key).is_some())
    }

    /// Where a write goes: where its path says or, for what is created, where the object itself says.
    async fn target_of_write(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        sent: &Value,
    ) -> Result<Target, Status> {
        let creates = request.name.is_empty();
        let may_say = creates || matches!(request.verb, WriteVerb::Update | WriteVerb::Patch(_));
        let named = named_cluster(sent).filter(|_| may_say);
        match (creates, named) {
            (true, Some(cluster)) => {
                let name = sent["metadata"]["name"].as_str().unwrap_or_default();
                self.target(&cluster, QualifiedName::parse(name).map_or(name, |name| name.name))
            }
            (true, None) => Err(self.no_cluster(sent)),
            (false, Some(cluster)) if QualifiedName::parse(&request.name).is_none() => {
                self.target(&cluster, &request.name)
            }
            (false, _) => self.resolve(context, request.namespace.as_deref(), &request.name).await,
        }
    }

    /// 422 for an object that does not say where it is to be created.
    fn no_cluster(&self, sent: &Value) -> Status {
        let message = format!(
            "Required value: say in which cluster the object is to be: name it NAME@CLUSTER or label it \
             {CLUSTER_LABEL}=CLUSTER; the view \"{}\" has the clusters: {}",
            self.view,
            self.shape.cluster_names()
        );
        let cause = Cause {
            reason: "FieldValueRequired".to_owned(),
            message,
            field: "metadata.name".to_owned(),
        };
        let name = sent["metadata"]["name"].as_str().unwrap_or_default();
        Status::invalid(&self.group_resource(), &self.served.descriptor.kind, name, vec![cause])
    }

    /// Puts a body into the form of the child.
    async fn translate(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        target: &Target,
        sent: &mut Value,
    ) -> Result<(), Status> {
        let copy = if target.is_copied() && !request.name.is_empty() {
            let key = self.key(&target.cluster, request.namespace.as_deref(), &target.name);
            let present = self.present_copies(context).await?.revision().0;
            let cache = self.services.copies.cache(&self.group_resource());
            read::get(&cache, &key, present, context.deadline).await?
        } else {
            None
        };
        // Whether a revision is the present one tells that the object exists and when it was changed. To a caller who may
        // not read the object only the child may say so, which asks first whether the caller may write.
        let may_get = target.is_copied() && self.may_get(context, request.namespace.as_deref(), target).await?;
        let child_revision = |revision: &str| {
            if !target.is_copied() {
                return Some(revision.to_owned());
            }
            match copy.as_ref().filter(|copy| copy.revision.to_string() == revision) {
                Some(copy) => Some(copy.extra.child_revision.to_string()),
                None if may_get => None,
                None => Some(NO_REVISION.to_owned()),
            }
        };
        let translator = BodyTranslator {
            cluster: &target.cluster,
            child_revision: &child_revision,
        };
        let translated = match (request.verb, sent) {
            (WriteVerb::Delete, sent) => translator.delete_options(sent),
            (WriteVerb::Patch(PatchType::Json), Value::Array(operations)) => translator.json_patch(operations),
            (_, sent) => translator
                .object(sent)
                .and_then(|()| translate_parts(&translator, &request.subresource, sent)),
        };
        translated.map_err(|error| self.body_status(target, &error))
    }

    async fn may_get(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
    ) -> Result<bool, Status> {
        let place = self.rbac_namespace(namespace, &target.name);
        let sight = self
            .sight_of_object(context, [&target.cluster], place, &target.name)
            .await?;
        Ok(sight.allows(&target.cluster, place, &target.name))
    }

    fn body_status(&self, target: &Target, error: &BodyError) -> Status {
        let (resource, name) = (self.group_resource(), target.qualified());
        let invalid = |field: &str| {
            let cause = Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: error.to_string(),
                field: field.to_owned(),
            };
            Status::invalid(&resource, &self.served.descriptor.kind, &name, vec![cause])
        };
        match error {
            BodyError::Modified => Status::modified(&resource, &name),
            BodyError::OtherCluster { .. } | BodyError::Taken { .. } => {
                Status::bad_request(error.to_string()).about(&resource, &name)
            }
            BodyError::LabelChanged => invalid("metadata.labels"),
            BodyError::NameChanged => invalid("metadata.name"),
        }
    }
}

/// What bodies of subresources say beside their metadata: an Eviction's preconditions, a Binding's node.
fn translate_parts(translator: &BodyTranslator<'_>, subresource: &str, sent: &mut Value) -> Result<(), BodyError> {
    match subresource {
        "eviction" => match sent.get_mut("deleteOptions") {
            Some(options) => translator.delete_options(options),
            None => Ok(()),
        },
        "binding" => {
            if let Some(node) = sent.pointer("/target/name").and_then(Value::as_str) {
                sent["target"]["name"] = translator.child_name(node)?.into();
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Parses what was sent; null for nothing.
fn read_body(context: &RequestContext, request: &WriteRequest) -> Result<Value, Status> {
    if request.body.is_empty() {
        return Ok(Value::Null);
    }
    let media_type = match request.verb {
        WriteVerb::Patch(PatchType::Apply) => PatchType::Apply.media_type(),
        _ => "application/json",
    };
    let decoded = body::decode(&request.body, media_type)?;
    // The child gets each field once, so it cannot tell any more.
    let duplicates: Vec<String> = decoded
        .duplicates
        .iter()
        .map(|field| format!("duplicate field \"{field}\""))
        .collect();
    body::report(context, request.options.field_validation, &duplicates)?;
    Ok(decoded.value)
}

fn content_type(request: &WriteRequest) -> String {
    match request.verb {
        WriteVerb::Patch(kind) => kind.media_type().to_owned(),
        _ if request.body.is_empty() => String::new(),
        _ => "application/json".to_owned(),
    }
}

/// The verb that permissions are given for.
fn verb_of(verb: WriteVerb) -> &'static str {
    match verb {
        WriteVerb::Create => "create",
        WriteVerb::Update => "update",
        WriteVerb::Patch(_) => "patch",
        WriteVerb::Delete => "delete",
        WriteVerb::DeleteCollection => "deletecollection",
    }
}

fn method(verb: WriteVerb) -> Method {
    match verb {
        WriteVerb::Create => Method::POST,
        WriteVerb::Update => Method::PUT,
        WriteVerb::Patch(_) => Method::PATCH,
        WriteVerb::Delete | WriteVerb::DeleteCollection => Method::DELETE,
    }
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() {
        path
    } else {
        format!("{path}?{query}")
    }
}

/// Whether an object may be gone as soon as its last finalizer is.
pub(super) fn is_being_deleted(json: &[u8]) -> bool {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Partial {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        deletion_timestamp: Option<String>,
    }
    serde_json::from_slice::<Partial>(json).is_ok_and(|object| object.metadata.deletion_timestamp.is_some())
}
