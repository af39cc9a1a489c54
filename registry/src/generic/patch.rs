//! PATCH (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::number;
use umbra_apimachinery::patch::{JsonPatch, MissingPath, PatchBudget, PatchError, PatchErrorKind, merge, strategic};
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::{Cause, Reason, Status};

use super::body;
use super::schema;
use super::store::{ResourceStore, Write};
use super::subresource::Projection;
use super::update::{Change, Changed};
use crate::request::PatchType;
use crate::resource::{WriteOutcome, WriteRequest};

/// A decoded patch.
enum Patch {
    Json(JsonPatch),
    Merge(Value),
    Strategic(Value, TypeSchema),
}

impl Patch {
    fn apply(&self, document: &mut Value) -> Result<(), PatchError> {
        match self {
            Self::Json(patch) => patch
                .apply(document, MissingPath::Fails, &mut PatchBudget::new())
                .map(drop),
            Self::Merge(patch) => {
                merge::apply(document, patch);
                Ok(())
            }
            Self::Strategic(patch, schema) => strategic::apply(document, patch, schema.cursor()),
        }
    }
}

/// Changes an object, or what a subresource shows of it, by a patch.
struct PatchChange<'a> {
    store: &'a ResourceStore,
    write: Write<'a>,
    projection: Projection,
    patch: Patch,
}

impl Change for PatchChange<'_> {
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status> {
        let Some(existing) = existing else {
            return Err(self.store.not_found(self.write.name));
        };
        let strategy = &self.store.strategy;
        let mut document = self.projection.show(strategy, existing);
        let kind = self.projection.kind(strategy);
        self.patch.apply(&mut document).map_err(|error| patch_status(&error))?;
        number::normalise(&mut document);
        body::check_kind(&mut document, &kind)?;
        if self.projection.is_object() {
            let faults = schema::prune(strategy, &mut document);
            body::report(self.write.context, self.write.options.field_validation, &faults)?;
        }
        let object = self
            .projection
            .put_back(self.store, self.write.name, document, existing)?;
        Ok(Changed::plain(object))
    }
}

/// Applies a configuration.
struct ApplyChange<'a> {
    store: &'a ResourceStore,
    write: Write<'a>,
    config: Value,
}

impl Change for ApplyChange<'_> {
    fn change(&self, existing: Option<&Value>) -> Result<Changed, Status> {
        let options = self.write.options;
        let object = self
            .store
            .fields
            .of(self.write.subresource)
            .apply(
                existing,
                &self.config,
                &options.field_manager,
                options.force,
                Timestamp::now(),
            )
            .map_err(|error| error.to_status().about(&self.store.resource(), self.write.name))?;
        Ok(Changed { object, owned: true })
    }

    fn may_create(&self) -> bool {
        self.write.subresource.is_empty()
    }
}

impl ResourceStore {
    pub(super) async fn patch(
        &self,
        write: &Write<'_>,
        patch_type: PatchType,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        let projection = Projection::of(write.subresource);
        if patch_type == PatchType::Apply {
            return self.apply(write, projection, request).await;
        }
        let change = PatchChange {
            store: self,
            write: *write,
            projection,
            patch: self.decode_patch(projection, patch_type, &request.body)?,
        };
        let outcome = self.change(write, &change).await?.into();
        self.project_outcome(write.subresource, outcome)
    }

    fn decode_patch(&self, projection: Projection, patch_type: PatchType, bytes: &[u8]) -> Result<Patch, Status> {
        let patch = match patch_type {
            PatchType::Json => JsonPatch::parse(bytes).map(Patch::Json),
            PatchType::Strategic if projection.is_object() => {
                let schema = self.strategy.schema.clone().ok_or_else(no_strategic_merge)?;
                strategic::parse(bytes).map(|patch| Patch::Strategic(patch, schema))
            }
            // A Scale has no lists: merging it strategically is merging it.
            PatchType::Merge | PatchType::Strategic | PatchType::Apply => merge::parse(bytes).map(Patch::Merge),
        };
        patch.map_err(|error| patch_status(&error))
    }

    async fn apply(
        &self,
        write: &Write<'_>,
        projection: Projection,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        if !projection.is_object() {
            let message = format!(
                "server-side apply is not supported on {}; patch it instead",
                write.subresource
            );
            return Err(Status::failure(Reason::UnsupportedMediaType, message));
        }
        if write.options.field_manager.is_empty() {
            let cause = Cause {
                reason: "FieldValueRequired".to_owned(),
                message: "Required value: is required for apply patch".to_owned(),
                field: "fieldManager".to_owned(),
            };
            let of = umbra_apimachinery::gvk::GroupResource::new("meta.k8s.io", "PatchOptions");
            return Err(Status::invalid(&of, "PatchOptions", "", vec![cause]));
        }
        let mut config = self.decode_object(write, &request.body, "application/apply-patch+yaml")?;
        self.fit_namespace(&mut config, write.namespace)?;
        if config.name().is_empty() {
            config.set_metadata("name", write.name);
        } else if config.name() != write.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                config.name(),
                write.name
            )));
        }
        let change = ApplyChange {
            store: self,
            write: *write,
            config,
        };
        self.change(write, &change).await.map(Into::into)
    }
}

fn no_strategic_merge() -> Status {
    let message = "the body of the request was in an unknown format - accepted media types include: \
                   application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    Status::failure(Reason::UnsupportedMediaType, message)
}

fn patch_status(error: &PatchError) -> Status {
    let reason = match error.kind() {
        PatchErrorKind::Invalid => Reason::BadRequest,
        PatchErrorKind::Failed | PatchErrorKind::TestFailed => Reason::Invalid,
        PatchErrorKind::TooLarge => Reason::RequestEntityTooLarge,
    };
    Status::failure(reason, error.to_string())
}
