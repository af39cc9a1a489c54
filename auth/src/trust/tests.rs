//! Time is simulated: it passes as soon as everybody waits.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::authenticate::Credentials;
use crate::certificates::{CertificateAuthority, ClientSubject};
use crate::request_header::RequestHeaderOptions;

const HOUR: Duration = Duration::from_hours(1);

type Data = BTreeMap<String, String>;

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, HOUR).unwrap()
}

/// The name that a request with such a certificate, and a header that names `mallory`, has.
fn name(trust: &ClientTrust, authority: &CertificateAuthority, common_name: &str) -> Option<String> {
    let subject = ClientSubject {
        user: common_name.to_owned(),
        ..ClientSubject::default()
    };
    let issued = authority.issue_client(&subject, HOUR).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", "mallory".parse().unwrap());
    let credentials = Credentials {
        peer_certificates: &[certificate],
        headers: &headers,
    };
    let judged = trust.authenticators().authenticate(&credentials, UnixTime::now());
    judged.ok().flatten().map(|user| user.name)
}

/// What a hub with these authorities publishes.
fn published(clients: &CertificateAuthority, proxies: &CertificateAuthority) -> Data {
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        entry("client-ca-file", clients.certificate_pem()),
        entry("requestheader-client-ca-file", proxies.certificate_pem()),
        entry("requestheader-allowed-names", r#"["front-proxy"]"#),
        entry("requestheader-username-headers", r#"["X-Remote-User"]"#),
        entry("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
        entry("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        entry("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
    ])
}

/// An API server with one ConfigMap, which may be absent, and which is watched.
#[derive(Clone)]
struct Hub {
    state: watch::Sender<(u64, Option<Data>)>,
    /// What it answers instead, to how many requests.
    failures: Arc<Mutex<Vec<u16>>>,
    /// Whether its watches say anything.
    silent: Arc<Mutex<bool>>,
}

const PATH: &str = "/api/v1/namespaces/kube-system/configmaps";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Hub {
    fn new(data: Option<Data>) -> Self {
        Self {
            state: watch::Sender::new((1, data)),
            failures: Arc::default(),
            silent: Arc::default(),
        }
    }

    fn publish(&self, data: Option<Data>) {
        self.state.send_modify(|(version, current)| {
            *version += 1;
            *current = data;
        });
    }

    fn client(&self) -> kube::Client {
        let hub = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = hub.answer(request.uri());
            async move { Ok::<_, Infallible>(answer) }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, uri: &http::Uri) -> Answer {
        let whole = |code: u16, value: &Value| {
            let body = Full::new(Bytes::from(value.to_string()));
            Response::builder().status(code).body(body.boxed_unsync()).unwrap()
        };
        if let Some(code) = self.failures.lock().pop() {
            return whole(
                code,
                &json!({"kind": "Status", "code": code, "message": "no", "reason": "Forbidden"}),
            );
        }
        let path = uri.path();
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            assert_eq!(path, PATH);
            assert!(
                uri.query()
                    .unwrap()
                    .contains("fieldSelector=metadata.name%3Dextension-apiserver-authentication")
            );
            return self.watch();
        }
        assert_eq!(path, format!("{PATH}/extension-apiserver-authentication"));
        match &*self.state.borrow() {
            (version, Some(data)) => whole(200, &object(*version, data)),
            (_, None) => whole(
                404,
                &json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "none"}),
            ),
        }
    }

    fn watch(&self) -> Answer {
        let mut receiver = self.state.subscribe();
        receiver.mark_unchanged();
        let silent = *self.silent.lock();
        let events = stream::unfold(receiver, move |mut receiver| async move {
            if silent {
                std::future::pending::<()>().await;
            }
            receiver.changed().await.ok()?;
            let (version, data) = receiver.borrow_and_update().clone();
            let event = match &data {
                Some(data) => json!({"type": "MODIFIED", "object": object(version, data)}),
                None => json!({"type": "DELETED", "object": object(version, &Data::new())}),
            };
            Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), receiver))
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

fn object(version: u64, data: &Data) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1", "data": data,
        "metadata": {"name": CONFIG_MAP_NAME, "namespace": CONFIG_MAP_NAMESPACE, "resourceVersion": version.to_string()},
    })
}

/// Lets time pass until it is so.
async fn until(what: &str, within: Duration, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, waited)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {within:?} of simulated time"));
}

/// Runs `test` while the keeper follows its sources.
async fn following(keeper: TrustKeeper, test: impl Future<Output = ()>) {
    let cancelled = CancellationToken::new();
    let followed = keeper.follow(cancelled.clone());
    tokio::join!(followed, async {
        test.await;
        cancelled.cancel();
    });
}

fn texts(loaded: Result<(), Vec<TrustError>>) -> Vec<String> {
    let errors = loaded.err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_publishes_counts_from_the_start() {
    let (clients, proxies) = (authority("clients"), authority("proxies"));
    let hub = Hub::new(Some(published(&clients, &proxies)));
    let keeper = TrustKeeper::new(TrustOptions::default(), Some(hub.client()));
    let trust = keeper.trust();
    assert_eq!(name(&trust, &clients, "alice"), None, "nobody is believed before that");
    keeper.load().await.unwrap();
    assert_eq!(name(&trust, &clients, "alice").as_deref(), Some("alice"));
    assert_eq!(name(&trust, &proxies, "front-proxy").as_deref(), Some("mallory"));
    assert_eq!(name(&trust, &proxies, "alice"), None);
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", "mallory".parse().unwrap());
    trust.strip(&mut headers);
    assert!(headers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_are_followed_and_what_is_gone_or_broken_changes_nothing() {
    let (clients, proxies) = (authority("clients"), authority("proxies"));
    let (new_clients, new_proxies) = (authority("clients"), authority("proxies"));
    let hub = Hub::new(None);
    let keeper = TrustKeeper::new(TrustOptions::default(), Some(hub.client()));
    let trust = keeper.trust();
    keeper.load().await.unwrap();
    let soon = Duration::from_secs(1);
    let known = |authority: &CertificateAuthority| name(&trust, authority, "alice").is_some();
    let speaks = |authority: &CertificateAuthority| name(&trust, authority, "front-proxy").is_some();
    following(keeper, async {
        assert!(!known(&clients));
        // There is none to be read; the first one comes as an event.
        tokio::time::sleep(Duration::from_secs(30)).await;
        hub.publish(Some(published(&clients, &proxies)));
        until("the first", soon, || known(&clients) && speaks(&proxies)).await;

        hub.publish(Some(published(&new_clients, &new_proxies)));
        until("the second", soon, || known(&new_clients) && speaks(&new_proxies)).await;
        assert!(!known(&clients) && !speaks(&proxies));

        // Half of it is broken: the other half counts.
        let mut broken = published(&clients, &proxies);
        broken.insert("requestheader-allowed-names".to_owned(), "front-proxy".to_owned());
        hub.publish(Some(broken));
        until("the half", soon, || known(&clients)).await;
        assert!(speaks(&new_proxies) && !speaks(&proxies));

        let mut broken = published(&new_clients, &proxies);
        broken.insert("client-ca-file".to_owned(), "none".to_owned());
        hub.publish(Some(broken));
        until("the other half", soon, || speaks(&proxies)).await;
        assert!(known(&clients) && !known(&new_clients));

        hub.publish(None);
        tokio::time::sleep(HOUR).await;
        assert!(known(&clients) && speaks(&proxies), "what is gone was good");
        hub.publish(Some(published(&new_clients, &new_proxies)));
        until("the last", Duration::from_secs(61), || known(&new_clients)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_fails_or_falls_silent_is_asked_anew() {
    let (clients, proxies) = (authority("clients"), authority("proxies"));
    let hub = Hub::new(Some(published(&clients, &proxies)));
    let keeper = TrustKeeper::new(TrustOptions::default(), Some(hub.client()));
    let trust = keeper.trust();
    hub.failures.lock().extend([500; 5]);
    // The connections of all watches are dead.
    *hub.silent.lock() = true;
    following(keeper, async {
        let known = |authority: &CertificateAuthority| name(&trust, authority, "alice").is_some();
        // Waits of at most 2, 4, 8, 16 and 32 s.
        until("an answer", Duration::from_secs(62), || known(&clients)).await;
        let new = authority("clients");
        hub.publish(Some(published(&new, &proxies)));
        until("the change", Duration::from_secs(72), || known(&new)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_refuses_says_what_to_do() {
    let hub = Hub::new(None);
    hub.failures.lock().push(403);
    let keeper = TrustKeeper::new(TrustOptions::default(), Some(hub.client()));
    assert_eq!(
        texts(keeper.load().await),
        [
            "cannot read ConfigMap kube-system/extension-apiserver-authentication of the hub; Role \
          kube-system/extension-apiserver-authentication-reader grants it"
        ]
    );
    let skipped = TrustOptions {
        skip_lookup: true,
        ..TrustOptions::default()
    };
    hub.failures.lock().push(403);
    TrustKeeper::new(skipped, Some(hub.client())).load().await.unwrap();
    assert_eq!(hub.failures.lock().len(), 1, "it was not asked");
}

#[tokio::test(start_paused = true)]
async fn files_replace_what_the_hub_publishes_and_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (clients, proxies) = (authority("clients"), authority("proxies"));
    let (own, renewed) = (authority("own"), authority("own"));
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, own.certificate_pem()).unwrap();
    let hub = Hub::new(Some(published(&clients, &proxies)));
    let options = TrustOptions {
        request_header_client_ca_file: Some(file.clone()),
        ..TrustOptions::default()
    };
    let keeper = TrustKeeper::new(options, Some(hub.client()));
    let trust = keeper.trust();
    keeper.load().await.unwrap();
    assert_eq!(name(&trust, &clients, "alice").as_deref(), Some("alice"), "the hub's");
    assert_eq!(name(&trust, &own, "any-name").as_deref(), Some("mallory"), "the file's");
    assert_eq!(
        name(&trust, &proxies, "front-proxy"),
        None,
        "the hub's do not count beside it"
    );

    following(keeper, async {
        let speaks = |authority: &CertificateAuthority| name(&trust, authority, "any-name").is_some();
        let soon = Duration::from_secs(6);
        std::fs::write(&file, renewed.certificate_pem()).unwrap();
        until("the file", soon, || speaks(&renewed)).await;
        assert!(!speaks(&own));
        for broken in ["", "none"] {
            std::fs::write(&file, broken).unwrap();
            tokio::time::sleep(soon).await;
            assert!(speaks(&renewed));
        }
        std::fs::remove_file(&file).unwrap();
        tokio::time::sleep(soon).await;
        assert!(speaks(&renewed));
        std::fs::write(&file, own.certificate_pem()).unwrap();
        until("another file", soon, || speaks(&own)).await;
        // The hub's change changes the hub's part alone.
        let new = authority("clients");
        hub.publish(Some(published(&new, &proxies)));
        until("the hub's", soon, || name(&trust, &new, "alice").is_some()).await;
        assert!(speaks(&own) && name(&trust, &proxies, "front-proxy").is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn everything_wrong_is_said_at_once() {
    let options = TrustOptions {
        request_header: RequestHeaderOptions {
            allowed_names: vec![" ".to_owned()],
            username_headers: vec!["X User".to_owned()],
            ..RequestHeaderOptions::default()
        },
        ..TrustOptions::default()
    };
    assert_eq!(
        texts(TrustKeeper::new(options, None).load().await),
        [
            r#""X User" in requestheader-username-headers is not the name of a header"#,
            "an entry of requestheader-allowed-names is empty",
        ]
    );
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let empty = file("empty", "# nobody\n");
    let missing = folder.path().join("missing");
    let options = TrustOptions {
        client_ca_file: Some(empty.clone()),
        request_header_client_ca_file: Some(missing.clone()),
        ..TrustOptions::default()
    };
    assert_eq!(
        texts(TrustKeeper::new(options, None).load().await),
        [
            format!("{} has no CERTIFICATE block", empty.display()),
            format!("cannot read {}", missing.display()),
        ]
    );
}

#[test]
fn a_configmap_is_read_as_a_whole_or_not() {
    let (clients, proxies) = (authority("clients"), authority("proxies"));
    let parts = config_map::Parts {
        client_ca: true,
        request_header: true,
    };
    let errors = |key: &str, value: &str| {
        let mut data = published(&clients, &proxies);
        data.insert(key.to_owned(), value.to_owned());
        let trust = ClientTrust::default();
        let errors = config_map::apply(&data, parts, &trust);
        let speaks = name(&trust, &proxies, "front-proxy").is_some();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (errors.join("; "), speaks)
    };
    for (key, value, error) in [
        ("requestheader-allowed-names", "null", ""),
        ("requestheader-allowed-names", "", ""),
        (
            "requestheader-group-headers",
            r#""X-Remote-Group""#,
            "ConfigMap kube-system/extension-apiserver-authentication, key requestheader-group-headers, is not a list of \
             strings",
        ),
        (
            "requestheader-extra-headers-prefix",
            r#"[""]"#,
            r#""" in requestheader-extra-headers-prefix is not the name of a header"#,
        ),
        (
            "requestheader-client-ca-file",
            "nothing",
            "key requestheader-client-ca-file of ConfigMap kube-system/extension-apiserver-authentication has no \
             CERTIFICATE block",
        ),
    ] {
        assert_eq!(
            errors(key, value),
            (error.to_owned(), error.is_empty()),
            "{key}={value}"
        );
    }
    // Without names of headers nobody is named, as with kube-apiserver.
    assert_eq!(errors("requestheader-username-headers", "[]"), (String::new(), false));
    // An absent authority is none that could be followed.
    assert_eq!(errors("requestheader-client-ca-file", ""), (String::new(), false));
}
