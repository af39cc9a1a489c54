//! What is read, by whom does not matter.

use super::*;

#[tokio::test]
async fn names_are_qualified_or_unique() {
    let fixture = Fixture::new().await.with_pods().await;
    assert_eq!(name(&get(&fixture, "ann", "shop", "db").await.unwrap()), "shop/db@west");
    let ambiguous = get(&fixture, "ann", "shop", "web-1").await.unwrap_err();
    assert_eq!(ambiguous.code, 409);
    let causes: Vec<String> = ambiguous
        .details
        .unwrap()
        .causes
        .into_iter()
        .map(|cause| cause.message)
        .collect();
    assert_eq!(causes, ["web-1@east", "web-1@west"]);
    assert!(
        ambiguous.message.contains("web-1@east, web-1@west"),
        "{}",
        ambiguous.message
    );
    assert_eq!(get(&fixture, "ann", "shop", "none").await.unwrap_err().code, 404);
    let unknown = get(&fixture, "ann", "shop", "web-1@north").await.unwrap_err();
    assert_eq!(unknown.code, 404);
    assert!(
        unknown
            .message
            .ends_with("the view \"all\" has no cluster \"north\"; it has: east, west"),
        "{unknown}"
    );
    let hub: Arc<dyn HubPermissions> = Arc::clone(&fixture.hub) as _;
    assert!(ViewApi::new("none", &fixture.services, &hub).is_err_and(|status| status.code == 404));
}

#[tokio::test]
async fn selectors_pick_clusters_labels_and_fields() {
    let fixture = Fixture::new().await.with_pods().await;
    let selected = async |options: ListOptions| list(&fixture, "ann", None, &options).await.unwrap();
    assert_eq!(
        selected(labelled("umbra.dev/cluster=west")).await,
        ["shop/db@west", "shop/web-1@west"]
    );
    assert_eq!(
        selected(labelled("umbra.dev/cluster!=west,app=web-1")).await,
        ["shop/web-1@east"]
    );
    assert_eq!(
        selected(with_fields("metadata.name=web-1@west")).await,
        ["shop/web-1@west"]
    );
    assert_eq!(
        selected(with_fields("metadata.name=web-1")).await,
        ["shop/web-1@east", "shop/web-1@west"]
    );
    assert_eq!(
        selected(with_fields("spec.nodeName=n1@east")).await,
        ["bank/web-2@east", "shop/web-1@east"]
    );
    assert_eq!(
        selected(with_fields("spec.nodeName!=n1@east")).await,
        ["shop/db@west", "shop/web-1@west"]
    );
    let unsupported = list(&fixture, "ann", None, &with_fields("spec.what=1"))
        .await
        .unwrap_err();
    assert_eq!(unsupported.code, 400);
}

#[tokio::test]
async fn pages_are_of_one_snapshot() {
    let fixture = Fixture::new().await.with_pods().await;
    let pods = fixture.resource("pods");
    let mut options = ListOptions {
        limit: 3,
        ..ListOptions::default()
    };
    let first = pods.list(&reader("ann"), None, &options).await.unwrap();
    assert_eq!(names(&first).len(), 3);
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    fixture.copy("pods", "west", pod("shop", "late", "9")).await;
    options.continue_token.clone_from(&first.metadata.continue_token);
    let second = pods.list(&reader("ann"), None, &options).await.unwrap();
    assert_eq!(names(&second), ["shop/web-1@west"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
}

#[tokio::test]
async fn tables_show_the_cluster_and_what_the_child_prints() {
    let fixture = Fixture::new().await.with_pods().await;
    let pods = fixture.resource("pods");
    let listed = pods
        .list(&reader("ann"), Some("bank"), &ListOptions::default())
        .await
        .unwrap();
    let columns = pods.columns(&listed.items);
    let headings: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(headings, ["Cluster", "Name", "Ready", "Age"]);
    let now = "2026-01-01T00:05:00Z".parse().unwrap();
    let cells = pods.cells(&listed.items[0], &columns, now);
    assert_eq!(cells, [json!("east"), json!("web-2@east"), json!("1/1"), json!("5m")]);
}

#[tokio::test]
async fn an_outage_is_told_and_the_last_known_state_served() {
    let fixture = Fixture::new().await.with_pods().await;
    let status = json!({"conditions": [{"type": "Reachable", "status": "False", "reason": "ProbeFailed",
        "message": "connection refused", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let before = *fixture.services.directory.subscribe().borrow();
    put_cluster(&fixture.store, "west", json!({}), status).await;
    fixture
        .services
        .directory
        .subscribe()
        .wait_for(|seen| *seen > before)
        .await
        .unwrap();
    let context = reader("ann");
    let pods = fixture.resource("pods");
    assert_eq!(
        pods.list(&context, None, &ListOptions::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );
    let warning = "cluster \"west\" is unreachable since 2026-01-01T00:00:00Z; showing its last known state";
    assert_eq!(context.warnings.take(), [warning]);
    // Nobody asked about west.
    pods.list(&context, None, &labelled("umbra.dev/cluster=east"))
        .await
        .unwrap();
    assert!(context.warnings.take().is_empty());
    pods.get(&context, Some("shop"), "db", "", &GetOptions::default())
        .await
        .unwrap();
    assert_eq!(context.warnings.take(), [warning]);
}

#[tokio::test]
async fn watches_resume_and_mark_the_end_of_the_state() {
    let fixture = Fixture::new().await.with_pods().await;
    let pods = fixture.resource("pods");
    let options = ListOptions {
        allow_watch_bookmarks: true,
        send_initial_events: Some(true),
        resource_version_match: Some(crate::request::ResourceVersionMatch::NotOlderThan),
        ..labelled("app=db")
    };
    let mut events = pods.watch(&reader("ann"), None, &options).await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Added(pod)) if name(&pod) == "shop/db@west"));
    let Some(Event::Bookmark {
        revision,
        initial_events_end: true,
    }) = next(&mut events).await
    else {
        panic!("no end of the initial events")
    };
    let mut moved = pod("shop", "db", "9");
    moved["metadata"]["labels"]["app"] = "other".into();
    fixture.copy("pods", "west", moved).await;
    // An object that leaves the selection is deleted.
    assert!(matches!(next(&mut events).await, Some(Event::Deleted(pod)) if name(&pod) == "shop/db@west"));
    let resumed = ListOptions {
        resource_version: Some(revision),
        ..ListOptions::default()
    };
    let mut events = pods.watch(&reader("ann"), None, &resumed).await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Modified(pod)) if name(&pod) == "shop/db@west"));
}

#[tokio::test]
async fn paths_that_are_no_resources_are_for_finding_out() {
    let api = Fixture::new().await.api();
    let user = UserInfo::new("tina", ["system:authenticated"]);
    for (path, allowed) in [
        ("/", true),
        ("/api", true),
        ("/apis/apps/v1", true),
        ("/openapi/v3/api/v1", true),
        ("/version", true),
        ("/metrics", false),
        ("/apisomething", false),
        ("/logs", false),
    ] {
        let answer = api.authorize(&user, &RequestInfo::parse("GET", path, "")).await;
        assert_eq!(answer.is_ok(), allowed, "{path}");
    }
    assert!(
        api.authorize(&user, &RequestInfo::parse("GET", "/api/v1/secrets", ""))
            .await
            .is_ok()
    );
}
