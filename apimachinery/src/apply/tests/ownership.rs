//! From `merge/multiple_appliers_test.go`, `leaf_test.go`, `set_test.go`, `nested_test.go`, `duplicates_test.go`,
//! `default_keys_test.go`, `ignore_test.go` and `deduced_test.go`: sequences of operations and what they leave.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{ApplyError, FieldManager, ManagedFields, Operation, Set};
use super::{set, thing};

/// An object under test, with `spec` as what the operations say.
struct Story {
    manager: FieldManager,
    object: Value,
}

impl Story {
    fn new() -> Self {
        Self::with(FieldManager::new(Some(thing()), "v1", "", Set::new()))
    }

    fn deduced() -> Self {
        Self::with(FieldManager::new(None, "v1", "", Set::new()))
    }

    fn with(manager: FieldManager) -> Self {
        let object = Value::Null;
        Self { manager, object }
    }

    fn thing(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
    }

    fn apply(self, who: &str, spec: Value) -> Self {
        self.try_apply(who, &spec, false).unwrap()
    }

    fn force(self, who: &str, spec: Value) -> Self {
        self.try_apply(who, &spec, true).unwrap()
    }

    fn try_apply(self, who: &str, spec: &Value, force: bool) -> Result<Self, ApplyError> {
        let config = Self::thing(spec);
        let object = self
            .manager
            .apply(Some(&self.object), &config, who, force, Timestamp::UNIX_EPOCH)?;
        Ok(Self { object, ..self })
    }

    fn conflicts(&self, who: &str, spec: Value) -> Vec<String> {
        let config = Self::thing(&spec);
        match self
            .manager
            .apply(Some(&self.object), &config, who, false, Timestamp::UNIX_EPOCH)
        {
            Err(ApplyError::Conflict(conflicts)) => conflicts
                .0
                .iter()
                .map(|conflict| format!("{} {}", conflict.manager.manager, conflict.path))
                .collect(),
            other => panic!("no conflict: {other:?}"),
        }
    }

    fn update(self, who: &str, spec: Value) -> Self {
        let mut new = Self::thing(&spec);
        if let Some(managed) = self.object.pointer("/metadata/managedFields") {
            new["metadata"]["managedFields"] = managed.clone();
        }
        let object = self.manager.update(&self.object, new, who, Timestamp::UNIX_EPOCH);
        Self { object, ..self }
    }

    #[track_caller]
    fn is(self, spec: Value) -> Self {
        assert_eq!(self.object.get("spec").cloned().unwrap_or(json!({})), spec);
        self
    }

    #[track_caller]
    fn owns(self, who: &str, operation: Operation, paths: Value) -> Self {
        let managed = ManagedFields::of_object(&self.object).unwrap();
        let own = managed
            .entries
            .iter()
            .find(|(identifier, _)| identifier.manager == who && identifier.operation == operation)
            .and_then(|(_, entry)| entry.set.below_field("spec").cloned())
            .unwrap_or_default();
        assert_eq!(own.to_string(), set(paths).to_string(), "{who}");
        self
    }
}

use Operation::{Apply, Update};

#[test]
fn an_applier_removes_only_what_it_alone_owns() {
    Story::new()
        .apply(
            "one",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        )
        .apply("two", json!({"containers": [{"name": "c"}, {"name": "d"}]}))
        .apply("one", json!({"containers": [{"name": "a"}]}))
        .is(json!({"containers": [{"name": "a"}, {"name": "c"}, {"name": "d"}]}))
        .owns(
            "one",
            Apply,
            json!([["containers", {"name": "a"}], ["containers", {"name": "a"}, "name"]]),
        )
        .owns(
            "two",
            Apply,
            json!([
                ["containers", {"name": "c"}], ["containers", {"name": "d"}],
                ["containers", {"name": "c"}, "name"], ["containers", {"name": "d"}, "name"],
            ]),
        );
}

#[test]
fn the_same_value_is_shared_and_another_conflicts() {
    let story = Story::new()
        .apply("one", json!({"replicas": 1, "text": "a"}))
        .apply("two", json!({"replicas": 1}));
    assert_eq!(
        story.conflicts("two", json!({"replicas": 2, "text": "b"})),
        ["one .spec.replicas", "one .spec.text",]
    );
    story
        .force("two", json!({"replicas": 2}))
        .is(json!({"replicas": 2, "text": "a"}))
        .owns("one", Apply, json!([["text"]]))
        .owns("two", Apply, json!([["replicas"]]))
        // What was lost is not pruned later.
        .apply("one", json!({"text": "a"}))
        .is(json!({"replicas": 2, "text": "a"}));
}

#[test]
fn an_update_takes_what_it_changes() {
    Story::new()
        .apply("one", json!({"replicas": 1, "text": "a"}))
        .update("ctl", json!({"replicas": 5, "text": "a", "paused": true}))
        .owns("one", Apply, json!([["text"]]))
        .owns("ctl", Update, json!([["replicas"], ["paused"]]))
        // What an update owns stays when the applier goes on without it.
        .apply("one", json!({}))
        .is(json!({"replicas": 5, "paused": true}))
        .owns("one", Apply, json!([]));
}

#[test]
fn an_update_releases_what_it_removes() {
    Story::new()
        .apply("one", json!({"replicas": 1, "text": "a"}))
        .update("ctl", json!({"text": "a"}))
        .owns("one", Apply, json!([["text"]]))
        .owns("ctl", Update, json!([]))
        .apply("one", json!({"replicas": 1, "text": "a"}))
        .is(json!({"replicas": 1, "text": "a"}));
}

#[test]
fn forcing_against_an_update_takes_back() {
    let story = Story::new()
        .apply("one", json!({"replicas": 1}))
        .update("ctl", json!({"replicas": 2}));
    assert_eq!(story.conflicts("one", json!({"replicas": 1})), ["ctl .spec.replicas"]);
    story
        .force("one", json!({"replicas": 1}))
        .is(json!({"replicas": 1}))
        .owns("one", Apply, json!([["replicas"]]))
        .owns("ctl", Update, json!([]));
}

#[test]
fn nothing_empty_is_left_behind() {
    Story::new()
        .apply(
            "one",
            json!({"nested": {"inner": {"value": "a"}}, "limits": {"cpu": "1"}, "replicas": 1}),
        )
        .apply("one", json!({"replicas": 1}))
        .is(json!({"replicas": 1}));
    Story::deduced()
        .apply("one", json!({"nested": {"inner": {"value": "a"}}, "replicas": 1}))
        .apply("one", json!({"replicas": 1}))
        .is(json!({"replicas": 1}));
}

#[test]
fn what_somebody_owns_as_empty_stays_empty() {
    Story::new()
        .apply("one", json!({"nested": {"inner": {"value": "a"}}, "tags": ["a"]}))
        .apply("one", json!({"nested": {}, "tags": []}))
        .is(json!({"nested": {}, "tags": []}))
        .apply("two", json!({"nested": {"inner": {}}}))
        .apply("one", json!({"nested": {"inner": {"value": "a"}}}))
        .apply("one", json!({"replicas": 1}))
        // An empty list is nobody's, so nobody takes it away either.
        .is(json!({"nested": {"inner": {}}, "replicas": 1, "tags": []}));
}

#[test]
fn a_struct_with_but_an_empty_list_stays_its_owners() {
    let story = Story::new()
        .update("ctl", json!({"tags": []}))
        .apply("one", json!({"replicas": 1}));
    let nothing = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"}});
    let object = story
        .manager
        .apply(Some(&story.object), &nothing, "one", false, Timestamp::UNIX_EPOCH)
        .unwrap();
    Story { object, ..story }
        .is(json!({"tags": []}))
        .owns("ctl", Update, json!([["tags"]]))
        .owns("one", Apply, json!([]));
}

#[test]
fn what_others_have_inside_keeps_what_it_is_in() {
    Story::new()
        .apply("one", json!({"nested": {"inner": {"value": "a"}}}))
        .apply("two", json!({"nested": {"inner": {"other": "b"}}}))
        .apply("one", json!({"replicas": 1}))
        .is(json!({"nested": {"inner": {"other": "b"}}, "replicas": 1}));
    // But not an item of a list: who has something in it does not have the item.
    Story::new()
        .apply("one", json!({"containers": [{"name": "a", "image": "i"}]}))
        .update(
            "ctl",
            json!({"containers": [{"name": "a", "image": "i", "args": ["x"]}]}),
        )
        .apply("one", json!({}))
        .is(json!({}));
}

#[test]
fn an_item_goes_with_its_key() {
    // Who changed the duplicate has the item, but not its key.
    let object = json!({
        "apiVersion": "v1", "kind": "Thing",
        "metadata": {"name": "t", "managedFields": [
            {"manager": "one", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}}},
            {"manager": "ctl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}}}}},
        ]},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": []}]},
    });
    Story { object, ..Story::new() }
        .apply("one", json!({"replicas": 1}))
        .is(json!({"replicas": 1}));
}

#[test]
fn atomic_values_are_one_field() {
    let story = Story::new()
        .apply("one", json!({"selector": {"matchLabels": {"a": "1"}}}))
        .owns("one", Apply, json!([["selector"]]));
    assert_eq!(
        story.conflicts("two", json!({"selector": {"matchLabels": {"b": "1"}}})),
        ["one .spec.selector"]
    );
    story
        .force("two", json!({"selector": {"matchLabels": {"b": "1"}}}))
        .is(json!({"selector": {"matchLabels": {"b": "1"}}}))
        .apply("two", json!({}))
        .is(json!({}));
}

#[test]
fn sets_are_shared_item_by_item() {
    Story::new()
        .apply("one", json!({"tags": ["a", "b", "c"]}))
        .apply("two", json!({"tags": ["c", "d"]}))
        .owns("two", Apply, json!([["tags", ["c"]], ["tags", ["d"]]]))
        .apply("one", json!({"tags": ["b"]}))
        .is(json!({"tags": ["b", "c", "d"]}))
        .apply("two", json!({"tags": []}))
        .is(json!({"tags": ["b"]}));
}

#[test]
fn defaulted_keys_are_the_same_item() {
    Story::new()
        .apply(
            "one",
            json!({"containers": [{"name": "a", "ports": [{"port": 1, "name": "x"}]}]}),
        )
        .apply(
            "two",
            json!({"containers": [{"name": "a", "ports": [{"port": 1, "protocol": "TCP", "name": "x"}]}]}),
        )
        .is(json!({"containers": [{"name": "a", "ports": [{"port": 1, "protocol": "TCP", "name": "x"}]}]}));
}

#[test]
fn duplicates_are_tolerated_where_they_are_and_refused_where_they_come() {
    let story = Story::new().update("ctl", json!({"tags": ["a", "a", "b"]}));
    assert!(
        story
            .manager
            .apply(
                Some(&story.object),
                &Story::thing(&json!({"tags": ["a", "a"]})),
                "one",
                false,
                Timestamp::UNIX_EPOCH
            )
            .is_err()
    );
    let story = story
        .owns("ctl", Update, json!([[], ["tags"], ["tags", ["a"]], ["tags", ["b"]]]))
        .apply("one", json!({"tags": ["c"]}))
        .is(json!({"tags": ["a", "a", "b", "c"]}));
    assert_eq!(
        story.conflicts("one", json!({"tags": ["a"]})),
        [r#"ctl .spec.tags[="a"]"#]
    );
    story
        .force("one", json!({"tags": ["a"]}))
        .is(json!({"tags": ["a", "b"]}));
}

#[test]
fn reset_fields_are_nobodys() {
    let manager = FieldManager::new(Some(thing()), "v1", "", Set::of_fields(&[&["status"]]));
    let config = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let owned = |object: &Value| ManagedFields::of_object(object).unwrap().all_fields();
    let applied = manager
        .apply(None, &config, "one", false, Timestamp::UNIX_EPOCH)
        .unwrap();
    assert_eq!(owned(&applied), set(json!([["spec", "replicas"]])));
    let created = manager.update(&Value::Null, config, "ctl", Timestamp::UNIX_EPOCH);
    assert_eq!(owned(&created), set(json!([["spec"], ["spec", "replicas"]])));
}

#[test]
fn deduced_types_own_lists_as_a_whole() {
    let story = Story::deduced()
        .apply("one", json!({"list": [1, 2], "map": {"a": 1}}))
        .apply("two", json!({"map": {"b": 1}}))
        .owns("one", Apply, json!([[], ["list"], ["map"], ["map", "a"]]));
    assert_eq!(story.conflicts("two", json!({"list": [1]})), ["one .spec.list"]);
    story.apply("one", json!({})).is(json!({"map": {"b": 1}}));
}
