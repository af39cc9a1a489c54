//! The field manager of one kind: what a handler of writes calls.
//!
//! Source: `apimachinery/pkg/util/managedfields/internal/fieldmanager.go` and the managers that it stacks:
//! `versioncheck`, `lastappliedupdater`, `lastappliedmanager`, `skipnonapplied`, `capmanagers`, `buildmanagerinfo`,
//! `managedfieldsupdater`, `stripmeta`, `structuredmerge`.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::conflict::{Conflicts, FIELD_MANAGER_CONFLICT};
use super::last_applied;
use super::managed_fields::{
    MAX_UPDATE_MANAGERS, ManagedFields, ManagedFieldsError, ManagerEntry, ManagerIdentifier, Operation,
};
use super::node::Node;
use super::set::Set;
use super::updater::{Updater, same_object};
use super::validate::{Duplicates, ValidationErrors, validate};
use crate::gvk::GroupVersionKind;
use crate::schema::TypeSchema;
use crate::status::{Reason, Status};

/// Fields that are nobody's, in every kind.
static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Who owns what an object had before anybody applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Why a configuration could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Others own what would change.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The configuration is not of the kind and version that it is applied to.
    #[error("invalid object type: {}", kind_text(found))]
    WrongType {
        /// What it is.
        found: GroupVersionKind,
    },
    /// The configuration says who owns what.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsApplied,
    /// The configuration does not fit the schema.
    #[error("failed to create typed patch object ({object}): {source}")]
    InvalidConfiguration {
        /// Namespace, name and kind.
        object: String,
        /// What does not fit.
        #[source]
        source: ValidationErrors,
    },
    /// The object that it is applied to does not fit the schema.
    #[error("failed to create typed live object ({object}): {source}")]
    InvalidLive {
        /// Namespace, name and kind.
        object: String,
        /// What does not fit.
        #[source]
        source: ValidationErrors,
    },
    /// `managedFields` of the object that it is applied to cannot be read. A plain update mends that.
    #[error("failed to decode managed fields: {0}")]
    LiveManagedFields(#[source] ManagedFieldsError),
}

impl ApplyError {
    /// As it is answered to the client.
    ///
    /// Deviation: a configuration that does not fit the schema is 400, as it is the client's; the API server says 500.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Conflict(conflicts) => {
                let status = Status::failure(Reason::Conflict, self.to_string());
                conflicts.0.iter().fold(status, |status, conflict| {
                    status.cause(FIELD_MANAGER_CONFLICT, conflict.message(), conflict.path.to_string())
                })
            }
            Self::WrongType { .. } | Self::ManagedFieldsApplied | Self::InvalidConfiguration { .. } => {
                Status::bad_request(self.to_string())
            }
            Self::InvalidLive { .. } | Self::LiveManagedFields(_) => Status::internal(self),
        }
    }
}

/// Keeps the books of ownership for the objects of one kind, version and subresource.
#[derive(Debug, Clone)]
pub struct FieldManager {
    schema: Option<TypeSchema>,
    api_version: String,
    subresource: String,
    reset_fields: Set,
}

impl FieldManager {
    /// A field manager.
    ///
    /// - `schema`: of the kind; without it types are deduced: maps granular, lists atomic.
    /// - `api_version`: as in objects, such as `apps/v1`.
    /// - `subresource`: empty for the object itself.
    /// - `reset_fields`: what storage takes from the live object whatever a write says, such as `status` on the object
    ///   itself and everything but `status` and `metadata` on `/status`. Nobody gets to own these by such a write; the
    ///   values that come back here are still those that were written, resetting them is up to storage.
    #[must_use]
    pub fn new(
        schema: Option<TypeSchema>,
        api_version: impl Into<String>,
        subresource: impl Into<String>,
        reset_fields: Set,
    ) -> Self {
        Self {
            schema,
            api_version: api_version.into(),
            subresource: subresource.into(),
            reset_fields,
        }
    }

    /// `new` as it is to be stored by a create, an update or a patch that is no apply: with its `managedFields`.
    ///
    /// `live` is what is stored, null for a create. `manager` is the `fieldManager` of the request or the start of its
    /// user agent; empty counts as `unknown`. What the request says in `managedFields` itself counts, but not on a
    /// subresource; an empty list resets it. Never fails: what cannot be kept track of loses its `managedFields`.
    #[must_use]
    pub fn update(&self, live: &Value, mut new: Value, manager: &str, now: Timestamp) -> Value {
        let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else {
            return new;
        };
        let sent = metadata.remove("managedFields");
        let mut managed = self.decode_sent_or_live(sent.as_ref(), live);
        // Whoever has no books although it exists has been reset; only the next apply opens them again.
        let exists = live
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .is_some_and(|uid| !uid.is_empty());
        if managed.entries.is_empty() && exists {
            return new;
        }
        let node = self.node();
        let valid = |value: &Value| validate(value, node, Duplicates::Allowed).is_ok();
        if !valid(&new) || !(live.is_null() || valid(live)) {
            return new;
        }
        let empty = Value::Object(Map::new());
        let live = if live.is_null() { &empty } else { live };
        self.record_update(live, &new, &mut managed, manager, now);
        managed.store(&mut new);
        new
    }

    /// The object with `config` applied to it, as it is to be stored: with its `managedFields`.
    ///
    /// `live` is what is stored, `None` where the apply creates it. Where nothing changes, neither in the object nor
    /// in ownership, the answer equals `live`, times included, and nothing needs to be written. Defaults and
    /// `reset_fields` are up to the caller.
    ///
    /// # Errors
    ///
    /// [`ApplyError`], with all conflicts where it is not forced.
    pub fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, ApplyError> {
        let empty = Value::Object(Map::new());
        let live = live.filter(|live| !live.is_null()).unwrap_or(&empty);
        let stored = ManagedFields::of_object(live).map_err(ApplyError::LiveManagedFields)?;
        self.check_config(live, config)?;
        validate(live, self.node(), Duplicates::Allowed).map_err(|source| ApplyError::InvalidLive {
            object: describe(live),
            source,
        })?;

        let mut managed = stored.clone();
        if managed.entries.is_empty() {
            self.record_update(&empty, live, &mut managed, BEFORE_FIRST_APPLY, now);
        }
        let (applied, mut managed) = self.apply_or_migrate(live, config, &managed, manager, force)?;
        let identifier = self.identifier(manager, Operation::Apply);
        if let Some(entry) = managed.entries.get_mut(&identifier) {
            entry.set = entry.set.difference(&NEVER_OWNED);
            if applied.is_some() {
                entry.time = Some(now);
            }
            if entry.set.is_empty() {
                managed.entries.remove(&identifier);
            }
        }
        let unchanged = applied.is_none() && managed == stored;
        let mut object = applied.unwrap_or_else(|| live.clone());
        // What is stored stays as it is written, also where it would be encoded differently here.
        if !unchanged {
            managed.store(&mut object);
        }
        if manager == last_applied::KUBECTL {
            last_applied::refresh(&mut object, config);
        }
        Ok(object)
    }

    /// Applies; for `kubectl`, conflicts about fields that it applied on the client side before are its own.
    fn apply_or_migrate(
        &self,
        live: &Value,
        config: &Value,
        managed: &ManagedFields,
        manager: &str,
        force: bool,
    ) -> Result<(Option<Value>, ManagedFields), ApplyError> {
        let identifier = self.identifier(manager, Operation::Apply);
        let run = |force: bool| {
            let mut managed = managed.clone();
            self.updater()
                .apply(live, config, &mut managed, &identifier, &self.api_version, force)
                .map(|applied| (applied, managed))
        };
        let conflicts = match run(force) {
            Ok(done) => return Ok(done),
            Err(conflicts) => conflicts,
        };
        if manager != last_applied::KUBECTL {
            return Err(ApplyError::Conflict(conflicts));
        }
        let Some(allowed) = last_applied::fields_of_last_applied(live, self.node(), &self.api_version) else {
            return Err(ApplyError::Conflict(conflicts));
        };
        let left = conflicts.without(&allowed);
        if left.0.is_empty() {
            run(true).map_err(ApplyError::Conflict)
        } else {
            Err(ApplyError::Conflict(left))
        }
    }

    fn check_config(&self, live: &Value, config: &Value) -> Result<(), ApplyError> {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (found, kind) = (text(config, "apiVersion"), text(config, "kind"));
        let expected = text(live, "kind");
        if found != self.api_version || kind.is_empty() || (!expected.is_empty() && kind != expected) {
            let found = GroupVersionKind::parse(&found, &kind);
            return Err(ApplyError::WrongType { found });
        }
        if config
            .pointer("/metadata/managedFields")
            .is_some_and(|managed| !managed.is_null())
        {
            return Err(ApplyError::ManagedFieldsApplied);
        }
        validate(config, self.node(), Duplicates::Refused).map_err(|source| ApplyError::InvalidConfiguration {
            object: describe(config),
            source,
        })
    }

    /// The books that an update starts from: what it says itself, otherwise what is stored, otherwise none.
    fn decode_sent_or_live(&self, sent: Option<&Value>, live: &Value) -> ManagedFields {
        if self.subresource.is_empty()
            && let Some(sent) = sent
        {
            if is_reset(sent) {
                return ManagedFields::default();
            }
            match ManagedFields::decode(sent) {
                Ok(managed) if !managed.entries.is_empty() => return managed,
                // Clients that know nothing of the field send it back empty or broken.
                Ok(_) | Err(_) => {}
            }
        }
        ManagedFields::of_object(live).unwrap_or_default()
    }

    /// Gives `manager` what changed from `live` to `new`.
    fn record_update(&self, live: &Value, new: &Value, managed: &mut ManagedFields, manager: &str, now: Timestamp) {
        let taken = self.updater().update(live, new, managed).difference(&NEVER_OWNED);
        if !taken.is_empty() {
            let identifier = self.identifier(manager, Operation::Update);
            let set = match managed.entries.get(&identifier) {
                Some(previous) => taken.union(&previous.set),
                None => taken,
            };
            let entry = ManagerEntry {
                set,
                api_version: self.api_version.clone(),
                time: Some(now),
            };
            managed.entries.insert(identifier, entry);
        }
        managed.cap_updaters(MAX_UPDATE_MANAGERS);
    }

    fn identifier(&self, manager: &str, operation: Operation) -> ManagerIdentifier {
        ManagerIdentifier {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.api_version.clone(),
            },
            subresource: self.subresource.clone(),
        }
    }

    fn node(&self) -> Node<'_> {
        Node::root(self.schema.as_ref())
    }

    fn updater(&self) -> Updater<'_> {
        Updater {
            node: self.node(),
            reset_fields: &self.reset_fields,
        }
    }
}

/// `new`, or with the `managedFields` of `live` where the two differ only in the times there.
///
/// Ownership is settled before defaulting and before storage resets fields. A write that these undo would otherwise
/// leave nothing behind but a new time. To be called last, right before a write is compared with what is stored
/// (`apiserver/pkg/endpoints/handlers/fieldmanager/equality.go`).
#[must_use]
pub fn without_times_only_change(live: &Value, mut new: Value) -> Value {
    let times_aside = |object: &Value| {
        let mut managed = ManagedFields::of_object(object).ok()?;
        for entry in managed.entries.values_mut() {
            entry.time = None;
        }
        Some(managed)
    };
    let managed = |object: &Value| object.pointer("/metadata/managedFields").cloned();
    if managed(live) == managed(&new) || !same_object(live, &new) {
        return new;
    }
    if times_aside(live).is_some_and(|live| times_aside(&new).is_some_and(|new| live == new))
        && let (Some(kept), Some(managed)) = (managed(live), new.pointer_mut("/metadata/managedFields"))
    {
        *managed = kept;
    }
    new
}

/// Whether a client asks for ownership to be forgotten: by an empty list, or one empty entry.
fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Namespace, name and kind, as the API server puts them: `default/web; apps/v1, Kind=Deployment`.
fn describe(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = GroupVersionKind::parse(text("/apiVersion"), text("/kind"));
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    format!("{namespace}/{name}; {}", kind_text(&kind))
}

/// A kind as Go prints it, with the slash even where there is no group: `/v1, Kind=Pod`.
fn kind_text(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}
