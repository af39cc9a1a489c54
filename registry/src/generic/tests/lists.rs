//! Lists: freshness, pages, selectors.

use umbra_storage::Revision;

use super::{Root, config_map, names};
use crate::request::{ListOptions, ResourceVersionMatch};

async fn five() -> Root {
    let root = Root::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        root.create("configmaps", config_map(name)).await.unwrap();
    }
    root
}

fn page(limit: u64, token: &str) -> ListOptions {
    ListOptions {
        limit,
        continue_token: token.to_owned(),
        ..ListOptions::default()
    }
}

#[tokio::test]
async fn pages_are_of_one_snapshot() {
    let root = five().await;
    let first = root.list("configmaps", &page(2, "")).await.unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    root.create("configmaps", config_map("bb")).await.unwrap();
    root.delete("configmaps", "d", serde_json::Value::Null).await.unwrap();
    let second = root
        .list("configmaps", &page(2, &first.metadata.continue_token))
        .await
        .unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let third = root
        .list("configmaps", &page(2, &second.metadata.continue_token))
        .await
        .unwrap();
    assert_eq!(names(&third), ["e"]);
    assert!(third.metadata.continue_token.is_empty() && third.metadata.remaining_item_count.is_none());
}

#[tokio::test]
async fn a_token_too_old_comes_with_one_that_goes_on() {
    let root = five().await;
    let first = root.list("configmaps", &page(2, "")).await.unwrap();
    root.create("configmaps", config_map("bb")).await.unwrap();
    // Another root on the same store has not kept the snapshot, as after a restart.
    let restarted = crate::generic::indexer::StoredIndexer::new(root.resource("configmaps").keys().clone(), Vec::new());
    let cache = umbra_storage::Cache::start(
        root.store.clone(),
        root.resource("configmaps").keys().prefix(),
        restarted,
        umbra_storage::CacheOptions::default(),
        &root.api.parts().tracker,
        root.cancelled.clone(),
    );
    cache.ready(super::soon()).await.unwrap();
    let scope = crate::generic::indexer::StoredScope::new(
        root.resource("configmaps").keys(),
        Some("default"),
        crate::generic::read::Selection::parse(&ListOptions::default(), |_| true).unwrap(),
    );
    let list = async |options: ListOptions| {
        crate::generic::read::list(root.store.as_ref(), &cache, &scope, &options, super::soon()).await
    };
    let token = &first.metadata.continue_token;
    let from_store = list(page(2, token)).await.unwrap();
    assert_eq!(names(&from_store), ["c", "d"]);
    root.store
        .compact(root.store.current_revision().await.unwrap())
        .await
        .unwrap();
    let status = list(page(2, token)).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let rest = list(page(0, &status.metadata.continue_token)).await.unwrap();
    assert_eq!(names(&rest), ["bb", "c", "d", "e"]);
}

#[tokio::test]
async fn revisions_say_how_fresh_and_how_exact() {
    let root = five().await;
    let at = root
        .list("configmaps", &ListOptions::default())
        .await
        .unwrap()
        .metadata
        .resource_version;
    let at: u64 = at.parse().unwrap();
    root.create("configmaps", config_map("f")).await.unwrap();
    let options = |revision, matched| ListOptions {
        resource_version: Some(revision),
        resource_version_match: matched,
        ..ListOptions::default()
    };
    let exact = root
        .list("configmaps", &options(at, Some(ResourceVersionMatch::Exact)))
        .await
        .unwrap();
    assert_eq!(
        (exact.items.len(), exact.metadata.resource_version),
        (5, at.to_string())
    );
    for options in [
        options(at, None),
        options(at, Some(ResourceVersionMatch::NotOlderThan)),
        options(0, None),
    ] {
        assert_eq!(root.list("configmaps", &options).await.unwrap().items.len(), 6);
    }
    let Revision(now) = root.store.current_revision().await.unwrap();
    let status = root.list("configmaps", &options(now + 100, None)).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    let status = root.list("configmaps", &page(2, "nonsense")).await.unwrap_err();
    assert_eq!(status.code, 400);
}

#[tokio::test]
async fn selectors_select() {
    let root = Root::start().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = serde_json::json!({"l": label});
        root.create("configmaps", object).await.unwrap();
    }
    let select = |labels: &str, fields: &str, limit| ListOptions {
        label_selector: labels.to_owned(),
        field_selector: fields.to_owned(),
        limit,
        ..ListOptions::default()
    };
    let list = async |options: ListOptions| root.list("configmaps", &options).await;
    assert_eq!(names(&list(select("l in (x)", "", 0)).await.unwrap()), ["a", "c", "d"]);
    assert_eq!(
        names(&list(select("l=x", "metadata.name!=a", 0)).await.unwrap()),
        ["c", "d"]
    );
    let page = list(select("l=x", "", 2)).await.unwrap();
    assert_eq!(
        (names(&page), page.metadata.remaining_item_count),
        (vec!["a".into(), "c".into()], None)
    );
    let last = list(ListOptions {
        continue_token: page.metadata.continue_token,
        ..select("l=x", "", 2)
    })
    .await
    .unwrap();
    assert!(names(&last) == ["d"] && last.metadata.continue_token.is_empty());
    assert_eq!(list(select("l in", "", 0)).await.unwrap_err().code, 400);
    assert_eq!(list(select("", "spec.nodeName=x", 0)).await.unwrap_err().code, 400);
}
