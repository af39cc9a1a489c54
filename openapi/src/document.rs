//! The OpenAPI v3 document of one group version: what `/openapi/v3/apis/apps/v1` returns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::schema::{SchemaSet, TypeSchema};

use crate::builtin;
use crate::reader::{self, OBJECT_META};

/// Definition of list metadata.
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// Definitions that operations of every resource refer to.
const OPERATION_DEFINITIONS: [&str; 3] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
];
/// How definitions refer to each other.
pub(crate) const REFERENCE_PREFIX: &str = "#/components/schemas/";
/// The extension that says which kinds a definition defines, and which kind an operation is about.
pub(crate) const GVK_EXTENSION: &str = "x-kubernetes-group-version-kind";

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of this shape.
    #[error("the OpenAPI document cannot be read")]
    Json(#[from] serde_json::Error),
    /// The schema of a custom resource is no schema.
    #[error("the schema of {kind} has to be an object")]
    NoSchema {
        /// Whose it is.
        kind: GroupVersionKind,
    },
}

/// Definitions, as they were written and as they are understood, and the kinds among them. Cloning is shallow.
#[derive(Debug, Clone, Default)]
pub struct Document {
    components: BTreeMap<Arc<str>, Arc<RawValue>>,
    schemas: Arc<SchemaSet>,
    kinds: BTreeMap<GroupVersionKind, Arc<str>>,
}

/// A custom resource in one version.
#[derive(Debug, Clone)]
pub struct CustomResource<'a> {
    /// Its kind.
    pub kind: GroupVersionKind,
    /// The kind of its lists.
    pub list_kind: &'a str,
    /// `spec.versions[].schema.openAPIV3Schema`; `None` keeps and accepts everything.
    pub schema: Option<&'a Value>,
}

impl Document {
    /// Reads a document. Paths are not looked at.
    ///
    /// # Errors
    /// [`DocumentError::Json`].
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            components: Components,
        }
        #[derive(Deserialize, Default)]
        struct Components {
            #[serde(default)]
            schemas: BTreeMap<Arc<str>, Box<RawValue>>,
        }
        let whole: Whole = serde_json::from_slice(json)?;
        let schemas = whole.components.schemas;
        Self::from_components(schemas.into_iter().map(|(name, raw)| (name, Arc::from(raw))).collect())
    }

    /// A document of these definitions.
    ///
    /// # Errors
    /// [`DocumentError::Json`].
    pub fn from_components(components: BTreeMap<Arc<str>, Arc<RawValue>>) -> Result<Self, DocumentError> {
        let mut schemas = SchemaSet::new();
        let mut kinds = BTreeMap::new();
        for (name, raw) in &components {
            let json: Value = serde_json::from_str(raw.get())?;
            for kind in kinds_of(&json) {
                kinds.insert(kind, Arc::clone(name));
            }
            schemas.insert(Arc::clone(name), reader::definition(name, &json));
        }
        Ok(Self {
            components,
            schemas: Arc::new(schemas),
            kinds,
        })
    }

    /// Some of the definitions of this document, which go on sharing their understanding.
    pub(crate) fn subset(&self, names: &BTreeSet<Arc<str>>) -> Self {
        let components = self.components.iter().filter(|(name, _)| names.contains(*name));
        let kinds = self.kinds.iter().filter(|(_, name)| names.contains(*name));
        Self {
            components: components
                .map(|(name, raw)| (Arc::clone(name), Arc::clone(raw)))
                .collect(),
            schemas: Arc::clone(&self.schemas),
            kinds: kinds.map(|(kind, name)| (kind.clone(), Arc::clone(name))).collect(),
        }
    }

    /// The document of a group version that custom resources define. Each gets `apiVersion`, `kind` and `metadata`, and a
    /// list kind, as `k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder` does.
    ///
    /// # Errors
    /// [`DocumentError::NoSchema`].
    pub fn custom_resources(resources: &[CustomResource<'_>]) -> Result<Self, DocumentError> {
        let mut components = builtin::all().closure(OPERATION_DEFINITIONS.into_iter().chain([OBJECT_META, LIST_META]));
        for resource in resources {
            let name = model_name(&resource.kind);
            let list = list_of(resource, &name);
            components.insert(
                Arc::from(model_name(&list_kind(resource))),
                Arc::from(serde_json::value::to_raw_value(&list)?),
            );
            let schema = complete(resource)?;
            components.insert(Arc::from(name), Arc::from(serde_json::value::to_raw_value(&schema)?));
        }
        Self::from_components(components)
    }

    /// All definitions of several documents; where they differ, the first wins.
    ///
    /// # Errors
    /// [`DocumentError::Json`].
    pub fn merge<'a>(documents: impl IntoIterator<Item = &'a Self>) -> Result<Self, DocumentError> {
        let mut components: BTreeMap<Arc<str>, Arc<RawValue>> = BTreeMap::new();
        for document in documents {
            for (name, raw) in &document.components {
                components.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(raw));
            }
        }
        Self::from_components(components)
    }

    /// The schema of a kind.
    #[must_use]
    pub fn type_schema(&self, kind: &GroupVersionKind) -> Option<TypeSchema> {
        TypeSchema::new(Arc::clone(&self.schemas), self.kinds.get(kind)?)
    }

    /// The kinds that are defined here, with the names of their definitions.
    pub fn kinds(&self) -> impl Iterator<Item = (&GroupVersionKind, &str)> {
        self.kinds.iter().map(|(kind, name)| (kind, name.as_ref()))
    }

    /// The name of a kind's definition.
    #[must_use]
    pub fn definition_name(&self, kind: &GroupVersionKind) -> Option<&str> {
        self.kinds.get(kind).map(AsRef::as_ref)
    }

    /// All definitions, understood.
    #[must_use]
    pub fn schemas(&self) -> &Arc<SchemaSet> {
        &self.schemas
    }

    /// All definitions, as written.
    #[must_use]
    pub fn components(&self) -> &BTreeMap<Arc<str>, Arc<RawValue>> {
        &self.components
    }

    /// The definitions of these names and whatever they refer to.
    pub(crate) fn closure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeMap<Arc<str>, Arc<RawValue>> {
        let mut found = BTreeMap::new();
        let mut pending: Vec<&str> = Vec::new();
        let names: Vec<&str> = names.into_iter().collect();
        pending.extend(names);
        while let Some(name) = pending.pop() {
            let Some((name, raw)) = self.components.get_key_value(name) else {
                continue;
            };
            if found.insert(Arc::clone(name), Arc::clone(raw)).is_none() {
                pending.extend(references(raw.get()));
            }
        }
        found
    }
}

/// The names that a definition refers to, found in its text: a reference is a string without escapes.
fn references(raw: &str) -> impl Iterator<Item = &str> {
    raw.split(REFERENCE_PREFIX)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}

fn kinds_of(definition: &Value) -> impl Iterator<Item = GroupVersionKind> {
    let kinds = definition.get(GVK_EXTENSION).and_then(Value::as_array);
    kinds.into_iter().flatten().filter_map(|kind| {
        let text = |name| kind.get(name).and_then(Value::as_str);
        Some(GroupVersionKind::new(text("group")?, text("version")?, text("kind")?))
    })
}

/// The name under which the definition of a custom kind is published: the labels of the group reversed, then version and
/// kind (`gvkToModelName`).
fn model_name(kind: &GroupVersionKind) -> String {
    let group: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

fn list_kind(resource: &CustomResource<'_>) -> GroupVersionKind {
    resource.kind.group_version().kind(resource.list_kind)
}

/// The extension that names one kind.
pub(crate) fn gvk_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "kind": kind.kind, "version": kind.version})
}

fn complete(resource: &CustomResource<'_>) -> Result<Value, DocumentError> {
    let mut schema = match resource.schema {
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        Some(schema) => schema.clone(),
    };
    let Value::Object(top) = &mut schema else {
        return Err(DocumentError::NoSchema {
            kind: resource.kind.clone(),
        });
    };
    add_resource_properties(top, &resource.kind)?;
    top.insert(GVK_EXTENSION.to_owned(), json!([gvk_value(&resource.kind)]));
    Ok(schema)
}

/// Gives a schema what every resource has. Descriptions that the author wrote stay.
fn add_resource_properties(schema: &mut Map<String, Value>, kind: &GroupVersionKind) -> Result<(), DocumentError> {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    let Value::Object(properties) = properties else {
        return Err(DocumentError::NoSchema { kind: kind.clone() });
    };
    for (name, description) in [
        ("apiVersion", "Group and version of the schema of this object."),
        ("kind", "Kind of this object."),
    ] {
        properties
            .entry(name)
            .or_insert_with(|| json!({"type": "string", "description": description}));
    }
    let metadata = json!({
        "allOf": [{"$ref": format!("{REFERENCE_PREFIX}{OBJECT_META}")}],
        "description": "Name, labels and what else every object has.",
    });
    properties.insert("metadata".to_owned(), metadata);
    Ok(())
}

fn list_of(resource: &CustomResource<'_>, item: &str) -> Value {
    let string = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": format!("A list of {}.", resource.kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": string("Group and version of the schema of this list."),
            "kind": string("Kind of this list."),
            "items": {
                "type": "array",
                "description": "The objects.",
                "items": {"$ref": format!("{REFERENCE_PREFIX}{item}")},
            },
            "metadata": {
                "allOf": [{"$ref": format!("{REFERENCE_PREFIX}{LIST_META}")}],
                "description": "Revision and continuation of the list.",
            },
        },
        GVK_EXTENSION: [gvk_value(&list_kind(resource))],
    })
}

#[cfg(test)]
mod tests {
    use umbra_apimachinery::schema::SchemaType;

    use super::*;

    #[test]
    fn references_carry_what_stands_beside_them() {
        let document = json!({"components": {"schemas": {
            "a.A": {
                "type": "object",
                "properties": {
                    "one": {"$ref": "#/components/schemas/a.B"},
                    "two": {"allOf": [{"$ref": "#/components/schemas/a.B"}], "default": {}, "description": "d"},
                    "$ref": {"type": "string"},
                    "more": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/a.A"}},
                },
                "x-kubernetes-group-version-kind": [{"group": "a", "version": "v1", "kind": "A"}],
            },
            "a.B": {"type": "string", "default": "x"},
        }}});
        let document = Document::parse(document.to_string().as_bytes()).unwrap();
        let kind = GroupVersionKind::new("a", "v1", "A");
        let schema = document.type_schema(&kind).unwrap();
        let cursor = schema.cursor();
        let one = cursor.property("one").unwrap();
        assert_eq!(one.schema().schema_type, SchemaType::String);
        assert_eq!(one.default(), Some(&json!("x")));
        let two = cursor.property("two").unwrap();
        assert_eq!(two.default(), Some(&json!({})));
        assert_eq!(two.site().description.as_deref(), Some("d"));
        assert_eq!(
            cursor.property("$ref").unwrap().schema().schema_type,
            SchemaType::String
        );
        let recursive = cursor
            .property("more")
            .unwrap()
            .field("x")
            .unwrap()
            .field("one")
            .unwrap();
        assert_eq!(recursive.schema().schema_type, SchemaType::String);
        assert!(document.type_schema(&GroupVersionKind::new("a", "v1", "B")).is_none());
        assert!(Document::parse(b"[]x").is_err());
    }

    #[test]
    fn a_custom_resource_is_a_resource() {
        let kind = GroupVersionKind::new("stable.example.com", "v1", "CronTab");
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let resource = CustomResource {
            kind: kind.clone(),
            list_kind: "CronTabList",
            schema: Some(&schema),
        };
        let document = Document::custom_resources(&[resource]).unwrap();
        assert_eq!(document.definition_name(&kind), Some("com.example.stable.v1.CronTab"));
        let schema = document.type_schema(&kind).unwrap();
        let labels = schema
            .cursor()
            .property("metadata")
            .unwrap()
            .property("labels")
            .unwrap();
        assert_eq!(labels.schema().schema_type, SchemaType::Object);
        let list = document.type_schema(&kind.group_version().kind("CronTabList")).unwrap();
        let item = list.cursor().property("items").unwrap().items().unwrap();
        assert!(item.property("spec").is_some());
        for raw in document.components().values() {
            for name in references(raw.get()) {
                assert!(document.components().contains_key(name), "{name} is missing");
            }
        }
        let resource = CustomResource {
            kind,
            list_kind: "L",
            schema: Some(&json!(1)),
        };
        assert!(matches!(
            Document::custom_resources(&[resource]),
            Err(DocumentError::NoSchema { .. })
        ));
    }
}
