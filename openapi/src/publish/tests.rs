use umbra_apimachinery::gvk::GroupVersionKind;

use super::*;
use crate::{CustomResource, builtin};

fn builtin_v3(version: &str) -> Value {
    let version = GroupVersion::parse(version);
    let document = builtin::document(&version).unwrap();
    serde_json::from_slice(&v3(document, &version, builtin::resources())).unwrap()
}

/// What kubectl's `queryParamVerifierV3` looks for.
fn patch_parameters(document: &Value, kind: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().unwrap().values();
    let mut operations = paths.filter_map(|path| path.get("patch"));
    let patch = operations
        .find(|patch| patch["x-kubernetes-group-version-kind"] == *kind)
        .unwrap();
    let names = patch["parameters"].as_array().unwrap().iter();
    names
        .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn kubectl_finds_what_it_looks_for() {
    let document = builtin_v3("apps/v1");
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(
        patch_parameters(&document, &kind),
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    // `kubectl explain` goes from the path of the resource to its kind, and from there to the definition.
    let operation = &document["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(operation["x-kubernetes-group-version-kind"], kind);
    assert_eq!(operation["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let definition = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(definition["x-kubernetes-group-version-kind"], json!([kind]));
    // `kubectl apply` asks whether it may send a strategic merge patch.
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(
        scale["requestBody"]["content"]["*/*"]["schema"]["$ref"],
        "#/components/schemas/io.k8s.api.autoscaling.v1.Scale"
    );
}

#[test]
fn paths_follow_scope_and_verbs() {
    let document = builtin_v3("v1");
    let paths = document["paths"].as_object().unwrap();
    let methods = |path: &str| {
        let keys = paths[path].as_object().unwrap().keys();
        keys.filter(|key| *key != "parameters").cloned().collect::<Vec<_>>()
    };
    assert_eq!(methods("/api/v1/pods"), ["get"]);
    assert_eq!(
        methods("/api/v1/namespaces/{namespace}/pods"),
        ["delete", "get", "post"]
    );
    assert_eq!(
        methods("/api/v1/namespaces/{namespace}/pods/{name}"),
        ["delete", "get", "patch", "put"]
    );
    assert_eq!(
        methods("/api/v1/namespaces/{namespace}/pods/{name}/exec"),
        ["get", "post"]
    );
    assert_eq!(methods("/api/v1/namespaces/{namespace}/pods/{name}/eviction"), ["post"]);
    assert_eq!(methods("/api/v1/namespaces"), ["get", "post"]);
    assert_eq!(methods("/api/v1/nodes/{name}/status"), ["get", "patch", "put"]);
    assert!(!paths.contains_key("/api/v1/bindings"), "nothing lists bindings");
    let reviews = builtin_v3("authorization.k8s.io/v1");
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(
        reviews["paths"][path]["post"]["operationId"],
        "createAuthorizationV1SubjectAccessReview"
    );
}

#[test]
fn every_reference_resolves() {
    for version in builtin::group_versions() {
        let document = builtin::document(version).unwrap();
        let text = String::from_utf8(v3(document, version, builtin::resources())).unwrap();
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(document.components().contains_key(name), "{version}: {name}");
        }
    }
}

#[test]
fn the_index_points_below_the_root() {
    let (core, apps) = (GroupVersion::new("", "v1"), GroupVersion::new("apps", "v1"));
    let prefix = "/apis/umbra.dev/v1alpha1/views/all/proxy";
    let body = index(prefix, [(&core, "AA"), (&apps, "BB")]);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"paths": {
            "api/v1": {"serverRelativeURL": format!("{prefix}/openapi/v3/api/v1?hash=AA")},
            "apis/apps/v1": {"serverRelativeURL": format!("{prefix}/openapi/v3/apis/apps/v1?hash=BB")},
        }})
    );
}

#[test]
fn hashes_are_those_of_the_algorithm() {
    // From the reference vectors of FNV.
    assert_eq!(hash(b""), "6C62272E07BB014262B821756295C58D");
    assert_eq!(hash(b"a"), "D228CB696F1A8CAF78912B704E4A8964");
}

#[test]
fn custom_resources_are_published_like_others() {
    let version = GroupVersion::new("example.com", "v1");
    let schema = json!({"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": true}}});
    let custom = CustomResource {
        kind: GroupVersionKind::new("example.com", "v1", "Widget"),
        list_kind: "WidgetList",
        schema: Some(&schema),
    };
    let document = Document::custom_resources(&[custom]).unwrap();
    let resource = ResourceDescriptor {
        resource: version.resource("widgets"),
        kind: "Widget".to_owned(),
        verbs: ["get", "list", "patch"].map(str::to_owned).to_vec(),
        ..ResourceDescriptor::default()
    };
    let published: Value = serde_json::from_slice(&v3(&document, &version, std::slice::from_ref(&resource))).unwrap();
    let patch = &published["paths"]["/apis/example.com/v1/widgets/{name}"]["patch"]["requestBody"]["content"];
    assert!(patch["application/apply-patch+yaml"].is_object());
    assert!(patch["application/strategic-merge-patch+json"].is_null());
    assert_eq!(
        published["paths"]["/apis/example.com/v1/widgets"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            ["$ref"],
        "#/components/schemas/com.example.v1.WidgetList"
    );
    // What is published can be read again.
    let again = Document::parse(&v3(&document, &version, &[resource])).unwrap();
    assert_eq!(again.schemas(), document.schemas());
}

#[test]
fn version_2_says_nothing_that_it_cannot() {
    let versions = ["v1", "apps/v1"].map(GroupVersion::parse);
    let documents = versions.iter().map(|version| builtin::document(version).unwrap());
    let document: Value = serde_json::from_slice(&v2(documents, builtin::resources())).unwrap();
    let text = document.to_string();
    for unknown in [
        "components/schemas",
        "\"oneOf\"",
        "\"allOf\"",
        "requestBody",
        "\"content\"",
    ] {
        assert!(!text.contains(unknown), "{unknown}");
    }
    let definitions = &document["definitions"];
    assert_eq!(
        definitions["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]["$ref"],
        "#/definitions/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert_eq!(
        definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"],
        "string"
    );
    assert_eq!(
        definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"],
        json!({"type": "string"})
    );
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(
        patch["consumes"]
            .as_array()
            .unwrap()
            .contains(&json!("application/apply-patch+yaml"))
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|one| one["name"] == "fieldValidation" && one["type"] == "string")
    );
    assert!(parameters.iter().any(|one| one["in"] == "body"));
    assert!(document["paths"]["/api/v1/pods"]["get"].is_object());
}
