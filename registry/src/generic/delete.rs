//! DELETE of an object and of a collection (`k8s.io/apiserver/pkg/endpoints/handlers/delete.go`, `rest.BeforeDelete`,
//! `registry.Store.Delete`, `registry.Store.DeleteCollection`).

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Cause, Reason, Status};
use umbra_storage::{Error, Precondition, Revision};

use super::admission::Operation;
use super::body;
use super::codec;
use super::metadata::{self, FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use super::read;
use super::store::{ResourceStore, Stored, Write, pause, present, storage_status, stored};
use super::strategy::{Deletion, Strategy};
use crate::request::RequestContext;
use crate::resource::{Object, ObjectList, WriteOutcome, WriteRequest};

/// The grace period of pods that say nothing (`DefaultTerminationGracePeriodSeconds`).
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// `metav1.DeleteOptions`, as far as it is not in the query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// How long the object may take to go.
    pub grace_period_seconds: Option<i64>,
    /// Which object is meant.
    pub preconditions: Option<Preconditions>,
    /// Old form of `propagation_policy`.
    pub orphan_dependents: Option<bool>,
    /// What becomes of dependents: `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
    /// `All` does everything but store.
    pub dry_run: Vec<String>,
}

/// `metav1.Preconditions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The object has this UID.
    pub uid: Option<String>,
    /// The object is at this revision.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the body of a delete, or where there is none, its query.
    ///
    /// # Errors
    /// 400 and 415 for bodies that make no sense, 422 for policies that do not.
    pub fn parse(body: &Bytes, content_type: &str, query: &str) -> Result<Self, Status> {
        let options = if body.is_empty() {
            Self::from_query(query)
        } else {
            let value = body::decode(body, content_type)?.value;
            let options = if value.is_null() {
                Ok(Self::default())
            } else {
                serde_json::from_value(value)
            };
            options.map_err(|error| Status::bad_request(format!("the delete options make no sense: {error}")))?
        };
        options.validate()?;
        Ok(options)
    }

    fn from_query(query: &str) -> Self {
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
        };
        Self {
            grace_period_seconds: parameter("gracePeriodSeconds").and_then(|text| text.parse().ok()),
            orphan_dependents: parameter("orphanDependents").and_then(|text| text.parse().ok()),
            propagation_policy: parameter("propagationPolicy").map(str::to_owned),
            ..Self::default()
        }
    }

    fn validate(&self) -> Result<(), Status> {
        let fault = match self.propagation_policy.as_deref() {
            Some(_) if self.orphan_dependents.is_some() => {
                "orphanDependents and deletionPropagation cannot be both set"
            }
            None | Some("Orphan" | "Background" | "Foreground") => return Ok(()),
            Some(_) => "Unsupported value: supported values: \"Foreground\", \"Background\", \"Orphan\"",
        };
        let cause = Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: fault.to_owned(),
            field: "propagationPolicy".to_owned(),
        };
        let kind = GroupResource::new("meta.k8s.io", "deleteoptions");
        Err(Status::invalid(&kind, "DeleteOptions", "", vec![cause]))
    }

    /// Whether nothing is to be stored.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run.iter().any(|one| one == "All")
    }

    fn is_foreground(&self) -> bool {
        self.orphan_dependents == Some(false) || self.propagation_policy.as_deref() == Some("Foreground")
    }

    fn check(&self, resource: &GroupResource, object: &Value) -> Result<(), Status> {
        let Some(preconditions) = &self.preconditions else {
            return Ok(());
        };
        let conflict = |why: String| Err(Status::conflict(resource, object.name(), why));
        if let Some(uid) = preconditions.uid.as_deref().filter(|uid| *uid != object.uid()) {
            return conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                object.uid()
            ));
        }
        let revision = preconditions.resource_version.as_deref();
        if let Some(revision) = revision.filter(|revision| *revision != object.resource_version()) {
            return conflict(format!(
                "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). \
                 The object might have been modified",
                object.resource_version()
            ));
        }
        Ok(())
    }
}

/// What a delete does to an object.
#[derive(Debug, Clone, PartialEq)]
enum Plan {
    /// It goes now.
    Remove,
    /// It is marked and waits.
    Mark(Value),
    /// It waits already, and this delete changes nothing.
    Pending,
}

/// What became of a removal.
pub(super) enum Removal {
    Removed(Revision),
    Conflict(Option<Stored>),
}

/// Removes what is stored at that revision.
pub(super) async fn remove(
    store: &ResourceStore,
    context: &RequestContext,
    key: &str,
    revision: Revision,
) -> Result<Removal, Status> {
    match store.store.delete(key, Precondition::Revision(revision)).await {
        Ok(revision) => {
            store.catch_up(context, revision).await;
            Ok(Removal::Removed(revision))
        }
        Err(Error::Conflict { current, .. }) => Ok(Removal::Conflict(current.as_ref().map(stored).transpose()?)),
        Err(Error::NotFound { .. }) => Ok(Removal::Conflict(None)),
        Err(error) => Err(storage_status(&error)),
    }
}

/// What became of a delete.
enum Deleted {
    /// The object is gone; its last state.
    Gone(Value),
    /// The object waits; its present state.
    Waits(Object),
}

impl ResourceStore {
    pub(super) async fn delete(&self, write: &Write<'_>, request: &WriteRequest) -> Result<WriteOutcome, Status> {
        let options = DeleteOptions::parse(&request.body, &request.content_type, &request.query)?;
        self.delete_with(write, &options).await
    }

    pub(super) async fn delete_with(&self, write: &Write<'_>, options: &DeleteOptions) -> Result<WriteOutcome, Status> {
        Ok(match self.delete_object(write, options).await? {
            Deleted::Gone(object) => {
                WriteOutcome::Status(Box::new(Status::success(&self.resource(), write.name, object.uid())))
            }
            Deleted::Waits(object) if options.is_foreground() => WriteOutcome::Accepted(object),
            Deleted::Waits(object) => WriteOutcome::Done(object),
        })
    }

    async fn delete_object(&self, write: &Write<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
        let key = self.keys.key(write.namespace, write.name);
        let dry_run = write.options.dry_run || options.is_dry_run();
        let mut current = self.load(&key).await?;
        let mut attempt = 0;
        loop {
            let Some(now) = current else {
                return Err(self.not_found(write.name));
            };
            options.check(&self.resource(), &now.object)?;
            self.admit(write, Operation::Delete, &mut now.object.clone(), Some(&now.object))
                .await?;
            match plan(&self.strategy, &now.object, options, Timestamp::now()) {
                Plan::Pending => return Ok(Deleted::Waits(present(&now.value, now.revision)?)),
                Plan::Remove if dry_run => return Ok(Deleted::Gone(now.object)),
                Plan::Remove => match remove(self, write.context, &key, now.revision).await? {
                    Removal::Removed(_) => return Ok(Deleted::Gone(now.object)),
                    Removal::Conflict(newer) => current = newer,
                },
                Plan::Mark(marked) => {
                    let value = codec::encode(&marked);
                    if dry_run || value == now.value {
                        return Ok(Deleted::Waits(present(&value, now.revision)?));
                    }
                    let precondition = Precondition::Revision(now.revision);
                    match self.store.put(&key, value.clone(), precondition).await {
                        Ok(revision) => {
                            self.catch_up(write.context, revision).await;
                            return Ok(Deleted::Waits(present(&value, revision)?));
                        }
                        Err(Error::Conflict { current: newer, .. }) => {
                            current = newer.as_ref().map(stored).transpose()?;
                        }
                        Err(error) => return Err(storage_status(&error)),
                    }
                }
            }
            pause(write.context, attempt).await?;
            attempt += 1;
        }
    }

    pub(super) async fn delete_collection(
        &self,
        write: &Write<'_>,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        let options = DeleteOptions::parse(&request.body, &request.content_type, &request.query)?;
        let scope = self.scope(write.namespace, &request.list_options)?;
        let listed = read::list(
            self.store.as_ref(),
            &self.cache,
            &scope,
            &request.list_options,
            write.context.deadline,
        )
        .await?;
        let mut items = Vec::with_capacity(listed.items.len());
        for item in listed.items {
            let partial = umbra_apimachinery::metadata::PartialObject::parse(&item.json)
                .map_err(|error| Status::internal(format!("a stored object is damaged: {error}")))?;
            let namespace = partial.metadata.namespace;
            let one = Write {
                namespace: Some(namespace.as_str()).filter(|_| self.strategy.descriptor.namespaced),
                name: &partial.metadata.name,
                ..*write
            };
            match self.delete_object(&one, &options).await {
                Ok(_) => items.push(item),
                Err(status) if status.is(Reason::NotFound) => {}
                Err(status) => return Err(status),
            }
        }
        Ok(WriteOutcome::Collection(ObjectList {
            metadata: listed.metadata,
            items,
        }))
    }
}

/// Decides what a delete does. Pure.
fn plan(strategy: &Strategy, object: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    match strategy.deletion {
        Deletion::Graceful => plan_graceful(strategy, object, options, now),
        Deletion::Namespace => plan_namespace(object, now),
        Deletion::Immediate => {
            let mut object = object.clone();
            set_finalizers(strategy, &mut object, options);
            if metadata::finalizers(&object).is_empty() {
                return Plan::Remove;
            }
            mark(&mut object, 0, now);
            Plan::Mark(object)
        }
    }
}

fn plan_graceful(strategy: &Strategy, object: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut object = object.clone();
    let asked = options
        .grace_period_seconds
        .map(|seconds| if seconds < 0 { 1 } else { seconds });
    let pending = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default();
    if metadata::is_deleting(&object) && pending != 0 {
        // Only a shorter period may follow.
        let Some(period) = asked.filter(|period| *period < pending) else {
            return Plan::Pending;
        };
        shorten(&mut object, pending, period, now);
    } else if !metadata::is_deleting(&object) {
        let period = grace_period(&object, asked);
        mark(&mut object, period, now);
    }
    set_finalizers(strategy, &mut object, options);
    let period = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default();
    if period == 0 && metadata::finalizers(&object).is_empty() {
        Plan::Remove
    } else {
        Plan::Mark(object)
    }
}

/// How long a pod may take: what was asked for, or what it says itself; nothing where no node runs it or it has ended
/// (`podStrategy.CheckGracefulDelete`).
fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !scheduled || ended {
        return 0;
    }
    asked
        .or(pod["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(DEFAULT_GRACE_SECONDS)
        .max(0)
}

fn shorten(object: &mut Value, pending: i64, period: i64, now: Timestamp) {
    let ends = age::parse(object.metadata_str("deletionTimestamp")).unwrap_or(now);
    let shorter = ends
        .saturating_add(SignedDuration::from_secs(period - pending))
        .unwrap_or(now);
    // A period that has passed already still lets who stops the pod see the update, unless none was asked for.
    let (ends, period) = if shorter < now {
        (now, period.min(1))
    } else {
        (shorter, period)
    };
    object.set_metadata("deletionTimestamp", age::rfc3339(ends));
    object.set_metadata("deletionGracePeriodSeconds", period);
}

fn plan_namespace(object: &Value, now: Timestamp) -> Plan {
    let mut object = object.clone();
    let waits = object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|inside| !inside.is_empty());
    if !waits && metadata::finalizers(&object).is_empty() {
        return Plan::Remove;
    }
    if metadata::is_deleting(&object) {
        return Plan::Pending;
    }
    object.set_metadata("deletionTimestamp", age::rfc3339(now));
    object["status"]["phase"] = "Terminating".into();
    Plan::Mark(object)
}

/// Marks an object as being deleted, once.
fn mark(object: &mut Value, period: i64, now: Timestamp) {
    if metadata::is_deleting(object) {
        return;
    }
    if let Some(generation) = object["metadata"]["generation"].as_i64() {
        object.set_metadata("generation", generation + 1);
    }
    let ends = now.saturating_add(SignedDuration::from_secs(period)).unwrap_or(now);
    object.set_metadata("deletionTimestamp", age::rfc3339(ends));
    object.set_metadata("deletionGracePeriodSeconds", period);
}

/// Adds or removes the finalizers of the garbage collector (`deletionFinalizersForGarbageCollection`).
fn set_finalizers(strategy: &Strategy, object: &mut Value, options: &DeleteOptions) {
    let present: Vec<String> = metadata::finalizers(object).into_iter().map(str::to_owned).collect();
    let has = |name: &str| present.iter().any(|one| one == name);
    let policy = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(true), _) | (None, Some("Orphan")) => Some(ORPHAN_FINALIZER),
        (None, Some("Foreground")) => Some(FOREGROUND_FINALIZER),
        (Some(false), _) | (None, Some(_)) => None,
        (None, None) if has(ORPHAN_FINALIZER) => Some(ORPHAN_FINALIZER),
        (None, None) if has(FOREGROUND_FINALIZER) => Some(FOREGROUND_FINALIZER),
        (None, None) => strategy.orphans_by_default.then_some(ORPHAN_FINALIZER),
    };
    let mut wanted: Vec<String> = present
        .iter()
        .filter(|name| *name != ORPHAN_FINALIZER && *name != FOREGROUND_FINALIZER)
        .cloned()
        .collect();
    wanted.extend(policy.map(str::to_owned));
    if wanted == present {
        return;
    }
    if wanted.is_empty() {
        object.metadata_mut().remove("finalizers");
    } else {
        object.set_metadata("finalizers", wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use umbra_apimachinery::discovery::ResourceDescriptor;

    fn strategy(deletion: Deletion) -> Strategy {
        let mut strategy = Strategy::new(ResourceDescriptor::default());
        strategy.deletion = deletion;
        strategy
    }

    fn at(text: &str) -> Timestamp {
        age::parse(text).unwrap()
    }

    fn marked(plan: Plan) -> Value {
        match plan {
            Plan::Mark(object) => object["metadata"].clone(),
            other => panic!("expected a mark, got {other:?}"),
        }
    }

    #[test]
    fn policies_become_finalizers() {
        let strategy = strategy(Deletion::Immediate);
        let now = at("2026-01-01T00:00:00Z");
        let object = json!({"metadata": {"name": "a", "generation": 1}});
        let with = |policy: &str| DeleteOptions {
            propagation_policy: Some(policy.to_owned()),
            ..DeleteOptions::default()
        };
        assert_eq!(plan(&strategy, &object, &with("Background"), now), Plan::Remove);
        let metadata = marked(plan(&strategy, &object, &with("Foreground"), now));
        assert_eq!(metadata["finalizers"], json!(["foregroundDeletion"]));
        assert_eq!(metadata["deletionTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(
            (&metadata["deletionGracePeriodSeconds"], &metadata["generation"]),
            (&json!(0), &json!(2))
        );
        let metadata = marked(plan(&strategy, &object, &with("Orphan"), now));
        assert_eq!(metadata["finalizers"], json!(["orphan"]));
        let waiting = json!({"metadata": {"finalizers": ["a/b"]}});
        let metadata = marked(plan(&strategy, &waiting, &DeleteOptions::default(), now));
        assert_eq!(metadata["finalizers"], json!(["a/b"]));
    }

    #[test]
    fn pods_take_their_time() {
        let strategy = strategy(Deletion::Graceful);
        let now = at("2026-01-01T00:00:00Z");
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 20}});
        let with = |seconds: Option<i64>| DeleteOptions {
            grace_period_seconds: seconds,
            ..DeleteOptions::default()
        };
        let Plan::Mark(deleting) = plan(&strategy, &pod, &with(None), now) else {
            panic!("the pod runs")
        };
        assert_eq!(deleting["metadata"]["deletionTimestamp"], "2026-01-01T00:00:20Z");
        assert_eq!(plan(&strategy, &deleting, &with(None), now), Plan::Pending);
        assert_eq!(plan(&strategy, &deleting, &with(Some(30)), now), Plan::Pending);
        let shorter = marked(plan(&strategy, &deleting, &with(Some(5)), now));
        assert_eq!(shorter["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert_eq!(plan(&strategy, &deleting, &with(Some(0)), now), Plan::Remove);
        assert_eq!(plan(&strategy, &pod, &with(Some(0)), now), Plan::Remove);
        assert_eq!(
            plan(&strategy, &json!({"metadata": {}}), &with(None), now),
            Plan::Remove
        );
    }

    #[test]
    fn namespaces_wait_for_what_is_inside() {
        let strategy = strategy(Deletion::Namespace);
        let now = at("2026-01-01T00:00:00Z");
        let namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(deleting) = plan(&strategy, &namespace, &DeleteOptions::default(), now) else {
            panic!("the namespace waits")
        };
        assert_eq!(deleting["status"]["phase"], "Terminating");
        assert_eq!(
            plan(&strategy, &deleting, &DeleteOptions::default(), now),
            Plan::Pending
        );
        let empty = json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"finalizers": []}});
        assert_eq!(plan(&strategy, &empty, &DeleteOptions::default(), now), Plan::Remove);
    }

    #[test]
    fn options_are_read_from_body_or_query() {
        let body = Bytes::from_static(br#"{"gracePeriodSeconds":0,"preconditions":{"uid":"u"},"dryRun":["All"]}"#);
        let options = DeleteOptions::parse(&body, "application/json", "").unwrap();
        assert!(options.is_dry_run() && options.grace_period_seconds == Some(0));
        let resource = GroupResource::new("", "pods");
        assert_eq!(
            options
                .check(&resource, &json!({"metadata": {"uid": "v"}}))
                .unwrap_err()
                .code,
            409
        );
        let query = "propagationPolicy=Foreground&gracePeriodSeconds=3";
        let options = DeleteOptions::parse(&Bytes::new(), "", query).unwrap();
        assert!(options.is_foreground() && options.grace_period_seconds == Some(3));
        assert_eq!(
            DeleteOptions::parse(&Bytes::new(), "", "propagationPolicy=x")
                .unwrap_err()
                .code,
            422
        );
    }
}
