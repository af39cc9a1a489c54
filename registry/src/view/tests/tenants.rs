//! Who sees what.

use super::*;

/// tina has a Role in the shop of east.
pub(super) async fn with_tenant() -> Fixture {
    let fixture = Fixture::new().await.with_pods().await;
    grant(
        &fixture.store,
        "east",
        "tina",
        "shop",
        &["pods"],
        &["get", "list", "watch"],
        &[],
    )
    .await;
    settled(&fixture).await;
    fixture
}

/// Waits until the mirrors have seen all that was written.
pub(super) async fn settled(fixture: &Fixture) {
    let services = &fixture.services;
    let mirrors = [
        (HUB_KINDS, services.directory.subscribe()),
        (CATALOG, services.catalog.subscribe()),
        (RBAC_COPIES, services.policies.subscribe()),
    ];
    for (prefix, mut seen) in mirrors {
        let written = umbra_storage::RangeRequest::prefix(prefix);
        let written = fixture.store.range(written).await.unwrap();
        let last = written.entries.iter().map(|entry| entry.revision).max().unwrap();
        seen.wait_for(|seen| *seen >= last).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_sees_exactly_what_the_children_grant() {
    let fixture = with_tenant().await;
    let all = ListOptions::default();
    assert_eq!(list(&fixture, "tina", None, &all).await.unwrap(), ["shop/web-1@east"]);
    assert_eq!(
        list(&fixture, "tina", Some("shop"), &all).await.unwrap(),
        ["shop/web-1@east"]
    );
    let everything = list(&fixture, "ann", None, &all).await.unwrap();
    assert_eq!(
        everything,
        ["bank/web-2@east", "shop/web-1@east", "shop/db@west", "shop/web-1@west"]
    );

    let refused = list(&fixture, "tina", Some("bank"), &all).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"tina\" cannot list resource \"pods\" in API group \"\" in the namespace \"bank\": \
         in no cluster of the view \"all\""
    );
    assert_eq!(
        list(&fixture, "tina", None, &labelled("umbra.dev/cluster=west"))
            .await
            .unwrap_err()
            .code,
        403
    );
    assert_eq!(list(&fixture, "mallory", None, &all).await.unwrap_err().code, 403);
    assert!(
        list(&fixture, "tina", None, &labelled("umbra.dev/cluster=nowhere"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn gets_are_judged_as_the_child_would() {
    let fixture = with_tenant().await;
    assert_eq!(
        name(&get(&fixture, "tina", "shop", "web-1@east").await.unwrap()),
        "shop/web-1@east"
    );
    let refused = get(&fixture, "tina", "bank", "web-2@east").await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.starts_with("pods \"web-2@east\" is forbidden"),
        "{refused}"
    );
    // Whether it exists is not told to whom it is forbidden.
    assert_eq!(get(&fixture, "tina", "bank", "no@east").await.unwrap_err().code, 403);
    assert_eq!(get(&fixture, "tina", "shop", "no@east").await.unwrap_err().code, 404);
    // Both clusters have it; tina may know of one.
    assert_eq!(
        name(&get(&fixture, "tina", "shop", "web-1").await.unwrap()),
        "shop/web-1@east"
    );
    assert_eq!(get(&fixture, "mallory", "shop", "web-1").await.unwrap_err().code, 403);
}

#[tokio::test]
async fn grants_by_name_need_requests_by_name() {
    let fixture = Fixture::new().await.with_pods().await;
    grant(
        &fixture.store,
        "west",
        "nina",
        "shop",
        &["pods"],
        &["get", "list"],
        &["db"],
    )
    .await;
    settled(&fixture).await;
    assert_eq!(
        list(&fixture, "nina", None, &ListOptions::default())
            .await
            .unwrap_err()
            .code,
        403
    );
    let named = list(&fixture, "nina", None, &with_fields("metadata.name=db@west"))
        .await
        .unwrap();
    assert_eq!(named, ["shop/db@west"]);
    assert_eq!(
        get(&fixture, "nina", "shop", "db")
            .await
            .unwrap()
            .row
            .unwrap()
            .cluster(),
        "west"
    );
    assert_eq!(get(&fixture, "nina", "shop", "web-1@west").await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_watch_ends_when_what_may_be_seen_changes() {
    let fixture = with_tenant().await;
    let pods = fixture.resource("pods");
    let mut events = pods
        .watch(&reader("tina"), None, &ListOptions::default())
        .await
        .unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Added(pod)) if name(&pod) == "shop/web-1@east"));
    // Not hers.
    fixture.copy("pods", "east", pod("bank", "web-3", "8")).await;
    fixture.copy("pods", "east", pod("shop", "web-4", "9")).await;
    assert!(matches!(next(&mut events).await, Some(Event::Added(pod)) if name(&pod) == "shop/web-4@east"));
    // Somebody else's grant ends nothing.
    grant(&fixture.store, "east", "otto", "bank", &["pods"], &["list"], &[]).await;
    fixture.remove_copy("pods", "east", "shop", "web-4").await;
    assert!(matches!(next(&mut events).await, Some(Event::Deleted(pod)) if name(&pod) == "shop/web-4@east"));

    fixture
        .remove_copy("rolebindings.rbac.authorization.k8s.io", "east", "shop", "tina-pods")
        .await;
    let ended = next(&mut events).await;
    assert!(
        matches!(&ended, Some(Event::Error(status)) if status.code == 410),
        "{ended:?}"
    );
    assert!(next(&mut events).await.is_none());
    assert_eq!(
        pods.watch(&reader("tina"), None, &ListOptions::default())
            .await
            .err()
            .unwrap()
            .code,
        403
    );
}

#[tokio::test]
async fn a_watch_does_not_go_on_from_before_a_grant() {
    let fixture = with_tenant().await;
    let pods = fixture.resource("pods");
    let before = pods.list(&reader("tina"), None, &ListOptions::default()).await.unwrap();
    let resume = ListOptions {
        resource_version: Some(before.metadata.resource_version.parse().unwrap()),
        ..ListOptions::default()
    };
    assert!(pods.watch(&reader("tina"), None, &resume).await.is_ok());
    grant(&fixture.store, "west", "otto", "shop", &["pods"], &["watch"], &[]).await;
    settled(&fixture).await;
    assert!(
        pods.watch(&reader("tina"), None, &resume).await.is_ok(),
        "west is not hers"
    );
    grant(&fixture.store, "east", "otto", "shop", &["pods"], &["watch"], &[]).await;
    settled(&fixture).await;
    assert!(
        pods.watch(&reader("tina"), None, &resume).await.is_ok(),
        "what others see is not hers"
    );
    grant(&fixture.store, "east", "tina", "bank", &["pods"], &["watch"], &[]).await;
    settled(&fixture).await;
    let refused = pods.watch(&reader("tina"), None, &resume).await.err().unwrap();
    assert_eq!(refused.code, 410);
    let after = pods.list(&reader("tina"), None, &ListOptions::default()).await.unwrap();
    let resume = ListOptions {
        resource_version: Some(after.metadata.resource_version.parse().unwrap()),
        ..ListOptions::default()
    };
    assert!(pods.watch(&reader("tina"), None, &resume).await.is_ok());
    // What she sees is the same; what she would have been told of in between is not.
    let binding = "rolebindings.rbac.authorization.k8s.io";
    fixture.remove_copy(binding, "east", "shop", "tina-pods").await;
    grant(
        &fixture.store,
        "east",
        "tina",
        "shop",
        &["pods"],
        &["get", "list", "watch"],
        &[],
    )
    .await;
    settled(&fixture).await;
    let refused = pods.watch(&reader("tina"), None, &resume).await.err().unwrap();
    assert_eq!(refused.code, 410);
}

#[tokio::test]
async fn a_watch_ends_when_a_cluster_joins_that_it_would_show() {
    let fixture = with_tenant().await;
    let pods = fixture.resource("pods");
    let watch = |options: ListOptions| {
        let pods = Arc::clone(&pods);
        async move { pods.watch(&reader("ann"), Some("shop"), &options).await.unwrap() }
    };
    let mut all = watch(with_fields("metadata.name=db@west")).await;
    let mut wide = watch(with_fields("metadata.name=db")).await;
    assert!(matches!(next(&mut all).await, Some(Event::Added(_))));
    assert!(matches!(next(&mut wide).await, Some(Event::Added(_))));
    register(&fixture.store, "north", json!({})).await;
    grant(&fixture.store, "north", "ann", "", &["*"], &["*"], &[]).await;
    assert!(matches!(next(&mut wide).await, Some(Event::Error(status)) if status.code == 410));
    // The one that can only show west goes on.
    fixture.copy("pods", "west", pod("shop", "db", "9")).await;
    assert!(matches!(next(&mut all).await, Some(Event::Modified(_))));
}

#[tokio::test]
async fn a_watch_of_before_a_cluster_came_or_left_begins_anew() {
    let fixture = with_tenant().await;
    for comes in [true, false] {
        let pods = fixture.resource("pods");
        let before = pods
            .list(&reader("ann"), Some("shop"), &ListOptions::default())
            .await
            .unwrap();
        let since = before.metadata.resource_version.parse().ok();
        if comes {
            register(&fixture.store, "north", json!({})).await;
            grant(&fixture.store, "north", "ann", "", &["*"], &["*"], &[]).await;
        } else {
            let key = format!("{HUB_KINDS}managedclusters/north");
            fixture.store.delete(&key, Precondition::None).await.unwrap();
        }
        let pods = fixture.resource("pods");
        let resume = |options: ListOptions| {
            let (pods, options) = (
                Arc::clone(&pods),
                ListOptions {
                    resource_version: since,
                    ..options
                },
            );
            async move { pods.watch(&reader("ann"), Some("shop"), &options).await.map(drop) }
        };
        let refused = async {
            while resume(with_fields("metadata.name=db")).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), refused)
            .await
            .expect("refused in time");
        assert_eq!(resume(with_fields("metadata.name=db")).await.unwrap_err().code, 410);
        assert!(resume(with_fields("metadata.name=db@west")).await.is_ok());
    }
}

#[tokio::test]
async fn reviews_answer_for_the_clusters() {
    let fixture = with_tenant().await;
    let ask = async |user: &str, spec: Value| {
        let context = context(user, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
        let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": spec});
        let answer = fixture
            .api()
            .review(&context, &review.to_string().into())
            .await
            .unwrap()
            .unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()["status"].clone()
    };
    let list_in =
        |namespace: &str| json!({"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": namespace}});
    assert_eq!(
        ask("tina", list_in("shop")).await,
        json!({"allowed": true, "reason": "allowed in: east"})
    );
    assert_eq!(ask("tina", list_in("bank")).await["allowed"], false);
    assert_eq!(ask("ann", list_in("")).await["reason"], "allowed in: east, west");
    let named =
        json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "shop", "name": "web-1@west"}});
    assert_eq!(ask("tina", named).await["allowed"], false);
}
