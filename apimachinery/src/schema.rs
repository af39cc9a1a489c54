//! The schema model that patches, server-side apply, defaulting, pruning and validation walk.
//!
//! A [`SchemaSet`] is what one OpenAPI v3 document (or one CRD version) boils down to: named definitions whose nodes
//! carry only what Kubernetes gives meaning to. Kubernetes schemas are recursive (`JSONSchemaProps`), so a node never
//! owns another definition; it names it, and a [`SchemaCursor`] resolves names while it walks. A cursor is two
//! references wide and freely copied.
//!
//! Source of the rules: KEP-2896 (OpenAPI v3), the `x-kubernetes-*` extensions of
//! `k8s.io/kube-openapi/pkg/idl`, and `k8s.io/kube-openapi/pkg/schemaconv` for how they map to merge behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

/// What a node accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchemaType {
    /// A JSON object: with `properties`, or a map where `additional_properties` is given.
    Object,
    /// A JSON array of `items`.
    Array,
    /// A string.
    String,
    /// A 64-bit integer.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    /// Nothing is said: any value, walked as "deduced" (maps granular, lists atomic).
    #[default]
    Any,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole. What an absent extension means.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// A map keyed by these fields (`x-kubernetes-list-map-keys`), never empty.
    Map(Vec<String>),
}

/// `x-kubernetes-map-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapType {
    /// Each field is owned on its own. What an absent extension means.
    #[default]
    Granular,
    /// Replaced as a whole.
    Atomic,
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`, for strategic merge patch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// `merge` is named: lists are merged instead of replaced.
    pub merge: bool,
    /// `retainKeys` is named: keys absent from `$retainKeys` are dropped.
    pub retain_keys: bool,
    /// `replace` is named for a map.
    pub replace: bool,
    /// The field that identifies an element of a merged list of objects.
    pub merge_key: Option<String>,
}

/// One node of a schema: a definition, a property, an item.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// Another definition of the same set that says what this node is. Where it is set, only `default`, `description`,
    /// `nullable` and `patch_strategy` of this node count beside it.
    pub reference: Option<Arc<str>>,
    /// What the node accepts.
    pub schema_type: SchemaType,
    /// Text for `kubectl explain`.
    pub description: Option<Arc<str>>,
    /// `format`, such as `int32`, `date-time`, `byte`.
    pub format: Option<Arc<str>>,
    /// Named fields of an object.
    pub properties: BTreeMap<String, Schema>,
    /// Schema of all other fields.
    pub additional_properties: Option<Box<Schema>>,
    /// Schema of list elements.
    pub items: Option<Box<Schema>>,
    /// Fields that have to be there.
    pub required: BTreeSet<String>,
    /// The value where the field is absent.
    pub default: Option<Value>,
    /// Whether `null` is a value of its own.
    pub nullable: bool,
    /// The allowed values; empty allows all.
    pub enumeration: Vec<Value>,
    /// Bounds and patterns of scalars and sizes.
    pub limits: Option<Box<Limits>>,
    /// How a list is merged by server-side apply.
    pub list_type: ListType,
    /// How a map or struct is merged by server-side apply.
    pub map_type: MapType,
    /// How strategic merge patch merges.
    pub patch_strategy: PatchStrategy,
    /// `x-kubernetes-preserve-unknown-fields`: what is not declared is kept.
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`: apiVersion, kind and metadata are understood here.
    pub embedded_resource: bool,
    /// `x-kubernetes-validations`: CEL rules, as written.
    pub validations: Vec<Value>,
}

/// JSON Schema bounds that Kubernetes structural schemas allow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// `minimum`, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `maximum`, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `minLength` in code points.
    pub min_length: Option<u64>,
    /// `maxLength` in code points.
    pub max_length: Option<u64>,
    /// `pattern`, unanchored as in ECMA 262.
    pub pattern: Option<String>,
    /// `minItems`.
    pub min_items: Option<u64>,
    /// `maxItems`.
    pub max_items: Option<u64>,
    /// `uniqueItems`.
    pub unique_items: bool,
    /// `minProperties`.
    pub min_properties: Option<u64>,
    /// `maxProperties`.
    pub max_properties: Option<u64>,
}

/// Named definitions that may refer to each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SchemaSet {
    definitions: BTreeMap<Arc<str>, Schema>,
}

impl SchemaSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a definition.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, schema: Schema) {
        self.definitions.insert(name.into(), schema);
    }

    /// The definition of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Schema> {
        self.definitions.get(name)
    }

    /// All definitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Schema)> {
        self.definitions.iter()
    }

    /// A cursor at the definition of that name.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<SchemaCursor<'_>> {
        self.get(name).map(|node| SchemaCursor {
            set: self,
            node,
            site: node,
        })
    }
}

/// The schema of one kind: a set and the name of its definition there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TypeSchema {
    set: Arc<SchemaSet>,
    name: Arc<str>,
}

impl TypeSchema {
    /// The kind that `name` defines in `set`; `None` where there is no such definition.
    #[must_use]
    pub fn new(set: Arc<SchemaSet>, name: &str) -> Option<Self> {
        let (name, _) = set.definitions.get_key_value(name)?;
        let name = Arc::clone(name);
        Some(Self { set, name })
    }

    /// A cursor at the top of the kind.
    #[must_use]
    pub fn cursor(&self) -> SchemaCursor<'_> {
        self.set
            .cursor(&self.name)
            .expect("the definition was there when the type was made, and sets do not change")
    }

    /// The definition's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A place in a schema, with references resolved.
#[derive(Debug, Clone, Copy)]
pub struct SchemaCursor<'a> {
    set: &'a SchemaSet,
    /// The resolved node.
    node: &'a Schema,
    /// The node that was written at this place: the same, or one that refers to it.
    site: &'a Schema,
}

/// Longer chains of references than this do not occur; a cycle of bare references would never end.
const LONGEST_REFERENCE_CHAIN: usize = 16;

impl<'a> SchemaCursor<'a> {
    /// A cursor at a node that is not itself a definition of `set`.
    #[must_use]
    pub fn at(set: &'a SchemaSet, site: &'a Schema) -> Self {
        let mut node = site;
        for _ in 0..LONGEST_REFERENCE_CHAIN {
            match node.reference.as_deref().and_then(|name| set.get(name)) {
                Some(next) => node = next,
                None => break,
            }
        }
        Self { set, node, site }
    }

    /// The resolved node: types, properties, items, merge behaviour of the value.
    #[must_use]
    pub fn schema(&self) -> &'a Schema {
        self.node
    }

    /// The node as written at this place: `default`, `description`, `patch_strategy` of the field.
    #[must_use]
    pub fn site(&self) -> &'a Schema {
        self.site
    }

    /// The default of the field, or of the type it refers to.
    #[must_use]
    pub fn default(&self) -> Option<&'a Value> {
        self.site.default.as_ref().or(self.node.default.as_ref())
    }

    /// Whether `null` is allowed as a value.
    #[must_use]
    pub fn nullable(&self) -> bool {
        self.site.nullable || self.node.nullable
    }

    /// The declared field `name`, not falling back to `additionalProperties`.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<SchemaCursor<'a>> {
        self.node.properties.get(name).map(|site| Self::at(self.set, site))
    }

    /// The field `name`: declared, or what `additionalProperties` says of any other.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<SchemaCursor<'a>> {
        self.property(name).or_else(|| self.additional_properties())
    }

    /// The schema of undeclared fields.
    #[must_use]
    pub fn additional_properties(&self) -> Option<SchemaCursor<'a>> {
        self.node
            .additional_properties
            .as_deref()
            .map(|site| Self::at(self.set, site))
    }

    /// The schema of list elements.
    #[must_use]
    pub fn items(&self) -> Option<SchemaCursor<'a>> {
        self.node.items.as_deref().map(|site| Self::at(self.set, site))
    }
}
