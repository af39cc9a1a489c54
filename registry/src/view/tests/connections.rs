//! Connections reach the object that is meant, and what they are answered leads back to it.

use super::*;
use crate::scripted_child::{Asked, ScriptedChild};

/// Redirects to the same path with a slash, as kube-apiserver does.
fn redirect(asked: &Asked) -> http::Response<Bytes> {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let answer = http::Response::builder();
    if path.ends_with("/proxy") {
        let location = format!("{path}/?{query}");
        answer.status(301).header("location", location).body(Bytes::new())
    } else {
        answer.body(Bytes::from_static(b"here"))
    }
    .unwrap()
}

async fn connect(fixture: &Fixture, path: &str) -> Result<http::Response<crate::resource::Body>, Status> {
    let request = http::Request::get(path).body(umbra_child::empty()).unwrap();
    fixture
        .resource("pods")
        .connect(&context("ann", "GET", path), request)
        .await
}

#[tokio::test]
async fn a_redirect_through_a_proxy_comes_back_to_the_same_object() {
    let fixture = Fixture::new().await.with_pods().await;
    let east = ScriptedChild::start(&fixture.children, "east", redirect).await;
    let west = ScriptedChild::start(&fixture.children, "west", redirect).await;
    // web-1 is in both clusters, db in west alone.
    for (name, child, in_child, comes_back_to) in [
        ("web-1@east", &east, "web-1", "web-1@east"),
        ("http:web-1@west:80", &west, "http:web-1:80", "http:web-1@west:80"),
        ("web-1:80@west", &west, "web-1:80", "web-1@west:80"),
        ("db", &west, "db", "db@west"),
        ("db:80", &west, "db:80", "db@west:80"),
        ("http:db:80", &west, "http:db:80", "http:db@west:80"),
    ] {
        let path = |name: &str| format!("/api/v1/namespaces/shop/pods/{name}/proxy");
        let answer = connect(&fixture, &format!("{}?a=b", path(name))).await.unwrap();
        assert_eq!(answer.status(), 301, "{name}");
        let location = answer.headers()["location"].to_str().unwrap();
        assert_eq!(location, format!("/root{}/?a=b", path(comes_back_to)), "{name}");
        let followed = location.strip_prefix("/root").unwrap();
        assert_eq!(connect(&fixture, followed).await.unwrap().status(), 200, "{name}");
        let asked: Vec<String> = child.asked().iter().rev().take(2).map(Asked::line).collect();
        let wanted = ["/?a=b", "?a=b"].map(|rest| format!("GET {}{rest}", path(in_child)));
        assert_eq!(asked, wanted);
    }
    let ambiguous = "/api/v1/namespaces/shop/pods/http:web-1:80/proxy";
    assert_eq!(connect(&fixture, ambiguous).await.err().unwrap().code, 409);
    // Ports are for proxies.
    let log = "/api/v1/namespaces/shop/pods/db:80/log";
    assert_eq!(connect(&fixture, log).await.err().unwrap().code, 404);
}
