//! What holds for all histories: a list and the events after it make the state of a later list.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Root, config_map};
use crate::builtin::controllers::system_context;
use crate::request::{ListOptions, PatchType};
use crate::resource::{Event, Object, Resource};

/// One write: on which object, and what.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Label(u8, bool),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u8).prop_map(Step::Create),
        (0..4_u8, any::<bool>()).prop_map(|(name, selected)| Step::Label(name, selected)),
        (0..4_u8).prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..24)
}

async fn take(root: &Root, step: &Step) {
    // Whether the object is there is no part of the law.
    let _outcome = match step {
        Step::Create(name) => root
            .create("configmaps", config_map(&format!("c{name}")))
            .await
            .map(drop),
        Step::Label(name, selected) => {
            let patch = json!({"metadata": {"labels": {"selected": selected.to_string()}}});
            root.patch("configmaps", &format!("c{name}"), PatchType::Merge, patch)
                .await
                .map(drop)
        }
        Step::Delete(name) => root
            .delete("configmaps", &format!("c{name}"), Value::Null)
            .await
            .map(drop),
    };
}

type State = BTreeMap<String, Bytes>;

fn name(object: &Object) -> String {
    let parsed: Value = serde_json::from_slice(&object.json).unwrap();
    parsed["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn state(root: &Root, options: &ListOptions) -> (State, u64) {
    let list = root.list("configmaps", options).await.unwrap();
    let state = list.items.iter().map(|item| (name(item), item.json.clone())).collect();
    (state, list.metadata.resource_version.parse().unwrap())
}

/// Applies an event, which has to fit the state.
fn apply(state: &mut State, event: Event) {
    match event {
        Event::Added(object) => assert!(state.insert(name(&object), object.json).is_none()),
        Event::Modified(object) => assert!(state.insert(name(&object), object.json).is_some()),
        Event::Deleted(object) => assert!(state.remove(&name(&object)).is_some()),
        other => panic!("{other:?}"),
    }
}

async fn check(before: Vec<Step>, after: Vec<Step>, label_selector: &str) {
    let root = Root::start().await;
    for step in &before {
        take(&root, step).await;
    }
    let options = ListOptions {
        label_selector: label_selector.to_owned(),
        ..ListOptions::default()
    };
    let (mut seen, revision) = state(&root, &options).await;
    for step in &after {
        take(&root, step).await;
    }
    let (want, _) = state(&root, &options).await;
    let from = ListOptions {
        resource_version: Some(revision),
        ..options
    };
    let store = root.resource("configmaps");
    let mut events = store
        .watch(&system_context("admin"), Some("default"), &from)
        .await
        .unwrap();
    // Every write was waited for, so all events are there already.
    while let Some(Some(event)) = events.next().now_or_never() {
        apply(&mut seen, event);
    }
    assert_eq!(seen, want);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_list_and_its_watch_make_the_later_list(before in steps(), after in steps(), selecting in any::<bool>()) {
        let selector = if selecting { "selected=true" } else { "" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(before, after, selector));
    }
}
