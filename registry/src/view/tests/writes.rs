//! Writes go through to the children.

use super::*;
use crate::request::PatchType;
use crate::scripted_child::{Asked, ScriptedChild, json as answer, nothing};

pub(super) fn write(verb: WriteVerb, name: &str, subresource: &str, body: &Value) -> WriteRequest {
    WriteRequest {
        verb,
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        body: if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        },
        content_type: "application/json".to_owned(),
        options: WriteOptions::default(),
        list_options: ListOptions::default(),
        query: String::new(),
    }
}

fn object(outcome: WriteOutcome) -> Object {
    match outcome {
        WriteOutcome::Created(object) | WriteOutcome::Done(object) | WriteOutcome::Accepted(object) => object,
        other => panic!("no object: {other:?}"),
    }
}

/// Answers with what was sent, as the child's revision 8.
fn echo(asked: &Asked) -> http::Response<Bytes> {
    let mut object = asked.json();
    object["metadata"]["resourceVersion"] = "8".into();
    object["metadata"]["namespace"] = "shop".into();
    object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    answer(if asked.method == "POST" { 201 } else { 200 }, &object)
}

#[tokio::test]
async fn a_write_reaches_the_child_in_its_own_terms_and_is_read_back() {
    let fixture = Fixture::new().await.with_pods().await;
    let east = ScriptedChild::start(&fixture.children, "east", echo).await;
    let mut read = parsed(&get(&fixture, "ann", "shop", "web-1@east").await.unwrap());
    read["spec"]["nodeName"] = "n2".into();
    let request = WriteRequest {
        query: "fieldManager=me&fieldValidation=Strict".to_owned(),
        ..write(WriteVerb::Update, "web-1@east", "", &read)
    };
    let pods = fixture.resource("pods");
    let context = reader("ann");
    let (written, copied) = tokio::join!(pods.write(&context, request), async {
        east.has_been_asked(1).await;
        let mut now = pod("shop", "web-1", "8");
        now["spec"]["nodeName"] = "n2".into();
        fixture.copy("pods", "east", now).await
    });
    let written = object(written.unwrap());
    assert_eq!(revision(&written), copied.to_string());
    assert_eq!(parsed(&written)["spec"]["nodeName"], "n2");
    assert!(parsed(&written)["metadata"].get("managedFields").is_none());

    let asked = &east.asked()[0];
    assert_eq!(
        asked.line(),
        "PUT /api/v1/namespaces/shop/pods/web-1?fieldManager=me&fieldValidation=Strict"
    );
    assert_eq!(
        (asked.user(), &asked.headers["user-agent"]),
        ("ann", &"test/1".parse().unwrap())
    );
    let sent = asked.json();
    assert_eq!(
        (&sent["metadata"]["name"], &sent["metadata"]["resourceVersion"]),
        (&json!("web-1"), &json!("7"))
    );
    assert_eq!(sent["metadata"]["labels"], json!({"app": "web-1"}));
}

#[tokio::test]
async fn a_revision_that_is_not_the_present_one_is_a_conflict() {
    let fixture = Fixture::new().await.with_pods().await;
    let east = ScriptedChild::start(&fixture.children, "east", echo).await;
    let old = parsed(&get(&fixture, "ann", "shop", "web-1@east").await.unwrap());
    fixture.copy("pods", "east", pod("shop", "web-1", "9")).await;
    let pods = fixture.resource("pods");
    let refused = pods
        .write(&reader("ann"), write(WriteVerb::Update, "web-1@east", "", &old))
        .await
        .unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    let patch = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]);
    let patch = write(WriteVerb::Patch(PatchType::Json), "web-1@east", "", &patch);
    assert_eq!(pods.write(&reader("ann"), patch).await.unwrap_err().code, 409);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": "1"}});
    let delete = write(WriteVerb::Delete, "web-1@east", "", &options);
    assert_eq!(pods.write(&reader("ann"), delete).await.unwrap_err().code, 409);
    assert!(east.asked().is_empty());
}

/// A guessed revision must not tell somebody who may not read an object that it exists, or when it was changed.
#[tokio::test]
async fn revisions_tell_nothing_to_those_who_may_not_read() {
    let fixture = Fixture::new().await.with_pods().await;
    let refuses = |_: &Asked| {
        let message = "pods \"web-1\" is forbidden: User \"mallory\" cannot write";
        answer(
            403,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
                "message": message, "code": 403}),
        )
    };
    let east = ScriptedChild::start(&fixture.children, "east", refuses).await;
    let present = revision(&get(&fixture, "ann", "shop", "web-1@east").await.unwrap());
    let pods = fixture.resource("pods");
    let mut answers = Vec::new();
    for (name, guess) in [
        ("web-1@east", present.as_str()),
        ("web-1@east", "1"),
        ("none@east", "1"),
    ] {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": guess}});
        let update = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "resourceVersion": guess}});
        let patch = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": guess}]);
        for request in [
            write(WriteVerb::Delete, name, "", &options),
            write(WriteVerb::Update, name, "", &update),
            write(WriteVerb::Patch(PatchType::Json), name, "", &patch),
        ] {
            let refused = pods.write(&reader("mallory"), request).await.unwrap_err();
            answers.push((
                refused.code,
                refused.message.replace(name, "NAME").replace("web-1", "NAME"),
            ));
        }
    }
    assert_eq!(answers.len(), 9);
    assert!(
        answers.iter().all(|one| *one == answers[0] && one.0 == 403),
        "{answers:?}"
    );
    let sent: Vec<Value> = east.asked().iter().map(Asked::json).collect();
    let preconditions = |at: usize| &sent[at]["preconditions"]["resourceVersion"];
    assert_eq!(preconditions(0), "7");
    assert_ne!(
        preconditions(3),
        "1",
        "a guess must not be passed on as a revision of the child"
    );
}

#[tokio::test]
async fn creating_needs_a_cluster() {
    let fixture = Fixture::new().await;
    let west = ScriptedChild::start(&fixture.children, "west", echo).await;
    let pods = fixture.resource("pods");
    let create = |metadata: Value| {
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
        let mut request = write(WriteVerb::Create, "", "", &body);
        request.options.dry_run = true;
        request
    };
    let homeless = pods
        .write(&reader("ann"), create(json!({"name": "new"})))
        .await
        .unwrap_err();
    assert_eq!(homeless.code, 422);
    assert!(
        homeless.message.contains("NAME@CLUSTER") && homeless.message.contains("east, west"),
        "{homeless}"
    );
    let elsewhere = pods
        .write(&reader("ann"), create(json!({"name": "new@north"})))
        .await
        .unwrap_err();
    assert_eq!(elsewhere.code, 404);
    let torn = json!({"name": "new@west", "labels": {"umbra.dev/cluster": "east"}});
    assert_eq!(pods.write(&reader("ann"), create(torn)).await.unwrap_err().code, 400);
    assert!(west.asked().is_empty());

    let by_label = json!({"name": "new", "labels": {"umbra.dev/cluster": "west"}});
    for metadata in [by_label, json!({"name": "new@west"})] {
        let created = pods.write(&reader("ann"), create(metadata)).await.unwrap();
        assert!(matches!(&created, WriteOutcome::Created(_)));
        assert_eq!(name(&object(created)), "shop/new@west");
    }
    let asked = west.asked();
    assert_eq!(asked[0].line(), "POST /api/v1/namespaces/shop/pods");
    assert!(asked.iter().all(|one| one.json()["metadata"]["name"] == "new"));
}

#[tokio::test]
async fn the_answer_to_a_delete_waits_for_the_end() {
    let fixture = Fixture::new().await.with_pods().await;
    let west = ScriptedChild::start(&fixture.children, "west", |_| {
        let status = Status::success(&GroupResource::parse("pods"), "db", "uid-db");
        answer(200, &serde_json::to_value(status).unwrap())
    })
    .await;
    let pods = fixture.resource("pods");
    let context = reader("ann");
    // A bare name that one cluster has.
    let mut delete = pods.write(&context, write(WriteVerb::Delete, "db", "", &Value::Null));
    // The copy is there, so there is no answer, however long one waits (short of giving up).
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut delete)
            .await
            .is_err()
    );
    west.has_been_asked(1).await;
    fixture.remove_copy("pods", "west", "shop", "db").await;
    let deleted = delete.await;
    let WriteOutcome::Status(status) = deleted.unwrap() else {
        panic!("no status")
    };
    assert_eq!(
        (status.status.as_str(), status.details.unwrap().name.as_str()),
        ("Success", "db@west")
    );
    assert_eq!(west.asked()[0].line(), "DELETE /api/v1/namespaces/shop/pods/db");
    assert!(west.asked()[0].body.is_empty());
    assert_eq!(get(&fixture, "ann", "shop", "db@west").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_dry_run_of_a_delete_is_one_in_the_child_too() {
    let fixture = Fixture::new().await.with_pods().await;
    let west = ScriptedChild::start(&fixture.children, "west", |asked| {
        let object = pod("shop", "db", "7");
        let is_object = asked.path.contains("/db");
        answer(
            200,
            &if is_object {
                object
            } else {
                json!({"kind": "PodList", "items": [object]})
            },
        )
    })
    .await;
    let present = revision(&get(&fixture, "ann", "shop", "db@west").await.unwrap());
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"], "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid-db", "resourceVersion": present}});
    let dry = |request: WriteRequest| WriteRequest {
        options: WriteOptions {
            dry_run: true,
            ..WriteOptions::default()
        },
        query: "dryRun=All&gracePeriodSeconds=0".to_owned(),
        ..request
    };
    let pods = fixture.resource("pods");
    let one = dry(write(WriteVerb::Delete, "db@west", "", &options));
    assert_eq!(
        name(&object(pods.write(&reader("ann"), one).await.unwrap())),
        "shop/db@west"
    );
    let all = WriteRequest {
        list_options: labelled("umbra.dev/cluster=west"),
        ..dry(write(WriteVerb::DeleteCollection, "", "", &json!({"dryRun": ["All"]})))
    };
    let deleted = pods.write(&reader("ann"), all).await.unwrap();
    assert!(matches!(deleted, WriteOutcome::Collection(list) if names(&list) == ["shop/db@west"]));
    let asked = west.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|one| one.json()["dryRun"] == json!(["All"])));
    assert_eq!(
        asked[0].json()["preconditions"],
        json!({"uid": "uid-db", "resourceVersion": "7"})
    );
}

#[tokio::test]
async fn what_the_child_refuses_is_relayed_under_the_name_of_the_view() {
    let fixture = Fixture::new().await.with_pods().await;
    let _west = ScriptedChild::start(&fixture.children, "west", |asked| {
        let status = Status::forbidden(&GroupResource::parse("pods"), "db", "User \"tina\" cannot delete");
        let mut response = answer(403, &serde_json::to_value(status).unwrap());
        assert_eq!(asked.user(), "tina");
        response
            .headers_mut()
            .insert("warning", r#"299 - "old \"API\"""#.parse().unwrap());
        response
    })
    .await;
    let pods = fixture.resource("pods");
    let context = reader("tina");
    let delete = write(WriteVerb::Delete, "db@west", "", &Value::Null);
    let refused = pods.write(&context, delete).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods \"db@west\" is forbidden: User \"tina\" cannot delete"
    );
    assert_eq!(refused.details.unwrap().name, "db@west");
    assert_eq!(context.warnings.take(), ["old \"API\""]);
    // east is registered, but nothing is connected.
    let unconnected = pods
        .write(&context, write(WriteVerb::Delete, "web-1@east", "", &Value::Null))
        .await
        .unwrap_err();
    assert_eq!(
        (unconnected.code, unconnected.details.unwrap().name.as_str()),
        (503, "east")
    );
}

#[tokio::test]
async fn subresources_have_the_name_of_the_view_in_both_directions() {
    let fixture = Fixture::new().await;
    fixture
        .copy(
            "deployments.apps",
            "east",
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "8", "uid": "u"}}),
        )
        .await;
    let east = ScriptedChild::start(&fixture.children, "east", |asked| {
        let replicas = if asked.body.is_empty() {
            json!(1)
        } else {
            asked.json()["spec"]["replicas"].clone()
        };
        answer(
            200,
            &json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "8"}, "spec": {"replicas": replicas}}),
        )
    })
    .await;
    let deployments = fixture.resource("deployments.apps");
    let context = reader("ann");
    let scale = deployments
        .get(&context, Some("shop"), "web@east", "scale", &GetOptions::default())
        .await
        .unwrap();
    assert_eq!(name(&scale), "shop/web@east");
    let copy = deployments
        .get(&context, Some("shop"), "web", "", &GetOptions::default())
        .await
        .unwrap();
    assert_eq!(revision(&scale), revision(&copy));
    let mut wanted = parsed(&scale);
    wanted["spec"]["replicas"] = 3.into();
    let request = write(WriteVerb::Update, "web@east", "scale", &wanted);
    let scaled = object(deployments.write(&context, request).await.unwrap());
    assert_eq!(
        (parsed(&scaled)["spec"]["replicas"].clone(), name(&scaled).as_str()),
        (json!(3), "shop/web@east")
    );
    let asked = &east.asked()[1];
    assert_eq!(asked.line(), "PUT /apis/apps/v1/namespaces/shop/deployments/web/scale");
    assert_eq!(
        asked.json()["metadata"],
        json!({"name": "web", "namespace": "shop", "resourceVersion": "8"})
    );
}

#[tokio::test]
async fn server_side_apply_is_sent_as_the_child_reads_it() {
    let fixture = Fixture::new().await;
    let west = ScriptedChild::start(&fixture.children, "west", echo).await;
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: new\n  labels: {umbra.dev/cluster: west, app: x}\n";
    let mut request = WriteRequest {
        body: Bytes::from_static(yaml.as_bytes()),
        content_type: PatchType::Apply.media_type().to_owned(),
        query: "fieldManager=kubectl&force=true".to_owned(),
        ..write(WriteVerb::Patch(PatchType::Apply), "new", "", &Value::Null)
    };
    request.options.dry_run = true;
    fixture.resource("pods").write(&reader("ann"), request).await.unwrap();
    let asked = &west.asked()[0];
    assert_eq!(
        asked.line(),
        "PATCH /api/v1/namespaces/shop/pods/new?fieldManager=kubectl&force=true"
    );
    assert_eq!(asked.headers["content-type"], "application/apply-patch+yaml");
    assert_eq!(asked.json()["metadata"], json!({"name": "new", "labels": {"app": "x"}}));
}

#[tokio::test]
async fn collections_are_deleted_where_they_are_selected() {
    let fixture = Fixture::new().await.with_pods().await;
    let east = ScriptedChild::start(&fixture.children, "east", nothing).await;
    let west = ScriptedChild::start(&fixture.children, "west", |_| {
        answer(
            200,
            &json!({"kind": "PodList", "apiVersion": "v1", "items": [
            {"metadata": {"name": "db", "namespace": "shop", "resourceVersion": "7", "uid": "uid-db"}}]}),
        )
    })
    .await;
    let request = WriteRequest {
        list_options: labelled("app=db,umbra.dev/cluster in (west)"),
        query: "labelSelector=app%3Ddb%2Cumbra.dev%2Fcluster+in+(west)&propagationPolicy=Foreground".to_owned(),
        ..write(WriteVerb::DeleteCollection, "", "", &Value::Null)
    };
    let pods = fixture.resource("pods");
    let context = reader("ann");
    let (deleted, ()) = tokio::join!(pods.write(&context, request.clone()), async {
        west.has_been_asked(1).await;
        fixture.remove_copy("pods", "west", "shop", "db").await;
    });
    let WriteOutcome::Collection(items) = deleted.unwrap() else {
        panic!("no collection")
    };
    assert_eq!(names(&items), ["shop/db@west"]);
    assert_eq!(
        west.asked()[0].line(),
        "DELETE /api/v1/namespaces/shop/pods?propagationPolicy=Foreground&labelSelector=app%3Ddb&fieldSelector="
    );
    assert!(east.asked().is_empty());
    assert_eq!(pods.write(&reader("mallory"), request).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn nothing_is_written_to_a_read_only_cluster() {
    let fixture = Fixture::new().await.with_pods().await;
    let east = ScriptedChild::start(&fixture.children, "east", |_| answer(200, &json!("a log"))).await;
    let before = *fixture.services.directory.subscribe().borrow();
    put_cluster(&fixture.store, "east", json!({"access": "ReadOnly"}), json!({})).await;
    fixture
        .services
        .directory
        .subscribe()
        .wait_for(|seen| *seen > before)
        .await
        .unwrap();
    let pods = fixture.resource("pods");
    let delete = write(WriteVerb::Delete, "web-1@east", "", &Value::Null);
    assert_eq!(pods.write(&reader("ann"), delete).await.unwrap_err().code, 403);
    let everything = write(WriteVerb::DeleteCollection, "", "", &Value::Null);
    assert_eq!(pods.write(&reader("ann"), everything).await.unwrap_err().code, 403);
    let connect = async |path: &str| {
        let request = http::Request::get(path).body(umbra_child::empty()).unwrap();
        pods.connect(&context("ann", "GET", path), request).await
    };
    let exec = connect("/api/v1/namespaces/shop/pods/web-1@east/exec?command=ls").await;
    assert_eq!(exec.err().unwrap().code, 403);
    assert!(east.asked().is_empty());
    let log = connect("/api/v1/namespaces/shop/pods/web-1@east/log?follow=true")
        .await
        .unwrap();
    assert_eq!(log.status(), 200);
    assert_eq!(
        east.asked()[0].line(),
        "GET /api/v1/namespaces/shop/pods/web-1/log?follow=true"
    );
    assert_eq!(east.asked()[0].user(), "ann");
}
