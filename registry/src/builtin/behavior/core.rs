//! Namespaces, secrets, config maps, services, events, volume claims.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Cause;

use super::{child, default, text};
use crate::generic::metadata::{forbidden, immutable, invalid};
use crate::generic::strategy::Behavior;

/// 1 MiB (`v1.MaxSecretSize`).
const LARGEST_DATA: usize = 1024 * 1024;

/// The label by which namespaces can be selected by name (`v1.LabelMetadataName`).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) struct Namespaces;

impl Behavior for Namespaces {
    fn set_defaults(&self, object: &mut Value) {
        let name = object.name().to_owned();
        if !name.is_empty() {
            let metadata = &mut object["metadata"];
            child(metadata, "labels").insert(NAME_LABEL.to_owned(), name.into());
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
        // A name that the server made was not there when defaults were set.
        self.set_defaults(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        object["spec"] = old["spec"].clone();
    }
}

/// What is wrong with `data` of a secret or a config map.
fn validate_keys(object: &Value, field: &str) -> Vec<Cause> {
    let keys = object[field].as_object().into_iter().flatten();
    keys.filter(|(key, _)| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        key.is_empty() || key.len() > 253 || !key.bytes().all(allowed) || *key == "." || key.starts_with("..")
    })
    .map(|(key, _)| {
        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        invalid(format!("{field}[{key}]"), &key.as_str().into(), why)
    })
    .collect()
}

fn size(object: &Value, field: &str) -> usize {
    let values = object[field].as_object().into_iter().flatten();
    values.map(|(_, value)| value.as_str().map_or(0, str::len)).sum()
}

fn too_large(field: &str) -> Cause {
    Cause {
        reason: "FieldValueTooLong".to_owned(),
        message: format!("Too long: may not be more than {LARGEST_DATA} bytes"),
        field: field.to_owned(),
    }
}

/// What `immutable: true` protects.
fn validate_immutable(object: &Value, old: &Value, fields: &[&str]) -> Vec<Cause> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if object["immutable"] != true {
        causes.push(forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if object[*field] != old[*field] {
            causes.push(forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
    causes
}

pub(crate) struct Secrets;

impl Behavior for Secrets {
    fn set_defaults(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        default(fields, "type", "Opaque");
        let Some(Value::Object(plain)) = fields.remove("stringData") else {
            return;
        };
        let data = child(object, "data");
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = validate_keys(object, "data");
        // Base64 takes four bytes for three.
        if size(object, "data") / 4 * 3 > LARGEST_DATA {
            causes.push(too_large("data"));
        }
        causes
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut causes: Vec<Cause> = immutable(object, old, "/type").into_iter().collect();
        causes.extend(validate_immutable(object, old, &["data"]));
        causes
    }
}

pub(crate) struct ConfigMaps;

impl Behavior for ConfigMaps {
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = validate_keys(object, "data");
        causes.extend(validate_keys(object, "binaryData"));
        let both = object["binaryData"].as_object().into_iter().flatten();
        causes.extend(
            both.filter(|(key, _)| object["data"].get(key.as_str()).is_some())
                .map(|(key, _)| invalid("data", &key.as_str().into(), "duplicate of key present in binaryData")),
        );
        if size(object, "data") + size(object, "binaryData") / 4 * 3 > LARGEST_DATA {
            causes.push(too_large(""));
        }
        causes
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        validate_immutable(object, old, &["data", "binaryData"])
    }
}

pub(crate) struct Services;

impl Behavior for Services {
    fn set_defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        default(spec, "sessionAffinity", "None");
        default(spec, "type", "ClusterIP");
        if spec["type"] != "ExternalName" {
            default(spec, "internalTrafficPolicy", "Cluster");
        }
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let number = port["port"].clone();
            if let Some(port) = port.as_object_mut() {
                default(port, "protocol", "TCP");
                default(port, "targetPort", number);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let spec = &object["spec"];
        let needs_ports = text(spec, "type") != "ExternalName" && text(spec, "clusterIP") != "None";
        if needs_ports && spec["ports"].as_array().is_none_or(Vec::is_empty) {
            return vec![crate::generic::metadata::required("spec.ports", "")];
        }
        Vec::new()
    }
}

pub(crate) struct Events;

impl Behavior for Events {
    fn validate(&self, object: &Value) -> Vec<Cause> {
        let about = text(&object["involvedObject"], "namespace");
        let own = object.namespace();
        // Events about cluster-scoped objects live in the default namespace.
        if (about.is_empty() && own == "default") || about == own || about.is_empty() {
            return Vec::new();
        }
        vec![invalid(
            "involvedObject.namespace",
            &about.into(),
            "does not match event.namespace",
        )]
    }
}

pub(crate) struct VolumeClaims;

impl Behavior for VolumeClaims {
    fn set_defaults(&self, object: &mut Value) {
        default(child(object, "spec"), "volumeMode", "Filesystem");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }
}
