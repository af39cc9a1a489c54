//! From JSON Schema, as OpenAPI v3 documents and CustomResourceDefinitions write it, to the model of
//! [`umbra_apimachinery::schema`].
//!
//! Not modelled, because Kubernetes gives them no meaning beyond validation that is rare: `not`, `oneOf`, `anyOf`,
//! `allOf` of value validations, `patternProperties`. An object that only these would refuse is accepted here and refused
//! by whoever owns the kind.

use std::sync::Arc;

use serde_json::{Map, Value};
use umbra_apimachinery::schema::{Limits, ListType, MapType, PatchStrategy, Schema, SchemaType};

/// Definition of object metadata.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// `format` of the one type that is a string or any number.
pub(crate) const QUANTITY_FORMAT: &str = "quantity";

/// How documents refer to a definition: version 3, and version 2.
const REFERENCE_PREFIXES: [&str; 2] = ["#/components/schemas/", "#/definitions/"];

/// Reads the definition `name`.
pub(crate) fn definition(name: &str, json: &Value) -> Schema {
    let mut schema = node(json);
    // These say little or nothing of what they accept; what they mean is known by name.
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" if name.contains("api.resource") => {
            schema.schema_type = SchemaType::Any;
            schema.format = Some(Arc::from(QUANTITY_FORMAT));
        }
        "IntOrString" => schema.schema_type = SchemaType::IntOrString,
        "RawExtension" | "FieldsV1" | "Patch" if name.starts_with("io.k8s.apimachinery.") => {
            schema.preserve_unknown_fields = true;
        }
        _ => {}
    }
    schema
}

/// Reads a schema that is not a definition by itself.
pub(crate) fn node(json: &Value) -> Schema {
    let Value::Object(json) = json else {
        return Schema::default();
    };
    let mut schema = Schema {
        reference: reference(json),
        schema_type: schema_type(json),
        description: text(json, "description"),
        format: text(json, "format"),
        properties: properties(json),
        additional_properties: additional_properties(json),
        items: json.get("items").map(|items| Box::new(node(items))),
        required: strings(json, "required").map(str::to_owned).collect(),
        default: json.get("default").cloned(),
        nullable: flag(json, "nullable"),
        enumeration: json.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        limits: limits(json),
        list_type: list_type(json),
        map_type: match json.get("x-kubernetes-map-type").and_then(Value::as_str) {
            Some("atomic") => MapType::Atomic,
            _ => MapType::Granular,
        },
        patch_strategy: patch_strategy(json),
        preserve_unknown_fields: flag(json, "x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag(json, "x-kubernetes-embedded-resource"),
        validations: json
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
    };
    if schema.embedded_resource {
        embed(&mut schema);
    }
    schema
}

/// The definition that a node refers to: directly, or as `allOf` of one, which is how version 3 puts a default or a
/// description beside a reference.
fn reference(json: &Map<String, Value>) -> Option<Arc<str>> {
    let target = |value: &Value| {
        let target = value.get("$ref")?.as_str()?;
        REFERENCE_PREFIXES
            .iter()
            .find_map(|prefix| target.strip_prefix(prefix))
            .map(Arc::from)
    };
    // A property that is itself called `$ref` holds a schema, not a string.
    if let Some(direct) = json
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|direct| REFERENCE_PREFIXES.iter().find_map(|prefix| direct.strip_prefix(prefix)))
    {
        return Some(Arc::from(direct));
    }
    match json.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([one]) => target(one),
        _ => None,
    }
}

fn schema_type(json: &Map<String, Value>) -> SchemaType {
    if flag(json, "x-kubernetes-int-or-string") || json.get("format").and_then(Value::as_str) == Some("int-or-string") {
        return SchemaType::IntOrString;
    }
    match json.get("type").and_then(Value::as_str) {
        Some("object") => SchemaType::Object,
        Some("array") => SchemaType::Array,
        Some("string") => SchemaType::String,
        Some("integer") => SchemaType::Integer,
        Some("number") => SchemaType::Number,
        Some("boolean") => SchemaType::Boolean,
        _ if json.contains_key("properties") => SchemaType::Object,
        _ => SchemaType::Any,
    }
}

fn properties(json: &Map<String, Value>) -> std::collections::BTreeMap<String, Schema> {
    let properties = json.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(name, json)| (name.clone(), node(json)))
        .collect()
}

fn additional_properties(json: &Map<String, Value>) -> Option<Box<Schema>> {
    match json.get("additionalProperties")? {
        Value::Bool(true) => Some(Box::new(Schema {
            preserve_unknown_fields: true,
            ..Schema::default()
        })),
        schema @ Value::Object(_) => Some(Box::new(node(schema))),
        _ => None,
    }
}

fn list_type(json: &Map<String, Value>) -> ListType {
    match json.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys: Vec<String> = strings(json, "x-kubernetes-list-map-keys").map(str::to_owned).collect();
            // A map without keys cannot be told apart by any: replaced as a whole.
            if keys.is_empty() {
                ListType::Atomic
            } else {
                ListType::Map(keys)
            }
        }
        _ => ListType::Atomic,
    }
}

fn patch_strategy(json: &Map<String, Value>) -> PatchStrategy {
    let strategy = json.get("x-kubernetes-patch-strategy").and_then(Value::as_str);
    let mut strategies = strategy.unwrap_or_default().split(',').map(str::trim);
    let mut patch_strategy = PatchStrategy {
        merge_key: json
            .get("x-kubernetes-patch-merge-key")
            .and_then(Value::as_str)
            .map(str::to_owned),
        ..PatchStrategy::default()
    };
    for strategy in &mut strategies {
        match strategy {
            "merge" => patch_strategy.merge = true,
            "retainKeys" => patch_strategy.retain_keys = true,
            "replace" => patch_strategy.replace = true,
            _ => {}
        }
    }
    patch_strategy
}

fn limits(json: &Map<String, Value>) -> Option<Box<Limits>> {
    let bound = |name: &str, exclusive: &str| {
        let bound = json.get(name).and_then(Value::as_f64)?;
        Some((bound, flag(json, exclusive)))
    };
    let size = |name: &str| json.get(name).and_then(Value::as_u64);
    let limits = Limits {
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: json.get("multipleOf").and_then(Value::as_f64),
        min_length: size("minLength"),
        max_length: size("maxLength"),
        pattern: json.get("pattern").and_then(Value::as_str).map(str::to_owned),
        min_items: size("minItems"),
        max_items: size("maxItems"),
        // On what is no list, Kubernetes' own documents say it of parameters only.
        unique_items: flag(json, "uniqueItems"),
        min_properties: size("minProperties"),
        max_properties: size("maxProperties"),
    };
    (limits != Limits::default()).then(|| Box::new(limits))
}

/// `x-kubernetes-embedded-resource`: what every resource has, it has.
fn embed(schema: &mut Schema) {
    for name in ["apiVersion", "kind"] {
        schema.properties.entry(name.to_owned()).or_insert_with(|| Schema {
            schema_type: SchemaType::String,
            ..Schema::default()
        });
        schema.required.insert(name.to_owned());
    }
    schema.properties.insert("metadata".to_owned(), object_meta());
}

/// A reference to [`OBJECT_META`].
pub(crate) fn object_meta() -> Schema {
    Schema {
        reference: Some(Arc::from(OBJECT_META)),
        ..Schema::default()
    }
}

fn text(json: &Map<String, Value>, name: &str) -> Option<Arc<str>> {
    json.get(name).and_then(Value::as_str).map(Arc::from)
}

fn flag(json: &Map<String, Value>, name: &str) -> bool {
    json.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn strings<'a>(json: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    let values = json.get(name).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_str)
}
