//! `metadata.managedFields`: who owns what, read and written as the API server does.
//!
//! Source: `apimachinery/pkg/util/managedfields/internal/managedfields.go` and `capmanagers.go`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields_v1::{self, FieldsV1Error};
use super::set::Set;
use crate::age;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By create, update or another patch.
    Update,
}

impl Operation {
    /// As it is written: `Apply`, `Update`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells one entry of `managedFields` from the others. An applier is the same in every version of the API; an
/// updater is another one in each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerIdentifier {
    /// The name of the manager.
    pub manager: String,
    /// How it owns.
    pub operation: Operation,
    /// The version it wrote in; empty for appliers.
    pub api_version: String,
    /// The subresource it wrote to; empty for the object itself.
    pub subresource: String,
}

impl fmt::Display for ManagerIdentifier {
    /// As conflicts name a manager: `"kubectl" with subresource "scale" using apps/v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Update => write!(f, " using {}", self.api_version),
            Operation::Apply => Ok(()),
        }
    }
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerEntry {
    /// The fields.
    pub set: Set,
    /// The version of the API that the fields are fields of.
    pub api_version: String,
    /// When the manager last changed something; to the second when it is written.
    pub time: Option<Timestamp>,
}

/// What all managers of one object own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagedFields {
    /// The entries. None of them is empty after an operation.
    pub entries: BTreeMap<ManagerIdentifier, ManagerEntry>,
}

/// Why `managedFields` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManagedFieldsError {
    /// Not a list of objects.
    #[error("metadata.managedFields is not a list of entries")]
    NotAList,
    /// An operation other than the two.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// An entry without version.
    #[error("apiVersion must not be empty")]
    NoApiVersion,
    /// An entry whose form of fields is not said or not known.
    #[error("invalid fieldsType {found:?} in managed fields entry {index}")]
    FieldsType {
        /// What is there.
        found: String,
        /// The position of the entry.
        index: usize,
    },
    /// A time that is not RFC 3339.
    #[error("invalid time {found:?} in managed fields entry {index}")]
    Time {
        /// What is there.
        found: String,
        /// The position of the entry.
        index: usize,
    },
    /// Fields that cannot be read.
    #[error("error decoding managed fields of {manager:?}: {source}")]
    Fields {
        /// The manager whose fields these are.
        manager: String,
        /// What is wrong with them.
        #[source]
        source: FieldsV1Error,
    },
}

/// At most so many updaters are kept apart, as `DefaultMaxUpdateManagers`.
pub const MAX_UPDATE_MANAGERS: usize = 10;

/// What the oldest updaters become when there are too many.
const ANCIENT_CHANGES: &str = "ancient-changes";

impl ManagedFields {
    /// Reads `metadata.managedFields` of an object; nothing where the object has none.
    ///
    /// # Errors
    ///
    /// Where an entry is not what the API allows.
    pub fn of_object(object: &Value) -> Result<Self, ManagedFieldsError> {
        match object
            .get("metadata")
            .and_then(|metadata| metadata.get("managedFields"))
        {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(list) => Self::decode(list),
        }
    }

    /// Reads a list of entries. Of two entries of one manager the later counts.
    ///
    /// # Errors
    ///
    /// Where an entry is not what the API allows.
    pub fn decode(list: &Value) -> Result<Self, ManagedFieldsError> {
        let list = list.as_array().ok_or(ManagedFieldsError::NotAList)?;
        let mut entries = BTreeMap::new();
        for (index, entry) in list.iter().enumerate() {
            let entry = entry.as_object().ok_or(ManagedFieldsError::NotAList)?;
            let (identifier, entry) = decode_entry(entry, index)?;
            entries.insert(identifier, entry);
        }
        Ok(Self { entries })
    }

    /// Writes the entries in the order of the API: appliers before updaters, then by time, then by name.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut sorted: Vec<_> = self.entries.iter().collect();
        sorted.sort_by_key(|(identifier, entry)| {
            (
                identifier.operation,
                seconds(entry),
                identifier.manager.as_str(),
                entry.api_version.as_str(),
                identifier.subresource.as_str(),
            )
        });
        sorted
            .into_iter()
            .map(|(identifier, entry)| encode_entry(identifier, entry))
            .collect()
    }

    /// Writes the entries into `metadata.managedFields`, or takes that away where there are none. An object without
    /// metadata is left alone.
    pub fn store(&self, object: &mut Value) {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        if self.entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), self.encode());
        }
    }

    /// Everything that somebody owns.
    #[must_use]
    pub fn all_fields(&self) -> Set {
        self.entries
            .values()
            .fold(Set::new(), |all, entry| all.union(&entry.set))
    }

    /// Merges the oldest updaters of a version into one until at most `most` are left.
    ///
    /// The first of a version keeps its name until a second one joins it.
    pub fn cap_updaters(&mut self, most: usize) {
        let mut updaters: Vec<(i64, ManagerIdentifier)> = self
            .entries
            .iter()
            .filter(|(identifier, _)| identifier.operation == Operation::Update)
            .map(|(identifier, entry)| (seconds(entry), identifier.clone()))
            .collect();
        let mut left = updaters.len();
        if left <= most {
            return;
        }
        updaters.sort();
        let mut first_of_version: BTreeMap<String, ManagerIdentifier> = BTreeMap::new();
        for (_, identifier) in updaters {
            if left <= most {
                break;
            }
            let version = self.entries[&identifier].api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, identifier);
                continue;
            };
            let bucket = ManagerIdentifier {
                manager: ANCIENT_CHANGES.to_owned(),
                operation: Operation::Update,
                api_version: version,
                subresource: String::new(),
            };
            if !self.entries.contains_key(&bucket)
                && let Some(entry) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), entry);
            }
            if identifier == bucket {
                continue;
            }
            if let Some(merged) = self.entries.remove(&identifier)
                && let Some(bucket) = self.entries.get_mut(&bucket)
            {
                bucket.set = merged.set.union(&bucket.set);
                // The later of the two: they come oldest first.
                bucket.time = merged.time;
                left -= 1;
            }
        }
    }
}

fn seconds(entry: &ManagerEntry) -> i64 {
    entry.time.map_or(0, Timestamp::as_second)
}

fn decode_entry(
    entry: &Map<String, Value>,
    index: usize,
) -> Result<(ManagerIdentifier, ManagerEntry), ManagedFieldsError> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagedFieldsError::Operation),
    };
    let api_version = text("apiVersion").to_owned();
    if api_version.is_empty() {
        return Err(ManagedFieldsError::NoApiVersion);
    }
    if text("fieldsType") != "FieldsV1" {
        let found = text("fieldsType").to_owned();
        return Err(ManagedFieldsError::FieldsType { found, index });
    }
    let time = match entry.get("time") {
        None | Some(Value::Null) => None,
        Some(time) => {
            let read = time.as_str().and_then(age::parse);
            Some(read.ok_or_else(|| ManagedFieldsError::Time {
                found: time.to_string(),
                index,
            })?)
        }
    };
    let manager = text("manager").to_owned();
    let set = match entry.get("fieldsV1") {
        None => Set::new(),
        Some(fields) => fields_v1::from_value(fields).map_err(|source| ManagedFieldsError::Fields {
            manager: manager.clone(),
            source,
        })?,
    };
    let identifier = ManagerIdentifier {
        manager,
        operation,
        api_version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.clone(),
        },
        subresource: text("subresource").to_owned(),
    };
    let entry = ManagerEntry { set, api_version, time };
    Ok((identifier, entry))
}

fn encode_entry(identifier: &ManagerIdentifier, entry: &ManagerEntry) -> Value {
    let mut out = Map::new();
    if !identifier.manager.is_empty() {
        out.insert("manager".to_owned(), json!(identifier.manager));
    }
    out.insert("operation".to_owned(), json!(identifier.operation.as_str()));
    out.insert("apiVersion".to_owned(), json!(entry.api_version));
    if let Some(time) = entry.time {
        out.insert("time".to_owned(), json!(age::rfc3339(time)));
    }
    out.insert("fieldsType".to_owned(), json!("FieldsV1"));
    out.insert("fieldsV1".to_owned(), fields_v1::to_value(&entry.set));
    if !identifier.subresource.is_empty() {
        out.insert("subresource".to_owned(), json!(identifier.subresource));
    }
    Value::Object(out)
}
