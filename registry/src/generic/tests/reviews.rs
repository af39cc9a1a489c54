//! Who may do what, and who asks.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::user::UserInfo;

use super::{Root, context_of};
use crate::request::RequestContext;
use crate::root::Api as _;

async fn ask(root: &Root, path: &str, user: &str, body: Value) -> Value {
    let context = RequestContext {
        info: Arc::new(RequestInfo::parse("POST", path, "")),
        ..context_of(user)
    };
    let body = Bytes::from(serde_json::to_vec(&body).unwrap());
    let answer = root.api.review(&context, &body).await.expect("a review").unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// Lets `user` read config maps of the namespace `default`, and waits until that is in force.
async fn let_read(root: &Root, user: &str) {
    let role = json!({"kind": "Role", "metadata": {"name": "read"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    root.create("roles", role).await.unwrap();
    let binding = json!({"kind": "RoleBinding", "metadata": {"name": "read"}, "roleRef": {"kind": "Role", "name": "read"},
        "subjects": [{"kind": "User", "name": user}]});
    root.create("rolebindings", binding).await.unwrap();
    let info = RequestInfo::parse("GET", "/api/v1/namespaces/default/configmaps/a", "");
    let in_force = async {
        while root.api.authorize(&UserInfo::new(user, ["g"]), &info).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout_at(super::soon(), in_force)
        .await
        .expect("the binding comes into force");
}

#[tokio::test]
async fn roles_decide() {
    let root = Root::start().await;
    let_read(&root, "ann").await;
    let allowed = |user: &'static str, method: &'static str, path: &'static str| {
        let root = &root;
        async move {
            let info = RequestInfo::parse(method, path, "");
            root.api
                .authorize(&UserInfo::new(user, Vec::<String>::new()), &info)
                .await
        }
    };
    let status = allowed("ann", "DELETE", "/api/v1/namespaces/default/configmaps/a")
        .await
        .unwrap_err();
    assert_eq!(
        status.message,
        "configmaps \"a\" is forbidden: User \"ann\" cannot delete resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    assert!(
        allowed("bob", "GET", "/api/v1/namespaces/default/configmaps/a")
            .await
            .is_err()
    );
    assert!(
        allowed("ann", "GET", "/metrics")
            .await
            .unwrap_err()
            .message
            .contains("cannot get path \"/metrics\"")
    );
    let master = UserInfo::new("root", ["system:masters"]);
    let anything = RequestInfo::parse("DELETE", "/api/v1/nodes", "");
    assert!(root.api.authorize(&master, &anything).await.is_ok());
    assert!(root.authorizer.index().generation() > 0);
}

#[tokio::test]
async fn reviews_are_answered() {
    let root = Root::start().await;
    let_read(&root, "ann").await;
    let attributes = json!({"namespace": "default", "verb": "get", "resource": "configmaps"});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (user, want) in [("ann", true), ("bob", false)] {
        let review = json!({"spec": {"resourceAttributes": attributes}});
        assert_eq!(ask(&root, path, user, review).await["status"]["allowed"], want);
    }
    let review = json!({"spec": {"resourceAttributes": attributes, "user": "ann"}});
    let answer = ask(
        &root,
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        "bob",
        review,
    )
    .await;
    assert_eq!(answer["status"]["allowed"], true);
    let review = json!({"spec": {"namespace": "default"}});
    let answer = ask(
        &root,
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        "ann",
        review,
    )
    .await;
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(
        rules.contains(&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]})),
        "{answer}"
    );
    let answer = ask(
        &root,
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        "ann",
        json!({}),
    )
    .await;
    assert_eq!(answer["status"]["userInfo"]["username"], "ann");
    let context = RequestContext {
        info: Arc::new(RequestInfo::parse("POST", "/api/v1/namespaces", "")),
        ..context_of("ann")
    };
    assert!(root.api.review(&context, &Bytes::new()).await.is_none());
}

#[tokio::test]
async fn documents_are_published_for_what_is_served() {
    let root = Root::start().await;
    let (openapi, deadline) = (root.api.openapi(), tokio::time::Instant::now());
    let index = openapi.index(deadline).await.unwrap();
    assert!(
        index
            .iter()
            .any(|(version, hash)| version.to_string() == "apps/v1" && hash.len() == 32)
    );
    let (version, _) = &index[0];
    let document: Value = serde_json::from_slice(&openapi.v3(version, None, deadline).await.unwrap().text).unwrap();
    assert!(document["paths"].as_object().is_some_and(|paths| !paths.is_empty()));
    let discovery = root.api.discovery();
    assert!(
        discovery
            .resources()
            .any(|one| one.resource.resource == "selfsubjectaccessreviews")
    );
}
