//! Views whose authorization is `HubRBAC`, beside those whose is not: what one may see is the same, whoever says so.

use std::collections::BTreeSet;

use proptest::prelude::*;
use umbra_auth::rbac::Visibility;

use super::super::permissions::MOST_NAMESPACES;
use super::super::sight::{Act, Extent, Question};
use super::*;
use crate::scripted_child::{ScriptedChild, json as answer};

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decider {
    Children,
    /// A hub with RBAC objects of its own.
    Hub,
    /// A hub that answers single questions.
    HubReviews,
}

const READ: [&str; 3] = ["get", "list", "watch"];

async fn decided_by(decider: Decider) -> Fixture {
    let mut fixture = Fixture::new().await.with_pods().await;
    if decider != Decider::Children {
        fixture.hub = ScriptedHub::new(decider == Decider::Hub);
        set_authorization(&fixture, "HubRBAC").await;
    }
    fixture
}

async fn set_authorization(fixture: &Fixture, authorization: &str) {
    let view = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "View", "metadata": {"name": "all"},
        "spec": {"authorization": authorization}});
    let key = format!("{HUB_KINDS}views/all");
    let written = put(&fixture.store, &key, view.to_string().into()).await;
    let mut seen = fixture.services.directory.subscribe();
    seen.wait_for(|seen| *seen >= written).await.unwrap();
}

/// Lets a user do something in a namespace, of every cluster.
async fn allow(
    fixture: &Fixture,
    decider: Decider,
    user: &str,
    namespace: &str,
    resources: &[&str],
    verbs: &[&str],
    names: &[&str],
) {
    if decider != Decider::Children {
        return fixture.hub.grant(user, namespace, resources, verbs, names);
    }
    for cluster in ["east", "west"] {
        grant(&fixture.store, cluster, user, namespace, resources, verbs, names).await;
    }
    tenants::settled(fixture).await;
}

async fn withdraw(fixture: &Fixture, decider: Decider, user: &str, namespace: &str) {
    if decider != Decider::Children {
        return fixture.hub.revoke(user, namespace);
    }
    for cluster in ["east", "west"] {
        let name = format!("{user}-pods");
        fixture
            .remove_copy("rolebindings.rbac.authorization.k8s.io", cluster, namespace, &name)
            .await;
    }
    let last = fixture.store.current_revision().await.unwrap();
    let mut seen = fixture.services.policies.subscribe();
    seen.wait_for(|seen| *seen >= last).await.unwrap();
}

async fn pages(fixture: &Fixture, user: &str) -> Vec<Vec<String>> {
    let mut options = ListOptions {
        limit: 1,
        ..ListOptions::default()
    };
    let mut pages = Vec::new();
    loop {
        let pods = fixture.resource("pods");
        let page = pods.list(&reader(user), None, &options).await.unwrap();
        pages.push(names(&page));
        if page.metadata.continue_token.is_empty() {
            return pages;
        }
        options.continue_token = page.metadata.continue_token;
    }
}

const SHOP: [&str; 3] = ["shop/web-1@east", "shop/db@west", "shop/web-1@west"];

async fn reads_show_what_is_allowed(decider: Decider) {
    let fixture = decided_by(decider).await;
    allow(&fixture, decider, "tina", "shop", &["pods"], &READ, &[]).await;
    allow(&fixture, decider, "nina", "shop", &["pods"], &READ, &["db"]).await;
    allow(&fixture, decider, "rosa", "", &["pods"], &READ, &[]).await;
    let all = ListOptions::default();

    assert_eq!(list(&fixture, "tina", None, &all).await.unwrap(), SHOP);
    assert_eq!(list(&fixture, "tina", Some("shop"), &all).await.unwrap(), SHOP);
    assert_eq!(list(&fixture, "rosa", None, &all).await.unwrap().len(), 4);
    assert_eq!(pages(&fixture, "tina").await, SHOP.map(|name| vec![name.to_owned()]));
    for (user, namespace) in [
        ("tina", Some("bank")),
        ("mallory", None),
        ("mallory", Some("shop")),
        ("nina", None),
    ] {
        let refused = list(&fixture, user, namespace, &all).await.unwrap_err();
        assert_eq!(refused.code, 403, "{user} {namespace:?}");
    }
    let nowhere = labelled("umbra.dev/cluster=nowhere");
    assert!(list(&fixture, "tina", None, &nowhere).await.unwrap().is_empty());
    let west = labelled("umbra.dev/cluster=west");
    assert_eq!(list(&fixture, "tina", None, &west).await.unwrap(), SHOP[1..]);

    let by_name = with_fields("metadata.name=db");
    for namespace in [None, Some("shop")] {
        assert_eq!(
            list(&fixture, "nina", namespace, &by_name).await.unwrap(),
            ["shop/db@west"]
        );
    }
    assert_eq!(
        name(&get(&fixture, "nina", "shop", "db").await.unwrap()),
        "shop/db@west"
    );
    assert_eq!(get(&fixture, "nina", "shop", "web-1@west").await.unwrap_err().code, 403);

    assert_eq!(
        name(&get(&fixture, "tina", "shop", "web-1@east").await.unwrap()),
        "shop/web-1@east"
    );
    let codes = [("web-1", 409), ("none", 404), ("none@east", 404), ("web-1@north", 404)];
    for (name, code) in codes {
        assert_eq!(
            get(&fixture, "tina", "shop", name).await.unwrap_err().code,
            code,
            "{name}"
        );
    }
    for name in ["web-2", "web-2@east", "none@east"] {
        assert_eq!(
            get(&fixture, "tina", "bank", name).await.unwrap_err().code,
            403,
            "{name}"
        );
    }

    let pods = fixture.resource("pods");
    let listed = pods.list(&reader("tina"), None, &all).await.unwrap();
    let columns = pods.columns(&listed.items);
    let cells = pods.cells(&listed.items[1], &columns, jiff::Timestamp::now());
    assert_eq!(cells[..2], [json!("west"), json!("db@west")]);
}

#[tokio::test]
async fn reads_show_what_the_children_allow() {
    reads_show_what_is_allowed(Decider::Children).await;
}

#[tokio::test]
async fn reads_show_what_the_hub_allows() {
    reads_show_what_is_allowed(Decider::Hub).await;
}

#[tokio::test]
async fn reads_show_what_reviews_allow() {
    reads_show_what_is_allowed(Decider::HubReviews).await;
}

async fn watches_show_what_is_allowed(decider: Decider) {
    let fixture = decided_by(decider).await;
    allow(&fixture, decider, "tina", "shop", &["pods"], &READ, &[]).await;
    let pods = fixture.resource("pods");
    let before = pods.list(&reader("tina"), None, &ListOptions::default()).await.unwrap();
    let resume = ListOptions {
        resource_version: before.metadata.resource_version.parse().ok(),
        ..ListOptions::default()
    };
    let watch = async |options: &ListOptions| pods.watch(&reader("tina"), None, options).await;
    let mut events = watch(&ListOptions::default()).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in SHOP {
        let Some(Event::Added(pod)) = next(&mut events).await else {
            panic!("a pod")
        };
        seen.insert(name(&pod));
    }
    assert_eq!(seen, SHOP.map(str::to_owned).into());
    let mut resumed = watch(&resume).await.unwrap();
    fixture.copy("pods", "east", pod("bank", "web-3", "8")).await;
    fixture.copy("pods", "east", pod("shop", "web-4", "9")).await;
    for events in [&mut events, &mut resumed] {
        assert!(matches!(next(events).await, Some(Event::Added(pod)) if name(&pod) == "shop/web-4@east"));
    }

    withdraw(&fixture, decider, "tina", "shop").await;
    for events in [&mut events, &mut resumed] {
        let ended = next(events).await;
        assert!(
            matches!(&ended, Some(Event::Error(status)) if status.code == 410),
            "{ended:?}"
        );
        assert!(next(events).await.is_none());
    }
    assert_eq!(watch(&ListOptions::default()).await.err().unwrap().code, 403);
}

#[tokio::test]
async fn watches_show_what_the_children_allow() {
    watches_show_what_is_allowed(Decider::Children).await;
}

#[tokio::test]
async fn watches_show_what_the_hub_allows() {
    watches_show_what_is_allowed(Decider::Hub).await;
}

#[tokio::test]
async fn watches_show_what_reviews_allow() {
    watches_show_what_is_allowed(Decider::HubReviews).await;
}

#[tokio::test]
async fn who_may_not_enter_any_more_watches_no_more() {
    for decider in [Decider::Children, Decider::Hub, Decider::HubReviews] {
        let fixture = decided_by(decider).await;
        allow(&fixture, decider, "tina", "shop", &["pods"], &READ, &[]).await;
        let pods = fixture.resource("pods");
        let mut events = pods
            .watch(&reader("tina"), None, &ListOptions::default())
            .await
            .unwrap();
        for _ in SHOP {
            assert!(matches!(next(&mut events).await, Some(Event::Added(_))), "{decider:?}");
        }
        fixture.hub.close();
        let ended = next(&mut events).await;
        assert!(
            matches!(&ended, Some(Event::Error(status)) if status.code == 410),
            "{decider:?}: {ended:?}"
        );
        assert!(next(&mut events).await.is_none());
    }
}

#[tokio::test]
async fn a_watch_of_children_ends_where_the_hub_cannot_say_who_may_enter() {
    let mut fixture = decided_by(Decider::Children).await;
    fixture.hub = ScriptedHub::new(false);
    let pods = fixture.resource("pods");
    let mut events = pods
        .watch(&reader("ann"), Some("bank"), &ListOptions::default())
        .await
        .unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Added(_))));
    fixture.hub.breaks_down();
    assert!(matches!(next(&mut events).await, Some(Event::Error(status)) if status.code == 500));
    assert!(next(&mut events).await.is_none());
}

#[tokio::test]
async fn a_watch_does_not_go_on_from_before_the_hub_allowed_more() {
    for decider in [Decider::Hub, Decider::HubReviews] {
        let fixture = decided_by(decider).await;
        fixture.hub.grant("tina", "shop", &["pods"], &READ, &[]);
        let pods = fixture.resource("pods");
        let before = pods.list(&reader("tina"), None, &ListOptions::default()).await.unwrap();
        let resume = ListOptions {
            resource_version: before.metadata.resource_version.parse().ok(),
            ..ListOptions::default()
        };
        assert!(pods.watch(&reader("tina"), None, &resume).await.is_ok());
        fixture.hub.grant("tina", "bank", &["pods"], &READ, &[]);
        fixture.copy("pods", "east", pod("shop", "late", "9")).await;
        let refused = pods.watch(&reader("tina"), None, &resume).await.err().unwrap();
        assert_eq!(refused.code, 410, "{decider:?}");
        let after = pods.list(&reader("tina"), None, &ListOptions::default()).await.unwrap();
        let resume = ListOptions {
            resource_version: after.metadata.resource_version.parse().ok(),
            ..ListOptions::default()
        };
        assert!(pods.watch(&reader("tina"), None, &resume).await.is_ok(), "{decider:?}");
    }
}

#[tokio::test]
async fn somebody_else_who_decides_ends_watches() {
    let fixture = decided_by(Decider::Children).await;
    fixture.hub.grant("ann", "", &["pods"], &READ, &[]);
    let pods = fixture.resource("pods");
    let before = pods.list(&reader("ann"), None, &ListOptions::default()).await.unwrap();
    let resume = ListOptions {
        resource_version: before.metadata.resource_version.parse().ok(),
        ..ListOptions::default()
    };
    let mut events = pods.watch(&reader("ann"), None, &resume).await.unwrap();
    set_authorization(&fixture, "HubRBAC").await;
    assert!(matches!(next(&mut events).await, Some(Event::Error(status)) if status.code == 410));
    let pods = fixture.resource("pods");
    assert_eq!(
        list(&fixture, "ann", None, &ListOptions::default())
            .await
            .unwrap()
            .len(),
        4
    );
    assert_eq!(pods.watch(&reader("ann"), None, &resume).await.err().unwrap().code, 410);
}

#[tokio::test]
async fn nothing_is_shown_while_the_hub_cannot_be_asked() {
    let fixture = decided_by(Decider::HubReviews).await;
    fixture.hub.grant("tina", "shop", &["pods", "secrets"], &["*"], &[]);
    let east = ScriptedChild::start(&fixture.children, "east", |_| answer(200, &json!({}))).await;
    let pods = fixture.resource("pods");
    let options = ListOptions::default();
    let begin = |user| pods.watch(user, Some("shop"), &options);
    let user = reader("tina");
    let mut events = begin(&user).await.unwrap();
    for _ in SHOP {
        assert!(matches!(next(&mut events).await, Some(Event::Added(_))));
    }
    fixture.hub.breaks_down();
    assert!(matches!(next(&mut events).await, Some(Event::Error(status)) if status.code == 500));
    assert!(next(&mut events).await.is_none());
    for namespace in [None, Some("shop")] {
        assert_eq!(list(&fixture, "tina", namespace, &options).await.unwrap_err().code, 500);
        let secrets = fixture.resource("secrets").list(&user, namespace, &options).await;
        assert_eq!(secrets.unwrap_err().code, 500);
    }
    for name in ["web-1@east", "web-1"] {
        assert_eq!(get(&fixture, "tina", "shop", name).await.unwrap_err().code, 500);
    }
    assert_eq!(begin(&user).await.err().unwrap().code, 500);
    let deleted = pods.write(&user, writes::write(WriteVerb::Delete, "web-1@east", "", &Value::Null));
    assert_eq!(deleted.await.unwrap_err().code, 500);
    assert!(east.asked().is_empty());
}

#[tokio::test]
async fn a_child_is_asked_only_for_what_the_hub_allows() {
    let fixture = decided_by(Decider::HubReviews).await;
    fixture.hub.grant("tina", "shop", &["pods", "secrets"], &READ, &[]);
    let forbids = |_: &crate::scripted_child::Asked| {
        let status = Status::forbidden(&GroupResource::parse("pods"), "web-1", "says the child");
        answer(403, &serde_json::to_value(status).unwrap())
    };
    let east = ScriptedChild::start(&fixture.children, "east", forbids).await;
    let west = ScriptedChild::start(&fixture.children, "west", forbids).await;
    let pods = fixture.resource("pods");
    let user = reader("tina");
    let sent = parsed(&get(&fixture, "tina", "shop", "web-1@east").await.unwrap());
    let write =
        |verb, subresource: &str, body: &Value| pods.write(&user, writes::write(verb, "web-1@east", subresource, body));

    let refused = write(WriteVerb::Update, "", &sent).await.unwrap_err();
    assert!(refused.message.contains("core.view.umbra.dev"), "{refused}");
    for subresource in ["", "eviction"] {
        assert_eq!(
            write(WriteVerb::Create, subresource, &sent).await.unwrap_err().code,
            403
        );
    }
    assert_eq!(write(WriteVerb::Delete, "", &Value::Null).await.unwrap_err().code, 403);
    let collection = WriteRequest {
        name: String::new(),
        ..writes::write(WriteVerb::DeleteCollection, "", "", &Value::Null)
    };
    assert_eq!(pods.write(&user, collection).await.unwrap_err().code, 403);
    let log = context("tina", "GET", "/api/v1/namespaces/shop/pods/web-1@east/log");
    let request = http::Request::get("/api/v1/namespaces/shop/pods/web-1@east/log");
    let request = request.body(umbra_child::full(Bytes::new())).unwrap();
    assert_eq!(pods.connect(&log, request).await.unwrap_err().code, 403);
    let get_options = GetOptions::default();
    let scale = pods.get(&user, Some("shop"), "web-1@east", "scale", &get_options);
    assert_eq!(scale.await.unwrap_err().code, 403);
    let secrets = fixture.resource("secrets");
    let options = ListOptions::default();
    assert_eq!(secrets.list(&user, Some("bank"), &options).await.unwrap_err().code, 403);
    let other = secrets.get(&user, Some("bank"), "key@east", "", &get_options);
    assert_eq!(other.await.unwrap_err().code, 403);
    assert!(east.asked().is_empty() && west.asked().is_empty());

    // What the hub allows, the child still refuses.
    for cluster in ["east", "west"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "resourceVersion": "1"}});
        fixture.copy("namespaces", cluster, namespace).await;
    }
    fixture
        .hub
        .grant("tina", "shop", &["pods", "secrets", "pods/log"], &["*"], &[]);
    let refused = write(WriteVerb::Update, "", &sent).await.unwrap_err();
    assert!(refused.message.contains("says the child"), "{refused}");
    assert_eq!(east.asked().len(), 1);
    assert_eq!(secrets.list(&user, None, &options).await.unwrap_err().code, 403);
    assert!(
        east.asked()[1]
            .line()
            .starts_with("GET /api/v1/namespaces/shop/secrets?")
    );
    assert!(
        west.asked()[0]
            .line()
            .starts_with("GET /api/v1/namespaces/shop/secrets?")
    );
}

#[tokio::test]
async fn an_apply_that_creates_needs_to_be_allowed_to_create() {
    let fixture = decided_by(Decider::Hub).await;
    fixture.hub.grant("tina", "shop", &["pods"], &["get", "patch"], &[]);
    let east = ScriptedChild::start(&fixture.children, "east", |asked| answer(200, &asked.json())).await;
    let pods = fixture.resource("pods");
    let user = reader("tina");
    let apply = |name: &str| {
        let sent = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}});
        let verb = WriteVerb::Patch(crate::request::PatchType::Apply);
        let request = WriteRequest {
            options: WriteOptions {
                dry_run: true,
                ..WriteOptions::default()
            },
            ..writes::write(verb, name, "", &sent)
        };
        pods.write(&user, request)
    };
    apply("web-1@east").await.unwrap();
    assert_eq!(apply("new@east").await.unwrap_err().code, 403);
    assert_eq!(east.asked().len(), 1);
}

#[tokio::test]
async fn an_update_that_creates_needs_to_be_allowed_to_create() {
    let fixture = decided_by(Decider::Hub).await;
    fixture.hub.grant("tina", "shop", &["pods"], &["get", "update"], &[]);
    let east = ScriptedChild::start(&fixture.children, "east", |asked| answer(200, &asked.json())).await;
    let pods = fixture.resource("pods");
    let update = async |name: &str| {
        let request = WriteRequest {
            options: WriteOptions {
                dry_run: true,
                ..WriteOptions::default()
            },
            ..writes::write(WriteVerb::Update, name, "", &pod("shop", name, ""))
        };
        pods.write(&reader("tina"), request).await
    };
    update("web-1@east").await.unwrap();
    let refused = update("new@east").await.unwrap_err();
    assert!(
        refused.code == 403 && refused.message.contains("cannot create"),
        "{refused}"
    );
    assert_eq!(east.asked().len(), 1);
    fixture
        .hub
        .grant("tina", "shop", &["pods"], &["get", "update", "create"], &[]);
    update("new@east").await.unwrap();
}

/// A hub that tells all it allows tells of other namespaces, too.
#[tokio::test]
async fn a_bare_name_is_looked_for_only_where_it_is_allowed() {
    for decider in [Decider::Hub, Decider::HubReviews] {
        let fixture = decided_by(decider).await;
        fixture.hub.grant("tina", "shop", &["pods", "secrets"], &READ, &[]);
        let east = ScriptedChild::start(&fixture.children, "east", |_| answer(200, &pod("bank", "key", "1"))).await;
        let secrets = fixture.resource("secrets");
        let (user, options) = (reader("tina"), GetOptions::default());
        let ask = |namespace| secrets.get(&user, Some(namespace), "key", "", &options);
        assert_eq!(ask("bank").await.unwrap_err().code, 403, "{decider:?}");
        assert!(east.asked().is_empty(), "{decider:?}");
        ask("shop").await.unwrap();
        assert_eq!(east.asked().len(), 1, "{decider:?}");
        assert_eq!(get(&fixture, "tina", "bank", "web-2").await.unwrap_err().code, 403);
    }
}

#[tokio::test]
async fn reviews_are_answered_by_the_hub() {
    for decider in [Decider::Hub, Decider::HubReviews] {
        let fixture = decided_by(decider).await;
        fixture.hub.grant("tina", "shop", &["pods", "pods/log"], &READ, &[]);
        let ask = async |kind: &str, spec: Value| {
            let path = format!("/apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
            let context = context("tina", "POST", &path);
            let review = json!({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": spec});
            let answered = fixture.api().review(&context, &review.to_string().into()).await;
            let answered: Value = serde_json::from_slice(&answered.unwrap().unwrap()).unwrap();
            answered["status"].clone()
        };
        for (namespace, resource, subresource, name, allowed) in [
            ("shop", "pods", "", "", true),
            ("shop", "pods", "", "web-1@east", true),
            ("shop", "pods", "log", "web-1@east", true),
            ("shop", "pods", "exec", "web-1@east", false),
            ("bank", "pods", "", "", false),
            ("", "pods", "", "", false),
            ("shop", "secrets", "", "", false),
        ] {
            let attributes = json!({"verb": "get", "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": name});
            let status = ask("SelfSubjectAccessReview", json!({"resourceAttributes": attributes})).await;
            assert_eq!(status["allowed"], allowed, "{attributes}");
        }
        let path = |path: &str| json!({"nonResourceAttributes": {"verb": "get", "path": path}});
        assert_eq!(
            ask("SelfSubjectAccessReview", path("/apis/apps/v1")).await["allowed"],
            true
        );
        assert_eq!(ask("SelfSubjectAccessReview", path("/metrics")).await["allowed"], false);
        let rules = ask("SelfSubjectRulesReview", json!({"namespace": "shop"})).await;
        assert_eq!(rules["incomplete"], true);
    }
}

#[tokio::test]
async fn namespaces_are_asked_about_once_each_and_only_where_that_is_bounded() {
    let fixture = decided_by(Decider::HubReviews).await;
    fixture.hub.grant("tina", "shop", &["pods"], &["list"], &[]);
    list(&fixture, "tina", None, &ListOptions::default()).await.unwrap();
    // All namespaces, shop and bank; to list and to watch.
    assert_eq!(fixture.hub.questions(), 6);
    list(&fixture, "tina", Some("shop"), &ListOptions::default())
        .await
        .unwrap();
    assert_eq!(fixture.hub.questions(), 8);

    let user = UserInfo::new("tina", ["system:authenticated"]);
    let question = all_pods(&user);
    let namespaces = |count: usize| (0..count).map(|number| format!("ns-{number}")).collect::<BTreeSet<_>>();
    let hub = &*fixture.hub;
    assert!(question.among(hub, &namespaces(MOST_NAMESPACES)).await.is_ok());
    let refused = question.among(hub, &namespaces(MOST_NAMESPACES + 1)).await.unwrap_err();
    assert!(refused.code == 403 && refused.message.contains("name one"), "{refused}");
    let of_more = question.among(hub, &namespaces(3 * MOST_NAMESPACES)).await.unwrap_err();
    assert_eq!(of_more.message, refused.message, "it tells how many there are");
}

fn all_pods(user: &UserInfo) -> Question<'_> {
    Question {
        user,
        act: Act {
            verb: "list",
            group: "",
            resource: "pods",
        },
        extent: Extent {
            namespaced: true,
            namespace: None,
            name: None,
        },
    }
}

proptest! {
    /// One question after the other finds what a hub that tells all tells.
    #[test]
    fn asking_finds_what_is_told(
        granted in prop::collection::vec(("[a-e]?", prop::bool::weighted(0.2)), 0..5),
        present in prop::collection::btree_set("[a-f]", 0..6),
        named in prop::option::of("[xy]"),
    ) {
        let user = UserInfo::new("tina", ["system:authenticated"]);
        let mut question = all_pods(&user);
        question.extent.name = named.as_deref();
        let [tells, asks] = [true, false].map(|tells| {
            let hub = ScriptedHub::new(tells);
            for (namespace, by_name) in &granted {
                let names: &[&str] = if *by_name { &["x"] } else { &[] };
                hub.grant("tina", namespace, &["pods"], &["list"], names);
            }
            hub
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (told, found) = runtime.block_on(async {
            let told = question.whole(&*tells).await.unwrap().unwrap();
            let found = match question.whole(&*asks).await.unwrap() {
                Some(found) => found,
                None => question.among(&*asks, &present).await.unwrap(),
            };
            (told, found)
        });
        let shows = |visibility: &Visibility, namespace: &str, name: &str| {
            super::super::sight::allows_object(visibility, namespace, name, named.is_some())
        };
        for namespace in &present {
            for name in ["x", "y"] {
                let is_selected = named.as_deref().is_none_or(|named| named == name);
                prop_assert!(!is_selected || shows(&told, namespace, name) == shows(&found, namespace, name));
            }
        }
    }
}
