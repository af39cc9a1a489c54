//! The OpenAPI documents that a root serves.
//!
//! Definitions are passed on as they were written; paths are generated from the resources, with what clients look for in
//! them: kubectl finds a kind's definition through the operations of its path (`kubectl explain`), and asks the `patch`
//! operation whether a server understands `fieldValidation` and strategic merge patches
//! (`k8s.io/cli-runtime/pkg/resource/query_param_verifier_v3.go`, `k8s.io/kubectl/pkg/cmd/apply/patcher.go`).
//!
//! Path keys never carry a root's prefix: kubectl looks for `/apis/apps/v1/deployments` below whatever URL it was given.
//! Only [`index`] does, in `serverRelativeURL`, because those are absolute.
//!
//! Deviations: responses and request bodies name JSON and YAML alone, parameters have no descriptions, and the deprecated
//! `/watch/` paths are left out, as they are from documents of custom resources.

mod operations;
mod v2;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupVersion;

use crate::document::Document;

pub use v2::v2;

/// The body of `GET /openapi/v3`. `prefix` is the root's, empty or starting with a slash and not ending with one; each
/// group version comes with the hash of its document.
#[must_use]
pub fn index<'a>(prefix: &str, versions: impl IntoIterator<Item = (&'a GroupVersion, &'a str)>) -> Vec<u8> {
    let paths: Map<String, Value> = versions
        .into_iter()
        .map(|(version, hash)| {
            let path = version.path();
            let url = format!("{prefix}/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    to_bytes(&json!({ "paths": paths }))
}

/// The document of one group version: its definitions, and the operations of its resources. Resources of other group
/// versions are left out.
#[must_use]
pub fn v3(document: &Document, version: &GroupVersion, resources: &[ResourceDescriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Whole<'a> {
        openapi: &'a str,
        info: Value,
        paths: Map<String, Value>,
        components: Components<'a>,
    }
    #[derive(Serialize)]
    struct Components<'a> {
        schemas: BTreeMap<&'a str, &'a RawValue>,
    }
    let mut paths = Map::new();
    for resource in resources {
        if resource.resource.group_version() == *version {
            operations::add_paths(&mut paths, document, resource);
        }
    }
    let schemas = document.components().iter();
    to_bytes(&Whole {
        openapi: "3.0.0",
        info: info(),
        paths,
        components: Components {
            schemas: schemas.map(|(name, raw)| (name.as_ref(), raw.as_ref())).collect(),
        },
    })
}

/// A hash of a document, 32 hexadecimal digits: FNV-1a of 128 bits. Clients keep documents by it; nobody gains anything
/// from a collision but the wrong text in `kubectl explain`, and only whoever writes the document could make one.
#[must_use]
pub fn hash(document: &[u8]) -> String {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = document.iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    });
    format!("{hash:032X}")
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "unversioned"})
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps with string keys and JSON values serialize")
}

#[cfg(test)]
mod tests;
