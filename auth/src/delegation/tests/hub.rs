use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::authentication::v1::TokenReviewSpec;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReviewSpec};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A reviewer whose every question is answered so, and what it asks.
fn reviewer(code: u16, retry_after: Option<&'static str>, answer: impl Into<Bytes>) -> (HubReviewer, Asked) {
    let asked = Asked::default();
    let (seen, answer) = (Arc::clone(&asked), answer.into());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await?.to_bytes();
            seen.lock().push((line, serde_json::from_slice(&body).unwrap()));
            let mut response = Response::builder().status(code);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            Ok::<_, kube::Error>(response.body(Full::new(answer)).unwrap())
        }
    });
    (HubReviewer::new(kube::Client::new(service, "default")), asked)
}

const SECRET: &str = "eyJ-secret";

fn token() -> TokenReviewSpec {
    TokenReviewSpec {
        audiences: Some(vec!["umbra".to_owned()]),
        token: SECRET.to_owned(),
    }
}

#[tokio::test]
async fn a_token_review_is_what_a_kube_apiserver_takes_and_gives() {
    // As kube-apiserver 1.36 answers; the token is repeated in the answer.
    let answer = json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {"managedFields": []},
        "spec": {"token": SECRET, "audiences": ["umbra"]},
        "status": {"authenticated": true, "audiences": ["umbra"], "user": {
            "username": "system:serviceaccount:default:robot", "uid": "u1",
            "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]},
        }},
    });
    let (reviewer, asked) = reviewer(201, None, answer.to_string());
    let status = reviewer.token_review(&token()).await.unwrap();
    assert_eq!(status.authenticated, Some(true));
    let user = status.user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:robot"));
    assert_eq!(
        user.extra.unwrap()["authentication.kubernetes.io/credential-id"],
        ["JTI=1"]
    );
    let expected = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": SECRET, "audiences": ["umbra"]},
    });
    let line = "POST /apis/authentication.k8s.io/v1/tokenreviews".to_owned();
    assert_eq!(*asked.lock(), [(line, expected)]);
}

#[tokio::test]
async fn an_access_review_too() {
    let answer = json!({"status": {"allowed": false, "denied": true, "reason": "no"}});
    let (reviewer, asked) = reviewer(201, None, answer.to_string());
    let spec = SubjectAccessReviewSpec {
        user: Some("alice".to_owned()),
        resource_attributes: Some(ResourceAttributes {
            verb: Some("get".to_owned()),
            group: Some("umbra.dev".to_owned()),
            resource: Some("views".to_owned()),
            subresource: Some("proxy".to_owned()),
            name: Some("all".to_owned()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    let status = reviewer.subject_access_review(&spec).await.unwrap();
    assert_eq!(
        (status.allowed, status.denied, status.reason.as_deref()),
        (false, Some(true), Some("no"))
    );
    let expected = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "alice", "resourceAttributes": {
            "verb": "get", "group": "umbra.dev", "resource": "views", "subresource": "proxy", "name": "all",
        }},
    });
    let line = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned();
    assert_eq!(*asked.lock(), [(line, expected)]);
}

#[tokio::test]
async fn errors_say_what_they_are() {
    let forbidden = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "tokenreviews.authentication.k8s.io is forbidden"});
    let error = reviewer(403, None, forbidden.to_string())
        .0
        .token_review(&token())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the hub answers 403 to a TokenReview: tokenreviews.authentication.k8s.io is forbidden; bind ClusterRole \
         system:auth-delegator to the identity that asks"
    );
    assert!(!error.is_transient());

    let busy = reviewer(429, Some("1"), "Too many requests, please try again later.\n").0;
    let error = busy.token_review(&token()).await.unwrap_err();
    assert!(error.is_transient());
    let expected = "the hub answers 429 to a TokenReview: Too many requests, please try again later.";
    assert_eq!(error.to_string(), expected);
    assert!(
        matches!(
            error,
            ReviewError::Status {
                retry_after: Some(SECOND),
                ..
            }
        ),
        "{error:?}"
    );

    let conflict = json!({"message": "soon", "details": {"retryAfterSeconds": 2}});
    let error = reviewer(409, None, conflict.to_string())
        .0
        .token_review(&token())
        .await
        .unwrap_err();
    assert!(error.is_transient(), "it says when to come again");
}

#[tokio::test]
async fn nothing_but_a_review_is_an_answer() {
    let long = "x".repeat((4 << 20) + 1);
    for answer in ["", "<html>", "{}", r#"{"status": "Success"}"#, long.as_str()] {
        let (reviewer, _) = reviewer(200, None, answer.to_owned());
        let error = reviewer.token_review(&token()).await.unwrap_err();
        assert!(matches!(error, ReviewError::Unreadable { .. }), "{error:?}");
        let error = reviewer
            .subject_access_review(&SubjectAccessReviewSpec::default())
            .await;
        assert!(error.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn no_error_holds_the_token() {
    for status in [json!([SECRET]), json!(SECRET)] {
        let echo = json!({"spec": {"token": SECRET}, "status": status}).to_string();
        let error = reviewer(201, None, echo).0.token_review(&token()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test]
async fn a_hub_that_is_not_there_may_come_back() {
    let service = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("connection refused"))
    });
    let reviewer = HubReviewer::new(kube::Client::new(service, "default"));
    let error = reviewer.token_review(&token()).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("connection refused"), "{error}");
}
