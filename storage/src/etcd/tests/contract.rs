//! The contract suite: one server for all of its functions, which run one after the other under prefixes of their own.

use std::io::Write as _;

use super::*;
use crate::cache::{CacheOptions, CachedStore};
use crate::contract::suite;

/// Runs the functions whose names `wanted` accepts.
async fn run(servers: &EtcdServers, wanted: impl Fn(&str) -> bool, change: impl Fn(&mut EtcdOptions), cached: bool) {
    for (index, function) in suite().into_iter().filter(|function| wanted(function.name)).enumerate() {
        let mut options = options(servers, &format!("/suite-{index}"));
        change(&mut options);
        let opened = open(options).await;
        // The harness shows it if the function fails.
        let _ = writeln!(std::io::stdout(), "{}", function.name);
        if cached {
            let inner = Arc::new(opened.store.clone());
            let (store, _guard) = CachedStore::start(inner, "", CacheOptions::default(), 1_000)
                .await
                .unwrap();
            (function.run)(store).await;
        } else {
            (function.run)(Arc::new(opened.store.clone())).await;
        }
    }
}

fn all(_: &str) -> bool {
    true
}

fn as_it_is(_: &mut EtcdOptions) {}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_6_keeps_the_contract() {
    if let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await {
        run(&servers, all, as_it_is, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_4_keeps_the_contract() {
    if let Some(servers) = EtcdServers::start(1, EtcdVersion::V34).await {
        run(&servers, all, as_it_is, false).await;
    }
}

/// With room for two events nearly every watch overflows and is taken up again from history.
#[tokio::test(flavor = "multi_thread")]
async fn small_buffers_keep_the_contract() {
    if let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await {
        let watches = |name: &str| name.starts_with("watch") && !name.contains("slow") || name.starts_with("progress");
        run(&servers, watches, |options| options.watch_buffer = 2, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_keep_the_contract() {
    if let Some(servers) = EtcdServers::start(3, EtcdVersion::V36).await {
        let some =
            |name: &str| name.starts_with("races") || name.starts_with("progress") || name.starts_with("watchers");
        run(&servers, some, as_it_is, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_6_keeps_the_contract_behind_the_cache() {
    if let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await {
        run(&servers, all, as_it_is, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_4_keeps_the_contract_behind_the_cache() {
    if let Some(servers) = EtcdServers::start(1, EtcdVersion::V34).await {
        run(&servers, all, as_it_is, true).await;
    }
}
