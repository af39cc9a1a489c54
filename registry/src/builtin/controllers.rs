//! The namespace controller and the garbage collector of one root
//! (`pkg/controller/namespace`, `pkg/controller/garbagecollector` of Kubernetes).
//!
//! Both are level-triggered: whenever something happens that may concern them ([`StoreApi::activity`]), they look at the
//! whole root as the caches have it and do what is to be done. Caches of different kinds are not equally far, so nothing is
//! deleted for want of an owner before the store itself has said that the owner is gone.
//!
//! Deviation: references to owners that are gone stay where another owner remains.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::metadata::OwnerReference;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MASTERS, UserInfo};

use crate::generic::ResourceStore;
use crate::generic::collection::StoreApi;
use crate::generic::indexer::StoredObject;
use crate::generic::metadata::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use crate::request::{ListOptions, PatchType, RequestContext, Warnings, WriteOptions};
use crate::resource::{Resource, WriteRequest, WriteVerb};

/// Changes that come close together are looked at together: at least this long, and at least [`REST`] times as long as the
/// last look took.
const GATHER: Duration = Duration::from_millis(20);
/// Bounds what the two controllers take of one processor, however large the root is: a fifth.
const REST: u32 = 4;
/// How often everything is looked at while something waits that no change may announce, such as a pod whose grace period
/// runs; and after an error.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one write of a controller may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Runs both controllers of `api` until `cancelled`. To be spawned on the root's tracker. Cancel safe: whatever was left is
/// found again.
pub async fn run(api: Arc<StoreApi>, cancelled: CancellationToken) {
    let activity = api.activity();
    let work = async {
        loop {
            let began = Instant::now();
            let waiting = match round(&api).await {
                Ok(waiting) => waiting,
                Err(status) => {
                    tracing::warn!(error = %status.message, "owners, finalizers and namespaces are looked at again soon");
                    true
                }
            };
            let rest = GATHER.max(began.elapsed() * REST).min(AGAIN);
            if waiting {
                let again = AGAIN.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                let _either = tokio::time::timeout(again, activity.notified()).await;
            } else {
                activity.notified().await;
            }
            tokio::time::sleep(rest).await;
        }
    };
    cancelled.run_until_cancelled(work).await;
}

/// Looks at everything once; returns whether something waits.
async fn round(api: &StoreApi) -> Result<bool, Status> {
    let stores = api.stores();
    let mut waiting = collect_namespaces(api, &stores).await?;
    waiting |= collect_garbage(api, &stores).await?;
    Ok(waiting)
}

/// A context in which a part of this process acts on its own: as a member of `system:masters`.
#[must_use]
pub fn system_context(name: &str) -> RequestContext {
    RequestContext {
        user: Arc::new(UserInfo::new(name, [MASTERS])),
        info: Arc::new(RequestInfo::default()),
        prefix: Arc::from(""),
        deadline: Instant::now() + WRITE_DEADLINE,
        warnings: Warnings::default(),
        user_agent: Arc::from("umbra"),
    }
}

fn objects(store: &ResourceStore, prefix: &str) -> Vec<Arc<StoredObject>> {
    store.cache().snapshot().range(prefix, None).cloned().collect()
}

// === Namespaces ===

async fn collect_namespaces(api: &StoreApi, stores: &[Arc<ResourceStore>]) -> Result<bool, Status> {
    let Some(namespaces) = api.store(&GroupVersion::new("", "v1").resource("namespaces")) else {
        return Ok(false);
    };
    let mut waiting = false;
    for namespace in objects(&namespaces, namespaces.keys().prefix()) {
        if namespace.extra.deleting {
            waiting |= !empty_namespace(stores, &namespaces, &namespace).await?;
        }
    }
    Ok(waiting)
}

/// Deletes what is in a namespace, and lets the namespace go when nothing is; returns whether it went.
async fn empty_namespace(
    stores: &[Arc<ResourceStore>],
    namespaces: &ResourceStore,
    namespace: &StoredObject,
) -> Result<bool, Status> {
    let context = system_context("system:serviceaccount:kube-system:namespace-controller");
    // Objects that were admitted just before the namespace began to go are in the caches once these have come so far.
    let mut left = 0_usize;
    for store in stores.iter().filter(|store| store.strategy().descriptor.namespaced) {
        let scope = store.keys().scope(Some(&namespace.name));
        let cache = store.cache();
        let state = cache.not_older_than(&scope, namespace.revision, context.deadline).await;
        let state = state.map_err(|error| crate::generic::store::storage_status(&error))?;
        for object in state.range(&scope, None) {
            left += 1;
            if !object.extra.deleting {
                ignore_absence(delete(store, &context, object, None).await)?;
            }
        }
    }
    if left > 0 {
        return Ok(false);
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": &*namespace.name, "uid": &*namespace.extra.uid},
        "spec": {"finalizers": []},
    });
    let request = WriteRequest {
        subresource: "finalize".to_owned(),
        ..request(WriteVerb::Update, namespace, &object)
    };
    ignore_absence(namespaces.write(&context, request).await.map(drop))?;
    Ok(true)
}

// === Garbage ===

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Present,
    /// Present, and being deleted after its dependents.
    InForegroundDeletion,
    Absent,
    /// Of a kind that is not served here, or out of reach: dependents are left alone.
    Unknown,
}

async fn collect_garbage(api: &StoreApi, stores: &[Arc<ResourceStore>]) -> Result<bool, Status> {
    let context = system_context("system:serviceaccount:kube-system:generic-garbage-collector");
    let everything: Vec<(Arc<ResourceStore>, Arc<StoredObject>)> = stores
        .iter()
        .flat_map(|store| {
            let objects = objects(store, store.keys().prefix());
            objects.into_iter().map(|object| (Arc::clone(store), object))
        })
        .collect();
    let known: HashSet<&str> = everything.iter().map(|(_, object)| &*object.extra.uid).collect();
    let foreground: HashSet<&str> = with_finalizer(&everything, FOREGROUND_FINALIZER);
    for (store, object) in &everything {
        let lifecycle = &object.extra;
        if lifecycle.owners.is_empty() || lifecycle.deleting {
            continue;
        }
        let mut owners = Vec::new();
        for owner in &lifecycle.owners {
            owners.push(look_up(api, &known, &foreground, owner, &object.namespace).await?);
        }
        let all_absent = owners.iter().all(|owner| *owner == Owner::Absent);
        let all_going = owners
            .iter()
            .all(|owner| matches!(owner, Owner::Absent | Owner::InForegroundDeletion));
        if all_absent || all_going {
            let policy = if all_absent { "Background" } else { "Foreground" };
            ignore_absence(delete(store, &context, object, Some(policy)).await)?;
        }
    }
    finish_foreground(&context, &everything).await?;
    orphan(&context, &everything).await?;
    Ok(!foreground.is_empty())
}

type Known = [(Arc<ResourceStore>, Arc<StoredObject>)];

/// The UIDs of objects in deletion that wait for this finalizer.
fn with_finalizer<'a>(everything: &'a Known, finalizer: &str) -> HashSet<&'a str> {
    let waiting = everything.iter().filter(|(_, object)| waits_for(object, finalizer));
    waiting.map(|(_, object)| &*object.extra.uid).collect()
}

fn waits_for(object: &StoredObject, finalizer: &str) -> bool {
    object.extra.deleting && object.extra.finalizers.iter().any(|one| one == finalizer)
}

async fn look_up(
    api: &StoreApi,
    known: &HashSet<&str>,
    foreground: &HashSet<&str>,
    owner: &OwnerReference,
    namespace: &str,
) -> Result<Owner, Status> {
    if foreground.contains(owner.uid.as_str()) {
        return Ok(Owner::InForegroundDeletion);
    }
    if known.contains(owner.uid.as_str()) {
        return Ok(Owner::Present);
    }
    let kind = GroupVersionKind::parse(&owner.api_version, &owner.kind);
    let Some(store) = api.store_of_kind(&kind) else {
        return Ok(Owner::Unknown);
    };
    let namespaced = store.strategy().descriptor.namespaced;
    if namespaced && namespace.is_empty() {
        // Nothing says in which namespace the owner of a cluster-scoped object would be.
        return Ok(Owner::Unknown);
    }
    let namespace = Some(namespace).filter(|_| namespaced);
    let uid = store.stored_uid(namespace, &owner.name).await?;
    Ok(if uid.is_some_and(|uid| uid == owner.uid) {
        Owner::Present
    } else {
        Owner::Absent
    })
}

/// Lets owners go whose dependents are gone.
async fn finish_foreground(context: &RequestContext, everything: &Known) -> Result<(), Status> {
    let blocking: HashSet<&str> = everything
        .iter()
        .flat_map(|(_, object)| &object.extra.owners)
        .filter(|owner| owner.block_owner_deletion == Some(true))
        .map(|owner| owner.uid.as_str())
        .collect();
    for (store, object) in everything {
        if waits_for(object, FOREGROUND_FINALIZER) && !blocking.contains(&*object.extra.uid) {
            remove_finalizer(store, context, object, FOREGROUND_FINALIZER).await?;
        }
    }
    Ok(())
}

/// Takes owners that are to leave their dependents behind out of the dependents.
async fn orphan(context: &RequestContext, everything: &Known) -> Result<(), Status> {
    let leaving = with_finalizer(everything, ORPHAN_FINALIZER);
    if leaving.is_empty() {
        return Ok(());
    }
    for (store, object) in everything {
        let owners = &object.extra.owners;
        let kept: Vec<&OwnerReference> = owners
            .iter()
            .filter(|owner| !leaving.contains(owner.uid.as_str()))
            .collect();
        if kept.len() < owners.len() {
            let patch = json!({"metadata": {"uid": &*object.extra.uid, "ownerReferences": kept}});
            ignore_absence(patch_object(store, context, object, patch).await)?;
        }
    }
    for (store, object) in everything {
        if waits_for(object, ORPHAN_FINALIZER) {
            remove_finalizer(store, context, object, ORPHAN_FINALIZER).await?;
        }
    }
    Ok(())
}

async fn remove_finalizer(
    store: &ResourceStore,
    context: &RequestContext,
    object: &StoredObject,
    finalizer: &str,
) -> Result<(), Status> {
    let kept: Vec<&String> = object.extra.finalizers.iter().filter(|one| *one != finalizer).collect();
    // The revision makes sure that no finalizer is lost that came meanwhile.
    let patch = json!({"metadata": {"resourceVersion": object.revision.to_string(), "finalizers": kept}});
    ignore_absence(patch_object(store, context, object, patch).await)
}

// === Writes ===

/// What somebody else did already, or will be seen in the next round.
fn ignore_absence(outcome: Result<(), Status>) -> Result<(), Status> {
    match outcome {
        Err(status) if status.is(Reason::NotFound) || status.is(Reason::Conflict) => Ok(()),
        other => other,
    }
}

fn request(verb: WriteVerb, object: &StoredObject, body: &Value) -> WriteRequest {
    WriteRequest {
        verb,
        namespace: Some(object.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
        name: object.name.to_string(),
        subresource: String::new(),
        body: serde_json::to_vec(body)
            .expect("a JSON value has only string keys")
            .into(),
        content_type: "application/json".to_owned(),
        options: WriteOptions {
            field_manager: "umbra".to_owned(),
            ..WriteOptions::default()
        },
        list_options: ListOptions::default(),
        query: String::new(),
    }
}

async fn delete(
    store: &ResourceStore,
    context: &RequestContext,
    object: &StoredObject,
    policy: Option<&str>,
) -> Result<(), Status> {
    let mut options = json!({"preconditions": {"uid": &*object.extra.uid}});
    if let Some(policy) = policy {
        options["propagationPolicy"] = policy.into();
    }
    let request = request(WriteVerb::Delete, object, &options);
    store.write(context, request).await.map(drop)
}

async fn patch_object(
    store: &ResourceStore,
    context: &RequestContext,
    object: &StoredObject,
    patch: Value,
) -> Result<(), Status> {
    let request = request(WriteVerb::Patch(PatchType::Merge), object, &patch);
    store.write(context, request).await.map(drop)
}
