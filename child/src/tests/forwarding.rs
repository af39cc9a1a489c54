//! What users send: requests and upgrades on their behalf, and the answers of the child.

use http::Method;
use umbra_apimachinery::user::UserInfo;

use super::*;
use crate::{
    Authorization, ChildError, Secret,
    proxy::{ProxyOptions, forward},
};

#[tokio::test]
async fn the_childs_errors_are_told() {
    let (_server, child) = started(Speaks::default()).await;
    let error = soon(child.request_json(Method::PATCH, "/missing", "application/merge-patch+json", "{}"))
        .await
        .expect_err("an error");
    let ChildError::Status {
        code, reason, message, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (*code, reason.as_str(), message.as_str()),
        (StatusCode::NOT_FOUND, "NotFound", "no such thing")
    );
    let refused = soon(child.get_json::<serde_json::Value>("/protected"))
        .await
        .expect_err("an error");
    assert!(matches!(refused, ChildError::CredentialsRefused { .. }));
}

#[tokio::test]
async fn a_user_is_forwarded_without_what_is_theirs() {
    let server = Server::start(Speaks::default(), api).await;
    let mut config = server.config();
    config.credentials.authorization = Authorization::Token(Secret::new("hub"));
    let child = Child::new(config).expect("a child");
    let options = ProxyOptions {
        prefix: "/root/proxy".into(),
    };
    let jane = UserInfo::new("jane", ["dev"]);
    let request = Request::get("/api/v1//pods?x=%2F")
        .header("authorization", "Bearer jane")
        .header("x-remote-user", "admin")
        .header("impersonate-group", "system:masters")
        .header("audit-id", "7")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .body(empty())
        .expect("a request");
    let seen = json(
        soon(forward(&child, request, &jane, &options))
            .await
            .expect("an answer"),
    )
    .await;
    assert_eq!(seen["path"], "/api/v1/pods?x=%2F");
    let mut headers: Vec<_> = seen["headers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one.as_str())
        .collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "audit-id: 7",
            "authorization: Bearer hub",
            "impersonate-group: dev",
            "impersonate-group: system:authenticated",
            "impersonate-user: jane"
        ]
    );

    let moved = soon(forward(&child, get("/moved"), &jane, &options))
        .await
        .expect("an answer");
    assert_eq!(moved.status(), StatusCode::FOUND);
    assert_eq!(moved.headers()[header::LOCATION], "/root/proxy/there?x=1");
    assert_eq!(moved.headers()[header::WARNING], "299 - \"careful\"");
    assert!(!moved.headers().contains_key(header::SET_COOKIE));

    let refused = soon(forward(&child, get("/protected"), &jane, &options)).await;
    assert!(matches!(refused, Err(ChildError::CredentialsRefused { .. })));
    let anonymous = soon(forward(&child, get("/api"), &UserInfo::anonymous(), &options)).await;
    assert!(matches!(anonymous, Err(ChildError::Identity(_))));
}

/// A hub that forwards everything to one child, as jane.
async fn hub(child: Child) -> (Server, Child) {
    let server = Server::start(HTTP1, move |request: Request<Incoming>| {
        let child = child.clone();
        async move {
            let request = request.map(boxed);
            match forward(
                &child,
                request,
                &UserInfo::new("jane", ["dev"]),
                &ProxyOptions::default(),
            )
            .await
            {
                Ok(response) => response,
                Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
            }
        }
    })
    .await;
    let client = Child::new(server.config()).expect("a client");
    (server, client)
}

fn exec(path: &str) -> Request<Body> {
    Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(empty())
        .expect("a request")
}

#[tokio::test]
async fn upgrades_are_spliced_with_half_close() {
    let (_server, child) = started(Speaks::default()).await;
    let (_hub, client) = hub(child.clone()).await;
    let mut response = soon(client.upgrade(exec("/exec"))).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4");
    assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.expect("upgraded"));
    stream.write_all(b"question").await.expect("written");
    stream.shutdown().await.expect("ended");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("read to the end");
    assert_eq!(answer, "hello QUESTION");
}

#[tokio::test]
async fn a_refused_upgrade_is_relayed_and_a_removed_cluster_cuts_sessions() {
    let (_server, child) = started(Speaks::default()).await;
    let (_hub, client) = hub(child.clone()).await;
    let refused = soon(client.upgrade(exec("/missing"))).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(json(refused).await["reason"], "NotFound");

    let mut response = soon(client.upgrade(exec("/exec"))).await.expect("an answer");
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.expect("upgraded"));
    let mut hello = [0; 6];
    soon(stream.read_exact(&mut hello)).await.expect("read");
    soon(child.close()).await;
    let mut rest = Vec::new();
    // Cut or ended, but not open.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}
