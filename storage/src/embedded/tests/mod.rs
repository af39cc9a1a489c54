use super::*;
use crate::Precondition;

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    let r = store.put("/a/b", "x".into(), Precondition::Absent).await.unwrap();
    assert_eq!(r, Revision(2));
    store.close().await;
    drop(store);
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    assert_eq!(store.get("/a/b").await.unwrap().entry.unwrap().revision, Revision(2));
    println!("{}", Embedded::open(dir.path(), Options::default()).await.unwrap_err());
}
