//! What the catalog says of a cluster, against a scripted child and a real store in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use umbra_apimachinery::status::{Reason, Status};
use umbra_storage::Embedded;

use super::*;
use crate::copy::source::Lines;

/// Answers by path; what it has no answer for, it does not give.
#[derive(Default)]
struct Script(Mutex<HashMap<String, Value>>);

impl Script {
    fn answer(&self, path: &str, body: Value) {
        self.0.lock().insert(path.to_owned(), body);
    }

    fn fail(&self, path: &str) {
        self.0.lock().remove(path);
    }
}

#[async_trait]
impl Source for Script {
    async fn get(&self, path: &str, _accept: &str) -> Result<Bytes, SourceError> {
        let answer = self.0.lock().get(path).map(|body| Bytes::from(body.to_string()));
        answer.ok_or_else(|| {
            let status = Status::failure(Reason::ServiceUnavailable, "no answer");
            SourceError::Status(Box::new(status))
        })
    }

    async fn watch(&self, path: &str, _accept: &str) -> Result<Lines, SourceError> {
        Err(SourceError::Unreachable(path.to_owned()))
    }
}

struct Fixture {
    script: Arc<Script>,
    store: Arc<Embedded>,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            script: Arc::default(),
            store: Arc::new(Embedded::in_memory()),
        };
        fixture
            .script
            .answer("/api", json!({"kind": "APIVersions", "versions": []}));
        fixture
    }

    /// As a hub that has just started: nothing is known but what is in the store.
    async fn discover(&self) -> ClusterApi {
        let (source, store): (Arc<dyn Source>, Arc<dyn Store>) =
            (Arc::clone(&self.script) as _, Arc::clone(&self.store) as _);
        let (copy, _state) = ClusterCopy::new("east", Sync::default(), source, store);
        let answered = copy.discover_and_store().await.unwrap();
        let stored = self.store.get(&api_key("east")).await.unwrap().entry.unwrap();
        let stored: ClusterApi = serde_json::from_slice(&stored.value).unwrap();
        assert_eq!(stored.discovery, answered);
        stored
    }
}

fn served(api: &ClusterApi) -> Vec<String> {
    let resources = api.discovery.resources();
    resources.map(|one| one.resource.to_string()).collect()
}

/// A version of `metrics.io`, whose server is another one than that of its other versions.
fn version(name: &str, freshness: &str, resources: &[&str]) -> Value {
    let resources: Vec<_> = resources
        .iter()
        .map(|name| {
            json!({"resource": name, "scope": "Namespaced", "responseKind": {"group": "", "version": "", "kind": "Kind"},
                "verbs": ["get", "list", "watch"]})
        })
        .collect();
    json!({"version": name, "freshness": freshness, "resources": resources})
}

fn groups(versions: &[Value]) -> Value {
    json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "metrics.io"}, "versions": versions}]})
}

#[tokio::test]
async fn what_does_not_answer_is_served_as_it_was_in_the_place_where_it_is_listed() {
    let fixture = Fixture::new();
    let old = version("v1", "Current", &["loads"]);
    fixture.script.answer(
        "/apis",
        groups(&[version("v2", "Current", &["loads", "peaks"]), old.clone()]),
    );
    let before = fixture.discover().await;
    assert_eq!(
        served(&before),
        [
            "metrics.io/v2, Resource=loads",
            "metrics.io/v2, Resource=peaks",
            "metrics.io/v1, Resource=loads"
        ]
    );
    // Its server is down, and the kube-apiserver has been restarted since.
    let stale = version("v2", "Stale", &[]);
    fixture.script.answer("/apis", groups(&[stale, old.clone()]));
    assert_eq!(fixture.discover().await, before);
    // The second time, too.
    assert_eq!(fixture.discover().await, before);
    // It answers, and what it does not have any more is gone.
    fixture
        .script
        .answer("/apis", groups(&[version("v2", "Current", &["loads"]), old.clone()]));
    let after = fixture.discover().await;
    assert_eq!(
        served(&after),
        ["metrics.io/v2, Resource=loads", "metrics.io/v1, Resource=loads"]
    );
    // Nobody lists it any more.
    fixture.script.answer("/apis", groups(&[old]));
    let without = fixture.discover().await;
    assert_eq!(served(&without), ["metrics.io/v1, Resource=loads"]);
    assert_eq!(without.copied, [GroupResource::new("metrics.io", "loads")].into());
}

#[tokio::test]
async fn what_is_listed_as_stale_with_its_resources_is_what_it_has() {
    let fixture = Fixture::new();
    fixture
        .script
        .answer("/apis", groups(&[version("v1", "Current", &["loads", "peaks"])]));
    fixture.discover().await;
    fixture
        .script
        .answer("/apis", groups(&[version("v1", "Stale", &["loads"])]));
    assert_eq!(served(&fixture.discover().await), ["metrics.io/v1, Resource=loads"]);
}

#[tokio::test]
async fn a_version_that_fails_in_the_old_form_of_discovery_keeps_its_place() {
    let fixture = Fixture::new();
    let list = |version: &str| {
        json!({"kind": "APIResourceList", "groupVersion": format!("metrics.io/{version}"), "resources": [
            {"name": "loads", "kind": "Load", "namespaced": true, "verbs": ["get", "list", "watch"]}]})
    };
    let versions = json!([{"groupVersion": "metrics.io/v2"}, {"groupVersion": "metrics.io/v1"}]);
    let groups = json!({"kind": "APIGroupList", "groups": [{"name": "metrics.io", "versions": versions}]});
    fixture.script.answer("/apis", groups);
    fixture.script.answer("/apis/metrics.io/v1", list("v1"));
    assert_eq!(served(&fixture.discover().await), ["metrics.io/v1, Resource=loads"]);
    fixture.script.answer("/apis/metrics.io/v2", list("v2"));
    let before = fixture.discover().await;
    assert_eq!(
        served(&before),
        ["metrics.io/v2, Resource=loads", "metrics.io/v1, Resource=loads"]
    );
    fixture.script.fail("/apis/metrics.io/v2");
    assert_eq!(fixture.discover().await, before);
}

#[tokio::test]
async fn what_has_a_name_that_leads_elsewhere_is_left_out() {
    let fixture = Fixture::new();
    let group = |name: &str, version: &Value| json!({"metadata": {"name": name}, "versions": [version]});
    let trap = |resource: &str| version("v1", "Current", &[resource]);
    let items = [
        group(
            "",
            &version("v1", "Current", &["pods", "pods/west", "", "..", "pods%2fwest"]),
        ),
        group("rbac.authorization.k8s.io/rolebindings", &trap("west")),
        group("core", &trap("pods")),
        group("x.io", &version("v1/things", "Current", &["west"])),
        group("x.io", &version("v1", "Current", &["things", "queue_length"])),
    ];
    fixture
        .script
        .answer("/apis", json!({"kind": "APIGroupDiscoveryList", "items": items}));
    let api = fixture.discover().await;
    assert_eq!(
        served(&api),
        [
            "v1, Resource=pods",
            "x.io/v1, Resource=things",
            "x.io/v1, Resource=queue_length"
        ]
    );
    assert_eq!(api.copied.len(), 3);
}
