//! What is asked of the children when it is asked for.

use super::tenants::{settled, with_tenant};
use super::writes::write;
use super::*;
use crate::request::ResourceVersionMatch;
use crate::scripted_child::{Asked, ScriptedChild, json as answer, refusing, silent};
use crate::view::budget::{Budget, LONGEST_OBJECT};
use crate::view::exchange::{Asked as Question, Bounds};

#[tokio::test]
async fn what_is_asked_live_is_asked_as_the_caller() {
    let fixture = with_tenant().await;
    grant(&fixture.store, "east", "tina", "shop", &["secrets"], &["list"], &[]).await;
    settled(&fixture).await;
    let east = ScriptedChild::start(&fixture.children, "east", |_| {
        answer(200, &json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
            "columnDefinitions": [{"name": "Name", "type": "string", "format": "name"}, {"name": "Data", "type": "string"}],
            "rows": [{"cells": ["key", "1"], "object": {"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "key", "namespace": "shop", "resourceVersion": "17"}}}]}))
    })
    .await;
    let west = ScriptedChild::start(&fixture.children, "west", |_| {
        let status = Status::forbidden(&GroupResource::parse("secrets"), "", "no");
        answer(403, &serde_json::to_value(status).unwrap())
    })
    .await;
    let secrets = fixture.resource("secrets");
    let context = reader("tina");
    let listed = secrets.list(&context, None, &ListOptions::default()).await.unwrap();
    assert_eq!(names(&listed), ["shop/key@east"]);
    assert_eq!(revision(&listed.items[0]), "17");
    assert!(context.warnings.take().is_empty(), "a refusal is no failure");
    let columns = secrets.columns(&listed.items);
    assert_eq!(columns.len(), 3);
    let cells = secrets.cells(&listed.items[0], &columns, jiff::Timestamp::now());
    assert_eq!(cells, [json!("east"), json!("key@east"), json!("1")]);
    let asked = &east.asked()[0];
    assert!(
        asked
            .line()
            .starts_with("GET /api/v1/namespaces/shop/secrets?includeObject=Object"),
        "{}",
        asked.line()
    );
    assert_eq!(asked.user(), "tina");
    assert!(west.asked()[0].line().starts_with("GET /api/v1/secrets?"));
    assert_eq!(
        secrets
            .watch(&context, None, &ListOptions::default())
            .await
            .err()
            .unwrap()
            .code,
        405
    );
    assert!(!secrets.descriptor().serves("watch"));
}

/// A tenant of many namespaces in a cluster that says nothing: each of them is a question.
#[tokio::test]
async fn a_child_that_says_nothing_is_given_up_for_all_its_namespaces() {
    let fixture = Fixture::new().await;
    for number in 0..200 {
        let namespace = format!("team-{number:03}");
        grant(&fixture.store, "east", "tina", &namespace, &["secrets"], &["list"], &[]).await;
    }
    settled(&fixture).await;
    let _silent = silent(&fixture.children, "east").await;
    let west = with_key(&fixture, "west").await;
    let context = RequestContext {
        deadline: Instant::now() + Duration::from_secs(3),
        ..reader("tina")
    };
    let secrets = fixture.resource("secrets");
    let listed = secrets.list(&context, None, &ListOptions::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(west.asked().len(), 1);
    let warnings = context.warnings.take();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("\"east\" has is left out"), "{warnings:?}");
}

/// Of one that answers for some namespaces and then no more, what there was is shown, and that it is not all.
#[tokio::test]
async fn a_child_that_answers_in_part_is_shown_in_part() {
    let fixture = Fixture::new().await;
    for namespace in ["bank", "shop"] {
        grant(&fixture.store, "east", "tina", namespace, &["secrets"], &["list"], &[]).await;
    }
    settled(&fixture).await;
    let _east = ScriptedChild::start(&fixture.children, "east", |asked| {
        if asked.path.contains("/bank/") {
            key_list()
        } else {
            answer(
                503,
                &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "too tired"}),
            )
        }
    })
    .await;
    let context = reader("tina");
    let secrets = fixture.resource("secrets");
    let listed = secrets.list(&context, None, &ListOptions::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let warnings = context.warnings.take().join("\n");
    assert!(
        warnings.contains("some of what cluster \"east\" has is left out"),
        "{warnings}"
    );
    assert!(warnings.contains("what cluster \"west\" has is left out"), "{warnings}");
}

fn key_list() -> http::Response<Bytes> {
    answer(
        200,
        &json!({"kind": "SecretList", "items": [{"metadata": {"name": "key"}}]}),
    )
}

/// A child that answers every list with one secret, called `key`.
async fn with_key(fixture: &Fixture, cluster: &str) -> ScriptedChild {
    ScriptedChild::start(&fixture.children, cluster, |_| key_list()).await
}

/// A list of what is asked now has no pages, and no past.
#[tokio::test]
async fn a_live_list_is_neither_continued_nor_of_the_past() {
    let fixture = Fixture::new().await;
    let east = with_key(&fixture, "east").await;
    let _west = with_key(&fixture, "west").await;
    let secrets = fixture.resource("secrets");
    let some = |revision: u64, wanted: Option<ResourceVersionMatch>, limit: u64| ListOptions {
        resource_version: Some(revision),
        resource_version_match: wanted,
        limit,
        ..ListOptions::default()
    };
    let (exact, not_older) = (ResourceVersionMatch::Exact, ResourceVersionMatch::NotOlderThan);
    let of_copies = ListOptions {
        limit: 1,
        continue_token: "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ".to_owned(),
        ..ListOptions::default()
    };
    for options in [of_copies, some(5, Some(exact), 0), some(5, None, 1)] {
        let gone = secrets.list(&reader("ann"), None, &options).await.unwrap_err();
        assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"), "{options:?}");
    }
    assert!(east.asked().is_empty());
    for options in [some(0, None, 1), some(5, Some(not_older), 1), some(5, None, 0)] {
        let listed = secrets.list(&reader("ann"), None, &options).await.unwrap();
        assert_eq!(listed.items.len(), 2, "{options:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_longer_than_any_can_be_is_not_read() {
    let fixture = Fixture::new().await;
    let _east = ScriptedChild::start(&fixture.children, "east", |_| {
        answer(
            200,
            &json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "db", "namespace": "shop", "annotations": {"a": "x".repeat(LONGEST_OBJECT)}}}),
        )
    })
    .await;
    let secrets = fixture.resource("secrets");
    let options = GetOptions::default();
    let refused = secrets.get(&reader("ann"), Some("shop"), "db@east", "", &options).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, 502);
    assert!(
        refused.message.contains("east") && refused.message.contains("too long"),
        "{refused}"
    );
}

/// One that says too much costs itself its place, and not the others.
#[tokio::test]
async fn answers_of_one_list_share_the_memory() {
    let fixture = Fixture::new().await;
    let _east = ScriptedChild::start(&fixture.children, "east", |_| answer(200, &json!("x".repeat(600)))).await;
    let _west = ScriptedChild::start(&fixture.children, "west", |_| answer(200, &json!("x".repeat(300)))).await;
    let budget = Budget::new(1_000, 500, "; ask for less");
    let context = reader("ann");
    let ask = |cluster: &'static str| {
        let bounds = Bounds {
            until: context.deadline,
            budget: &budget,
        };
        let asked = Question::get("/api/v1/secrets".to_owned(), "application/json");
        let (services, context) = (&fixture.services, &context);
        async move {
            let answer = services.exchange_within(context, cluster, asked, bounds).await;
            answer.map_err(Status::from)
        }
    };
    for _ in 0..2 {
        let refused = ask("east").await.unwrap_err();
        assert_eq!(refused.code, 502);
        assert!(
            refused.message.contains("east") && refused.message.contains("ask for less"),
            "{refused}"
        );
    }
    assert_eq!(ask("west").await.unwrap().body.len(), 302);
    assert_eq!(ask("west").await.unwrap_err().code, 502);
}

/// What the hub dials is nobody's business who may enter a view.
#[tokio::test]
async fn failures_name_the_cluster_and_nothing_of_its_connection() {
    let fixture = Fixture::new().await;
    let address = refusing(&fixture.children, "east").await.to_string();
    let _west = with_key(&fixture, "west").await;
    let secrets = fixture.resource("secrets");
    let context = reader("mallory");
    secrets.list(&context, None, &ListOptions::default()).await.unwrap();
    let warnings = context.warnings.take().join("\n");
    assert!(warnings.contains("cluster east: cannot be reached"), "{warnings}");
    let options = GetOptions::default();
    let mut texts = vec![warnings];
    // Whose bare name is looked for may be allowed to see what it means.
    for (user, name) in [("ann", "db"), ("mallory", "db@east")] {
        let context = reader(user);
        let failed = secrets
            .get(&context, Some("shop"), name, "", &options)
            .await
            .unwrap_err();
        assert_eq!(failed.code, 503, "{failed}");
        texts.push(failed.message);
        texts.extend(context.warnings.take());
    }
    assert!(
        texts
            .iter()
            .all(|text| text.contains("east") && !text.contains(&address)),
        "{texts:?}"
    );
}

/// More clusters than are asked at once, behind one that says nothing.
#[tokio::test]
async fn a_child_that_says_nothing_keeps_no_other_out_of_a_live_list() {
    let fixture = Fixture::new().await;
    let _silent = silent(&fixture.children, "east").await;
    let mut others = Vec::new();
    for number in 0..70 {
        let cluster = format!("north-{number:02}");
        register(&fixture.store, &cluster, json!({})).await;
        others.push(with_key(&fixture, &cluster).await);
    }
    settled(&fixture).await;
    let context = RequestContext {
        deadline: Instant::now() + Duration::from_secs(5),
        ..reader("ann")
    };
    let secrets = fixture.resource("secrets");
    let options = ListOptions::default();
    let listed = secrets.list(&context, Some("shop"), &options);
    let listed = tokio::time::timeout_at(context.deadline, listed).await;
    let listed = listed.expect("there is time left to answer").unwrap();
    assert_eq!(listed.items.len(), others.len());
    let warnings = context.warnings.take().join("\n");
    assert!(warnings.contains("\"east\" has is left out"), "{warnings}");
}

#[tokio::test]
async fn events_of_an_object_are_asked_of_its_cluster() {
    let fixture = with_tenant().await;
    let empty = |_: &Asked| {
        answer(
            200,
            &json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": []}),
        )
    };
    let east = ScriptedChild::start(&fixture.children, "east", empty).await;
    let west = ScriptedChild::start(&fixture.children, "west", empty).await;
    let options = with_fields("involvedObject.name=web-1@east,involvedObject.namespace=shop");
    let secrets = fixture.resource("secrets");
    secrets.list(&reader("ann"), Some("shop"), &options).await.unwrap();
    let asked = &east.asked()[0];
    let fields = "fieldSelector=involvedObject.name%3Dweb-1%2CinvolvedObject.namespace%3Dshop";
    assert!(asked.path.ends_with(fields), "{}", asked.path);
    assert!(west.asked().is_empty());
}

/// A child with one secret, called `db`.
async fn with_secret(fixture: &Fixture, cluster: &str) -> ScriptedChild {
    let secret = |_: &Asked| {
        answer(
            200,
            &json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "db", "namespace": "shop", "resourceVersion": "3"}}),
        )
    };
    ScriptedChild::start(&fixture.children, cluster, secret).await
}

/// A child without any secrets.
async fn without_secrets(fixture: &Fixture, cluster: &str) -> ScriptedChild {
    let none = |_: &Asked| {
        let status = Status::not_found(&GroupResource::parse("secrets"), "db");
        answer(404, &serde_json::to_value(status).unwrap())
    };
    ScriptedChild::start(&fixture.children, cluster, none).await
}

async fn get_secret(fixture: &Fixture, context: &RequestContext) -> Result<Object, Status> {
    let secrets = fixture.resource("secrets");
    secrets
        .get(context, Some("shop"), "db", "", &GetOptions::default())
        .await
}

/// Nobody knows that an object is not there, as long as a cluster cannot be asked. Nothing reaches west.
#[tokio::test]
async fn a_bare_name_is_not_missing_where_a_cluster_cannot_be_asked() {
    let fixture = Fixture::new().await;
    let _east = without_secrets(&fixture, "east").await;
    let failed = get_secret(&fixture, &reader("ann")).await.unwrap_err();
    assert_eq!(failed.code, 503, "{failed}");
    assert!(
        failed.message.contains("\"db\"") && failed.message.contains("\"west\" has not been looked at"),
        "{failed}"
    );
    assert!(!failed.message.contains("\"east\""), "{failed}");
    assert!(failed.message.contains("NAME@CLUSTER"), "{failed}");
    let _west = without_secrets(&fixture, "west").await;
    assert_eq!(get_secret(&fixture, &reader("ann")).await.unwrap_err().code, 404);
}

/// Who has no right anywhere hears that, and is not told to try again.
#[tokio::test]
async fn a_bare_name_is_forbidden_to_who_may_see_it_nowhere() {
    let fixture = Fixture::new().await;
    settled(&fixture).await;
    let refuses = |_: &Asked| {
        let status = Status::forbidden(&GroupResource::parse("secrets"), "db", "no");
        answer(403, &serde_json::to_value(status).unwrap())
    };
    let _east = ScriptedChild::start(&fixture.children, "east", refuses).await;
    assert_eq!(get_secret(&fixture, &reader("mallory")).await.unwrap_err().code, 403);
}

/// A cluster that is of no concern to a tenant keeps it from nothing.
#[tokio::test]
async fn a_bare_name_is_looked_for_where_the_caller_may_see_it() {
    let fixture = Fixture::new().await;
    grant(
        &fixture.store,
        "east",
        "tina",
        "shop",
        &["secrets"],
        &["get", "delete"],
        &[],
    )
    .await;
    settled(&fixture).await;
    let _east = with_secret(&fixture, "east").await;
    let context = reader("tina");
    assert_eq!(name(&get_secret(&fixture, &context).await.unwrap()), "shop/db@east");
    assert!(context.warnings.take().is_empty());
    let delete = write(WriteVerb::Delete, "db", "", &Value::Null);
    fixture.resource("secrets").write(&context, delete).await.unwrap();
}

#[tokio::test]
async fn who_reads_by_a_bare_name_is_told_which_cluster_has_not_been_looked_at() {
    let fixture = Fixture::new().await;
    let _east = with_secret(&fixture, "east").await;
    let context = reader("ann");
    assert_eq!(name(&get_secret(&fixture, &context).await.unwrap()), "shop/db@east");
    let warnings = context.warnings.take().join("\n");
    assert!(warnings.contains("\"west\" has not been looked at"), "{warnings}");
}

/// A cluster that cannot be asked may have the object that is meant.
#[tokio::test]
async fn what_is_done_by_a_bare_name_is_done_where_only_one_cluster_can_have_it() {
    let fixture = Fixture::new().await;
    let east = with_secret(&fixture, "east").await;
    let secrets = fixture.resource("secrets");
    let context = reader("ann");
    let delete = || write(WriteVerb::Delete, "db", "", &Value::Null);
    let refused = secrets.write(&context, delete()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (503, "ServiceUnavailable"));
    assert!(
        refused.message.contains("\"db@east\"") && refused.message.contains("\"west\" has not been looked at"),
        "{refused}"
    );
    let options = GetOptions::default();
    let scale = secrets.get(&context, Some("shop"), "db", "scale", &options).await;
    assert_eq!(scale.unwrap_err().code, 503);
    assert!(east.asked().iter().all(|asked| asked.method == "GET"));

    let _west = without_secrets(&fixture, "west").await;
    secrets.write(&context, delete()).await.unwrap();
    assert_eq!(
        east.asked().last().unwrap().line(),
        "DELETE /api/v1/namespaces/shop/secrets/db"
    );
}
