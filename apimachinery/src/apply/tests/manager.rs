//! From `managedfields/fieldmanager_test.go`, `internal/*_test.go`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{ApplyError, FieldManager, ManagedFields, Set, without_times_only_change};
use super::thing;

fn manager() -> FieldManager {
    FieldManager::new(Some(thing()), "v1", "", Set::new())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn config(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "n"}, "spec": spec})
}

/// What storage adds on create.
fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["resourceVersion"] = json!("1");
    object
}

fn managed(object: &Value) -> Value {
    object
        .pointer("/metadata/managedFields")
        .cloned()
        .unwrap_or(Value::Null)
}

#[test]
fn an_apply_that_creates() {
    let created = manager()
        .apply(None, &config(&json!({"replicas": 1})), "one", false, at(7))
        .unwrap();
    assert_eq!(
        managed(&created),
        json!([{
            "manager": "one", "operation": "Apply", "apiVersion": "v1", "time": "1970-01-01T00:00:07Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }])
    );
}

#[test]
fn an_apply_that_changes_nothing_answers_what_is_stored() {
    let manager = manager();
    let spec = config(&json!({"replicas": 1, "tags": ["a"], "containers": [{"name": "a", "ports": [{"port": 1}]}]}));
    let live = stored(manager.apply(None, &spec, "one", false, at(1)).unwrap());
    assert_eq!(manager.apply(Some(&live), &spec, "one", false, at(2)).unwrap(), live);
    // A second owner of the same is a change of ownership only: no time moves.
    let shared = manager.apply(Some(&live), &spec, "two", false, at(3)).unwrap();
    assert_eq!(managed(&shared)[1]["time"], json!("1970-01-01T00:00:01Z"));
    assert_eq!(managed(&shared)[0].get("time"), None);
    assert_eq!(
        manager.apply(Some(&shared), &spec, "two", false, at(4)).unwrap(),
        shared
    );
}

#[test]
fn an_update_moves_the_time_only_where_it_changes_something() {
    let manager = manager();
    let live = stored(manager.update(&Value::Null, config(&json!({"replicas": 1})), "one", at(1)));
    assert_eq!(manager.update(&live, live.clone(), "one", at(2)), live);
    assert_eq!(manager.update(&live, live.clone(), "other", at(2)), live);
    let mut new = live.clone();
    new["spec"]["text"] = json!("a");
    new["metadata"]["generation"] = json!(2);
    let updated = manager.update(&live, new, "one", at(3));
    assert_eq!(
        managed(&updated),
        json!([{
            "manager": "one", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:03Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}, "f:replicas": {}, "f:text": {}}},
        }])
    );
}

#[test]
fn what_is_sent_as_managed_fields() {
    let manager = manager();
    let live = stored(manager.update(&Value::Null, config(&json!({"replicas": 1})), "one", at(1)));
    let sent = |sent: Value| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = sent;
        manager.update(&live, new, "two", at(2))
    };
    // Empty or one empty entry: forget it all.
    assert_eq!(managed(&sent(json!([]))), Value::Null);
    assert_eq!(managed(&sent(json!([{}]))), Value::Null);
    // Absent or broken: as it was.
    assert_eq!(sent(json!(null)), live);
    assert_eq!(sent(json!([{"manager": "x"}])), live);
    assert_eq!(sent(json!("broken")), live);
    // Anything else counts.
    let mut renamed = managed(&live);
    renamed[0]["manager"] = json!("three");
    assert_eq!(managed(&sent(renamed.clone())), renamed);
    // But not on a subresource.
    let scale = FieldManager::new(Some(thing()), "v1", "scale", Set::new());
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([]);
    new["spec"]["replicas"] = json!(2);
    let scaled = scale.update(&live, new, "two", at(2));
    assert_eq!(managed(&scaled)[1]["subresource"], json!("scale"));
    assert_eq!(managed(&scaled)[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(managed(&scaled)[0]["fieldsV1"], json!({"f:spec": {}}));
}

#[test]
fn broken_books_never_fail_an_update() {
    let manager = manager();
    let mut live = stored(config(&json!({"replicas": 1})));
    live["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Nonsense"}]);
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    let updated = manager.update(&live, new.clone(), "one", at(1));
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(updated, new);
    // An apply says so instead.
    let error = manager
        .apply(Some(&live), &config(&json!({})), "one", false, at(1))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to decode managed fields: operation must be `Apply` or `Update`"
    );
    // What does not fit its schema loses its books.
    let live = stored(manager.update(&Value::Null, config(&json!({"replicas": 1})), "one", at(1)));
    let mut new = live.clone();
    new["spec"]["unknown"] = json!(1);
    assert_eq!(managed(&manager.update(&live, new, "one", at(2))), Value::Null);
    // Without metadata there is nothing to keep books in.
    assert_eq!(
        manager.update(&Value::Null, json!({"spec": {}}), "one", at(1)),
        json!({"spec": {}})
    );
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let manager = manager();
    let live = stored(config(&json!({"replicas": 1, "text": "a"})));
    let error = manager
        .apply(Some(&live), &config(&json!({"replicas": 2})), "one", false, at(1))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .spec.replicas"#
    );
    let applied = manager
        .apply(Some(&live), &config(&json!({"replicas": 1})), "one", false, at(1))
        .unwrap();
    let owners = ManagedFields::of_object(&applied).unwrap();
    let owners: Vec<_> = owners.entries.keys().map(|manager| manager.manager.as_str()).collect();
    assert_eq!(owners, ["before-first-apply", "one"]);
}

#[test]
fn conflicts_are_worded_as_the_api_server_does() {
    let main = manager();
    let scale = FieldManager::new(Some(thing()), "v1", "scale", Set::new());
    let live = stored(
        main.apply(
            None,
            &config(&json!({"replicas": 1, "tags": ["a"]})),
            "one",
            false,
            at(1),
        )
        .unwrap(),
    );
    let mut new = live.clone();
    new["spec"]["text"] = json!("x");
    new["spec"]["paused"] = json!(true);
    let live = scale.update(&live, new, "kubectl", at(2));
    let error = main
        .apply(
            Some(&live),
            &config(&json!({"replicas": 2, "text": "y", "paused": false})),
            "two",
            false,
            at(3),
        )
        .unwrap_err();
    let status = error.to_status();
    assert_eq!(
        status.message,
        "Apply failed with 3 conflicts: conflicts with \"kubectl\" with subresource \"scale\" using v1:\n\
         - .spec.paused\n- .spec.text\nconflicts with \"one\":\n- .spec.replicas"
    );
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = status.details.unwrap().causes;
    assert_eq!(causes.len(), 3);
    assert_eq!(
        (
            causes[2].reason.as_str(),
            causes[2].message.as_str(),
            causes[2].field.as_str()
        ),
        ("FieldManagerConflict", r#"conflict with "one""#, ".spec.replicas")
    );
}

#[test]
fn refuses_what_is_no_configuration_of_the_kind() {
    let manager = manager();
    let live = stored(manager.apply(None, &config(&json!({})), "one", false, at(1)).unwrap());
    let fails = |change: &dyn Fn(&mut Value)| {
        let mut config = config(&json!({}));
        change(&mut config);
        manager.apply(Some(&live), &config, "one", true, at(1)).unwrap_err()
    };
    let error = fails(&|config| config["apiVersion"] = json!("apps/v1"));
    assert_eq!(error.to_string(), "invalid object type: apps/v1, Kind=Thing");
    assert_eq!(error.to_status().code, 400);
    assert!(matches!(
        fails(&|config| config["kind"] = json!("Other")),
        ApplyError::WrongType { .. }
    ));
    let error = fails(&|config| config["metadata"]["managedFields"] = json!([]));
    assert_eq!(error.to_string(), "metadata.managedFields must be nil");
    let error = fails(&|config| config["spec"] = json!({"nope": 1}));
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (n/t; /v1, Kind=Thing): .spec.nope: field not declared in schema"
    );
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object that `kubectl apply` made on the client side.
fn client_side_applied(manager: &FieldManager, spec: &Value) -> Value {
    let mut object = config(spec);
    object["metadata"]["annotations"] = json!({ LAST_APPLIED: config(spec).to_string() });
    stored(manager.update(&Value::Null, object, "kubectl-client-side-apply", at(1)))
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client_side() {
    let manager = manager();
    let live = client_side_applied(&manager, &json!({"replicas": 1, "text": "a"}));
    let new = config(&json!({"replicas": 2, "text": "a"}));
    // Others do not get it.
    assert!(matches!(
        manager.apply(Some(&live), &new, "someone", false, at(2)),
        Err(ApplyError::Conflict(_))
    ));
    let applied = manager.apply(Some(&live), &new, "kubectl", false, at(2)).unwrap();
    assert_eq!(applied["spec"], json!({"replicas": 2, "text": "a"}));
    // And the annotation says what is applied now.
    let annotation = applied["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), new);
    assert_eq!(
        manager.apply(Some(&applied), &new, "kubectl", false, at(3)).unwrap(),
        applied
    );
}

#[test]
fn the_annotation_is_kept_up_to_date_by_kubectl_alone() {
    let manager = manager();
    let mut live = client_side_applied(&manager, &json!({"replicas": 1}));
    live = manager
        .apply(Some(&live), &config(&json!({"replicas": 1})), "kubectl", false, at(2))
        .unwrap();
    live["metadata"]["annotations"][LAST_APPLIED] = json!("stale");
    let apply = |who| {
        manager
            .apply(Some(&live), &config(&json!({"replicas": 1})), who, false, at(3))
            .unwrap()
    };
    let annotation = |object: &Value| object["metadata"]["annotations"][LAST_APPLIED].clone();
    assert_eq!(
        annotation(&apply("kubectl")),
        json!(format!("{}\n", config(&json!({"replicas": 1}))))
    );
    assert_eq!(annotation(&apply("other")), json!("stale"));
    // Where it would be too long, it goes.
    let long = json!({"text": "x".repeat(256 * 1024)});
    let applied = manager
        .apply(Some(&live), &config(&long), "kubectl", true, at(3))
        .unwrap();
    assert_eq!(annotation(&applied), Value::Null);
}

#[test]
fn kubectl_does_not_take_over_what_changed_since() {
    let manager = manager();
    let live = client_side_applied(&manager, &json!({"replicas": 1, "text": "a"}));
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = manager.update(&live, scaled, "autoscaler", at(2));
    let error = manager
        .apply(
            Some(&live),
            &config(&json!({"replicas": 2, "text": "b"})),
            "kubectl",
            false,
            at(3),
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "autoscaler" using v1: .spec.replicas"#
    );
}

#[test]
fn a_new_time_alone_is_no_change() {
    let manager = manager();
    let live = stored(
        manager
            .apply(None, &config(&json!({"replicas": 1})), "one", false, at(1))
            .unwrap(),
    );
    let mut later = live.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("1970-01-01T00:00:09Z");
    assert_eq!(without_times_only_change(&live, later.clone()), live);
    later["spec"]["replicas"] = json!(2);
    assert_eq!(without_times_only_change(&live, later.clone()), later);
    let mut other = live.clone();
    other["metadata"]["managedFields"][0]["manager"] = json!("two");
    assert_eq!(without_times_only_change(&live, other.clone()), other);
}
