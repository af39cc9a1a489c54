//! POST (`k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `registry.Store.Create`, `rest.BeforeCreate`).

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_storage::{Error, Precondition};

use super::admission::Operation;
use super::body;
use super::codec;
use super::metadata;
use super::schema;
use super::store::{ResourceStore, Write, present, storage_status};
use crate::resource::{Object, WriteOutcome, WriteRequest};

/// How many names are tried where the server makes the name (`maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;

/// What became of an attempt to create.
pub(super) enum Creation {
    Created(Object),
    /// Something of that name is there.
    Exists,
}

impl ResourceStore {
    pub(super) async fn create(&self, write: &Write<'_>, request: &WriteRequest) -> Result<WriteOutcome, Status> {
        let mut object = self.decode_object(write, &request.body, &request.content_type)?;
        if !object.resource_version().is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.fit_namespace(&mut object, write.namespace)?;
        let base = object.metadata_str("generateName").to_owned();
        let generates = object.name().is_empty() && !base.is_empty();
        for _ in 0..NAME_ATTEMPTS {
            let mut attempt = object.clone();
            if generates {
                attempt.set_metadata("name", metadata::generate_name(&base));
            }
            match self.create_object(write, attempt, false).await? {
                Creation::Created(created) => return Ok(WriteOutcome::Created(created)),
                Creation::Exists if generates => {}
                Creation::Exists => return Err(Status::already_exists(&self.resource(), object.name())),
            }
        }
        Err(Status::already_exists(&self.resource(), &base))
    }

    /// Reads a body that is an object of this kind, with unknown fields dropped, refused or warned of.
    pub(super) fn decode_object(
        &self,
        write: &Write<'_>,
        bytes: &bytes::Bytes,
        content_type: &str,
    ) -> Result<Value, Status> {
        let decoded = body::decode(bytes, content_type)?;
        let mut object = decoded.value;
        body::check_kind(&mut object, &self.strategy.kind())?;
        let mut faults: Vec<String> = decoded
            .duplicates
            .iter()
            .map(|path| format!("duplicate field \"{path}\""))
            .collect();
        faults.extend(schema::prune(&self.strategy, &mut object));
        body::report(write.context, write.options.field_validation, &faults)?;
        Ok(object)
    }

    /// Gives the object the namespace of the request.
    pub(super) fn fit_namespace(&self, object: &mut Value, namespace: Option<&str>) -> Result<(), Status> {
        match namespace {
            None => {
                object.metadata_mut().remove("namespace");
            }
            Some(expected) if object.namespace().is_empty() => object.set_metadata("namespace", expected),
            Some(expected) if object.namespace() == expected => {}
            Some(_) => {
                return Err(Status::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
        Ok(())
    }

    /// Creates an object that has its name and namespace. `owned` says that its managedFields are settled already.
    pub(super) async fn create_object(
        &self,
        write: &Write<'_>,
        mut object: Value,
        owned: bool,
    ) -> Result<Creation, Status> {
        self.begin(&mut object);
        schema::set_defaults(&self.strategy, &mut object);
        let now = Timestamp::now();
        let fields = self.fields.of("");
        if !owned {
            object = fields.update(&Value::Null, object, write.manager(), now);
        }
        let before = object.clone();
        self.admit(write, Operation::Create, &mut object, None).await?;
        if object != before {
            object = fields.update(&Value::Null, object, write.manager(), now);
        }
        self.strategy.behavior.prepare_for_create(&mut object);
        let mut causes = metadata::validate_create(&object, &self.strategy);
        causes.extend(self.validate(&object));
        let name = object.name().to_owned();
        if !causes.is_empty() {
            return Err(self.invalid(&name, causes));
        }
        self.warn(write, &object);
        self.put_new(write, &name, &object).await
    }

    /// What a new object starts with, whatever the request says.
    fn begin(&self, object: &mut Value) {
        let counts_generation = self.strategy.counts_generation;
        if self.strategy.has_status()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        let metadata = object.metadata_mut();
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), age::rfc3339(Timestamp::now()).into());
        if counts_generation {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }

    async fn put_new(&self, write: &Write<'_>, name: &str, object: &Value) -> Result<Creation, Status> {
        let key = self.keys.key(write.namespace, name);
        let value = codec::encode(object);
        if write.options.dry_run {
            return match self.load(&key).await? {
                Some(_) => Ok(Creation::Exists),
                None => Ok(Creation::Created(without_revision(object))),
            };
        }
        match self.store.put(&key, value.clone(), Precondition::Absent).await {
            Ok(revision) => {
                self.catch_up(write.context, revision).await;
                Ok(Creation::Created(present(&value, revision)?))
            }
            Err(Error::Conflict { .. }) => Ok(Creation::Exists),
            Err(error) => Err(storage_status(&error)),
        }
    }
}

/// An object that was not stored, as a dry run answers.
pub(super) fn without_revision(object: &Value) -> Object {
    let json = serde_json::to_vec(object).expect("a JSON value has only string keys");
    Object::new(json.into())
}
