//! What each verb does.

use serde_json::{Value, json};
use umbra_apimachinery::metadata::ObjectAccess;

use super::{Root, config_map, context_of, deployment, json_of, widgets, write};
use crate::generic::ResourceStore;
use crate::request::{FieldValidation, PatchType, WriteOptions};
use crate::resource::{Resource, WriteOutcome, WriteRequest, WriteVerb};

#[tokio::test]
async fn create_fills_in_what_the_server_knows() {
    let root = Root::start().await;
    let created = root.create("deployments", deployment("web")).await.unwrap();
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 1);
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(created["spec"]["replicas"], 1);
    assert_eq!(root.get("deployments", "web").await.unwrap(), created);

    let mut generated = config_map("");
    generated["metadata"] = json!({"generateName": "x-"});
    let generated = root.create("configmaps", generated).await.unwrap();
    assert!(generated.name().starts_with("x-") && generated.name().len() == 7);
}

#[tokio::test]
async fn create_refuses_what_makes_no_sense() {
    let root = Root::start().await;
    root.create("configmaps", config_map("a")).await.unwrap();
    let with = |path: &str, value: Value| {
        let mut object = config_map("b");
        *object.pointer_mut(path).unwrap_or(&mut Value::Null) = value.clone();
        if path == "/metadata/resourceVersion" || path == "/metadata/namespace" {
            object["metadata"][path.rsplit('/').next().unwrap()] = value;
        }
        object
    };
    for (object, code) in [
        (config_map("a"), 409),
        (with("/metadata/resourceVersion", "7".into()), 400),
        (with("/metadata/namespace", "other".into()), 400),
        (with("/kind", "Secret".into()), 400),
        (with("/apiVersion", "v2".into()), 400),
        (with("/metadata/name", "Not_A_Name".into()), 422),
        (with("/metadata/name", "".into()), 422),
        (with("/data", json!({"a": 1})), 422),
    ] {
        let status = root.create("configmaps", object.clone()).await.unwrap_err();
        assert_eq!(status.code, code, "{object} {status}");
    }
    let mut elsewhere = write(WriteVerb::Create, "", &config_map("c"));
    elsewhere.namespace = Some("nowhere".to_owned());
    let status = root.write("configmaps", elsewhere).await.unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, "namespaces \"nowhere\" not found")
    );
}

#[tokio::test]
async fn updates_compare_revisions_and_uids() {
    let root = Root::start().await;
    let created = root.create("configmaps", config_map("a")).await.unwrap();

    let same = root.update("configmaps", &created).await.unwrap();
    assert_eq!(same, created, "an update that changes nothing keeps the revision");

    let mut changed = created.clone();
    changed["data"]["a"] = "2".into();
    let updated = root.update("configmaps", &changed).await.unwrap();
    assert_ne!(updated.resource_version(), created.resource_version());
    assert_eq!(updated["data"]["a"], "2");

    let stale = root.update("configmaps", &changed).await.unwrap_err();
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let mut unconditional = changed.clone();
    unconditional.metadata_mut().remove("resourceVersion");
    root.update("configmaps", &unconditional).await.unwrap();
    unconditional.set_metadata("uid", "another");
    assert_eq!(root.update("configmaps", &unconditional).await.unwrap_err().code, 409);

    let mut widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    root.create("widgets", widget.clone()).await.unwrap();
    widget["spec"] = json!({"size": 1});
    let status = root.update("widgets", &widget).await.unwrap_err();
    assert!(status.message.contains("must be specified for an update"), "{status}");
    assert_eq!(
        root.update("configmaps", &config_map("absent")).await.unwrap_err().code,
        404
    );
}

#[tokio::test]
async fn put_creates_where_the_kind_allows_it() {
    let root = Root::start().await;
    let role = json!({"kind": "Role", "metadata": {"name": "r"}, "rules": []});
    let outcome = root.write("roles", write(WriteVerb::Update, "r", &role)).await.unwrap();
    assert!(matches!(outcome, WriteOutcome::Created(_)));
    let outcome = root.write("roles", write(WriteVerb::Update, "r", &role)).await.unwrap();
    assert!(matches!(outcome, WriteOutcome::Done(_)));
}

fn to_subresource(subresource: &str, verb: WriteVerb, name: &str, body: &Value) -> WriteRequest {
    WriteRequest {
        subresource: subresource.to_owned(),
        ..write(verb, name, body)
    }
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let root = Root::start().await;
    let mut sent = deployment("web");
    sent["status"] = json!({"replicas": 9});
    let created = root.create("deployments", sent).await.unwrap();
    assert!(created["status"]["replicas"].is_null());

    let mut changed = created.clone();
    changed["status"] = json!({"replicas": 3});
    changed["spec"]["replicas"] = 5.into();
    let request = to_subresource("status", WriteVerb::Update, "web", &changed);
    let after = json_of(root.write("deployments", request).await.unwrap());
    assert_eq!(
        (&after["status"]["replicas"], &after["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(after["metadata"]["generation"], 1);

    changed.set_metadata("resourceVersion", after.resource_version());
    changed["status"] = json!({"replicas": 7});
    let after = root.update("deployments", &changed).await.unwrap();
    assert_eq!(
        (&after["status"]["replicas"], &after["spec"]["replicas"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(after["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale_shows_and_writes_replicas() {
    let root = Root::start().await;
    root.create("deployments", deployment("web")).await.unwrap();
    let store = root.resource("deployments");
    let context = crate::builtin::controllers::system_context("admin");
    let options = crate::request::GetOptions::default();
    let scale = store
        .get(&context, Some("default"), "web", "scale", &options)
        .await
        .unwrap();
    let mut scale: Value = serde_json::from_slice(&scale.json).unwrap();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = 4.into();
    let request = to_subresource("scale", WriteVerb::Update, "web", &scale);
    let answer = json_of(root.write("deployments", request).await.unwrap());
    assert_eq!(
        (&answer["kind"], &answer["spec"]["replicas"]),
        (&json!("Scale"), &json!(4))
    );
    let patch = json!({"spec": {"replicas": 6}});
    let request = to_subresource("scale", WriteVerb::Patch(PatchType::Merge), "web", &patch);
    root.write("deployments", request).await.unwrap();
    let stored = root.get("deployments", "web").await.unwrap();
    assert_eq!(
        (&stored["spec"]["replicas"], &stored["metadata"]["generation"]),
        (&json!(6), &json!(3))
    );
    let patch = json!({"spec": {"replicas": -1}});
    let request = to_subresource("scale", WriteVerb::Patch(PatchType::Merge), "web", &patch);
    assert_eq!(root.write("deployments", request).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn every_kind_of_patch_changes_the_object() {
    let root = Root::start().await;
    root.create("deployments", deployment("web")).await.unwrap();
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]);
    let patched = root
        .patch("deployments", "web", PatchType::Json, json_patch)
        .await
        .unwrap();
    assert_eq!(patched["spec"]["replicas"], 2);
    let merge = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": null}});
    let patched = root.patch("deployments", "web", PatchType::Merge, merge).await.unwrap();
    assert_eq!(patched["spec"]["replicas"], 1, "what is removed is defaulted");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j"}]}}}});
    let patched = root
        .patch("deployments", "web", PatchType::Strategic, strategic)
        .await
        .unwrap();
    assert_eq!(
        patched["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    for (kind, patch, code) in [
        (
            PatchType::Json,
            json!([{"op": "test", "path": "/spec/replicas", "value": 9}]),
            422,
        ),
        (PatchType::Json, json!({"op": "add"}), 400),
        (PatchType::Merge, json!({"metadata": {"resourceVersion": "1"}}), 409),
        (PatchType::Merge, json!({"metadata": {"name": "other"}}), 422),
        (
            PatchType::Merge,
            json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}),
            422,
        ),
    ] {
        let status = root.patch("deployments", "web", kind, patch.clone()).await.unwrap_err();
        assert_eq!(status.code, code, "{patch} {status}");
    }
    let widget = json!({"kind": "Widget", "metadata": {"name": "w"}});
    root.create("widgets", widget).await.unwrap();
    let status = root
        .patch("widgets", "w", PatchType::Strategic, json!({}))
        .await
        .unwrap_err();
    assert_eq!(status.code, 415, "no schema, no strategic merge");
    assert_eq!(
        root.patch("widgets", "x", PatchType::Merge, json!({}))
            .await
            .unwrap_err()
            .code,
        404
    );
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let root = Root::start().await;
    let request = |manager: &str, force: bool, replicas: Option<i64>| {
        let mut config = deployment("web");
        if let Some(replicas) = replicas {
            config["spec"]["replicas"] = replicas.into();
        }
        let mut request = write(WriteVerb::Patch(PatchType::Apply), "web", &config);
        request.options = WriteOptions {
            field_manager: manager.to_owned(),
            force,
            ..WriteOptions::default()
        };
        request
    };
    let outcome = root.write("deployments", request("one", false, Some(2))).await.unwrap();
    assert!(matches!(outcome, WriteOutcome::Created(_)));
    let created = json_of(outcome);
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = json_of(root.write("deployments", request("one", false, Some(2))).await.unwrap());
    assert_eq!(again, created, "applying the same again changes nothing");
    let status = root
        .write("deployments", request("two", false, Some(3)))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code, status.details.unwrap().causes[0].field.as_str()),
        (409, ".spec.replicas")
    );
    let forced = json_of(root.write("deployments", request("two", true, Some(3))).await.unwrap());
    assert_eq!(forced["spec"]["replicas"], 3);
    let given_up = json_of(root.write("deployments", request("two", false, None)).await.unwrap());
    assert_eq!(
        given_up["spec"]["replicas"], 1,
        "what nobody owns any more goes back to its default"
    );
    assert_eq!(
        root.write("deployments", request("", false, None))
            .await
            .unwrap_err()
            .code,
        422
    );
}

#[tokio::test]
async fn patches_that_meet_each_other_all_count() {
    let root = Root::start().await;
    root.create("configmaps", config_map("a")).await.unwrap();
    let patches = (0..20).map(|index| {
        let patch = json!({"data": {(format!("k{index}")): "v"}});
        root.patch("configmaps", "a", PatchType::Merge, patch)
    });
    for outcome in futures::future::join_all(patches).await {
        outcome.unwrap();
    }
    let stored = root.get("configmaps", "a").await.unwrap();
    assert_eq!(stored["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_of_or_refused() {
    let root = Root::start().await;
    for (validation, code, warned) in [
        (FieldValidation::Strict, Some(400), false),
        (FieldValidation::Warn, None, true),
        (FieldValidation::Ignore, None, false),
    ] {
        let name = format!("{validation:?}").to_lowercase();
        let mut object = config_map(&name);
        object["unknown"] = 1.into();
        let mut request = write(WriteVerb::Create, "", &object);
        request.options.field_validation = validation;
        let context = crate::builtin::controllers::system_context("admin");
        let outcome = root.resource("configmaps").write(&context, request).await;
        assert_eq!(outcome.as_ref().err().map(|status| status.code), code);
        if let Ok(outcome) = outcome {
            assert!(json_of(outcome)["unknown"].is_null());
        }
        let warnings = context.warnings.take();
        assert_eq!(
            warnings.iter().any(|text| text == "unknown field \"unknown\""),
            warned,
            "{warnings:?}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let root = Root::start().await;
    let before = root.store.current_revision().await.unwrap();
    let dry = |verb, name: &str, body: &Value| {
        let mut request = write(verb, name, body);
        request.options.dry_run = true;
        request
    };
    root.write("configmaps", dry(WriteVerb::Create, "", &config_map("a")))
        .await
        .unwrap();
    assert_eq!(root.store.current_revision().await.unwrap(), before);
    root.create("configmaps", config_map("a")).await.unwrap();
    let exists = root
        .write("configmaps", dry(WriteVerb::Create, "", &config_map("a")))
        .await
        .unwrap_err();
    assert_eq!(exists.code, 409);
    let before = root.store.current_revision().await.unwrap();
    let mut changed = config_map("a");
    changed["data"]["a"] = "2".into();
    let answer = json_of(
        root.write("configmaps", dry(WriteVerb::Update, "a", &changed))
            .await
            .unwrap(),
    );
    assert_eq!(answer["data"]["a"], "2");
    root.write("configmaps", dry(WriteVerb::Delete, "a", &Value::Null))
        .await
        .unwrap();
    root.write("configmaps", dry(WriteVerb::DeleteCollection, "", &Value::Null))
        .await
        .unwrap();
    assert_eq!(root.store.current_revision().await.unwrap(), before);
}

#[tokio::test]
async fn deletes_wait_for_finalizers() {
    let root = Root::start().await;
    let created = root.create("configmaps", config_map("a")).await.unwrap();
    let wrong = json!({"preconditions": {"uid": "another"}});
    assert_eq!(root.delete("configmaps", "a", wrong).await.unwrap_err().code, 409);
    let status = json_of(root.delete("configmaps", "a", Value::Null).await.unwrap());
    assert_eq!(
        (&status["status"], &status["details"]["uid"]),
        (&json!("Success"), &created["metadata"]["uid"])
    );
    assert_eq!(root.delete("configmaps", "a", Value::Null).await.unwrap_err().code, 404);

    let mut held = config_map("b");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    root.create("configmaps", held).await.unwrap();
    let waiting = json_of(root.delete("configmaps", "b", Value::Null).await.unwrap());
    assert!(!waiting["metadata"]["deletionTimestamp"].is_null());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let status = root.patch("configmaps", "b", PatchType::Merge, more).await.unwrap_err();
    assert_eq!(status.code, 422, "no finalizer is added to what is going");
    let none = json!({"metadata": {"finalizers": null}});
    root.patch("configmaps", "b", PatchType::Merge, none).await.unwrap();
    assert_eq!(root.get("configmaps", "b").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn pods_are_bound_evicted_and_go_gracefully() {
    let root = Root::start().await;
    let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = root.create("pods", pod).await.unwrap();
    assert_eq!(created["status"]["phase"], "Pending");
    let binding = json!({"target": {"name": "node"}});
    root.write("pods", to_subresource("binding", WriteVerb::Create, "p", &binding))
        .await
        .unwrap();
    let again = root
        .write("pods", to_subresource("binding", WriteVerb::Create, "p", &binding))
        .await;
    assert_eq!(again.unwrap_err().code, 409);
    assert_eq!(root.get("pods", "p").await.unwrap()["spec"]["nodeName"], "node");
    root.write("pods", to_subresource("eviction", WriteVerb::Create, "p", &json!({})))
        .await
        .unwrap();
    let going = root.get("pods", "p").await.unwrap();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    root.delete("pods", "p", json!({"gracePeriodSeconds": 0}))
        .await
        .unwrap();
    assert_eq!(root.get("pods", "p").await.unwrap_err().code, 404);
    let missing = root
        .write("pods", to_subresource("log", WriteVerb::Create, "p", &json!({})))
        .await;
    assert_eq!(missing.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let root = Root::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"l": label});
        root.create("configmaps", object).await.unwrap();
    }
    let mut request = write(WriteVerb::DeleteCollection, "", &Value::Null);
    request.list_options.label_selector = "l=x".to_owned();
    assert_eq!(json_of(root.write("configmaps", request).await.unwrap()), 2);
    let left = root
        .list("configmaps", &crate::request::ListOptions::default())
        .await
        .unwrap();
    assert_eq!(super::names(&left), ["b"]);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let root = Root::start().await;
    let role = json!({"kind": "Role", "metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    let roles: &ResourceStore = &root.resource("roles");
    let outcome = roles
        .write(&context_of("eve"), write(WriteVerb::Create, "", &role))
        .await;
    let status = outcome.unwrap_err();
    assert!(
        status.code == 403 && status.message.contains("not currently held"),
        "{status}"
    );
    root.create("roles", role).await.unwrap();
}

#[tokio::test]
async fn kinds_come_and_go() {
    let root = Root::start().await;
    let resource = widgets().descriptor.resource;
    let widget = json!({"kind": "Widget", "metadata": {"name": "w"}});
    root.create("widgets", widget).await.unwrap();
    root.api.remove(std::slice::from_ref(&resource));
    assert!(root.api.store(&resource).is_none());
    assert!(crate::root::Api::discovery(&*root.api).resource(&resource).is_none());
    root.api.install([widgets()], []);
    root.api.ready(super::soon()).await.unwrap();
    assert_eq!(
        root.get("widgets", "w").await.unwrap().name(),
        "w",
        "what was stored is still there"
    );
}
