//! What a child answers to a write, or for a subresource, in the form of the view.
//!
//! An answer carries a revision with which the client can go on. Where the object is copied that is the hub's revision of
//! its copy, so the answer waits for the copy, for a while that leaves time to answer; without it, an older revision is given,
//! with which a write that insists on it fails as one that came too late.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::Status;
use umbra_storage::CachedObject;

use super::exchange::{Answer, Asked, object_path};
use super::live::malformed;
use super::resource::ViewResource;
use super::target::Target;
use crate::copies::cache::{CopyExtra, is_as_new};
use crate::copies::translate::to_view;
use crate::request::RequestContext;
use crate::resource::{Object, WriteOutcome};

/// How long the answer to a write waits for the copy, at most.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How long a child may take for a subresource: what kube-apiserver gives requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Nothing: the write was a dry run.
    Nothing,
    /// The object as it was answered.
    Object,
    /// The object as it was answered, or its end.
    ObjectOrEnd,
    /// The end of the object.
    End,
}

impl ViewResource {
    /// A subresource that is an object, as the child has it.
    pub(super) async fn get_subresource(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
    ) -> Result<Object, Status> {
        let target = self.resolve(context, namespace, name).await?;
        self.demand(context, "get", subresource, namespace, &target.name)
            .await?;
        let path = object_path(&self.served.descriptor.resource, namespace, &target.name, subresource);
        let asked = Asked::get(path, "application/json");
        let answer = self.services.exchange(context, &target.cluster, asked, PATIENCE).await;
        let answer = answer.map_err(|status| self.qualified_status(status, &target))?;
        self.object(context, namespace, &target, &answer.body, Awaits::Object)
            .await
    }

    /// What came of a write.
    ///
    /// # Errors
    /// 502 for an answer that makes no sense.
    pub(super) async fn outcome(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        answer: &Answer,
        awaits: Awaits,
    ) -> Result<WriteOutcome, Status> {
        let kind = kind_of(&answer.body).map_err(|error| malformed(&target.cluster, &error))?;
        if kind == GroupVersionKind::new("", "v1", "Status") {
            let status: Status =
                serde_json::from_slice(&answer.body).map_err(|error| malformed(&target.cluster, &error))?;
            if awaits == Awaits::End && target.is_copied() {
                let key = self.key(&target.cluster, namespace, &target.name);
                let uid = status.details.as_ref().map_or("", |details| &details.uid);
                self.copy_revision(context, &key, ("", uid), awaits).await;
            }
            return Ok(WriteOutcome::Status(Box::new(self.qualified_status(status, target))));
        }
        let object = self.object(context, namespace, target, &answer.body, awaits).await?;
        Ok(match answer.code {
            StatusCode::CREATED => WriteOutcome::Created(object),
            StatusCode::ACCEPTED => WriteOutcome::Accepted(object),
            _ => WriteOutcome::Done(object),
        })
    }

    /// An object that a child answered with: one of this resource, or one of a subresource.
    pub(super) async fn object(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        json: &Bytes,
        awaits: Awaits,
    ) -> Result<Object, Status> {
        let kind = kind_of(json).map_err(|error| malformed(&target.cluster, &error))?;
        if kind == self.served.descriptor.group_version_kind() {
            self.own_object(context, target, json, awaits).await
        } else {
            self.other_object(context, namespace, target, json, awaits).await
        }
    }

    async fn own_object(
        &self,
        context: &RequestContext,
        target: &Target,
        json: &Bytes,
        awaits: Awaits,
    ) -> Result<Object, Status> {
        let resource = self.group_resource();
        let translated =
            to_view(json, &target.cluster, &resource, None).map_err(|error| malformed(&target.cluster, &error))?;
        let header = &translated.envelope.header;
        let child_revision = header.child_revision.as_str();
        if !target.is_copied() {
            let revision = child_revision.parse().unwrap_or_default();
            return Ok(Object::new(translated.envelope.object(revision)));
        }
        let namespace = Some(translated.namespace.as_str());
        let key = self.key(&target.cluster, namespace, &translated.name);
        let answered = (child_revision, header.uid.as_str());
        let revision = match self.copy_revision(context, &key, answered, awaits).await {
            CopyRevision::Reached(object) => return Ok(object),
            CopyRevision::Behind(revision) => revision,
        };
        Ok(Object::new(translated.envelope.object(revision)))
    }

    /// Objects of subresources (`Scale`, `TokenRequest`) have the name of the object they belong to, or none.
    async fn other_object(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        json: &Bytes,
        awaits: Awaits,
    ) -> Result<Object, Status> {
        let mut object: Value = serde_json::from_slice(json).map_err(|error| malformed(&target.cluster, &error))?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !name.is_empty() {
            let cluster = target.cluster.as_str();
            object["metadata"]["name"] = QualifiedName { name: &name, cluster }.to_string().into();
        }
        let revision = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if target.is_copied() && !revision.is_empty() {
            let key = self.key(&target.cluster, namespace, &target.name);
            let revision = match self.copy_revision(context, &key, (&revision, ""), awaits).await {
                CopyRevision::Reached(copy) => {
                    let copy: Value = serde_json::from_slice(&copy.json).unwrap_or_default();
                    copy.resource_version().to_owned()
                }
                CopyRevision::Behind(revision) => revision.to_string(),
            };
            object["metadata"]["resourceVersion"] = revision.into();
        }
        Ok(Object::new(object.to_string().into()))
    }

    /// The copy, once it is as new as what was answered (the child's revision, and the UID where it is known); without it, the
    /// revision that there is.
    async fn copy_revision(
        &self,
        context: &RequestContext,
        key: &str,
        (child_revision, uid): (&str, &str),
        awaits: Awaits,
    ) -> CopyRevision {
        let patience = match awaits {
            Awaits::Nothing => Duration::ZERO,
            Awaits::Object | Awaits::ObjectOrEnd | Awaits::End => patience_with_copies(context),
        };
        let is_new = |copy: &CachedObject<CopyExtra>| is_as_new(&copy.extra.child_revision, child_revision);
        let is_another = |copy: &CachedObject<CopyExtra>| !uid.is_empty() && *copy.extra.uid != *uid;
        let reached = |copy: Option<&CachedObject<CopyExtra>>| match (copy, awaits) {
            (Some(copy), Awaits::End) => is_another(copy),
            (Some(copy), _) => is_new(copy),
            (None, _) => matches!(awaits, Awaits::End | Awaits::ObjectOrEnd),
        };
        let copies = &self.services.copies;
        let snapshot = copies.wait_until(&self.group_resource(), key, patience, reached).await;
        let answers_with_copy = matches!(awaits, Awaits::Object | Awaits::ObjectOrEnd);
        match snapshot.get(key) {
            // What a dry run would give is not what is there.
            Some(copy) if answers_with_copy && is_new(copy) => CopyRevision::Reached(Object {
                json: copy.bytes.clone(),
                row: Some(Arc::clone(&copy.extra.row)),
            }),
            Some(copy) => CopyRevision::Behind(copy.revision.0),
            None => CopyRevision::Behind(snapshot.revision().0),
        }
    }

    /// The child's Status under the name that the object has in the view.
    pub(super) fn qualified_status(&self, mut status: Status, target: &Target) -> Status {
        let qualified = target.qualified();
        let is_about_it = |name: &str| !name.is_empty() && name == target.name;
        if let Some(details) = status.details.as_mut().filter(|details| is_about_it(&details.name)) {
            details.name.clone_from(&qualified);
            let (bare, full) = (format!("\"{}\"", target.name), format!("\"{qualified}\""));
            status.message = status.message.replacen(&bare, &full, 1);
        }
        status
    }
}

/// How long an answer may wait for copies: [`CATCH_UP`], and no more than half of the time that is left. What was to be done is
/// done: who is told that it is not, for want of time, does it again.
pub(super) fn patience_with_copies(context: &RequestContext) -> Duration {
    let left = context.deadline.saturating_duration_since(Instant::now());
    CATCH_UP.min(left / 2)
}

/// How a copy stands to the revision of an answer.
enum CopyRevision {
    /// It is that object, or a newer state of it.
    Reached(Object),
    /// It is older, or not there; the hub's revision of it, or of everything.
    Behind(u64),
}

/// The kind that an answer says it is.
fn kind_of(json: &[u8]) -> Result<GroupVersionKind, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Type {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
    }
    let found: Type = serde_json::from_slice(json)?;
    Ok(GroupVersionKind::parse(&found.api_version, &found.kind))
}
