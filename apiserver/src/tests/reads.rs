//! Gets, lists, Tables, discovery, OpenAPI.

use std::io::Read as _;

use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::fake::{FakeHub, get, request, send};

const TABLE: (&str, &str) = (
    "accept",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
);
const METADATA: (&str, &str) = (
    "accept",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
     application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
);

#[tokio::test]
async fn lists_are_their_items_bytes() {
    let server = FakeHub::new(3, 0).server();
    let answer = get(&server, "/api/v1/pods", &[]).await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let prefix = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"42"},"items":[{"apiVersion""#;
    assert!(answer.text().starts_with(prefix), "{}", answer.text());
    let items = answer.json()["items"].as_array().unwrap().len();
    assert_eq!(items, 3);
    let empty = get(&FakeHub::new(0, 0).server(), "/api/v1/pods", &[]).await;
    assert_eq!(empty.json()["items"], json!([]));
}

#[tokio::test]
async fn large_lists_come_in_bounded_chunks() {
    let server = FakeHub::new(2000, 1000).server();
    let response = server
        .clone()
        .oneshot(request("GET", "/api/v1/pods", &[], ""))
        .await
        .unwrap();
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), None);
    let mut whole = Vec::new();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= 300 * 1024, "{}", data.len());
        whole.extend_from_slice(&data);
        frames += 1;
    }
    assert!(frames > 4, "{frames}");
    let list: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2000);
    assert_eq!(list["items"][1999]["metadata"]["name"], "web-1999");

    let zipped = get(&server, "/api/v1/pods", &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..])
        .read_to_end(&mut unzipped)
        .unwrap();
    assert!(unzipped == whole);

    let table = get(&server, "/api/v1/pods?includeObject=None", &[TABLE]).await;
    assert_eq!(table.json()["rows"].as_array().unwrap().len(), 2000);
}

#[tokio::test]
async fn small_answers_are_not_compressed() {
    let server = FakeHub::new(1, 0).server();
    let answer = get(&server, "/api/v1/pods", &[("accept-encoding", "gzip")]).await;
    assert!(!answer.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn tables_carry_what_is_asked_for() {
    let server = FakeHub::new(2, 0).server();
    let table = get(&server, "/api/v1/namespaces/shop/pods", &[TABLE]).await.json();
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["metadata"]["resourceVersion"], "42");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][1]["cells"], json!(["web-1"]));
    assert_eq!(table["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["rows"][1]["object"]["metadata"]["labels"]["app"], "web");

    let include = |value: &str| format!("/api/v1/namespaces/shop/pods/web-1?includeObject={value}");
    let none = get(&server, &include("None"), &[TABLE]).await.json();
    assert_eq!(none["rows"][0]["object"], json!(null));
    let object = get(&server, &include("Object"), &[TABLE]).await.json();
    assert_eq!(object["rows"][0]["object"]["kind"], "Pod");
    assert_eq!(object["metadata"]["resourceVersion"], "7");
    let wrong = get(&server, &include("Some"), &[TABLE]).await;
    assert_eq!(wrong.code, 400);
}

#[tokio::test]
async fn metadata_alone() {
    let server = FakeHub::new(2, 0).server();
    let list = get(&server, "/api/v1/pods", &[METADATA]).await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(
        list["items"][0],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
            "name": "web-0", "namespace": "shop", "resourceVersion": "7", "labels": {"app": "web"}}})
    );
    let one = ("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let object = get(&server, "/api/v1/namespaces/shop/pods/a", &[one]).await.json();
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert_eq!(get(&server, "/api/v1/pods", &[one]).await.code, 406);
}

#[tokio::test]
async fn people_get_indented_text() {
    let server = FakeHub::new(1, 0).server();
    let answer = get(&server, "/api/v1/pods?pretty=true", &[]).await;
    assert!(
        answer.text().starts_with("{\n  \"kind\": \"PodList\",\n"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["items"][0]["metadata"]["name"], "web-0");
}

#[tokio::test]
async fn discovery_in_both_forms() {
    let server = FakeHub::new(0, 0).server();
    assert_eq!(get(&server, "/api", &[]).await.json()["versions"], json!(["v1"]));
    assert_eq!(get(&server, "/apis", &[]).await.json()["groups"][0]["name"], "apps");
    let group = get(&server, "/apis/apps", &[]).await.json();
    assert_eq!(
        (&group["kind"], &group["preferredVersion"]["groupVersion"]),
        (&json!("APIGroup"), &json!("apps/v1"))
    );
    let resources = get(&server, "/api/v1", &[]).await.json();
    assert_eq!(resources["resources"][0]["shortNames"], json!(["po"]));
    assert_eq!(resources["resources"][1]["name"], "pods/status");
    assert_eq!(get(&server, "/apis/none/v1", &[]).await.code, 404);

    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let answer = get(&server, "/api", &[("accept", aggregated)]).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let document = answer.json();
    assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
    let pods = &document["items"][0]["versions"][0]["resources"][0];
    assert_eq!(
        (&pods["scope"], &pods["subresources"][0]["subresource"]),
        (&json!("Namespaced"), &json!("status"))
    );
    let tag = answer.headers["etag"].to_str().unwrap();
    let again = get(&server, "/api", &[("accept", aggregated), ("if-none-match", tag)]).await;
    assert_eq!((again.code.as_u16(), again.body.len()), (304, 0));
    let groups = get(&server, "/apis", &[("accept", aggregated)]).await.json();
    assert_eq!(groups["items"][0]["metadata"]["name"], "apps");
}

#[tokio::test]
async fn openapi_urls_stay_in_the_root() {
    let server = FakeHub::new(0, 0).server();
    let prefix = "/apis/umbra.dev/v1alpha1/views/all/proxy";
    let index = get(&server, &format!("{prefix}/openapi/v3"), &[]).await.json();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, format!("{prefix}/openapi/v3/api/v1?hash=ABC"));
    let document = get(&server, url, &[]).await;
    assert_eq!(document.json()["openapi"], "3.0.0");
    assert!(
        document.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let stale = get(&server, &url.replace("ABC", "OLD"), &[]).await;
    assert_eq!(
        (stale.code.as_u16(), stale.headers["location"].to_str().unwrap()),
        (301, url)
    );
    assert_eq!(
        get(&server, &format!("{prefix}/openapi/v3/apis/none/v1"), &[])
            .await
            .code,
        404
    );

    assert_eq!(get(&server, "/openapi/v2", &[]).await.json()["swagger"], "2.0");
    let protobuf = ("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    assert_eq!(get(&server, "/openapi/v2", &[protobuf]).await.code, 406);
}

#[tokio::test]
async fn the_index_and_heads() {
    let server = FakeHub::new(1, 0).server();
    let paths = get(&server, "/", &[]).await.json()["paths"].clone();
    assert!(paths.as_array().unwrap().contains(&json!("/apis/apps/v1")));
    let head = send(&server, request("HEAD", "/api/v1/pods", &[], "")).await;
    assert_eq!((head.code.as_u16(), head.body.len()), (200, 0));
    assert_eq!(
        send(&server, request("OPTIONS", "/api/v1/pods", &[], "")).await.code,
        405
    );
}
