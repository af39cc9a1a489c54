//! What is said of deletions, and of other writes, when copies or clusters are late or missing.

use parking_lot::Mutex;

use super::super::answer::Awaits;
use super::super::exchange::Answer;
use super::super::live::Received;
use super::super::resource::ViewResource;
use super::*;
use crate::scripted_child::{Asked, ScriptedChild, json as answer, silent};

/// As [`Fixture::resource`] gives it, for what a request does not reach by itself.
fn view_resource(fixture: &Fixture, name: &str) -> ViewResource {
    let api = fixture.api();
    let resource = GroupResource::parse(name).with_version("v1");
    let served = Arc::clone(api.shape.served(&resource).unwrap());
    ViewResource {
        services: api.services,
        view: api.name,
        shape: api.shape,
        authority: api.authority,
        hub: api.hub,
        served,
        printed: Mutex::default(),
        layout: Mutex::default(),
    }
}

fn within(time: Duration) -> RequestContext {
    RequestContext {
        deadline: Instant::now() + time,
        ..reader("ann")
    }
}

/// A client that is told nothing of a write in time does it again.
#[tokio::test]
async fn a_late_copy_leaves_time_to_answer() {
    let fixture = Fixture::new().await.with_pods().await;
    let copy = get(&fixture, "ann", "shop", "web-1@east").await.unwrap();
    let pods = view_resource(&fixture, "pods");
    pods.present_copies(&reader("ann")).await.unwrap();
    let target = pods.target("east", "web-1").unwrap();
    let answered = Answer {
        code: http::StatusCode::OK,
        body: pod("shop", "web-1", "8").to_string().into(),
    };
    // From here on time passes only where nothing else is to be done.
    tokio::time::pause();
    let context = within(Duration::from_secs(1));
    for awaits in [Awaits::Object, Awaits::ObjectOrEnd] {
        let outcome = pods.outcome(&context, Some("shop"), &target, &answered, awaits);
        let outcome = tokio::time::timeout_at(context.deadline, outcome).await;
        let WriteOutcome::Done(written) = outcome.expect("there is time left to answer").unwrap() else {
            panic!("no object")
        };
        assert_eq!(revision(&written), revision(&copy), "the one that there is");
    }
}

fn collection() -> WriteRequest {
    writes::write(WriteVerb::DeleteCollection, "", "", &Value::Null)
}

/// What a child answers: the pods that were there.
fn deleted(name: &str) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "items": [
        {"metadata": {"name": name, "namespace": "shop", "resourceVersion": "7", "uid": format!("uid-{name}")}}]})
}

async fn child(fixture: &Fixture, cluster: &str) -> ScriptedChild {
    ScriptedChild::start(&fixture.children, cluster, |_| answer(200, &deleted("db"))).await
}

fn items(outcome: WriteOutcome) -> Vec<String> {
    match outcome {
        WriteOutcome::Collection(list) => names(&list),
        other => panic!("no collection: {other:?}"),
    }
}

#[tokio::test]
async fn a_silent_cluster_keeps_no_other_from_deleting() {
    let fixture = Fixture::new().await;
    let _silent = silent(&fixture.children, "east").await;
    let west = child(&fixture, "west").await;
    let pods = fixture.resource("pods");
    let context = within(Duration::from_secs(3));
    let deleting = pods.write(&context, collection());
    let failed = tokio::time::timeout_at(context.deadline, deleting).await;
    let failed = failed.expect("there is time left to answer").unwrap_err();
    assert_eq!((failed.code, west.asked().len()), (504, 1));
    let message = failed.message;
    assert!(
        message.contains("failed in 1 of 2 clusters") && message.contains("east") && message.ends_with("done in west"),
        "{message}"
    );
}

#[tokio::test]
async fn what_some_clusters_have_not_done_is_no_success() {
    let fixture = Fixture::new().await;
    let pods = fixture.resource("pods");
    let context = reader("ann");
    // Nothing is connected yet.
    let failed = pods.write(&context, collection()).await.unwrap_err();
    assert_eq!(failed.code, 503);
    assert!(failed.message.ends_with("; done in no cluster"), "{failed}");
    assert_eq!(failed.details.unwrap().retry_after_seconds, 1);

    let west = child(&fixture, "west").await;
    let failed = pods.write(&context, collection()).await.unwrap_err();
    assert_eq!((failed.code, west.asked().len()), (503, 1));
    assert!(
        failed.message.contains("no connection to cluster \"east\"") && failed.message.ends_with("; done in west"),
        "{failed}"
    );
    let details = failed.details.unwrap();
    assert_eq!((details.name.as_str(), details.retry_after_seconds), ("east", 0));

    let nonsense = |_: &Asked| http::Response::new(Bytes::from_static(b"<html>"));
    let _east = ScriptedChild::start(&fixture.children, "east", nonsense).await;
    let failed = pods.write(&context, collection()).await.unwrap_err();
    assert_eq!(failed.code, 502);
    assert!(failed.message.ends_with("; done in west"), "{failed}");
}

#[tokio::test]
async fn nothing_is_sent_when_the_time_is_used_up() {
    let fixture = Fixture::new().await;
    let (east, west) = (child(&fixture, "east").await, child(&fixture, "west").await);
    let late = within(Duration::ZERO);
    let failed = fixture.resource("pods").write(&late, collection()).await.unwrap_err();
    assert_eq!(failed.code, 504);
    assert!(failed.message.contains("\"east\" has not been asked"), "{failed}");
    assert!(east.asked().is_empty() && west.asked().is_empty());
}

#[tokio::test]
async fn clusters_that_do_not_allow_it_are_not_asked() {
    let fixture = Fixture::new().await;
    for cluster in ["north", "south"] {
        register(&fixture.store, cluster, json!({})).await;
    }
    grant(&fixture.store, "east", "tina", "", &["pods"], &["list"], &[]).await;
    grant(&fixture.store, "north", "ann", "", &["*"], &["*"], &[]).await;
    grant(&fixture.store, "south", "ann", "", &["*"], &["*"], &[]).await;
    for cluster in ["west", "south"] {
        grant(
            &fixture.store,
            cluster,
            "tina",
            "shop",
            &["pods"],
            &["deletecollection"],
            &[],
        )
        .await;
    }
    tenants::settled(&fixture).await;
    let clusters = ["east", "north", "south", "west"];
    let mut children = Vec::new();
    for cluster in clusters {
        children.push(child(&fixture, cluster).await);
    }
    let pods = fixture.resource("pods");
    let context = reader("tina");
    let outcome = pods.write(&context, collection()).await.unwrap();
    assert_eq!(items(outcome), ["shop/db@south", "shop/db@west"]);
    let asked: Vec<usize> = children.iter().map(|child| child.asked().len()).collect();
    assert_eq!(asked, [0, 0, 1, 1]);
    assert!(children[3].asked().iter().all(|one| one.user() == "tina"));
    // What she sees there would look deleted; of the north she sees nothing.
    assert_eq!(
        context.warnings.take(),
        ["pods of cluster \"east\" are left out: you may not delete collections of them there"]
    );
}

/// Before the RBAC of a cluster is copied, it decides alone.
#[tokio::test]
async fn clusters_whose_rbac_is_not_known_are_asked() {
    let fixture = Fixture::new().await;
    register(&fixture.store, "north", json!({})).await;
    tenants::settled(&fixture).await;
    let (_east, _west) = (child(&fixture, "east").await, child(&fixture, "west").await);
    let allows_ann = |asked: &Asked| match asked.user() {
        "ann" => answer(200, &deleted("db")),
        other => {
            let pods = GroupResource::parse("pods");
            let status = Status::forbidden(&pods, "", format!("User \"{other}\" cannot deletecollection"));
            answer(403, &serde_json::to_value(status).unwrap())
        }
    };
    let north = ScriptedChild::start(&fixture.children, "north", allows_ann).await;
    let pods = fixture.resource("pods");
    let outcome = pods.write(&reader("ann"), collection()).await.unwrap();
    assert_eq!(items(outcome), ["shop/db@east", "shop/db@north", "shop/db@west"]);

    let refused = pods.write(&reader("mallory"), collection()).await.unwrap_err();
    assert_eq!((refused.code, north.asked().len()), (403, 2));
    // Where it would be refused anyway it is not asked, and keeps nobody else from anything.
    put_cluster(&fixture.store, "north", json!({"access": "ReadOnly"}), json!({})).await;
    tenants::settled(&fixture).await;
    let outcome = fixture
        .resource("pods")
        .write(&reader("ann"), collection())
        .await
        .unwrap();
    assert_eq!(
        (items(outcome), north.asked().len()),
        (vec!["shop/db@east".to_owned(), "shop/db@west".to_owned()], 2)
    );
    put_cluster(&fixture.store, "north", json!({}), json!({})).await;
    tenants::settled(&fixture).await;
    grant(
        &fixture.store,
        "west",
        "tina",
        "shop",
        &["pods"],
        &["deletecollection"],
        &[],
    )
    .await;
    tenants::settled(&fixture).await;
    let context = reader("tina");
    let outcome = pods.write(&context, collection()).await.unwrap();
    assert_eq!(items(outcome), ["shop/db@west"]);
    assert_eq!(
        context.warnings.take(),
        ["pods of cluster \"north\" are left out: pods is forbidden: User \"tina\" cannot deletecollection"]
    );
}

#[tokio::test]
async fn deleting_in_no_cluster_deletes_nothing() {
    let fixture = Fixture::new().await;
    let nowhere = || WriteRequest {
        list_options: labelled("umbra.dev/cluster=nowhere"),
        ..collection()
    };
    let pods = fixture.resource("pods");
    let outcome = pods.write(&reader("ann"), nowhere()).await.unwrap();
    assert!(items(outcome).is_empty());
    assert_eq!(pods.write(&reader("mallory"), nowhere()).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn what_is_being_deleted_is_waited_for_no_longer() {
    let fixture = Fixture::new().await.with_pods().await;
    let mut dying = pod("shop", "web-1", "9");
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:05:00Z".into();
    fixture.copy("pods", "east", dying).await;
    let pods = view_resource(&fixture, "pods");
    pods.present_copies(&reader("ann")).await.unwrap();
    let of = |cluster: &str, name: &str| {
        let kind = GroupVersionKind::new("", "v1", "Pod");
        let received = Received::list(deleted(name).to_string().as_bytes(), &kind).unwrap();
        (pods.target(cluster, "").unwrap(), received)
    };
    // From here on time passes only where nothing else is to be done.
    tokio::time::pause();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(2);
    pods.await_deletions(&[of("east", "web-1"), of("east", "gone")], until)
        .await;
    assert_eq!(Instant::now(), begun);
    // All that is late is waited for at once.
    pods.await_deletions(&[of("west", "web-1"), of("west", "db")], until)
        .await;
    let waited = Instant::now() - begun;
    assert_eq!(waited.as_secs(), 2, "{waited:?}");
}

/// Less would be deleted of a single cluster, and more, or something else, of several.
#[tokio::test]
async fn pages_and_states_of_the_past_are_not_deleted() {
    let fixture = Fixture::new().await;
    let (east, west) = (child(&fixture, "east").await, child(&fixture, "west").await);
    let pods = fixture.resource("pods");
    let context = reader("ann");
    let with = |list_options: ListOptions| WriteRequest {
        list_options,
        query: "limit=1&resourceVersion=5".to_owned(),
        ..collection()
    };
    let page = ListOptions {
        limit: 1,
        ..ListOptions::default()
    };
    let next = ListOptions {
        continue_token: "token".to_owned(),
        ..labelled("umbra.dev/cluster=west")
    };
    let exact = ListOptions {
        resource_version: Some(5),
        resource_version_match: Some(crate::request::ResourceVersionMatch::Exact),
        ..ListOptions::default()
    };
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": "5"}});
    for request in [
        with(page.clone()),
        with(next),
        with(exact),
        writes::write(WriteVerb::DeleteCollection, "", "", &options),
    ] {
        assert_eq!(pods.write(&context, request).await.unwrap_err().code, 400);
    }
    assert!(east.asked().is_empty() && west.asked().is_empty());
    let one = ListOptions {
        label_selector: "umbra.dev/cluster=west".to_owned(),
        ..page
    };
    pods.write(&context, with(one)).await.unwrap();
    assert_eq!(
        west.asked()[0].line(),
        "DELETE /api/v1/namespaces/shop/pods?labelSelector=&fieldSelector=&limit=1"
    );
}
