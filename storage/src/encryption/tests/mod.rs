mod rewriting;

use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::contract::model::{Expect, KEYS, Step, Write, check};
use crate::{Embedded, Precondition};

const SECRET_KEY: &str = "/umbra/hub/core/secrets/default/db";
const CONFIG_KEY: &str = "/umbra/hub/core/configmaps/default/app";

fn key(name: &str) -> EncryptionKey {
    EncryptionKey::new(name, name.as_bytes().repeat(32)[..32].as_ref()).unwrap()
}

/// `secrets` with these keys, written as a file has them; `-` is identity.
fn policy(providers: &[&str]) -> EncryptionPolicy {
    use base64::Engine as _;
    let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n".to_owned();
    for provider in providers {
        text.push_str(&if *provider == "-" {
            "  - identity: {}\n".to_owned()
        } else {
            let secret = base64::engine::general_purpose::STANDARD.encode(&provider.as_bytes().repeat(32)[..32]);
            format!("  - aesgcm: {{keys: [{{name: {provider}, secret: {secret}}}]}}\n")
        });
    }
    EncryptionPolicy::parse(&text).unwrap()
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store
        .put(key, value.to_owned().into(), Precondition::None)
        .await
        .unwrap()
}

async fn value(store: &dyn Store, key: &str) -> Bytes {
    store.get(key).await.unwrap().entry.unwrap().value
}

mod contract {
    use super::*;

    async fn encrypted() -> (Arc<dyn Store>, ()) {
        let policy = EncryptionPolicy::everything(vec![key("k")], false);
        let opened = Encrypted::open(Arc::new(Embedded::in_memory()), policy).await;
        (Arc::new(opened.unwrap()), ())
    }

    crate::contract_tests!(encrypted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn an_encrypted_store_behaves_like_a_map_per_revision(
        writes in prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.3)), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let policy = EncryptionPolicy::everything(vec![key("k")], false);
            let store = Embedded::in_memory();
            let encrypted = Encrypted::new(Arc::new(store.clone()), policy);
            let write = |(key, delete)| Write { key, delete, expect: Expect::Anything };
            let steps = writes.into_iter().map(|one| Step::Batch(vec![write(one)])).collect();
            check(Arc::new(encrypted), steps).await;
            store.close().await;
        });
    }
}

#[tokio::test]
async fn secrets_are_encrypted_and_other_values_passed_on() {
    let inner = Arc::new(Embedded::in_memory());
    let store = Encrypted::new(inner.clone(), policy(&["k1"]));
    let plain = Bytes::from("a value");
    put(&store, SECRET_KEY, "a value").await;
    store.put(CONFIG_KEY, plain.clone(), Precondition::None).await.unwrap();
    let below = value(&*inner, SECRET_KEY).await;
    assert!(below.starts_with(b"umbra:enc:aesgcm-hkdf:v1:k1:"), "{below:?}");
    assert!(!below.windows(plain.len()).any(|part| part == plain));
    assert_eq!(value(&*inner, CONFIG_KEY).await, plain);
    assert_eq!(value(&store, SECRET_KEY).await, plain);
    // The very same memory, in both directions.
    let passed = store.policy().encrypt(CONFIG_KEY, plain.clone()).unwrap();
    assert_eq!(passed.as_ptr(), plain.as_ptr());
    assert!(store.policy().decrypt(CONFIG_KEY, &plain).unwrap().as_ptr() == plain.as_ptr());
}

#[tokio::test]
async fn every_way_out_is_decrypted() {
    let inner = Arc::new(Embedded::in_memory());
    let store = Encrypted::new(inner.clone(), policy(&["k1"]));
    let begin = store.current_revision().await.unwrap();
    put(&store, SECRET_KEY, "one").await;
    put(&store, SECRET_KEY, "two").await;
    let stale = Precondition::Revision(begin);
    let operation = || vec![Operation::put(SECRET_KEY, "three", stale)];
    let guard = Guard {
        key: SECRET_KEY.into(),
        revision: begin,
    };
    for outcome in [
        store.batch(operation()).await.remove(0),
        store.batch_while(&guard, operation()).await.remove(0),
        store.delete(SECRET_KEY, stale).await,
    ] {
        match outcome {
            Err(Error::Conflict {
                current: Some(current), ..
            }) => assert_eq!(current.value, "two"),
            other => panic!("{other:?}"),
        }
    }
    store.delete(SECRET_KEY, Precondition::None).await.unwrap();
    let mut events = store.watch("/umbra/hub/core/secrets/", begin).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match events.next().await.unwrap().unwrap() {
            WatchEvent::Put { entry, previous } => (Some(entry.value), previous.map(|entry| entry.value)),
            WatchEvent::Delete { previous, .. } => (None, Some(previous.value)),
            other @ WatchEvent::Progress { .. } => panic!("{other:?}"),
        });
    }
    let value = |text: &'static str| Some(Bytes::from(text));
    assert_eq!(
        seen,
        [(value("one"), None), (value("two"), value("one")), (None, value("two"))]
    );
    let past = store
        .range(RangeRequest::prefix("/umbra/").at(begin.next()))
        .await
        .unwrap();
    assert_eq!(past.entries[0].value, "one");
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_with_key_and_object() {
    let inner = Arc::new(Embedded::in_memory());
    let begin = inner.current_revision().await.unwrap();
    put(&Encrypted::new(inner.clone(), policy(&["k1"])), SECRET_KEY, "x").await;
    let other = Encrypted::new(inner.clone(), policy(&["k2", "-"]));
    let told = |error: Error| {
        let text = error.to_string();
        for part in [SECRET_KEY, "\"k1\"", "configured: k2", "add that key"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    told(other.get(SECRET_KEY).await.unwrap_err());
    told(other.range(RangeRequest::prefix("/umbra/")).await.unwrap_err());
    told(
        other
            .put(SECRET_KEY, "y".into(), Precondition::Absent)
            .await
            .unwrap_err(),
    );
    put(&other, CONFIG_KEY, "z").await;
    let mut events = other.watch("/umbra/", begin).await.unwrap();
    told(events.next().await.unwrap().unwrap_err());
    assert!(events.next().await.is_none(), "nothing comes after the error");

    // Moved to another name.
    let sealed = value(&*inner, SECRET_KEY).await;
    let moved = "/umbra/hub/core/secrets/default/other";
    inner.put(moved, sealed, Precondition::None).await.unwrap();
    let error = Encrypted::new(inner.clone(), policy(&["k1"]))
        .get(moved)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("moved here"), "{error}");

    // Plain, where that is not allowed and where it is.
    inner.put(SECRET_KEY, "plain".into(), Precondition::None).await.unwrap();
    let strict = Encrypted::new(inner.clone(), policy(&["k1"]));
    let error = strict.get(SECRET_KEY).await.unwrap_err();
    assert!(error.to_string().contains("identity: {}"), "{error}");
    assert_eq!(
        value(&Encrypted::new(inner, policy(&["k1", "-"])), SECRET_KEY).await,
        "plain"
    );
}

#[tokio::test]
async fn plain_values_that_look_encrypted_come_back() {
    let inner = Arc::new(Embedded::in_memory());
    let store = Encrypted::new(inner.clone(), policy(&["k1"]));
    put(&store, SECRET_KEY, "x").await;
    let sealed = value(&*inner, SECRET_KEY).await;
    for tricky in [
        &b"umbra:enc:"[..],
        b"umbra:enc:identity:v1:",
        b"umbra:enc:identity:v1:umbra:enc:identity:v1:",
        b"umbra:enc:aesgcm-hkdf:v1:k1:",
        &sealed,
        b"umbra:enc",
        b"",
    ] {
        for place in [SECRET_KEY, CONFIG_KEY, "/elsewhere"] {
            let tricky = Bytes::copy_from_slice(tricky);
            store.put(place, tricky.clone(), Precondition::None).await.unwrap();
            assert_eq!(value(&store, place).await, tricky, "{place}");
        }
    }
}

#[tokio::test]
async fn a_resource_that_is_no_longer_encrypted_is_read_as_long_as_its_key_is_there() {
    let inner = Arc::new(Embedded::in_memory());
    put(&Encrypted::new(inner.clone(), policy(&["k1"])), SECRET_KEY, "x").await;
    let decrypting = Encrypted::new(inner.clone(), policy(&["-", "k1"]));
    assert_eq!(value(&decrypting, SECRET_KEY).await, "x");
    put(&decrypting, SECRET_KEY, "y").await;
    assert_eq!(value(&*inner, SECRET_KEY).await, "y");
}
