//! Keeps the object of a cluster as its rendering says.
//!
//! An object is ours where it carries the UID of the rendering, or where its own UID is the one that the rendering has
//! recorded. The first mark is there from the first write on, so a hub that stops between writing and recording finds its
//! object again; names are never enough. Every apply names the UID that it is meant for, so an object that somebody has
//! deleted and made anew in between is not touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use umbra_api::placement::OnConflict;
use umbra_api::rendering::{Rendering, RenderingStatus, condition};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionKind};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::copies::cache::CopyExtra;
use umbra_registry::copies::key::{CopyKey, copy_key};
use umbra_registry::fleet::names::{FLEET_LABEL, RENDERING_ANNOTATION, RENDERING_UID_ANNOTATION};
use umbra_registry::fleet::printer::is_applied;
use umbra_registry::fleet::{TemplateKey, cache};
use umbra_storage::CachedObject;

use super::child::{ApplyOptions, ChildAccess as _, ChildFailure};
use super::controller::Inner;
use super::drift::{Differences, differences};
use super::plan::{renderings, set_rendered};
use super::queue::Outcome;
use super::state::{FleetState, RenderingKey, display, template_of};
use super::status::set_condition;
use super::write::Place;

/// What is remembered of an apply, to tell drift from how a cluster writes things. Losing it costs one apply that changes
/// nothing.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The child's revision of what was applied.
    revision: String,
    /// How the cluster's object differed from what was asked for, right after it was applied.
    tolerated: Differences,
    /// Whether the copy has come as far.
    copied: bool,
}

/// Why a rendering is not applied.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) message: String,
    /// Whether trying again can help although nothing changes here.
    pub(super) retry: bool,
}

impl Problem {
    pub(super) fn new(reason: &str, message: String) -> Self {
        Self {
            reason: reason.to_owned(),
            message,
            retry: true,
        }
    }
}

impl From<ChildFailure> for Problem {
    fn from(failure: ChildFailure) -> Self {
        Self::new(failure.word(), failure.to_string())
    }
}

/// What came of applying.
enum Applied {
    /// The cluster has it.
    Ours(Value),
    /// The cluster had a namespace of that name already, which is all that is wanted.
    AlreadyThere,
}

impl Inner {
    /// Makes the cluster's object what the rendering says, or withdraws it.
    pub(super) async fn dispatch(&self, key: &RenderingKey) -> Result<Outcome, Status> {
        let state = self.state().await?;
        let Some(rendering) = state.rendering(key) else {
            self.seen.lock().remove(key);
            return Ok(Outcome::Done);
        };
        if rendering.metadata.deletion_timestamp.is_some() {
            return self.withdraw(key, &rendering).await;
        }
        if !has_object(&rendering) {
            return Ok(Outcome::Done);
        }
        if is_applied(&rendering) && !self.may_have_drifted(key, &rendering) {
            return Ok(Outcome::Done);
        }
        if !self.has_namespace(&state, key, &rendering).await? {
            // Its rendering wakes this one when it is applied.
            return Ok(Outcome::Done);
        }
        let result = match self.path_of(&rendering) {
            Ok(path) => self.apply(key, &rendering, &path).await,
            Err(problem) => Err(problem),
        };
        match result {
            Ok(applied) => {
                self.record(key, &rendering, &applied).await?;
                Ok(Outcome::Done)
            }
            Err(problem) => {
                let retry = problem.retry;
                self.report(key, &rendering, problem).await?;
                Ok(if retry { Outcome::Retry } else { Outcome::Done })
            }
        }
    }

    /// Whether the namespace has been brought along, where the object has one.
    async fn has_namespace(
        &self,
        state: &FleetState,
        key: &RenderingKey,
        rendering: &Rendering,
    ) -> Result<bool, Status> {
        let namespace = &rendering.spec.template.namespace;
        if namespace.is_empty() {
            return Ok(true);
        }
        let of_namespace = RenderingKey::new(&TemplateKey::namespace(namespace), &rendering.spec.cluster);
        let Some(of_namespace) = state.rendering(&of_namespace) else {
            return Ok(false);
        };
        if is_applied(&of_namespace) {
            return Ok(true);
        }
        // Nothing is said as long as nobody knows better: it is on its way.
        if let Some(why) = applied_condition(&of_namespace).filter(|one| one.status == "False") {
            let message = format!("waits for the namespace {namespace}: {}", why.message);
            self.report(key, rendering, Problem::new(&why.reason, message)).await?;
        }
        Ok(false)
    }

    /// The path of the object in its cluster.
    pub(super) fn path_of(&self, rendering: &Rendering) -> Result<String, Problem> {
        let object = &rendering.spec.object;
        let cluster = &rendering.spec.cluster;
        let kind = GroupVersionKind::parse(
            object["apiVersion"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default(),
        );
        let catalog = self.catalog.state();
        let entry = catalog.clusters.get(cluster).ok_or_else(|| {
            Problem::new(
                "ClusterUnknown",
                format!("it is not known yet what cluster {cluster} serves"),
            )
        })?;
        let descriptor = entry.api.discovery.kind(&kind).ok_or_else(|| {
            let message = format!(
                "cluster {cluster} does not serve {} of {}; install it there, or place the object elsewhere",
                kind.kind,
                kind.api_version()
            );
            Problem::new("UnknownKind", message)
        })?;
        let base = format!("/{}", descriptor.resource.group_version().path());
        let resource = &descriptor.resource.resource;
        let (namespace, name) = (object.namespace(), object.name());
        Ok(if namespace.is_empty() {
            format!("{base}/{resource}/{name}")
        } else {
            format!("{base}/namespaces/{namespace}/{resource}/{name}")
        })
    }

    async fn apply(&self, key: &RenderingKey, rendering: &Rendering, path: &str) -> Result<Applied, Problem> {
        let cluster = &rendering.spec.cluster;
        let known = recorded_uid(rendering);
        let forced = ApplyOptions {
            force: true,
            dry_run: false,
        };
        if !known.is_empty() {
            let marked = self.marked(key, rendering, Some(known));
            match self.children.apply(cluster, path, &marked, forced).await {
                Ok(live) => return Ok(Applied::Ours(live)),
                // It is gone, or another object by now.
                Err(failure) if failure.is_code(409) || failure.is_code(404) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        let live = self.children.get(cluster, path).await?;
        match live {
            None => {
                // Without force: should somebody else make the object in between, it is theirs.
                let options = ApplyOptions {
                    force: false,
                    dry_run: false,
                };
                let marked = self.marked(key, rendering, None);
                Ok(Applied::Ours(
                    self.children.apply(cluster, path, &marked, options).await?,
                ))
            }
            Some(live) if cache::is_deleting(&live) => {
                let message = format!(
                    "{} of cluster {cluster} is being deleted; waiting for it to go",
                    display(rendering)
                );
                Err(Problem::new("Terminating", message))
            }
            Some(live) => {
                let marked = self.marked(key, rendering, Some(live.uid()));
                if !is_ours(rendering, &live) {
                    if is_namespace_that_comes_along(rendering) {
                        return Ok(Applied::AlreadyThere);
                    }
                    self.may_adopt(rendering, path, &live, &marked).await?;
                }
                Ok(Applied::Ours(
                    self.children.apply(cluster, path, &marked, forced).await?,
                ))
            }
        }
    }

    /// Whether an object that is not ours may be taken over.
    async fn may_adopt(&self, rendering: &Rendering, path: &str, live: &Value, marked: &Value) -> Result<(), Problem> {
        let cluster = &rendering.spec.cluster;
        let conflict = |what: &str| {
            let owner = live.label(FLEET_LABEL).map_or_else(String::new, |fleet| {
                format!(" (it carries the mark of fleet {fleet}, of this hub or another)")
            });
            let message = format!(
                "{} exists in cluster {cluster} and does not belong to this fleet{owner}; {what}",
                display(rendering)
            );
            Err(Problem::new("Conflict", message))
        };
        match rendering.spec.on_conflict {
            OnConflict::Adopt => Ok(()),
            OnConflict::Fail => conflict(
                "delete it there, or set spec.onConflict of the placement to AdoptIfSame or Adopt to take it over",
            ),
            OnConflict::AdoptIfSame => {
                let tried = ApplyOptions {
                    force: true,
                    dry_run: true,
                };
                let after = self.children.apply(cluster, path, marked, tried).await?;
                if unmarked(&after) == unmarked(live) {
                    Ok(())
                } else {
                    conflict("it is not the same as the rendering; make it so, or set spec.onConflict to Adopt")
                }
            }
        }
    }

    /// The object as it is applied: with the marks of ownership.
    fn marked(&self, key: &RenderingKey, rendering: &Rendering, uid: Option<&str>) -> Value {
        let mut object = rendering.spec.object.clone();
        if let Some(uid) = uid {
            object.set_metadata("uid", uid);
        }
        let metadata = &mut object["metadata"];
        for map in ["labels", "annotations"] {
            if !metadata[map].is_object() {
                metadata[map] = json!({});
            }
        }
        metadata["labels"][FLEET_LABEL] = self.api.name().into();
        metadata["annotations"][RENDERING_ANNOTATION] = format!("{}/{}", key.namespace, key.name).into();
        metadata["annotations"][RENDERING_UID_ANNOTATION] = rendering_uid(rendering).into();
        object
    }

    /// Whether the copy of the object gives reason to look at it, although it is applied.
    fn may_have_drifted(&self, key: &RenderingKey, rendering: &Rendering) -> bool {
        let uid = recorded_uid(rendering);
        let resource = GroupResource::parse(&rendering.spec.template.resource);
        let catalog = self.catalog.state();
        let is_copied = |entry: &umbra_registry::copies::catalog::CatalogEntry| entry.api.copied.contains(&resource);
        let copies = self.copies.cache(&resource);
        if !catalog.clusters.get(&rendering.spec.cluster).is_some_and(is_copied) || !copies.is_ready() {
            return false;
        }
        let snapshot = copies.snapshot();
        let Some(copy) = snapshot.get(&copy_key_of(rendering, &resource)) else {
            // Gone, unless it has only just been applied and its copy is on the way.
            return self.seen.lock().get(key).is_none_or(|seen| seen.copied);
        };
        if uid.is_empty() {
            // A namespace that was there already.
            return false;
        }
        if *copy.extra.uid != *uid {
            return true;
        }
        let mut all_seen = self.seen.lock();
        let seen = all_seen.get_mut(key);
        if let Some(seen) = &seen
            && is_older(&copy.extra.child_revision, &seen.revision)
        {
            return false;
        }
        let found = self.differences_of(key, rendering, copy);
        match seen {
            None => !found.is_empty(),
            Some(seen) => {
                seen.copied = true;
                found != seen.tolerated
            }
        }
    }

    fn differences_of(&self, key: &RenderingKey, rendering: &Rendering, copy: &CachedObject<CopyExtra>) -> Differences {
        let live: Value = serde_json::from_slice(&copy.bytes).unwrap_or_default();
        differences(&self.marked(key, rendering, None), &live)
    }

    async fn record(&self, key: &RenderingKey, rendering: &Rendering, applied: &Applied) -> Result<(), Status> {
        let cluster = &rendering.spec.cluster;
        let (uid, reason, message) = match applied {
            Applied::Ours(live) => {
                let seen = Seen {
                    revision: live.resource_version().to_owned(),
                    tolerated: differences(&self.marked(key, rendering, None), live),
                    copied: false,
                };
                self.seen.lock().insert(key.clone(), seen);
                (live.uid(), "Applied", format!("cluster {cluster} has it"))
            }
            Applied::AlreadyThere => (
                "",
                "AlreadyThere",
                format!("cluster {cluster} has a namespace of that name already, which is left as it is"),
            ),
        };
        let generation = rendering.metadata.generation;
        self.write_status(key, rendering, |status| {
            uid.clone_into(&mut status.uid);
            status.observed_generation = generation;
            if !status.conditions.iter().any(|one| one.type_ == condition::RENDERED) {
                set_rendered(status);
            }
            set_condition(
                &mut status.conditions,
                condition::APPLIED,
                true,
                reason,
                &message,
                generation,
            );
        })
        .await
    }

    pub(super) async fn report(
        &self,
        key: &RenderingKey,
        rendering: &Rendering,
        problem: Problem,
    ) -> Result<(), Status> {
        let generation = rendering.metadata.generation;
        tracing::debug!(
            rendering = key.name,
            reason = problem.reason,
            message = problem.message,
            "not applied"
        );
        self.write_status(key, rendering, |status| {
            status.observed_generation = generation;
            let (reason, message) = (&problem.reason, &problem.message);
            set_condition(
                &mut status.conditions,
                condition::APPLIED,
                false,
                reason,
                message,
                generation,
            );
        })
        .await
    }

    async fn write_status(
        &self,
        key: &RenderingKey,
        rendering: &Rendering,
        change: impl Fn(&mut RenderingStatus) + Send + Sync,
    ) -> Result<(), Status> {
        let place = Place {
            resource: &renderings(),
            namespace: Some(&key.namespace),
            name: &key.name,
        };
        self.writer.update_status(place, rendering_uid(rendering), change).await
    }
}

/// Whether all stages ever agreed on an object.
pub(super) fn has_object(rendering: &Rendering) -> bool {
    rendering.spec.object["kind"].is_string()
}

/// Whether the cluster's object was put there for this rendering.
pub(super) fn is_ours(rendering: &Rendering, live: &Value) -> bool {
    let recorded = recorded_uid(rendering);
    live.annotation(RENDERING_UID_ANNOTATION) == Some(rendering_uid(rendering))
        || (!recorded.is_empty() && live.uid() == recorded)
}

pub(super) fn recorded_uid(rendering: &Rendering) -> &str {
    rendering.status.as_ref().map_or("", |status| &status.uid)
}

fn rendering_uid(rendering: &Rendering) -> &str {
    rendering.metadata.uid.as_deref().unwrap_or_default()
}

fn is_namespace_that_comes_along(rendering: &Rendering) -> bool {
    rendering.spec.placement.is_none() && template_of(&rendering.spec.template).is_namespace()
}

/// What a rendering says about whether its cluster has it.
pub(super) fn applied_condition(rendering: &Rendering) -> Option<&Condition> {
    let status = rendering.status.as_ref()?;
    status.conditions.iter().find(|one| one.type_ == condition::APPLIED)
}

/// The key of the copy of a rendering's object.
pub(super) fn copy_key_of(rendering: &Rendering, resource: &GroupResource) -> String {
    let template = &rendering.spec.template;
    let key = CopyKey {
        cluster: &rendering.spec.cluster,
        namespace: Some(template.namespace.as_str()).filter(|namespace| !namespace.is_empty()),
        name: &template.name,
    };
    copy_key(resource, key)
}

/// What is left of an object without what changes with every write and without marks of ownership.
fn unmarked(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
        for (map, marks) in [
            ("labels", &[FLEET_LABEL][..]),
            ("annotations", &[RENDERING_ANNOTATION, RENDERING_UID_ANNOTATION][..]),
        ] {
            if let Some(entries) = metadata.get_mut(map).and_then(Value::as_object_mut) {
                entries.retain(|key, _| !marks.contains(&key.as_str()));
                if entries.is_empty() {
                    metadata.remove(map);
                }
            }
        }
    }
    object
}

/// Whether a revision of a child comes before another; they are numbers (KEP-5504) or not comparable.
fn is_older(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}
