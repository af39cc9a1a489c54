//! The whole contract suite in one go.

use std::sync::Arc;

use crate::contract::suite;
use crate::{Embedded, Options};

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    let item = umbra_show::Item::open("storage.contract.embedded");
    let functions = suite();
    for function in &functions {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(directory.path(), Options::default()).await.unwrap();
        println!("{}", function.name);
        (function.run)(Arc::new(store.clone())).await;
        store.close().await;
    }
    item.pass(&format!("{} functions", functions.len()));
}
