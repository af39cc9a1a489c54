//! Examples of every rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use umbra_apimachinery::patch::PatchBudget;

use super::*;
use crate::request::Origin;
use OverrideKind::{ClusterOverride, Override as Tenant};

#[test]
fn later_ones_win_by_priority_then_time_then_name() {
    let at = |name: &str, time: &str, priority: i64, count: i64| {
        let metadata = json!({"creationTimestamp": time});
        made(
            Tenant,
            name,
            json!({"metadata": metadata, "priority": priority, "patches": replicas(count)}),
        )
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let winner = |all: [Override; 2]| rendered(&all)["spec"]["replicas"].clone();
    assert_eq!(winner([at("a", late, 501, 1), at("b", late, 500, 2)]), 1);
    assert_eq!(winner([at("a", late, 500, 1), at("b", early, 500, 2)]), 1);
    assert_eq!(winner([at("b", early, 500, 1), at("a", early, 500, 2)]), 1);
    let trial = made(
        Tenant,
        "a",
        json!({"metadata": {"creationTimestamp": null}, "patches": replicas(7)}),
    );
    assert_eq!(
        winner([trial, at("b", late, 500, 1)]),
        7,
        "what is tried out comes last"
    );
}

#[test]
fn tenants_come_after_the_platform_and_final_after_the_tenants() {
    let platform = made(ClusterOverride, "p", json!({"priority": 1000, "patches": replicas(3)}));
    let tenant = made(Tenant, "t", json!({"priority": 0, "patches": replicas(4)}));
    let last = made(
        ClusterOverride,
        "f",
        json!({"priority": 0, "final": true, "patches": replicas(5)}),
    );
    assert_eq!(rendered(&[platform.clone(), tenant.clone()])["spec"]["replicas"], 4);
    let request = admit(template(), &[tenant, last, platform]).unwrap();
    assert_eq!(request.object["spec"]["replicas"], 5);
    let passes: Vec<_> = request
        .applied
        .iter()
        .map(|one| (one.by.name.as_str(), one.stage))
        .collect();
    assert_eq!(
        passes,
        [
            ("f", Stage::Cluster),
            ("p", Stage::Cluster),
            ("t", Stage::Namespace),
            ("f", Stage::Final)
        ]
    );
}

#[test]
fn selection_is_by_cluster_resource_and_namespace() {
    let applies = |kind, spec: Value| {
        let mut with_patch = json!({"patches": replicas(9)});
        umbra_apimachinery::patch::merge::apply(&mut with_patch, &spec);
        rendered(&[made(kind, "o", with_patch)])["spec"]["replicas"] == 9
    };
    let deployment = |more: Value| {
        let mut resource = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
        umbra_apimachinery::patch::merge::apply(&mut resource, &more);
        json!({ "resources": [{"apiVersion": "v1", "kind": "ConfigMap"}, resource] })
    };
    assert!(applies(Tenant, json!({})));
    assert!(applies(Tenant, deployment(json!({"name": "web"}))));
    assert!(applies(
        Tenant,
        deployment(json!({"labelSelector": {"matchLabels": {"app": "web"}}}))
    ));
    assert!(applies(
        Tenant,
        json!({"clusterSelector": {"matchLabels": {"region": "eu"}}})
    ));
    assert!(applies(Tenant, json!({"clusterSelector": {}})));
    assert!(!applies(Tenant, deployment(json!({"name": "db"}))));
    assert!(!applies(Tenant, deployment(json!({"kind": "StatefulSet"}))));
    assert!(!applies(Tenant, deployment(json!({"apiVersion": "apps/v2"}))));
    assert!(!applies(
        Tenant,
        deployment(json!({"labelSelector": {"matchLabels": {"app": "db"}}}))
    ));
    assert!(!applies(
        Tenant,
        json!({"clusterSelector": {"matchLabels": {"region": "us"}}})
    ));
    assert!(!applies(Tenant, json!({"metadata": {"namespace": "bank"}})));
    assert!(
        applies(ClusterOverride, json!({"metadata": {"namespace": "bank"}})),
        "kinds without namespace reach all"
    );
}

#[test]
fn what_enters_the_chain_decides_what_is_selected() {
    let relabel = made(
        Tenant,
        "a",
        json!({"patches": merge(json!({"metadata": {"labels": {"app": "db"}}}))}),
    );
    let resources =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let scale = made(Tenant, "b", json!({"resources": resources, "patches": replicas(9)}));
    assert_eq!(rendered(&[relabel, scale])["spec"]["replicas"], 9);
}

#[test]
fn proxied_requests_only_where_an_override_says_so() {
    let rendered_only = made(Tenant, "a", json!({"patches": replicas(9)}));
    let both = rendered_only
        .clone()
        .applying_to(vec![Origin::Rendered, Origin::Proxied]);
    for (one, expected) in [(rendered_only, 2), (both, 9)] {
        let mut request = AdmissionRequest::new(template(), cluster());
        request.origin = Origin::Proxied;
        admit_request(&mut request, &[one]).unwrap();
        assert_eq!(request.object["spec"]["replicas"], expected);
    }
}

#[test]
fn values_are_expanded_for_the_cluster() {
    let image = "${cluster.properties['registry']}/web:1-${cluster.name}";
    let path = "/spec/template/spec/containers/-1/image";
    let one = made(
        Tenant,
        "a",
        json!({"patches": operations(json!([{"op": "replace", "path": path, "value": image}]))}),
    );
    let result = rendered(&[one]);
    assert_eq!(
        result.pointer("/spec/template/spec/containers/0/image"),
        Some(&json!("eu.example.com/web:1-east"))
    );

    let absent = made(
        Tenant,
        "a",
        json!({"patches": merge(json!({"x": "${cluster.labels['zone']}"}))}),
    );
    assert_eq!(
        failure(&[absent]),
        "Override shop/a (revision 3) does not apply to Deployment shop/web for cluster east: patch 0: the cluster has \
         no label \"zone\" for \"${cluster.labels['zone']}\"; set it, or select clusters that have it"
    );
}

#[test]
fn failures_name_everything_and_say_what_to_do() {
    let missing = json!([{"op": "test", "path": "/kind", "value": "Deployment"}, {"op": "replace", "path": "/spec/paused", "value": true}]);
    let patches = json!([{"type": "MergePatch", "value": {}}, {"type": "JSONPatch", "value": missing}]);
    let one = made(Tenant, "a", json!({ "patches": patches }));
    let error = admit(template(), &[one]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Override shop/a (revision 3) does not apply to Deployment shop/web for cluster east: patch 1: operation 1 \
         (replace \"/spec/paused\"): the path does not exist: \"/spec\" has no \"paused\"; correct the path, select \
         fewer objects, or set optional: true on the patch to skip what is missing"
    );
    let AdmissionError::Override(error) = error else {
        panic!("an override failed")
    };
    assert_eq!(error.patch, 1);
    assert_eq!(error.operation(), Some((1, "replace", "/spec/paused")));

    let test = made(
        ClusterOverride,
        "t",
        json!({"patches": operations(json!([{"op": "test", "path": "/kind", "value": "Pod"}]))}),
    );
    assert_eq!(
        failure(&[test]),
        "ClusterOverride t (revision 3) does not apply to Deployment shop/web for cluster east: patch 0: operation 0 \
         (test \"/kind\"): testing the value failed: it is another one; the object is not as the patch expects it: \
         correct one of them"
    );
}

#[test]
fn optional_patches_skip_what_is_missing_and_say_so() {
    let patches = json!([
        {"type": "JSONPatch", "optional": true, "value": [
            {"op": "remove", "path": "/spec/paused"},
            {"op": "replace", "path": "/spec/replicas", "value": 4},
        ]},
        {"type": "MergePatch", "optional": true, "value": {"a": 1}, "field": {"path": "/data/x", "format": "JSON"}},
    ]);
    let request = admit(template(), &[made(Tenant, "a", json!({ "patches": patches }))]).unwrap();
    assert_eq!(request.object["spec"]["replicas"], 4);
    assert_eq!(request.applied[0].skipped, [(0, Some(0)), (1, None)]);
    // Optional is about missing paths alone.
    let test =
        json!([{"type": "JSONPatch", "optional": true, "value": [{"op": "test", "path": "/kind", "value": "Pod"}]}]);
    assert!(admit(template(), &[made(Tenant, "a", json!({ "patches": test }))]).is_err());
}

fn config_map(text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "web", "namespace": "shop"},
        "data": {"app.yaml": text, "port": 1},
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
fn in_field(path: &str, format: &str, value: Value) -> Override {
    let resources = json!([{"apiVersion": "v1", "kind": "ConfigMap"}]);
    let patches = json!([{"type": "MergePatch", "value": value, "field": {"path": path, "format": format}}]);
    made(Tenant, "a", json!({"resources": resources, "patches": patches}))
}

#[test]
fn fields_hold_documents() {
    let text = "# comment\nserver:\n  port: 80\n  host: a\n";
    let change = in_field(
        "/data/app.yaml",
        "YAML",
        json!({"server": {"port": 8080, "zone": "${cluster.name}"}}),
    );
    let request = admit(config_map(text), std::slice::from_ref(&change)).unwrap();
    assert_eq!(
        request.object["data"]["app.yaml"],
        "server:\n  host: a\n  port: 8080\n  zone: east\n"
    );
    assert_eq!(request.applied[0].changes[0].path, "/data/app.yaml");

    let no_change = in_field("/data/app.yaml", "YAML", json!({"server": {"port": 80}}));
    assert_eq!(
        admit(config_map(text), &[no_change]).unwrap().object,
        config_map(text),
        "layout and comments stay"
    );

    for (object, one, expected) in [
        (
            config_map("a: ["),
            change,
            "the string at \"/data/app.yaml\" is not YAML: ",
        ),
        (
            config_map(""),
            in_field("/data/nope", "JSON", json!({})),
            "field.path \"/data/nope\" does not exist; ",
        ),
        (
            config_map(""),
            in_field("/data/port", "JSON", json!({})),
            "field.path \"/data/port\" is not a string; ",
        ),
    ] {
        let error = admit(object, &[one]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn limits_are_shared_by_all_overrides_of_a_rendering() {
    let tests = vec![json!({"op": "test", "path": "/kind", "value": "Deployment"}); PatchBudget::OPERATIONS / 2 + 1];
    let half = |name| made(Tenant, name, json!({"patches": operations(json!(tests))}));
    assert!(admit(template(), &[half("a")]).is_ok());
    let error = failure(&[half("a"), half("b")]);
    assert!(
        error.contains("Override shop/b") && error.contains("all overrides of a rendering share this limit"),
        "{error}"
    );
}

#[test]
fn malformed_overrides_are_refused_with_the_field() {
    for (spec, expected) in [
        (
            json!({"priority": 1001}),
            "Override shop/a: spec.priority: has to be from 0 to 1000, is 1001",
        ),
        (
            json!({"resources": []}),
            "Override shop/a: spec.resources: names no resources, so the override would change nothing",
        ),
        (
            json!({"resources": [{"apiVersion": "v1", "kind": ""}]}),
            "Override shop/a: spec.resources[0].kind: is missing",
        ),
        (
            json!({"resources": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "labelSelector": {}}]}),
            "Override shop/a: spec.resources[0]: has both name and labelSelector; one of them selects",
        ),
        (
            json!({"clusterSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            "Override shop/a: spec.clusterSelector: \"Like\" is not a valid label selector operator",
        ),
        (
            json!({"patches": operations(json!([{"op": "add"}]))}),
            "Override shop/a: spec.patches[0].value: invalid patch: operation 0: missing field `path`",
        ),
        (
            json!({"patches": merge(json!([]))}),
            "Override shop/a: spec.patches[0].value: a merge patch of an object has to be an object itself",
        ),
        (
            json!({"patches": [{"type": "MergePatch", "value": {}, "field": {"path": "data", "format": "YAML"}}]}),
            "Override shop/a: spec.patches[0].field.path: \"data\" is not a JSON pointer to a string, such as /data/app.yaml",
        ),
    ] {
        assert_eq!(try_made(Tenant, "a", spec).unwrap_err().to_string(), expected);
    }
    let unknown = try_made(Tenant, "a", json!({"patches": merge(json!({"a": "${HOME}"}))})).unwrap_err();
    assert!(
        unknown.to_string().contains("unknown variable \"${HOME}\""),
        "{unknown}"
    );
}

#[test]
fn pinned_renderings_keep_their_revisions() {
    let revision = |name: &str, rollout: &str, number: i64| {
        let metadata = json!({"generation": number});
        Arc::new(made(
            Tenant,
            name,
            json!({"metadata": metadata, "rollout": rollout, "patches": []}),
        ))
    };
    let current = [
        revision("immediate", "Immediate", 5),
        revision("pinned", "OnNextUpdate", 5),
        revision("same", "OnNextUpdate", 5),
        revision("new", "OnNextUpdate", 1),
    ];
    let numbers = |all: Vec<Arc<Override>>| -> Vec<(String, i64)> {
        all.iter()
            .map(|one| (one.identity().name.clone(), one.revision()))
            .collect()
    };
    let named = |all: &[(&str, i64)]| -> Vec<(String, i64)> {
        all.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    };
    let stored = |by: &OverrideIdentity, number: i64| (number == 2).then(|| revision(&by.name, "OnNextUpdate", number));
    let afresh = revisions_in_force(&current, None, stored).unwrap();
    assert_eq!(
        numbers(afresh),
        named(&[("immediate", 5), ("pinned", 5), ("same", 5), ("new", 1)])
    );

    let identity = |index: usize| current[index].identity().clone();
    let mut pinned: BTreeMap<_, _> = [(identity(0), 2), (identity(1), 2), (identity(2), 5)].into();
    let kept = revisions_in_force(&current, Some(&pinned), stored).unwrap();
    assert_eq!(numbers(kept), named(&[("immediate", 5), ("pinned", 2), ("same", 5)]));

    pinned.insert(identity(1), 1);
    let gone = revisions_in_force(&current, Some(&pinned), stored).unwrap_err();
    assert_eq!((gone.by, gone.revision), (identity(1), 1));
}
