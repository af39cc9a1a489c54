//! Patches are made for what the view shows, and reach the child in its own terms.

use super::writes::write;
use super::*;
use crate::request::PatchType;
use crate::scripted_child::{Asked, ScriptedChild, json as answer};

/// The child's garbage collector deletes an object whose owner it cannot find by its name.
#[tokio::test]
async fn no_patch_takes_a_qualified_owner_into_the_child() {
    let fixture = Fixture::new().await.with_pods().await;
    let present = |_: &Asked| answer(200, &pod("shop", "web-1", "7"));
    let east = ScriptedChild::start(&fixture.children, "east", present).await;
    let pods = fixture.resource("pods");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set@east", "uid": "o"});
    let metadata = json!({"metadata": {"ownerReferences": [owner]}});
    for (kind, patch) in [
        (PatchType::Merge, metadata.clone()),
        (PatchType::Strategic, metadata),
        (
            PatchType::Json,
            json!([{"op": "add", "path": "/metadata/ownerReferences", "value": [owner]}]),
        ),
        (
            PatchType::Json,
            json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]),
        ),
        (
            PatchType::Json,
            json!([{"op": "replace", "path": "/metadata/ownerReferences/0/name", "value": "set@east"}]),
        ),
    ] {
        let mut request = write(WriteVerb::Patch(kind), "web-1@east", "", &patch);
        request.options.dry_run = true;
        pods.write(&reader("ann"), request).await.unwrap();
        let sent = east.asked().pop().unwrap();
        assert_eq!(sent.line(), "PATCH /api/v1/namespaces/shop/pods/web-1");
        let expected = patch.to_string().replace("set@east", "set");
        assert_eq!(sent.json().to_string(), expected);
    }
    let elsewhere = json!([{"op": "replace", "path": "/metadata/ownerReferences/0/name", "value": "set@west"}]);
    let elsewhere = write(WriteVerb::Patch(PatchType::Json), "web-1@east", "", &elsewhere);
    let refused = pods.write(&reader("ann"), elsewhere).await.unwrap_err();
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("metadata.ownerReferences"), "{refused}");
}
