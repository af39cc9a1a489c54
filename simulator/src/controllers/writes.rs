//! Writes of controllers, in process, by the same code that serves clients.

use jiff::Timestamp;
use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::builtin::controllers::system_context;
use umbra_registry::generic::ResourceStore;
use umbra_registry::generic::indexer::StoredObject;
use umbra_registry::request::{ListOptions, WriteOptions};
use umbra_registry::resource::{Resource as _, WriteRequest, WriteVerb};

/// The field manager of everything that the simulator writes.
const FIELD_MANAGER: &str = "umbra-simulator";

/// Who the controllers are in admission and authorization; a member of `system:masters`.
const USER: &str = "system:umbra-simulator";

fn request(verb: WriteVerb, namespace: &str, name: &str, body: &Value) -> WriteRequest {
    WriteRequest {
        verb,
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        name: name.to_owned(),
        subresource: String::new(),
        body: serde_json::to_vec(body)
            .expect("a JSON value has only string keys")
            .into(),
        content_type: "application/json".to_owned(),
        options: WriteOptions {
            field_manager: FIELD_MANAGER.to_owned(),
            ..WriteOptions::default()
        },
        list_options: ListOptions::default(),
        query: String::new(),
    }
}

/// Creates an object.
pub(crate) async fn create(store: &ResourceStore, object: &Value) -> Result<(), Status> {
    let request = request(WriteVerb::Create, object.namespace(), "", object);
    store.write(&system_context(USER), request).await.map(drop)
}

/// Creates an object unless it is there.
pub(crate) async fn create_missing(store: &ResourceStore, object: &Value) -> Result<bool, Status> {
    match create(store, object).await {
        Ok(()) => Ok(true),
        Err(status) if status.is(Reason::AlreadyExists) => Ok(false),
        Err(status) => Err(status),
    }
}

/// Replaces an object, or its `subresource` where that is not empty. The object carries the revision that it was made
/// from: a conflict is an error.
pub(crate) async fn update(store: &ResourceStore, subresource: &str, object: &Value) -> Result<(), Status> {
    let mut request = request(WriteVerb::Update, object.namespace(), object.name(), object);
    subresource.clone_into(&mut request.subresource);
    store.write(&system_context(USER), request).await.map(drop)
}

/// Deletes exactly this object, in the background; an object that is gone already is none's concern.
pub(crate) async fn delete(
    store: &ResourceStore,
    object: &StoredObject,
    grace_seconds: Option<u32>,
) -> Result<(), Status> {
    let mut options = json!({"preconditions": {"uid": &*object.extra.uid}, "propagationPolicy": "Background"});
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let request = request(WriteVerb::Delete, &object.namespace, &object.name, &options);
    match store.write(&system_context(USER), request).await {
        Err(status) if !status.is(Reason::NotFound) => Err(status),
        _ => Ok(()),
    }
}

/// Puts a pod on a node, as a scheduler does.
pub(crate) async fn bind(pods: &ResourceStore, namespace: &str, name: &str, node: &str) -> Result<(), Status> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let mut request = request(WriteVerb::Create, namespace, name, &binding);
    "binding".clone_into(&mut request.subresource);
    pods.write(&system_context(USER), request).await.map(drop)
}

/// An object out of the cache.
pub(crate) fn parse(object: &StoredObject) -> Result<Value, Status> {
    serde_json::from_slice(&object.bytes)
        .map_err(|error| Status::internal(format!("the stored object {:?} is damaged: {error}", object.key)))
}

/// The reference by which `owner` controls what it makes.
pub(crate) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A new pod of `owner` by its template, without a name (`GetPodFromTemplate` in `pkg/controller/controller_utils.go`).
pub(crate) fn pod_from_template(owner: &Value) -> Value {
    let template = &owner["spec"]["template"];
    let mut metadata = json!({
        "namespace": owner.namespace(),
        "generateName": format!("{}-", owner.name()),
        "ownerReferences": [controller_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// A hash of a pod template as a label value: FNV-1a of 32 bits over its canonical JSON, written with the alphabet of
/// generated names (`ComputeHash`, `rand.SafeEncodeString`). `salt` makes another one where two templates collide.
pub(crate) fn template_hash(template: &Value, salt: i64) -> String {
    let json = serde_json::to_vec(template).expect("a JSON value has only string keys");
    let salt = if salt == 0 {
        Vec::new()
    } else {
        salt.to_le_bytes().to_vec()
    };
    let hash = json.iter().chain(&salt).fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digits = hash.to_string();
    digits
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// Sets a condition. Its `lastTransitionTime` changes with its status alone. Says whether anything but a time changed.
pub(crate) fn set_condition(conditions: &mut Value, mut condition: Value, now: Timestamp) -> bool {
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    condition["lastTransitionTime"] = age::rfc3339(now).into();
    let Some(list) = conditions.as_array_mut() else {
        return false;
    };
    let Some(existing) = list.iter_mut().find(|one| one["type"] == condition["type"]) else {
        list.push(condition);
        return true;
    };
    if existing["status"] == condition["status"] {
        condition["lastTransitionTime"] = existing["lastTransitionTime"].clone();
    }
    let changed = ["status", "reason", "message"]
        .iter()
        .any(|field| existing[field] != condition[field]);
    *existing = condition;
    changed
}

/// The number at a field, or 0.
pub(crate) fn count(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}
