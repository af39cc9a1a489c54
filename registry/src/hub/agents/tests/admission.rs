//! What machines may write.

use serde_json::{Value, json};
use tokio::time::Instant;
use umbra_api::join_request::{BOOTSTRAP_TOKEN, BOOTSTRAP_TOKEN_USED};
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;
use umbra_auth::certificates::CertificateRequest;

use super::*;
use crate::generic::admission::{Admission as _, Operation};
use crate::hub::agents::AdmitJoinRequests;
use crate::mirror::Mirror;
use crate::request::RequestContext;

pub(super) fn context(user: UserInfo) -> RequestContext {
    RequestContext {
        user: Arc::new(user),
        info: Arc::default(),
        prefix: Arc::from(""),
        deadline: Instant::now(),
        warnings: crate::request::Warnings::default(),
        user_agent: Arc::from("agent"),
    }
}

fn bearer() -> UserInfo {
    user("umbra:bootstrap:east", &["umbra:bootstrappers"], "m1", Some(token()))
}

fn asked(name: &str) -> Value {
    let made = CertificateRequest::create("umbra:agent:east").unwrap();
    json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest", "metadata": {"name": name},
        "spec": {"clusterName": "east", "clusterUID": "u1", "version": "v1.34.0", "request": made.request_pem}})
}

async fn admit(directory: Directory, user: UserInfo, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let resource = GroupVersionResource::new("umbra.dev", "v1alpha1", "clusterjoinrequests");
    let operation = if old.is_some() {
        Operation::Update
    } else {
        Operation::Create
    };
    AdmitJoinRequests::new(Mirror::of(directory))
        .admit(&context(user), operation, &resource, object, old)
        .await
}

fn with_token() -> Value {
    cluster(|one| one["spec"]["connection"]["tunnel"] = json!({"bootstrapTokenHash": "h"}))
}

#[tokio::test]
async fn the_hub_says_by_whom_and_by_which_token_a_request_was_made() {
    let free = || directory(&with_token(), &request(|_| {}));
    let mut object = asked("east-2");
    object["spec"]["username"] = "root".into();
    admit(free(), bearer(), &mut object, None).await.unwrap();
    assert_eq!(object["metadata"]["annotations"], json!({BOOTSTRAP_TOKEN: "h"}));
    assert_eq!(object["spec"]["username"], "umbra:bootstrap:east");
    // Somebody else says so in vain.
    let mut object = asked("east-2");
    object["metadata"]["annotations"] = json!({BOOTSTRAP_TOKEN: "h", "a": "b"});
    admit(free(), UserInfo::new("alice", ["dev"]), &mut object, None)
        .await
        .unwrap();
    assert_eq!(object["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(object["spec"]["username"], "alice");
}

#[tokio::test]
async fn what_an_agent_sends_is_small() {
    let long = "x".repeat(129);
    for (path, value) in [
        ("/metadata/labels", json!({"a": "b"})),
        ("/metadata/annotations", json!({"a": "b"})),
        ("/metadata/finalizers", json!(["a/b"])),
        ("/metadata/ownerReferences", json!([{"uid": "x"}])),
        ("/spec/version", json!(long)),
        ("/spec/clusterUID", json!(long)),
        ("/spec/version", json!("v1\u{1b}[2J")),
    ] {
        let mut object = asked("east-2");
        let (parent, key) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        let refused = admit(directory(&with_token(), &request(|_| {})), bearer(), &mut object, None).await;
        assert_eq!(refused.expect_err(path).code, 403, "{path}");
    }
    // Nor does it grow by updates.
    let agent = || {
        user(
            "umbra:agent:east",
            &["umbra:agents"],
            "m1/east-1/r1",
            Some(certificate()),
        )
    };
    let old = asked("east-1");
    for (key, value) in [
        ("labels", json!({"a": "b"})),
        ("managedFields", json!(vec![json!({"manager": "m"}); 9])),
    ] {
        let mut object = asked("east-1");
        object["metadata"][key] = value;
        let refused = admit(Directory::default(), agent(), &mut object, Some(&old)).await;
        assert_eq!(refused.expect_err(key).code, 403, "{key}");
    }
    let mut renewed = asked("east-1");
    admit(Directory::default(), agent(), &mut renewed, Some(&old))
        .await
        .unwrap();
    // What others have added to it does not keep the agent from renewing; it adds no more.
    let managed = |count: usize| {
        let mut object = asked("east-1");
        object["metadata"]["managedFields"] = json!(vec![json!({"manager": "m"}); count]);
        object
    };
    let old = managed(12);
    admit(Directory::default(), agent(), &mut managed(12), Some(&old))
        .await
        .unwrap();
    let grown = admit(Directory::default(), agent(), &mut managed(13), Some(&old)).await;
    assert_eq!(grown.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_token_whose_request_was_decided_about_makes_no_more() {
    let decided = |condition: &str, token: &str| {
        request(|request| {
            request["status"]["conditions"][0]["type"] = condition.into();
            request["metadata"]["annotations"] = json!({BOOTSTRAP_TOKEN: token});
        })
    };
    for condition in ["Approved", "Denied"] {
        // Before the cluster says that the token was used.
        let with = |token: &str| directory(&with_token(), &decided(condition, token));
        let refused = admit(with("h"), bearer(), &mut asked("east-2"), None).await;
        assert!(refused.unwrap_err().message.contains("has been used"), "{condition}");
        // That was another token.
        admit(with("g"), bearer(), &mut asked("east-2"), None).await.unwrap();
    }
    // Nobody has decided: it may ask once more.
    let open = decided("Other", "h");
    admit(directory(&with_token(), &open), bearer(), &mut asked("east-2"), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn denied_requests_take_no_room() {
    let full = |condition: &str| {
        let mut directory = directory(&with_token(), &request(|_| {}));
        directory.join_requests.clear();
        for number in 0..16 {
            let name = format!("east-{number}");
            let one = request(|request| {
                request["metadata"]["name"] = name.clone().into();
                request["status"]["conditions"][0]["type"] = condition.into();
            });
            let one = Arc::new(serde_json::from_value(one).unwrap());
            directory.join_requests.insert(name, one);
        }
        directory
    };
    let refused = admit(full("Approved"), bearer(), &mut asked("east-x"), None).await;
    assert!(refused.unwrap_err().message.contains("16 ClusterJoinRequests"));
    admit(full("Denied"), bearer(), &mut asked("east-x"), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_that_has_been_used_makes_no_more_requests() {
    let used = |by: &str| {
        let mut cluster = with_token();
        cluster["metadata"]["annotations"] = json!({BOOTSTRAP_TOKEN_USED: by});
        directory(&cluster, &request(|_| {}))
    };
    let refused = admit(used("h/r1"), bearer(), &mut asked("east-2"), None).await;
    assert!(refused.unwrap_err().message.contains("umbra join east --tunnel"));
    // The agent that used it asks again, and is to be told that its request is there.
    admit(used("h/r1"), bearer(), &mut asked("east-1"), None).await.unwrap();
    // That was another token.
    admit(used("g/r1"), bearer(), &mut asked("east-2"), None).await.unwrap();
}
