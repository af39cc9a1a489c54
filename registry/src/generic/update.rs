//! PUT, and the loop that all changes of stored objects go through
//! (`k8s.io/apiserver/pkg/endpoints/handlers/update.go`, `registry.Store.Update`, `rest.BeforeUpdate`,
//! `storage.GuaranteedUpdate`).

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::apply::without_times_only_change;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Cause, Status};
use umbra_storage::{Error, Precondition};

use super::admission::Operation;
use super::codec;
use super::create::Creation;
use super::delete;
use super::metadata;
use super::schema;
use super::store::{ResourceStore, Stored, Write, pause, present, storage_status, stored};
use super::strategy::Deletion;
use crate::resource::{Object, WriteOutcome, WriteRequest};

/// What a change makes of an object.
pub(super) struct Changed {
    /// The object as it is to be, of the resource's own kind.
    pub(super) object: Value,
    /// Whether its managedFields are settled already, as server-side apply does.
    pub(super) owned: bool,
}

impl Changed {
    pub(super) fn plain(object: Value) -> Self {
        Self { object, owned: false }
    }
}

/// Makes the new object of the present one. Called anew for every attempt.
pub(super) trait Change: Send + Sync {
    /// The new object. `None`: there is none yet, and [`Change::may_create`] says that one may be made.
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status>;

    /// Whether the change makes an object where there is none.
    fn may_create(&self) -> bool {
        false
    }
}

/// What became of a change.
pub(super) enum Updated {
    Created(Object),
    Changed(Object),
    /// The last finalizer of an object in deletion was removed, and the object with it.
    Removed(Object),
}

impl From<Updated> for WriteOutcome {
    fn from(updated: Updated) -> Self {
        match updated {
            Updated::Created(object) => Self::Created(object),
            Updated::Changed(object) | Updated::Removed(object) => Self::Done(object),
        }
    }
}

enum Attempt {
    Done(Updated),
    /// Somebody else was faster; what is there now.
    Conflict(Option<Stored>),
}

/// Replaces the object with another.
struct Replace {
    object: Value,
    may_create: bool,
}

impl Change for Replace {
    fn change(&self, _existing: Option<&Value>) -> Result<Changed, Status> {
        Ok(Changed::plain(self.object.clone()))
    }

    fn may_create(&self) -> bool {
        self.may_create
    }
}

impl ResourceStore {
    pub(super) async fn update(&self, write: &Write<'_>, request: &WriteRequest) -> Result<WriteOutcome, Status> {
        let mut object = self.decode_object(write, &request.body, &request.content_type)?;
        let name = object.name();
        if name != write.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                write.name
            )));
        }
        self.fit_namespace(&mut object, write.namespace)?;
        let may_create = self.strategy.allow_create_on_update && write.subresource.is_empty();
        let change = Replace { object, may_create };
        self.change(write, &change).await.map(Into::into)
    }

    /// Changes an object until nobody else changed it meanwhile.
    pub(super) async fn change(&self, write: &Write<'_>, change: &dyn Change) -> Result<Updated, Status> {
        let key = self.keys.key(write.namespace, write.name);
        let mut current = self.load(&key).await?;
        let mut attempt = 0;
        loop {
            match self.attempt(write, &key, current.as_ref(), change).await? {
                Attempt::Done(updated) => return Ok(updated),
                Attempt::Conflict(now) => current = now,
            }
            pause(write.context, attempt).await?;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        write: &Write<'_>,
        key: &str,
        current: Option<&Stored>,
        change: &dyn Change,
    ) -> Result<Attempt, Status> {
        let Some(current) = current else {
            if !change.may_create() {
                return Err(self.not_found(write.name));
            }
            let changed = change.change(None)?;
            let created = self.create_object(write, changed.object, changed.owned).await?;
            return Ok(match created {
                Creation::Created(object) => Attempt::Done(Updated::Created(object)),
                Creation::Exists => Attempt::Conflict(self.load(key).await?),
            });
        };
        let changed = change.change(Some(&current.object))?;
        let object = self.prepare_update(write, changed, &current.object).await?;
        if self.goes(&object, &current.object) {
            return self.remove(write, key, &object, current).await;
        }
        self.put_changed(write, key, &object, current).await
    }

    /// The object as it is to be stored: with the fields that a write cannot change, admitted and valid.
    async fn prepare_update(&self, write: &Write<'_>, changed: Changed, old: &Value) -> Result<Value, Status> {
        let mut object = changed.object;
        self.check_preconditions(write, &mut object, old)?;
        self.reset(write.subresource, &mut object, old);
        schema::set_defaults(&self.strategy, &mut object);
        let now = Timestamp::now();
        let fields = self.fields.of(write.subresource);
        if !changed.owned {
            object = fields.update(old, object, write.manager(), now);
        }
        let before = object.clone();
        self.admit(write, Operation::Update, &mut object, Some(old)).await?;
        if object != before {
            object = fields.update(old, object, write.manager(), now);
        }
        keep_system_metadata(&mut object, old);
        if write.subresource.is_empty() {
            self.strategy.behavior.prepare_for_update(&mut object, old);
        }
        self.count_generation(&mut object, old);
        self.validate_change(write, &object, old)?;
        self.warn(write, &object);
        Ok(without_times_only_change(old, object))
    }

    fn validate_change(&self, write: &Write<'_>, object: &Value, old: &Value) -> Result<(), Status> {
        let mut causes = metadata::validate_update(object, old);
        causes.extend(self.validate(object));
        causes.extend(self.strategy.behavior.validate_update(object, old));
        if causes.is_empty() {
            Ok(())
        } else {
            Err(self.invalid(write.name, causes))
        }
    }

    /// UID and resourceVersion of what was sent have to be those of what is there, where they are set.
    fn check_preconditions(&self, write: &Write<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        let uid = object.uid();
        if !uid.is_empty() && uid != old.uid() {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid()
            );
            return Err(Status::conflict(&self.resource(), write.name, why));
        }
        let revision = object.resource_version();
        if revision.is_empty() || revision == "0" {
            if !self.strategy.allow_unconditional_update {
                let cause = metadata::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
                return Err(self.invalid(write.name, vec![cause]));
            }
            object.set_metadata("resourceVersion", old.resource_version());
        } else if revision.parse::<u64>().is_err() {
            let cause = metadata::invalid(
                "metadata.resourceVersion",
                &revision.into(),
                "must be an unsigned integer",
            );
            return Err(self.invalid(write.name, vec![cause]));
        } else if revision != old.resource_version() {
            return Err(Status::modified(&self.resource(), write.name));
        }
        Ok(())
    }

    /// Takes back what this path of the API does not write.
    fn reset(&self, subresource: &str, object: &mut Value, old: &Value) {
        match subresource {
            "status" => {
                let status = object.get("status").cloned();
                let mut metadata = object["metadata"].take();
                *object = old.clone();
                copy(&mut metadata, &old["metadata"], "labels");
                object["metadata"] = metadata;
                if let Some(fields) = object.as_object_mut() {
                    match status {
                        Some(status) => fields.insert("status".to_owned(), status),
                        None => fields.remove("status"),
                    };
                }
            }
            "" if self.strategy.has_status() => copy(object, old, "status"),
            _ => {}
        }
    }

    fn count_generation(&self, object: &mut Value, old: &Value) {
        if !self.strategy.counts_generation {
            return;
        }
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
        let differs = spec_differs(object, old, self.strategy.has_status());
        object.set_metadata("generation", generation + i64::from(differs));
    }

    /// Whether the object is in deletion and nothing waits any more (`ShouldDeleteDuringUpdate`).
    fn goes(&self, object: &Value, old: &Value) -> bool {
        let waits_inside = self.strategy.deletion == Deletion::Namespace
            && object["spec"]["finalizers"]
                .as_array()
                .is_some_and(|finalizers| !finalizers.is_empty());
        metadata::is_deleting(old)
            && metadata::finalizers(object).is_empty()
            && !waits_inside
            && old["metadata"]["deletionGracePeriodSeconds"]
                .as_i64()
                .unwrap_or_default()
                == 0
    }

    async fn remove(&self, write: &Write<'_>, key: &str, object: &Value, current: &Stored) -> Result<Attempt, Status> {
        if write.options.dry_run {
            return Ok(Attempt::Done(Updated::Removed(super::create::without_revision(object))));
        }
        match delete::remove(self, write.context, key, current.revision).await? {
            delete::Removal::Removed(revision) => {
                let object = present(&codec::encode(object), revision)?;
                Ok(Attempt::Done(Updated::Removed(object)))
            }
            delete::Removal::Conflict(now) => Ok(Attempt::Conflict(now)),
        }
    }

    async fn put_changed(
        &self,
        write: &Write<'_>,
        key: &str,
        object: &Value,
        current: &Stored,
    ) -> Result<Attempt, Status> {
        let value = codec::encode(object);
        if value == current.value || write.options.dry_run {
            return Ok(Attempt::Done(Updated::Changed(present(&value, current.revision)?)));
        }
        let precondition = Precondition::Revision(current.revision);
        match self.store.put(key, value.clone(), precondition).await {
            Ok(revision) => {
                self.catch_up(write.context, revision).await;
                Ok(Attempt::Done(Updated::Changed(present(&value, revision)?)))
            }
            Err(Error::Conflict { current, .. }) => Ok(Attempt::Conflict(current.as_ref().map(stored).transpose()?)),
            Err(error) => Err(storage_status(&error)),
        }
    }

    /// What is wrong with an object by schema and by the rules of its kind.
    pub(super) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = schema::validate(&self.strategy, object);
        causes.extend(self.strategy.behavior.validate(object));
        causes
    }

    pub(super) fn warn(&self, write: &Write<'_>, object: &Value) {
        for warning in self.strategy.behavior.warnings(object) {
            write.context.warnings.add(warning);
        }
    }

    pub(super) async fn admit(
        &self,
        write: &Write<'_>,
        operation: Operation,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &self.strategy.descriptor.resource;
        self.admission
            .admit(write.context, operation, resource, object, old)
            .await
    }
}

/// What an update can never change (`rest.BeforeUpdate`).
fn keep_system_metadata(object: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = object.metadata_mut();
    for field in ["creationTimestamp", "deletionTimestamp", "generation"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None if field == "generation" => metadata.remove(field),
            None => None,
        };
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        let missing = metadata.get(field).is_none_or(|value| value.is_null() || value == "");
        if missing && let Some(value) = old.get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.remove("selfLink");
}

/// Gives `to` the field of `from`, or takes it away.
fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// Whether anything but metadata, and status where it is a subresource, differs.
fn spec_differs(object: &Value, old: &Value, has_status: bool) -> bool {
    let counted = |value: &Value| -> Vec<(String, Value)> {
        let fields = value.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| *name != "metadata" && !(has_status && *name == "status"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    counted(object) != counted(old)
}
