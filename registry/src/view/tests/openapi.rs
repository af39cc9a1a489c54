//! The documents of a view, where its clusters have different ones, or do not give them.

use umbra_apimachinery::gvk::GroupVersion;

use super::tenants::settled;
use super::*;
use crate::root::OpenApi;
use crate::scripted_child::{Asked, ScriptedChild, json as answer, nothing, silent};

/// A child whose document of `apps/v1` has this hash and the child's name for a title; without a title, it does not give it.
async fn child(fixture: &Fixture, name: &str, hash: &str, gives_it: bool) -> ScriptedChild {
    let (url, title) = (format!("/openapi/v3/apis/apps/v1?hash={hash}"), name.to_owned());
    let handler = move |asked: &Asked| match asked.path.as_str() {
        "/openapi/v3" => answer(200, &json!({"paths": {"apis/apps/v1": {"serverRelativeURL": url}}})),
        path if path == url && gives_it => {
            let info = json!({"title": title, "version": "1"});
            answer(200, &json!({"openapi": "3.0.0", "info": info, "paths": {}}))
        }
        _ => nothing(asked),
    };
    ScriptedChild::start(&fixture.children, name, handler).await
}

async fn add_cluster(fixture: &Fixture, name: &str) {
    put_cluster(&fixture.store, name, json!({}), json!({})).await;
    settled(fixture).await;
}

fn apps() -> GroupVersion {
    GroupVersion::new("apps", "v1")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn index(fixture: &Fixture) -> Vec<(GroupVersion, String)> {
    fixture.api().openapi().index(soon()).await.unwrap()
}

/// Hash and title.
async fn document(documents: &dyn OpenApi, hash: Option<&str>) -> Result<(String, String), Status> {
    let document = documents.v3(&apps(), hash, soon()).await?;
    let text: Value = serde_json::from_slice(&document.text).unwrap();
    Ok((document.hash, text["info"]["title"].as_str().unwrap().to_owned()))
}

fn is(hash: &str, title: &str) -> Result<(String, String), Status> {
    Ok((hash.to_owned(), title.to_owned()))
}

#[tokio::test]
async fn documents_come_from_a_cluster_that_has_them() {
    let fixture = Fixture::new().await;
    let _east = ScriptedChild::start(&fixture.children, "east", |_| answer(200, &json!({"paths": {}}))).await;
    let west = child(&fixture, "west", "AB", true).await;
    assert_eq!(index(&fixture).await, [(apps(), "AB@west".to_owned())]);
    let documents = fixture.api().openapi();
    assert_eq!(document(&*documents, None).await, is("AB@west", "west"));
    assert_eq!(west.asked().last().unwrap().path, "/openapi/v3/apis/apps/v1?hash=AB");
    assert_eq!(documents.v2().await.unwrap_err().code, 404);
    let unknown = documents.v3(&GroupVersion::new("none", "v1"), None, soon()).await;
    assert_eq!(unknown.unwrap_err().code, 404);
}

#[tokio::test]
async fn the_document_that_most_have_is_the_views() {
    let fixture = Fixture::new().await;
    add_cluster(&fixture, "aaa").await;
    let _children = [
        child(&fixture, "aaa", "EE", true).await,
        child(&fixture, "east", "AB", true).await,
        child(&fixture, "west", "AB", true).await,
    ];
    assert_eq!(index(&fixture).await, [(apps(), "AB@east".to_owned())]);
    let documents = fixture.api().openapi();
    assert_eq!(document(&*documents, None).await, is("AB@east", "east"));
    assert_eq!(document(&*documents, Some("EE@aaa")).await, is("EE@aaa", "aaa"));
    assert_eq!(document(&*documents, Some("AB@west")).await, is("AB@west", "west"));
    assert_eq!(document(&*documents, Some("gone@west")).await, is("AB@east", "east"));
}

#[tokio::test]
async fn no_cluster_answers_under_the_hash_of_another() {
    let fixture = Fixture::new().await;
    let _east = child(&fixture, "east", "AB", false).await;
    // It says that it has the same.
    let west = child(&fixture, "west", "AB", true).await;
    assert_eq!(index(&fixture).await, [(apps(), "AB@east".to_owned())]);
    let documents = fixture.api().openapi();
    assert_eq!(document(&*documents, Some("AB@east")).await, is("AB@west", "west"));
    let before = west.asked().len();
    // Where that leads, the document is.
    assert_eq!(document(&*documents, Some("AB@west")).await, is("AB@west", "west"));
    assert_eq!(west.asked().len(), before, "it is at hand");
}

#[tokio::test]
async fn who_was_silent_is_not_waited_for_again() {
    let fixture = Fixture::new().await;
    let _east = silent(&fixture.children, "east").await;
    let _west = child(&fixture, "west", "AB", true).await;
    fixture.services.documents.note_silence("east");
    assert_eq!(index(&fixture).await, [(apps(), "AB@west".to_owned())]);
    let documents = fixture.api().openapi();
    assert_eq!(document(&*documents, None).await, is("AB@west", "west"));
    // East may have it. Who has waited for east says 504.
    let missing = documents.v3(&GroupVersion::new("x.io", "v1"), None, soon()).await;
    assert_eq!(missing.unwrap_err().code, 502);
}

#[tokio::test]
async fn what_is_not_there_in_time_is_left_out() {
    let fixture = Fixture::new().await;
    let _east = silent(&fixture.children, "east").await;
    let west = child(&fixture, "west", "AB", true).await;
    let documents = fixture.api().openapi();
    // Of west it is known now; a deadline that has passed leaves no time to ask east.
    fixture.services.documents.index("west").await.unwrap();
    assert_eq!(
        documents.index(Instant::now()).await.unwrap(),
        [(apps(), "AB@west".to_owned())]
    );
    assert_eq!(west.asked().len(), 1);
    assert!(!fixture.services.documents.was_silent("east"), "it had no time");
    let late = documents.v3(&apps(), None, Instant::now()).await.unwrap_err();
    assert_eq!(late.code, 504);
}
