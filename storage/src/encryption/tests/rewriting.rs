//! Changing keys.

use std::time::Duration;

use parking_lot::Mutex;

use super::*;

const OTHERS: [&str; 3] = [
    "/umbra/fleets/all/core/secrets/default/db",
    "/umbra/copies/core/secrets/east/default/db",
    "/umbra/fleets/all/umbra.dev/renderings/default/db.east",
];

fn quick() -> RewriteOptions {
    RewriteOptions {
        page: 2,
        pause: Duration::ZERO,
        writes_per_second: u32::MAX,
        history_interval: Duration::from_millis(1),
        retry: Duration::from_millis(1),
    }
}

async fn open(inner: &Arc<Embedded>, providers: &[&str]) -> Result<Encrypted, EncryptedOpenError> {
    Encrypted::open(inner.clone(), policy(providers)).await
}

/// Rewrites to the end; the history is given up as soon as it is waited for.
async fn rewrite(store: &Encrypted) -> Vec<RewriteEvent> {
    let events = Mutex::new(Vec::new());
    let waiting = tokio::sync::Notify::new();
    let options = quick();
    let rewriting = store.rewrite(&options, |event| {
        if matches!(event, RewriteEvent::Waiting { .. }) {
            waiting.notify_one();
        }
        events.lock().push(event);
    });
    let compacting = async {
        waiting.notified().await;
        let revision = store.current_revision().await.unwrap();
        store.compact(revision).await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = rewriting => {}
        () = compacting => {}
    }
    events.into_inner()
}

async fn keys_in_use(inner: &Embedded) -> Vec<String> {
    let entries = inner.range(RangeRequest::prefix("/umbra/")).await.unwrap().entries;
    let mut names: Vec<String> = Vec::new();
    for entry in entries
        .iter()
        .filter(|entry| !entry.key.starts_with("/umbra/encryption/rewritten"))
    {
        names.push(match value::parse(&entry.value) {
            value::Stored::Sealed { key, .. } => key.to_owned(),
            _ => format!("plain {}", entry.key),
        });
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn plain_values_are_encrypted_wherever_they_are() {
    let inner = Arc::new(Embedded::in_memory());
    for place in OTHERS.into_iter().chain([SECRET_KEY]) {
        put(&*inner, place, place).await;
    }
    put(&*inner, CONFIG_KEY, "c").await;
    let store = open(&inner, &["k1", "-"]).await.unwrap();
    assert_eq!(
        value(&store, SECRET_KEY).await,
        SECRET_KEY,
        "it is read before it is rewritten"
    );
    let events = rewrite(&store).await;
    let complete = RewriteEvent::Complete {
        examined: 6,
        rewritten: 4,
    };
    assert_eq!(events.last(), Some(&complete), "{events:?}");
    assert_eq!(keys_in_use(&inner).await, ["k1", &format!("plain {CONFIG_KEY}")]);
    for place in OTHERS.into_iter().chain([SECRET_KEY]) {
        assert_eq!(value(&store, place).await, place);
    }
    assert_eq!(rewrite(&store).await, [], "there is nothing left to do");
    let again = open(&inner, &["k1", "-"]).await.unwrap();
    assert_eq!(rewrite(&again).await, [], "nor after another start");
}

#[tokio::test]
async fn keys_change_by_listing_two() {
    let inner = Arc::new(Embedded::in_memory());
    let store = open(&inner, &["k1"]).await.unwrap();
    assert_eq!(rewrite(&store).await.len(), 1);
    for place in OTHERS {
        put(&store, place, place).await;
    }

    // The old key alone is refused once the new one is in use, and the other way round.
    let store = open(&inner, &["k2", "k1"]).await.unwrap();
    put(&store, SECRET_KEY, SECRET_KEY).await;
    assert_eq!(keys_in_use(&inner).await, ["k1", "k2"]);
    for (alone, missing) in [("k1", "k2"), ("k2", "k1")] {
        match open(&inner, &[alone]).await {
            Err(error @ EncryptedOpenError::Keys { .. }) => {
                let text = error.to_string();
                assert!(text.contains(missing) && text.contains("not configured"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }

    let events = rewrite(&store).await;
    let told = [
        RewriteEvent::Complete {
            examined: 6,
            rewritten: 3,
        },
        RewriteEvent::Waiting {
            keys: vec!["k1".to_owned()],
        },
        RewriteEvent::Retired { key: "k1".to_owned() },
    ];
    assert_eq!(events[events.len() - 3..], told, "{events:?}");
    assert_eq!(keys_in_use(&inner).await, ["k2"]);
    let store = open(&inner, &["k2"]).await.unwrap();
    for place in OTHERS.into_iter().chain([SECRET_KEY]) {
        assert_eq!(value(&store, place).await, place);
    }
}

#[tokio::test]
async fn a_key_of_the_right_name_with_the_wrong_secret_is_refused() {
    let inner = Arc::new(Embedded::in_memory());
    open(&inner, &["k1"]).await.unwrap();
    let wrong = EncryptionPolicy::everything(vec![EncryptionKey::new("k1", &[9; 32]).unwrap()], false);
    let error = Encrypted::open(inner.clone(), wrong).await.unwrap_err();
    assert!(error.to_string().contains("secret of the key \"k1\""), "{error}");
    let other = EncryptionPolicy::everything(vec![key("k3")], false);
    let error = Encrypted::open(inner.clone(), other).await.unwrap_err();
    assert!(error.to_string().contains("configured: k3"), "{error}");
}

#[tokio::test]
async fn going_back_and_forth_leaves_nothing_behind() {
    let inner = Arc::new(Embedded::in_memory());
    let first = open(&inner, &["-", "k1"]).await.unwrap();
    put(&first, SECRET_KEY, "x").await;
    rewrite(&first).await;
    // Encrypted meanwhile, and stopped before it was all rewritten.
    let second = open(&inner, &["k1", "-"]).await.unwrap();
    put(&second, OTHERS[0], "y").await;
    let third = open(&inner, &["-", "k1"]).await.unwrap();
    let events = rewrite(&third).await;
    assert!(
        events.contains(&RewriteEvent::Retired { key: "k1".to_owned() }),
        "{events:?}"
    );
    assert_eq!(value(&*inner, OTHERS[0]).await, "y");
    open(&inner, &["-"]).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_left_and_keeps_its_key() {
    let inner = Arc::new(Embedded::in_memory());
    put(&*inner, OTHERS[0], "umbra:enc:aesgcm-hkdf:v1:lost:xxx").await;
    put(&*inner, SECRET_KEY, "x").await;
    let store = open(&inner, &["k1", "-"]).await.unwrap();
    let events = rewrite(&store).await;
    let unreadable =
        |event: &RewriteEvent| matches!(event, RewriteEvent::Unreadable(error) if error.contains("\"lost\""));
    assert!(events.iter().any(unreadable), "{events:?}");
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, RewriteEvent::Complete { .. }))
    );
    assert_eq!(value(&store, SECRET_KEY).await, "x");
    assert!(
        value(&*inner, SECRET_KEY).await.starts_with(b"umbra:enc:"),
        "the others are rewritten"
    );
}

#[tokio::test]
async fn values_that_change_meanwhile_are_not_put_back() {
    let inner = Arc::new(Embedded::in_memory());
    for number in 0..40 {
        put(&*inner, &format!("{SECRET_KEY}-{number:02}"), "old").await;
    }
    let store = open(&inner, &["k1", "-"]).await.unwrap();
    let (rewriter, options) = (store.clone(), quick());
    let tracker = tokio_util::task::TaskTracker::new();
    let rewriting = tracker.spawn(async move { rewriter.rewrite(&options, |_| {}).await });
    for number in (0..40).rev() {
        put(&store, &format!("{SECRET_KEY}-{number:02}"), "new").await;
        tokio::task::yield_now().await;
    }
    rewriting.await.unwrap();
    for number in 0..40 {
        assert_eq!(
            value(&store, &format!("{SECRET_KEY}-{number:02}")).await,
            "new",
            "{number}"
        );
    }
    assert_eq!(keys_in_use(&inner).await, ["k1"]);
}
