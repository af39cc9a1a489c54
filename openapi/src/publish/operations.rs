//! The paths of a resource and the operations on them, in the form of OpenAPI v3.

use serde_json::{Map, Value, json};
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupVersionKind;

use crate::document::{Document, GVK_EXTENSION, REFERENCE_PREFIX, gvk_value};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Query parameters: name and type.
type Parameters = &'static [(&'static str, &'static str)];

/// `metav1.ListOptions` without what only a watch has.
const LIST: Parameters = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
/// `metav1.CreateOptions` and `UpdateOptions`.
const WRITE: Parameters = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
/// `metav1.PatchOptions`.
const PATCHING: Parameters = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
/// `metav1.DeleteOptions`.
const DELETE: Parameters = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// How an operation looks.
struct Shape {
    /// The verb of discovery.
    verb: &'static str,
    /// The HTTP method.
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    /// What the operation's identifier starts with.
    identifier: &'static str,
    parameters: &'static [Parameters],
    /// Codes of success.
    codes: &'static [&'static str],
}

const ON_COLLECTION: [Shape; 3] = [
    Shape {
        verb: "list",
        method: "get",
        action: "list",
        identifier: "list",
        parameters: &[LIST],
        codes: &["200"],
    },
    Shape {
        verb: "create",
        method: "post",
        action: "post",
        identifier: "create",
        parameters: &[WRITE],
        codes: &["200", "201", "202"],
    },
    Shape {
        verb: "deletecollection",
        method: "delete",
        action: "deletecollection",
        identifier: "deletecollection",
        parameters: &[LIST, DELETE],
        codes: &["200"],
    },
];

const ON_OBJECT: [Shape; 4] = [
    Shape {
        verb: "get",
        method: "get",
        action: "get",
        identifier: "read",
        parameters: &[],
        codes: &["200"],
    },
    Shape {
        verb: "update",
        method: "put",
        action: "put",
        identifier: "replace",
        parameters: &[WRITE],
        codes: &["200", "201"],
    },
    Shape {
        verb: "patch",
        method: "patch",
        action: "patch",
        identifier: "patch",
        parameters: &[PATCHING],
        codes: &["200", "201"],
    },
    Shape {
        verb: "delete",
        method: "delete",
        action: "delete",
        identifier: "delete",
        parameters: &[DELETE],
        codes: &["200", "202"],
    },
];

/// Creating through a subresource: evictions, bindings, tokens.
const CREATE_BELOW_OBJECT: &Shape = &ON_COLLECTION[1];

/// What all operations on one path have in common.
struct Place<'a> {
    document: &'a Document,
    resource: &'a ResourceDescriptor,
    kind: &'a GroupVersionKind,
    verbs: &'a [String],
    /// For identifiers: `NamespacedPod`, `PodForAllNamespaces`, `NamespacedPodStatus`.
    name: String,
    /// The operation is a connection whose content no schema describes.
    connects: bool,
}

/// Adds the paths of a resource and its subresources.
pub(super) fn add_paths(paths: &mut Map<String, Value>, document: &Document, resource: &ResourceDescriptor) {
    let kind = resource.group_version_kind();
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let all = format!("/{}", resource.resource.path(None));
    let collection = format!(
        "/{}",
        resource.resource.path(resource.namespaced.then_some("{namespace}"))
    );
    let place = |name: String| Place {
        document,
        resource,
        kind: &kind,
        verbs: &resource.verbs,
        name,
        connects: false,
    };
    if resource.namespaced {
        let place = place(format!("{}ForAllNamespaces", resource.kind));
        place.add_path(paths, all, &ON_COLLECTION[..1], &[]);
    }
    let here = place(format!("{scope}{}", resource.kind));
    let namespace: &[&str] = if resource.namespaced { &["namespace"] } else { &[] };
    here.add_path(paths, collection.clone(), &ON_COLLECTION, namespace);

    let object = format!("{collection}/{{name}}");
    let in_object: &[&str] = if resource.namespaced {
        &["name", "namespace"]
    } else {
        &["name"]
    };
    here.add_path(paths, object.clone(), &ON_OBJECT, in_object);

    for subresource in &resource.subresources {
        let place = Place {
            kind: &subresource.kind,
            verbs: &subresource.verbs,
            name: format!("{scope}{}{}", resource.kind, capitalized(&subresource.name)),
            connects: subresource.kind.kind.ends_with("Options"),
            ..place(String::new())
        };
        let shapes = ON_OBJECT.iter().chain([CREATE_BELOW_OBJECT]);
        place.add_path(paths, format!("{object}/{}", subresource.name), shapes, in_object);
    }
}

impl Place<'_> {
    /// Adds a path where any of the shapes is served on it.
    fn add_path<'s>(
        &self,
        paths: &mut Map<String, Value>,
        path: String,
        shapes: impl IntoIterator<Item = &'s Shape>,
        in_path: &[&str],
    ) {
        let served = shapes
            .into_iter()
            .filter(|shape| self.verbs.iter().any(|verb| verb == shape.verb));
        let mut item: Map<String, Value> = served
            .map(|shape| (shape.method.to_owned(), self.operation(shape)))
            .collect();
        if item.is_empty() {
            return;
        }
        let mut parameters: Vec<Value> = in_path
            .iter()
            .map(|name| {
                json!({"in": "path", "name": name, "required": true, "schema": {"type": "string", "uniqueItems": true}})
            })
            .collect();
        parameters.push(query_parameter("pretty", "string"));
        item.insert("parameters".to_owned(), Value::Array(parameters));
        paths.insert(path, Value::Object(item));
    }

    fn operation(&self, shape: &Shape) -> Value {
        let version = self.resource.resource.group_version();
        let tag = tag(&version.group, &version.version);
        let mut operation = Map::new();
        let identifier = format!("{}{}{}", shape.identifier, camel_case(&tag), self.name);
        operation.insert("operationId".to_owned(), json!(identifier));
        operation.insert("tags".to_owned(), json!([tag]));
        let action = if self.connects { "connect" } else { shape.action };
        operation.insert("x-kubernetes-action".to_owned(), json!(action));
        operation.insert(GVK_EXTENSION.to_owned(), gvk_value(self.kind));
        if !self.connects {
            let mut parameters: Vec<(&str, &str)> = shape.parameters.concat();
            parameters.sort_unstable();
            parameters.dedup();
            let parameters = parameters.into_iter().map(|(name, kind)| query_parameter(name, kind));
            operation.insert("parameters".to_owned(), parameters.collect());
            if let Some(body) = self.request_body(shape) {
                operation.insert("requestBody".to_owned(), body);
            }
        }
        operation.insert("responses".to_owned(), self.responses(shape));
        Value::Object(operation)
    }

    /// The definition of the kind, where the document has it.
    fn kind_definition(&self) -> Option<&str> {
        self.document.definition_name(self.kind)
    }

    fn request_body(&self, shape: &Shape) -> Option<Value> {
        let (types, definition): (Vec<&str>, Option<&str>) = match shape.verb {
            "create" | "update" => (vec!["*/*"], self.kind_definition()),
            "delete" | "deletecollection" => (vec!["*/*"], Some(DELETE_OPTIONS)),
            "patch" => {
                let mut types = vec![
                    "application/apply-patch+yaml",
                    "application/json-patch+json",
                    "application/merge-patch+json",
                ];
                // Custom resources have no strategy to merge by, and servers refuse it for them.
                if self.kind_definition().is_some_and(|name| name.starts_with("io.k8s.")) {
                    types.push("application/strategic-merge-patch+json");
                }
                (types, Some(PATCH))
            }
            _ => return None,
        };
        let mut body = json!({"content": content(&types, definition)});
        if !shape.verb.starts_with("delete") {
            body["required"] = json!(true);
        }
        Some(body)
    }

    fn responses(&self, shape: &Shape) -> Value {
        let list = || self.document.definition_name(&self.list_kind());
        let (types, definition) = match shape.verb {
            _ if self.connects => (vec!["*/*"], None),
            "list" => (
                vec!["application/json", "application/json;stream=watch", "application/yaml"],
                list(),
            ),
            "delete" | "deletecollection" => (vec!["application/json", "application/yaml"], Some(STATUS)),
            _ => (vec!["application/json", "application/yaml"], self.kind_definition()),
        };
        let codes = if self.connects { &["200"][..] } else { shape.codes };
        let mut responses: Map<String, Value> = codes
            .iter()
            .map(|code| {
                let description = match *code {
                    "201" => "Created",
                    "202" => "Accepted",
                    _ => "OK",
                };
                let response = json!({"description": description, "content": content(&types, definition)});
                ((*code).to_owned(), response)
            })
            .collect();
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }

    fn list_kind(&self) -> GroupVersionKind {
        self.kind.group_version().kind(format!("{}List", self.kind.kind))
    }
}

fn content(types: &[&str], definition: Option<&str>) -> Value {
    let schema = match definition {
        Some(definition) => json!({"schema": {"$ref": format!("{REFERENCE_PREFIX}{definition}")}}),
        None => json!({"schema": {"type": "string"}}),
    };
    types.iter().map(|name| ((*name).to_owned(), schema.clone())).collect()
}

fn query_parameter(name: &str, kind: &str) -> Value {
    json!({"in": "query", "name": name, "schema": {"type": kind, "uniqueItems": true}})
}

/// `core_v1`, `apps_v1`, `rbacAuthorization_v1`: the first label of the group and the next ones in camel case, without the
/// domain `k8s.io`.
fn tag(group: &str, version: &str) -> String {
    if group.is_empty() {
        return format!("core_{version}");
    }
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut labels = group.split('.');
    let first = labels.next().unwrap_or_default().to_owned();
    let group = labels.fold(first, |name, label| name + &capitalized(label));
    format!("{group}_{version}")
}

/// `core_v1` as part of an identifier: `CoreV1`.
fn camel_case(tag: &str) -> String {
    tag.split('_').map(capitalized).collect()
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + characters.as_str())
        .unwrap_or_default()
}
