//! The Kubernetes kinds that a standalone hub and a simulated child serve: schemas and resources.
//!
//! The data is made by `builtin/generate.py` from the documents of Kubernetes 1.36 (Apache-2.0): without descriptions,
//! 21 KB gzipped. It is unpacked and parsed once, on first use.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::value::RawValue;
use umbra_apimachinery::discovery::{ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use umbra_apimachinery::schema::TypeSchema;

use crate::document::Document;

static DATA: &[u8] = include_bytes!("../builtin/builtin.json.gz");

static BUILTIN: LazyLock<BuiltIn> = LazyLock::new(BuiltIn::load);

struct BuiltIn {
    all: Document,
    documents: BTreeMap<GroupVersion, Document>,
    resources: Vec<ResourceDescriptor>,
}

/// One document of all kinds.
#[must_use]
pub fn all() -> &'static Document {
    &BUILTIN.all
}

/// The document of a group version; `None` where it is not built in.
#[must_use]
pub fn document(version: &GroupVersion) -> Option<&'static Document> {
    BUILTIN.documents.get(version)
}

/// The group versions that are built in.
pub fn group_versions() -> impl Iterator<Item = &'static GroupVersion> {
    BUILTIN.documents.keys()
}

/// The schema of a kind; `None` where it is not built in.
#[must_use]
pub fn type_schema(kind: &GroupVersionKind) -> Option<TypeSchema> {
    BUILTIN.all.type_schema(kind)
}

/// All resources as discovery lists them, groups and versions in the order of a Kubernetes server.
#[must_use]
pub fn resources() -> &'static [ResourceDescriptor] {
    &BUILTIN.resources
}

impl BuiltIn {
    fn load() -> Self {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(DATA)
            .read_to_end(&mut json)
            .expect("the data in the binary is what generate.py wrote");
        let data: Data = serde_json::from_slice(&json).expect("the data in the binary is what generate.py wrote");
        let components = data.schemas.into_iter().map(|(name, raw)| (name, Arc::from(raw)));
        let all =
            Document::from_components(components.collect()).expect("the data in the binary is what generate.py wrote");
        let documents = data.documents.into_iter().map(|(path, names)| {
            let version = path.split_once('/').map_or(path.as_str(), |(_, version)| version);
            (GroupVersion::parse(version), all.subset(&names))
        });
        let documents = documents.collect();
        let resources = data.resources.into_iter().map(ResourceDescriptor::from).collect();
        Self {
            all,
            documents,
            resources,
        }
    }
}

#[derive(Deserialize)]
struct Data {
    schemas: BTreeMap<Arc<str>, Box<RawValue>>,
    documents: BTreeMap<String, BTreeSet<Arc<str>>>,
    resources: Vec<ResourceData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceData {
    group: String,
    version: String,
    name: String,
    singular: String,
    kind: String,
    namespaced: bool,
    short_names: Vec<String>,
    categories: Vec<String>,
    verbs: Vec<String>,
    subresources: Vec<SubresourceData>,
}

#[derive(Deserialize)]
struct SubresourceData {
    name: String,
    kind: GroupVersionKind,
    verbs: Vec<String>,
}

impl From<ResourceData> for ResourceDescriptor {
    fn from(data: ResourceData) -> Self {
        let subresources = data.subresources.into_iter().map(|sub| SubresourceDescriptor {
            name: sub.name,
            kind: sub.kind,
            verbs: sub.verbs,
        });
        Self {
            resource: GroupVersionResource::new(data.group, data.version, data.name),
            kind: data.kind,
            singular: data.singular,
            namespaced: data.namespaced,
            short_names: data.short_names,
            categories: data.categories,
            verbs: data.verbs,
            subresources: subresources.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use umbra_apimachinery::schema::{ListType, MapType, SchemaType};

    use super::*;

    #[test]
    fn every_resource_has_the_schema_of_its_kind() {
        assert!(resources().len() > 50);
        for resource in resources() {
            let kind = resource.group_version_kind();
            assert!(type_schema(&kind).is_some(), "{kind}");
            assert!(
                document(&kind.group_version()).unwrap().type_schema(&kind).is_some(),
                "{kind}"
            );
        }
        assert_eq!(group_versions().count(), 16);
    }

    #[test]
    fn discovery_says_what_kubernetes_says() {
        let find = |name: &str, group: &str| {
            let mut all = resources().iter();
            all.find(|one| one.resource.resource == name && one.resource.group == group)
                .unwrap()
        };
        let deployments = find("deployments", "apps");
        assert_eq!(deployments.short_names, ["deploy"]);
        assert_eq!(deployments.categories, ["all"]);
        assert_eq!(
            deployments.subresource("scale").unwrap().kind.to_string(),
            "autoscaling/v1, Kind=Scale"
        );
        let pods = find("pods", "");
        assert!(pods.namespaced && pods.serves("watch") && pods.serves("deletecollection"));
        assert_eq!(pods.subresource("exec").unwrap().verbs, ["create", "get"]);
        assert_eq!(pods.subresource("eviction").unwrap().kind.group, "policy");
        assert!(!find("namespaces", "").namespaced);
        assert_eq!(find("subjectaccessreviews", "authorization.k8s.io").verbs, ["create"]);
    }

    #[test]
    fn merge_rules_and_known_types() {
        let pod = type_schema(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
        let spec = pod.cursor().property("spec").unwrap();
        let containers = spec.property("containers").unwrap();
        assert_eq!(containers.schema().list_type, ListType::Map(vec!["name".to_owned()]));
        assert!(containers.site().patch_strategy.merge);
        assert_eq!(containers.site().patch_strategy.merge_key.as_deref(), Some("name"));
        assert_eq!(
            spec.property("nodeSelector").unwrap().schema().map_type,
            MapType::Atomic
        );
        let volumes = spec.property("volumes").unwrap();
        assert!(volumes.site().patch_strategy.retain_keys);
        let container = containers.items().unwrap();
        let ports = container.property("ports").unwrap();
        assert_eq!(
            ports.schema().list_type,
            ListType::Map(vec!["containerPort".to_owned(), "protocol".to_owned()])
        );
        assert_eq!(
            ports.items().unwrap().property("protocol").unwrap().default(),
            Some(&serde_json::json!("TCP"))
        );
        let port = container
            .property("livenessProbe")
            .and_then(|probe| probe.property("httpGet"))
            .and_then(|get| get.property("port"));
        assert_eq!(port.unwrap().schema().schema_type, SchemaType::IntOrString);
        let managed = pod
            .cursor()
            .property("metadata")
            .unwrap()
            .property("managedFields")
            .unwrap();
        let fields = managed.items().unwrap().property("fieldsV1").unwrap();
        assert!(fields.schema().preserve_unknown_fields);
    }
}
