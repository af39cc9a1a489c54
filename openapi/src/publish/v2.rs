//! `/openapi/v2`: one Swagger 2.0 document of a whole root, for the aggregation layer of kube-apiserver and for kubectl
//! before 1.27.
//!
//! Swagger has no way to say some of what v3 says; the conversions are those of Kubernetes' own v2 documents
//! (`k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2`, `k8s.io/kube-openapi/pkg/schemaconv`): a reference beside
//! anything else loses the rest but its description, alternatives become the first type that clients understand, and
//! `nullable` is not said. kube-apiserver serves the same as gnostic protobuf too; this crate does not.

use serde_json::{Map, Value, json};
use umbra_apimachinery::discovery::ResourceDescriptor;

use super::{info, operations, to_bytes};
use crate::document::{Document, REFERENCE_PREFIX};

/// How definitions refer to each other in v2.
const V2_PREFIX: &str = "#/definitions/";

/// The document of all these definitions and resources.
#[must_use]
pub fn v2<'a>(documents: impl IntoIterator<Item = &'a Document>, resources: &[ResourceDescriptor]) -> Vec<u8> {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for document in documents {
        for (name, raw) in document.components() {
            if !definitions.contains_key(name.as_ref())
                && let Ok(definition) = serde_json::from_str(raw.get())
            {
                definitions.insert(name.to_string(), schema(definition));
            }
        }
        for resource in resources {
            // A resource is described by the document that defines its kind.
            if document.definition_name(&resource.group_version_kind()).is_some() {
                operations::add_paths(&mut paths, document, resource);
            }
        }
    }
    let paths: Map<String, Value> = paths.into_iter().map(|(path, item)| (path, path_item(item))).collect();
    to_bytes(&json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions}))
}

/// A schema without what v2 does not know.
fn schema(value: Value) -> Value {
    let Value::Object(mut fields) = value else {
        return value;
    };
    if let Some(reference) = reference_of(&fields) {
        let mut result = json!({"$ref": reference.replacen(REFERENCE_PREFIX, V2_PREFIX, 1)});
        if let Some(description) = fields.remove("description") {
            result["description"] = description;
        }
        return result;
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        fields.insert("format".to_owned(), json!("int-or-string"));
        fields.remove("type");
    }
    let alternatives = fields.contains_key("oneOf") || fields.contains_key("anyOf");
    for unknown in ["oneOf", "anyOf", "allOf", "not", "nullable", "default"] {
        fields.remove(unknown);
    }
    if !fields.contains_key("type") && (alternatives || fields.get("format") == Some(&json!("int-or-string"))) {
        fields.insert("type".to_owned(), json!("string"));
    }
    for (name, field) in &mut fields {
        match name.as_str() {
            "properties" => {
                if let Value::Object(properties) = field {
                    for property in properties.values_mut() {
                        *property = schema(property.take());
                    }
                }
            }
            "items" => *field = schema(field.take()),
            "additionalProperties" if field.is_object() => *field = schema(field.take()),
            _ => {}
        }
    }
    Value::Object(fields)
}

fn reference_of(schema: &Map<String, Value>) -> Option<String> {
    let direct = schema.get("$ref").and_then(Value::as_str);
    let only = || match schema.get("allOf")?.as_array()?.as_slice() {
        [one] => one.get("$ref")?.as_str(),
        _ => None,
    };
    direct.or_else(only).map(str::to_owned)
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let convert = |(key, value): (String, Value)| match key.as_str() {
        "parameters" => (key, parameters(value)),
        _ => (key, operation(value)),
    };
    Value::Object(item.into_iter().map(convert).collect())
}

fn operation(value: Value) -> Value {
    let Value::Object(mut operation) = value else {
        return value;
    };
    let mut all = operation.remove("parameters").map_or_else(|| json!([]), parameters);
    if let Some(body) = operation.remove("requestBody") {
        let (types, schema) = media_types(&body);
        let required = body.get("required").cloned().unwrap_or(json!(false));
        if let Value::Array(all) = &mut all {
            all.push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
        }
        operation.insert("consumes".to_owned(), types);
    }
    operation.insert("parameters".to_owned(), all);
    let responses = operation.remove("responses");
    if let Some(Value::Object(responses)) = responses {
        let mut converted = Map::new();
        for (code, response) in responses {
            let mut result = json!({"description": response.get("description").cloned().unwrap_or(json!(""))});
            if response.get("content").is_some() {
                let (types, schema) = media_types(&response);
                result["schema"] = schema;
                operation.insert("produces".to_owned(), types);
            }
            converted.insert(code, result);
        }
        operation.insert("responses".to_owned(), Value::Object(converted));
    }
    Value::Object(operation)
}

/// The media types of a body, and its schema.
fn media_types(body: &Value) -> (Value, Value) {
    let content = body.get("content").and_then(Value::as_object);
    let types = content.into_iter().flatten().map(|(name, _)| json!(name)).collect();
    let first = content.into_iter().flatten().next();
    let schema_of = |(_, one): (&String, &Value)| one.get("schema").cloned();
    (types, first.and_then(schema_of).map_or_else(|| json!({}), schema))
}

/// Parameters whose type stands in them instead of in a schema.
fn parameters(value: Value) -> Value {
    let Value::Array(parameters) = value else {
        return value;
    };
    let flatten = |mut parameter: Value| {
        if let (Some(Value::Object(schema)), Value::Object(fields)) = (parameter.get("schema").cloned(), &mut parameter)
        {
            fields.remove("schema");
            fields.extend(schema);
        }
        parameter
    };
    parameters.into_iter().map(flatten).collect()
}
