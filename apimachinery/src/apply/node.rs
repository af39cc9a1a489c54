//! What the schema says of one place, as merging needs to know it.
//!
//! Three kinds of places have no schema of their own: what is *deduced* from the value (maps granular, lists atomic),
//! what is *untyped* (everything atomic), and what nothing allows. The API server knows the same three.
//!
//! Source: `structured-merge-diff/v6/typed/parser.go` (`DeducedParseableType`), `typed/helpers.go` (`deduceAtom`,
//! `listItemToPathElement`) and `kube-openapi/pkg/schemaconv/openapi.go`.

use serde_json::Value;

use super::path::{KeyField, PathElement};
use super::value::PathValue;
use crate::schema::{ListType, MapType, SchemaCursor, SchemaType, TypeSchema};

/// `runtime.RawExtension` says `type: object` and means any JSON, replaced as a whole.
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
/// `resource.Quantity` says `type: string` and takes numbers too.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// A place in a schema.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// A place with a schema.
    Typed {
        /// The schema.
        cursor: SchemaCursor<'a>,
        /// `x-kubernetes-preserve-unknown-fields` is said here or further up in the same definition.
        preserve: bool,
    },
    /// Any value: maps granular, lists atomic.
    Deduced,
    /// Any value, replaced as a whole.
    Untyped,
    /// Any scalar.
    AnyScalar,
    /// No value belongs here.
    Nothing,
}

/// What a value can be to a walker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Map,
    Scalar,
    List,
}

/// The shapes that a place allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shapes {
    map: bool,
    scalar: bool,
    list: bool,
}

impl Shapes {
    const NONE: Self = Self::only(None);
    const ALL: Self = Self {
        map: true,
        scalar: true,
        list: true,
    };

    const fn only(shape: Option<Shape>) -> Self {
        Self {
            map: matches!(shape, Some(Shape::Map)),
            scalar: matches!(shape, Some(Shape::Scalar)),
            list: matches!(shape, Some(Shape::List)),
        }
    }

    fn allows(self, shape: Shape) -> bool {
        match shape {
            Shape::Map => self.map,
            Shape::Scalar => self.scalar,
            Shape::List => self.list,
        }
    }

    /// The shape that a walker takes: a map before a scalar before a list.
    pub(super) fn first(self) -> Option<Shape> {
        [Shape::Map, Shape::Scalar, Shape::List]
            .into_iter()
            .find(|shape| self.allows(*shape))
    }
}

/// What the items of a list are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListRule<'a> {
    Atomic,
    Set,
    Keys(&'a [String]),
}

impl<'a> Node<'a> {
    /// The top of a kind; deduced where there is no schema.
    #[must_use]
    pub fn root(schema: Option<&'a TypeSchema>) -> Self {
        schema.map_or(Self::Deduced, |schema| Self::of(schema.cursor(), false))
    }

    fn of(cursor: SchemaCursor<'a>, inherited: bool) -> Self {
        let site = cursor.site();
        match site.reference.as_deref() {
            Some(RAW_EXTENSION) => return Self::Untyped,
            Some(QUANTITY) => return Self::AnyScalar,
            _ => {}
        }
        // A definition of its own starts anew: what its user preserves does not reach into it.
        let inherited = inherited && site.reference.is_none();
        let preserve = inherited || site.preserve_unknown_fields || cursor.schema().preserve_unknown_fields;
        Self::Typed { cursor, preserve }
    }

    /// The shapes that are allowed here.
    fn shapes(self) -> Shapes {
        match self {
            Self::Typed { cursor, .. } => match cursor.schema().schema_type {
                SchemaType::Object => Shapes::only(Some(Shape::Map)),
                SchemaType::Array => Shapes::only(Some(Shape::List)),
                SchemaType::Any => Shapes::ALL,
                SchemaType::String
                | SchemaType::Integer
                | SchemaType::Number
                | SchemaType::Boolean
                | SchemaType::IntOrString => Shapes::only(Some(Shape::Scalar)),
            },
            Self::Deduced | Self::Untyped => Shapes::ALL,
            Self::AnyScalar => Shapes::only(Some(Shape::Scalar)),
            Self::Nothing => Shapes::NONE,
        }
    }

    /// The shapes in question for `value`: its own where that is allowed, otherwise all that are.
    pub(super) fn shapes_for(self, value: Option<&Value>) -> Shapes {
        let allowed = self.shapes();
        let own = match value {
            None | Some(Value::Null) => return allowed,
            Some(Value::Object(_)) => Shape::Map,
            Some(Value::Array(_)) => Shape::List,
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Shape::Scalar,
        };
        if allowed.allows(own) {
            Shapes::only(Some(own))
        } else {
            allowed
        }
    }

    /// How a walker takes `value`.
    pub(super) fn shape_for(self, value: &Value) -> Option<Shape> {
        self.shapes_for(Some(value)).first()
    }

    /// Whether a map here is replaced as a whole.
    pub(super) fn map_is_atomic(self) -> bool {
        match self {
            Self::Typed { cursor, .. } => {
                cursor.schema().map_type == MapType::Atomic || cursor.site().map_type == MapType::Atomic
            }
            Self::Untyped => true,
            Self::Deduced | Self::AnyScalar | Self::Nothing => false,
        }
    }

    /// Whether `name` is a declared field, in contrast to an entry of a map.
    pub(super) fn declares(self, name: &str) -> bool {
        matches!(self, Self::Typed { cursor, .. } if cursor.schema().properties.contains_key(name))
    }

    /// The place of the field `name`; [`Node::Nothing`] where there is no such field.
    pub(super) fn field(self, name: &str) -> Self {
        match self {
            Self::Typed { cursor, preserve } => match cursor.field(name) {
                Some(field) => Self::of(field, preserve),
                // An object that declares nothing is a free-form object.
                None if preserve || cursor.schema().properties.is_empty() => Self::Deduced,
                None => Self::Nothing,
            },
            Self::Deduced => Self::Deduced,
            Self::Untyped => Self::Untyped,
            Self::AnyScalar | Self::Nothing => Self::Nothing,
        }
    }

    /// The place of the items of a list.
    pub(super) fn items(self) -> Self {
        match self {
            Self::Typed { cursor, preserve } => cursor.items().map_or(Self::Untyped, |items| Self::of(items, preserve)),
            Self::Deduced | Self::Untyped => Self::Untyped,
            Self::AnyScalar | Self::Nothing => Self::Nothing,
        }
    }

    /// How a list here is merged.
    pub(super) fn list_rule(self) -> ListRule<'a> {
        match self {
            Self::Typed { cursor, .. } => match &cursor.schema().list_type {
                ListType::Atomic => ListRule::Atomic,
                ListType::Set => ListRule::Set,
                ListType::Map(keys) => ListRule::Keys(keys),
            },
            Self::Deduced | Self::Untyped | Self::AnyScalar | Self::Nothing => ListRule::Atomic,
        }
    }

    /// Whether a map here holds only entries whose type is deduced, so that nothing in it can change its type.
    pub(super) fn is_deduced_map(self) -> bool {
        match self {
            Self::Typed { cursor, .. } => {
                let entries_are_deduced = cursor
                    .additional_properties()
                    .is_none_or(|entries| entries.schema().schema_type == SchemaType::Any);
                cursor.schema().properties.is_empty() && entries_are_deduced
            }
            Self::Deduced => true,
            Self::Untyped | Self::AnyScalar | Self::Nothing => false,
        }
    }

    /// The default of the field `name`, for keys that an item leaves out.
    fn field_default(self, name: &str) -> Option<&'a Value> {
        match self {
            Self::Typed { cursor, .. } => cursor.property(name)?.default(),
            Self::Deduced | Self::Untyped | Self::AnyScalar | Self::Nothing => None,
        }
    }

    /// What tells `item` of the list here apart from the other items.
    ///
    /// # Errors
    ///
    /// Where the item cannot be an item of such a list; the text says why.
    pub(super) fn item_element(self, item: &Value) -> Result<PathElement, String> {
        match self.list_rule() {
            ListRule::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            ListRule::Set => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::value(scalar.clone())),
            },
            ListRule::Keys(keys) => self.keyed_element(keys, item),
        }
    }

    fn keyed_element(self, keys: &[String], item: &Value) -> Result<PathElement, String> {
        let Value::Object(map) = item else {
            return Err(if item.is_null() {
                "associative list with keys may not have a null element".to_owned()
            } else {
                "associative list with keys may not have non-map elements".to_owned()
            });
        };
        let items = self.items();
        let mut fields: Vec<KeyField> = keys
            .iter()
            .filter_map(|key| {
                // A key that is neither there nor defaulted is left out: that makes a different item.
                let value = map.get(key).or_else(|| items.field_default(key))?;
                Some(KeyField {
                    name: key.as_str().into(),
                    value: PathValue(value.clone()),
                })
            })
            .collect();
        if fields.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default \
                 values for any key fields)"
            ));
        }
        fields.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(PathElement::Key(fields.into()))
    }
}
