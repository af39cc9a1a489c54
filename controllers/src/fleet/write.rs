//! Writes of the hub itself into the fleet: through the same stores as everybody's, so that clients see what happens.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_registry::fleet::FleetApi;
use umbra_registry::request::{GetOptions, ListOptions, RequestContext, Warnings, WriteOptions};
use umbra_registry::resource::{Resource, WriteRequest, WriteVerb};

use crate::lease::still_held;

/// How long a write may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How often a status is computed anew because somebody else wrote meanwhile, before the task is tried again as a whole.
const ATTEMPTS: usize = 5;
/// The field manager of what controllers write.
const MANAGER: &str = "umbra-fleet";

/// Writes into one fleet.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    api: Arc<FleetApi>,
    user: Arc<UserInfo>,
    info: Arc<RequestInfo>,
}

/// What is written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) resource: &'a GroupResource,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl Writer {
    pub(super) fn new(api: Arc<FleetApi>) -> Self {
        Self {
            api,
            user: Arc::new(UserInfo::new("system:umbra", [MASTERS])),
            info: Arc::default(),
        }
    }

    fn context(&self) -> RequestContext {
        RequestContext {
            user: Arc::clone(&self.user),
            info: Arc::clone(&self.info),
            prefix: "".into(),
            deadline: Instant::now() + DEADLINE,
            warnings: Warnings::default(),
            user_agent: MANAGER.into(),
        }
    }

    fn resource(&self, place: Place<'_>) -> Result<Arc<dyn Resource>, Status> {
        let found = self.api.writable(place.resource);
        found.ok_or_else(|| Status::not_found(place.resource, place.name))
    }

    async fn write(&self, place: Place<'_>, verb: WriteVerb, subresource: &str, body: &Value) -> Result<(), Status> {
        let content_type = match verb {
            WriteVerb::Patch(patch) => patch.media_type(),
            _ => "application/json",
        };
        let request = WriteRequest {
            verb,
            namespace: place.namespace.map(str::to_owned),
            name: place.name.to_owned(),
            subresource: subresource.to_owned(),
            body: body.to_string().into(),
            content_type: content_type.to_owned(),
            options: WriteOptions {
                field_manager: MANAGER.to_owned(),
                ..WriteOptions::default()
            },
            list_options: ListOptions::default(),
            query: String::new(),
        };
        let resource = self.resource(place)?;
        still_held().await;
        resource.write(&self.context(), request).await.map(drop)
    }

    /// Creates an object.
    pub(super) async fn create(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        let unnamed = Place { name: "", ..place };
        self.write(unnamed, WriteVerb::Create, "", object).await
    }

    /// Replaces an object; where `object` has a resourceVersion, only that version of it.
    pub(super) async fn update(&self, place: Place<'_>, object: &Value) -> Result<(), Status> {
        self.write(place, WriteVerb::Update, "", object).await
    }

    /// Replaces what is below an object.
    pub(super) async fn update_subresource(
        &self,
        place: Place<'_>,
        subresource: &str,
        object: &Value,
    ) -> Result<(), Status> {
        self.write(place, WriteVerb::Update, subresource, object).await
    }

    /// A merge patch of an object.
    #[cfg(test)]
    pub(super) async fn patch(&self, place: Place<'_>, patch: &Value) -> Result<(), Status> {
        self.write(
            place,
            WriteVerb::Patch(umbra_registry::request::PatchType::Merge),
            "",
            patch,
        )
        .await
    }

    /// Deletes the object of that UID. One that is gone, or another by now, is no error.
    pub(super) async fn delete(&self, place: Place<'_>, uid: &str) -> Result<(), Status> {
        let options = json!({"preconditions": {"uid": uid}, "propagationPolicy": "Background"});
        ignore_gone(self.write(place, WriteVerb::Delete, "", &options).await)
    }

    /// The object as it is now.
    pub(super) async fn get(&self, place: Place<'_>) -> Result<Option<Value>, Status> {
        let resource = self.resource(place)?;
        let options = GetOptions::default();
        match resource
            .get(&self.context(), place.namespace, place.name, "", &options)
            .await
        {
            Ok(object) => serde_json::from_slice(&object.json).map(Some).map_err(Status::internal),
            Err(status) if status.is(Reason::NotFound) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Changes the status of the object with that UID. Writes nothing where `change` changes nothing; an object that is gone
    /// is no error.
    pub(super) async fn update_status<S>(
        &self,
        place: Place<'_>,
        uid: &str,
        change: impl Fn(&mut S) + Send + Sync,
    ) -> Result<(), Status>
    where
        S: Serialize + DeserializeOwned + PartialEq + Clone + Default + Send,
    {
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let Some(mut object) = self.get(place).await?.filter(|object| object.uid() == uid) else {
                return Ok(());
            };
            let before: S = serde_json::from_value(object["status"].clone()).unwrap_or_default();
            let mut after = before.clone();
            change(&mut after);
            if after == before {
                return Ok(());
            }
            object["status"] = serde_json::to_value(after).map_err(Status::internal)?;
            match self.update_subresource(place, "status", &object).await {
                Err(status) if status.is(Reason::Conflict) => conflict = Some(status),
                other => return ignore_gone(other),
            }
        }
        Err(conflict.unwrap_or_else(|| Status::internal("the status keeps changing")))
    }
}

/// Treats what is gone already, or is another object by now, as done.
pub(super) fn ignore_gone(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.is(Reason::NotFound) => Ok(()),
        other => other,
    }
}
