//! `metav1.ObjectMeta`: reading it from serialized objects without parsing the rest, and reaching into parsed ones.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The metadata that serving, selecting and garbage collecting look at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMetadata {
    /// The name, unique within the namespace.
    pub name: String,
    /// What the server makes a name of where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// The namespace; empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Unique in time and space.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The revision of the last write.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of the desired state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339; set once deletion is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// For selecting.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For everything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who the object depends on.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who has to agree before the object goes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub finalizers: Vec<String>,
}

/// `metav1.OwnerReference`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// UID of the owner.
    pub uid: String,
    /// Whether it is the managing controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner waits for this object in foreground deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// Go writes lists and maps that are nil as `null`.
pub(crate) fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Type and metadata of an object; everything else is skipped while parsing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialObject<'a> {
    /// Group and version.
    #[serde(borrow)]
    pub api_version: Cow<'a, str>,
    /// Kind.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Metadata.
    pub metadata: ObjectMetadata,
}

impl<'a> PartialObject<'a> {
    /// Reads type and metadata of a serialized object.
    ///
    /// # Errors
    /// Where `json` is not a JSON object with well-formed metadata.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// Reaches into the metadata of a parsed object.
pub trait ObjectAccess {
    /// The string at `metadata.{field}`, or the empty string.
    fn metadata_str(&self, field: &str) -> &str;
    /// `metadata.name`, or the empty string.
    fn name(&self) -> &str {
        self.metadata_str("name")
    }
    /// `metadata.namespace`, or the empty string.
    fn namespace(&self) -> &str {
        self.metadata_str("namespace")
    }
    /// `metadata.uid`, or the empty string.
    fn uid(&self) -> &str {
        self.metadata_str("uid")
    }
    /// `metadata.resourceVersion`, or the empty string.
    fn resource_version(&self) -> &str {
        self.metadata_str("resourceVersion")
    }
    /// The label `key`.
    fn label(&self, key: &str) -> Option<&str>;
    /// The annotation `key`.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// `metadata` as an object, made where it is missing or of another type.
    fn metadata_mut(&mut self) -> &mut serde_json::Map<String, Value>;
    /// Sets `metadata.{field}`.
    fn set_metadata(&mut self, field: &str, value: impl Into<Value>) {
        self.metadata_mut().insert(field.to_owned(), value.into());
    }
}

impl ObjectAccess for Value {
    fn metadata_str(&self, field: &str) -> &str {
        self["metadata"][field].as_str().unwrap_or_default()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self["metadata"]["labels"][key].as_str()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self["metadata"]["annotations"][key].as_str()
    }

    fn metadata_mut(&mut self) -> &mut serde_json::Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(serde_json::Map::new());
        }
        let metadata = self
            .as_object_mut()
            .expect("made an object above")
            .entry("metadata")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        if !metadata.is_object() {
            *metadata = Value::Object(serde_json::Map::new());
        }
        metadata.as_object_mut().expect("made an object above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_read_without_the_rest() {
        let text =
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":null,"uid":"u"},"spec":{"x":[1]}}"#;
        let partial = PartialObject::parse(text).unwrap();
        assert_eq!((partial.kind.as_ref(), partial.metadata.name.as_str()), ("Pod", "a"));
        assert!(partial.metadata.labels.is_empty());
        assert!(PartialObject::parse(b"[]").is_err() || PartialObject::parse(b"[]").unwrap().metadata.name.is_empty());
    }

    #[test]
    fn metadata_is_made_where_it_is_missing() {
        let mut object = json!({"metadata": null});
        object.set_metadata("name", "a");
        assert_eq!(object.name(), "a");
        assert_eq!(object.label("x"), None);
    }
}
