//! Creates, updates, patches, deletes, and clients in the same process.

use serde_json::{Value, json};
use umbra_apimachinery::user::UserInfo;
use umbra_registry::request::{FieldValidation, PatchType};
use umbra_registry::resource::WriteVerb;

use super::fake::{FakeHub, request, send};
use crate::Limits;

const PODS: &str = "/api/v1/namespaces/shop/pods";

#[tokio::test]
async fn creates_take_json_and_yaml() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("user-agent", "kubectl/v1.36 (linux)"),
    ];
    let path = format!("{PODS}?fieldValidation=Strict&dryRun=All");
    let answer = send(
        &server,
        request("POST", &path, &headers, r#"{"metadata":{"name":"a"}}"#),
    )
    .await;
    assert_eq!(answer.code, 201);
    let written = hub.written.lock().take().unwrap();
    assert_eq!(
        (written.verb, written.namespace.as_deref()),
        (WriteVerb::Create, Some("shop"))
    );
    assert_eq!(
        (written.options.field_manager.as_str(), written.options.dry_run),
        ("kubectl", true)
    );
    assert_eq!(written.options.field_validation, FieldValidation::Strict);
    assert_eq!(written.query, "fieldValidation=Strict&dryRun=All");

    let yaml = [("content-type", "application/yaml")];
    let answer = send(&server, request("POST", PODS, &yaml, "metadata:\n  name: b\n")).await;
    assert_eq!(
        (answer.code.as_u16(), answer.json()),
        (201, json!({"metadata": {"name": "b"}}))
    );
    assert_eq!(hub.written.lock().take().unwrap().content_type, "application/json");
    let broken = send(&server, request("POST", PODS, &yaml, "a: [")).await;
    assert_eq!(broken.code, 400);
    let cbor = [("content-type", "application/cbor")];
    let answer = send(&server, request("POST", PODS, &cbor, "x")).await;
    assert_eq!(answer.code, 415);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("set the client's content type to application/json"),
        "{message}"
    );
}

/// A `runtime.Unknown` behind its prefix; every length in it is below 128.
fn protobuf(api_version: &str, kind: &str, raw: &str) -> String {
    let field = |tag: char, content: &str| format!("{tag}{}{content}", char::from(content.len() as u8));
    let type_meta = field('\x0a', api_version) + &field('\x12', kind);
    format!("k8s\0{}{}", field('\x0a', &type_meta), field('\x12', raw))
}

#[tokio::test]
async fn built_in_kinds_may_come_as_protobuf() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let post = |path: &str, body: String| send(&server, request("POST", path, &headers, &body));

    // metadata (1) with the name (1) a.
    let answer = post(PODS, protobuf("v1", "Pod", "\x0a\x03\x0a\x01a")).await;
    assert_eq!(answer.code, 201);
    let written = hub.written.lock().take().unwrap();
    assert_eq!(written.content_type, "application/json");
    let pod: Value = serde_json::from_slice(&written.body).unwrap();
    assert_eq!((&pod["kind"], &pod["metadata"]["name"]), (&json!("Pod"), &json!("a")));

    let review = protobuf("authentication.k8s.io/v1", "SelfSubjectReview", "");
    let answer = post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review).await;
    assert_eq!(answer.code, 201);

    // dryRun (5) All.
    let options = protobuf("v1", "DeleteOptions", "\x2a\x03All");
    let answer = send(&server, request("DELETE", &format!("{PODS}/a"), &headers, &options)).await;
    assert_eq!(answer.code, 200);
    assert!(hub.written.lock().take().unwrap().options.dry_run);

    let toy = post(PODS, protobuf("example.com/v1", "Toy", "")).await;
    assert_eq!(
        (toy.code.as_u16(), &toy.json()["reason"]),
        (415, &json!("UnsupportedMediaType"))
    );
    let message = toy.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("no kind Toy of example.com/v1"), "{message}");
    assert_eq!(post(PODS, "k8s".to_owned()).await.code, 400);
    let patch = send(&server, request("PATCH", &format!("{PODS}/a"), &headers, "k8s")).await;
    assert_eq!(patch.code, 415);
    let only = [headers[0], ("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(send(&server, request("POST", PODS, &only, "k8s")).await.code, 406);
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let server = FakeHub::new(0, 0).server();
    let large = "x".repeat(3 * 1024 * 1024 + 1);
    let answer = send(&server, request("POST", PODS, &[], &large)).await;
    assert_eq!(
        (answer.code.as_u16(), &answer.json()["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    let limits = Limits {
        body_bytes: 1000,
        ..Limits::default()
    };
    let server = FakeHub::new(0, 0).server_with(|builder| builder.limits(limits));
    for (size, want) in [(1000, 201), (1001, 413)] {
        let answer = send(&server, request("POST", PODS, &[], &"x".repeat(size))).await;
        assert_eq!(answer.code.as_u16(), want, "{size}");
    }
}

#[tokio::test]
async fn patches_go_by_media_type() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    for (media_type, want) in [
        ("application/json-patch+json", PatchType::Json),
        ("application/merge-patch+json", PatchType::Merge),
        ("application/strategic-merge-patch+json", PatchType::Strategic),
    ] {
        let headers = [("content-type", media_type)];
        let answer = send(&server, request("PATCH", &format!("{PODS}/a"), &headers, "{}")).await;
        assert_eq!(answer.code, 200, "{media_type}");
        assert_eq!(hub.written.lock().take().unwrap().verb, WriteVerb::Patch(want));
    }
    let apply = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{PODS}/a?fieldManager=me&force=true");
    assert_eq!(send(&server, request("PATCH", &path, &apply, "a: 1")).await.code, 200);
    assert!(hub.written.lock().take().unwrap().options.force);
    assert_eq!(
        send(&server, request("PATCH", &format!("{PODS}/a"), &apply, "a: 1"))
            .await
            .code,
        422
    );
    let wrong = send(&server, request("PATCH", &format!("{PODS}/a"), &[], "{}")).await;
    assert_eq!(wrong.code, 415);
    assert_eq!(send(&server, request("PATCH", PODS, &apply, "a: 1")).await.code, 405);
}

#[tokio::test]
async fn deletes_take_options_from_body_or_query() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let path = format!("{PODS}/a");
    let body = r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background","dryRun":["All"]}"#;
    let answer = send(&server, request("DELETE", &path, &[], body)).await;
    assert_eq!(
        (answer.code.as_u16(), &answer.json()["status"]),
        (200, &json!("Success"))
    );
    assert!(hub.written.lock().take().unwrap().options.dry_run);
    send(
        &server,
        request("DELETE", &format!("{path}?gracePeriodSeconds=0"), &[], ""),
    )
    .await;
    let written = hub.written.lock().take().unwrap();
    let options: Value = serde_json::from_slice(&written.body).unwrap();
    assert_eq!(options["gracePeriodSeconds"], 0);
    let wrong = send(
        &server,
        request("DELETE", &path, &[], r#"{"propagationPolicy":"Sideways"}"#),
    )
    .await;
    assert_eq!(wrong.code, 422);
    let all = send(
        &server,
        request("DELETE", &format!("{PODS}?labelSelector=app%3Dweb"), &[], ""),
    )
    .await;
    assert_eq!((all.code.as_u16(), &all.json()["kind"]), (200, &json!("PodList")));
    assert_eq!(
        hub.written.lock().take().unwrap().list_options.label_selector,
        "app=web"
    );
    assert_eq!(
        send(&server, request("DELETE", "/api/v1/pods", &[], "")).await.code,
        405
    );
}

/// What is passed on to a child is read there by its body alone.
#[tokio::test]
async fn a_dry_run_of_a_delete_is_in_its_body() {
    let hub = FakeHub::new(0, 0);
    let server = hub.server();
    let object = format!("{PODS}/a");
    for path in [object.as_str(), PODS] {
        for (query, body) in [
            ("dryRun=All", ""),
            ("dryRun=All&propagationPolicy=Foreground", ""),
            ("dryRun=All&gracePeriodSeconds=0", ""),
            ("dryRun=All", r#"{"gracePeriodSeconds":0}"#),
            ("dryRun=All", r#"{"dryRun":[]}"#),
            ("dryRun=All", r#"{"dryRun":null}"#),
            ("", r#"{"dryRun":["All"]}"#),
        ] {
            let answer = send(&server, request("DELETE", &format!("{path}?{query}"), &[], body)).await;
            assert_eq!(answer.code, 200, "{path} {query} {body}");
            let written = hub.written.lock().take().unwrap();
            assert!(written.options.dry_run, "{path} {query} {body}");
            let options: Value = serde_json::from_slice(&written.body).unwrap();
            assert_eq!(options["dryRun"], json!(["All"]), "{path} {query} {body}");
        }
    }
    send(&server, request("DELETE", &format!("{object}?timeout=5s"), &[], "")).await;
    assert!(hub.written.lock().take().unwrap().body.is_empty());
    let unknown = send(&server, request("DELETE", &format!("{object}?dryRun=Some"), &[], "{}")).await;
    assert_eq!(unknown.code, 422);
}

#[tokio::test]
async fn reviews_are_answered_without_a_resource() {
    let server = FakeHub::new(0, 0).server();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = send(&server, request("POST", path, &[], r#"{"kind":"SelfSubjectReview"}"#)).await;
    assert_eq!(
        (answer.code.as_u16(), answer.json()["kind"].as_str()),
        (201, Some("SelfSubjectReview"))
    );
    assert_eq!(send(&server, request("GET", path, &[], "")).await.code, 404);
}

#[tokio::test]
async fn clients_in_process_are_whom_they_are_made_for() {
    let hub = FakeHub::new(2, 0);
    let prefix = "/apis/umbra.dev/v1alpha1/views/all/proxy";
    let controller = UserInfo::new("system:umbra:controller", ["system:masters"]);
    let service = hub.server().in_process(controller).below(prefix);
    let client = kube::Client::new(service, "default");
    let pod = http::Request::get("/api/v1/namespaces/shop/pods/a")
        .body(Vec::new())
        .unwrap();
    let pod: Value = client.request(pod).await.unwrap();
    assert_eq!(pod["metadata"]["name"], "a");
    assert_eq!(hub.users.lock()[0].name, "system:umbra:controller");
    let missing = http::Request::get("/api/v1/namespaces/shop/pods/missing")
        .body(Vec::new())
        .unwrap();
    let error = client.request::<Value>(missing).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
}
