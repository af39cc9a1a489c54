//! Namespaces that go, and what goes with its owner.

use serde_json::{Value, json};
use umbra_apimachinery::status::Reason;

use super::{Root, config_map, json_of, soon, write};
use crate::builtin::controllers;
use crate::request::{ListOptions, PatchType};
use crate::resource::WriteVerb;

impl Root {
    /// Waits until the object is gone.
    async fn gone(&self, resource: &str, name: &str) {
        let mut events = {
            let store = self.resource(resource);
            let context = controllers::system_context("admin");
            crate::resource::Resource::watch(&*store, &context, None, &ListOptions::default())
                .await
                .unwrap()
        };
        while self.get(resource, name).await.is_ok() {
            let event = tokio::time::timeout_at(soon(), futures::StreamExt::next(&mut events)).await;
            event.expect("the object goes soon").expect("the watch goes on");
        }
    }
}

fn owned(name: &str, owners: &[(&str, &Value, bool)]) -> Value {
    let mut object = config_map(name);
    let references: Vec<Value> = owners
        .iter()
        .map(|(kind, owner, blocks)| {
            json!({"apiVersion": "v1", "kind": kind, "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks})
        })
        .collect();
    object["metadata"]["ownerReferences"] = references.into();
    object
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let root = Root::start().await;
    let namespace = json!({"kind": "Namespace", "metadata": {"name": "shop"}});
    let created = root.create("namespaces", namespace).await.unwrap();
    assert_eq!(created["status"]["phase"], "Active");
    let inside = |name: &str| {
        // A finalizer keeps the namespace from going before it was looked at.
        let mut object = config_map(name);
        object["metadata"]["finalizers"] = json!(["example.com/hold"]);
        let mut request = write(WriteVerb::Create, "", &object);
        request.namespace = Some("shop".to_owned());
        request
    };
    root.write("configmaps", inside("a")).await.unwrap();
    let going = json_of(root.delete("namespaces", "shop", Value::Null).await.unwrap());
    assert_eq!(going["status"]["phase"], "Terminating");
    let status = root.write("configmaps", inside("b")).await.unwrap_err();
    assert!(status.is(Reason::Forbidden));
    assert_eq!(status.details.unwrap().causes[0].reason, "NamespaceTerminating");
    let release = json!({"metadata": {"finalizers": null}});
    let mut release = write(WriteVerb::Patch(PatchType::Merge), "a", &release);
    release.namespace = Some("shop".to_owned());
    root.write("configmaps", release).await.unwrap();
    root.gone("namespaces", "shop").await;
    let all = ListOptions::default();
    let store = root.resource("configmaps");
    let left = crate::resource::Resource::list(&*store, &controllers::system_context("admin"), None, &all).await;
    assert!(left.unwrap().items.is_empty());
    let status = root.delete("namespaces", "default", Value::Null).await.unwrap_err();
    assert_eq!(status.code, 403);
}

#[tokio::test]
async fn dependents_go_when_the_last_owner_has_gone() {
    let root = Root::start().await;
    let one = root.create("configmaps", config_map("one")).await.unwrap();
    let two = root.create("configmaps", config_map("two")).await.unwrap();
    let both = [("ConfigMap", &one, false), ("ConfigMap", &two, false)];
    root.create("configmaps", owned("shared", &both)).await.unwrap();
    root.create("configmaps", owned("single", &both[..1])).await.unwrap();
    root.create("configmaps", owned("foreign", &[("Unserved", &one, false)]))
        .await
        .unwrap();
    root.delete("configmaps", "one", Value::Null).await.unwrap();
    root.gone("configmaps", "single").await;
    assert!(root.get("configmaps", "shared").await.is_ok());
    root.delete("configmaps", "two", Value::Null).await.unwrap();
    root.gone("configmaps", "shared").await;
    assert!(
        root.get("configmaps", "foreign").await.is_ok(),
        "owners of unknown kinds are not judged"
    );
}

#[tokio::test]
async fn foreground_deletion_waits_and_orphans_stay() {
    let root = Root::start().await;
    let owner = root.create("configmaps", config_map("owner")).await.unwrap();
    root.create("configmaps", owned("child", &[("ConfigMap", &owner, true)]))
        .await
        .unwrap();
    let outcome = root
        .delete("configmaps", "owner", json!({"propagationPolicy": "Foreground"}))
        .await
        .unwrap();
    assert!(matches!(outcome, crate::resource::WriteOutcome::Accepted(_)));
    root.gone("configmaps", "owner").await;
    assert!(root.get("configmaps", "child").await.is_err(), "the child went first");

    let owner = root.create("configmaps", config_map("owner")).await.unwrap();
    root.create("configmaps", owned("child", &[("ConfigMap", &owner, true)]))
        .await
        .unwrap();
    root.delete("configmaps", "owner", json!({"propagationPolicy": "Orphan"}))
        .await
        .unwrap();
    root.gone("configmaps", "owner").await;
    let child = root.get("configmaps", "child").await.unwrap();
    assert!(
        child["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
}
