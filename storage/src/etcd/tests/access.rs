//! TLS, users, and what is said where they are wrong.

use super::*;
use crate::contract::etcd_servers::ClientCertificate;

const USER: &str = "umbra";
const PASSWORD: &str = "correct horse";

fn brief(mut options: EtcdOptions) -> EtcdOptions {
    options.connect_deadline = Duration::from_secs(2);
    options
}

/// Why a store cannot be opened.
async fn refused(options: EtcdOptions) -> String {
    let error = Etcd::connect(options, &TaskTracker::new(), CancellationToken::new()).await;
    error.expect_err("the store must not open").to_string()
}

async fn works(store: &Etcd) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/access/", start).await.unwrap();
    let revision = put(store, "/access/a", "1").await;
    assert_eq!(next_put(&mut watch, "/access/a").await, revision);
    store.ready().await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_opens_the_store_and_another_one_does_not() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let Some(servers) = EtcdServersOptions::new(1, version).tls().start().await else {
            continue;
        };
        let good = options(&servers, "/hub");
        works(&open(good.clone()).await.store).await;

        let (tls, foreign) = (good.tls.clone().unwrap(), ClientCertificate::foreign());
        let with = |tls: EtcdTls| {
            brief(EtcdOptions {
                tls: Some(tls),
                ..good.clone()
            })
        };
        let unknown_server = refused(with(EtcdTls {
            ca: foreign.authority.clone(),
            ..tls.clone()
        }))
        .await;
        assert!(unknown_server.contains("check the CA certificate"), "{unknown_server}");
        let none = refused(with(EtcdTls {
            identity: None,
            ..tls.clone()
        }))
        .await;
        assert!(none.contains("client certificate"), "{none}");
        let identity = EtcdIdentity {
            certificate: foreign.certificate,
            key: foreign.key,
        };
        let unknown_client = refused(with(EtcdTls {
            identity: Some(identity),
            ..tls
        }))
        .await;
        assert!(unknown_client.contains("client certificate"), "{unknown_client}");
        for error in [unknown_server, none, unknown_client] {
            assert!(error.contains(&servers.endpoints()[0]), "{error}");
        }
    }
}

#[tokio::test]
async fn a_password_opens_the_store_and_another_one_does_not() {
    for version in [EtcdVersion::V34, EtcdVersion::V36] {
        let start = EtcdServersOptions::new(1, version)
            .user(USER, PASSWORD, "/hub")
            .start()
            .await;
        let Some(mut servers) = start else { continue };
        let good = options(&servers, "/hub");
        let opened = open(good.clone()).await;
        works(&opened.store).await;

        let mut wrong = brief(good.clone());
        wrong.credentials.as_mut().unwrap().password = "battery staple".to_owned();
        let error = refused(wrong).await;
        assert!(error.ends_with("(check the user and the password)"), "{error}");
        let error = refused(brief(EtcdOptions {
            credentials: None,
            ..good.clone()
        }))
        .await;
        assert!(error.contains("a user and a password are needed"), "{error}");
        let error = refused(brief(EtcdOptions {
            prefix: "/elsewhere".to_owned(),
            ..good
        }))
        .await;
        assert!(error.contains("grant the user"), "{error}");

        // A server that starts again knows no tokens: requests and watches get new ones.
        let before = opened.store.current_revision().await.unwrap();
        let mut watch = opened.store.watch("/access/", before).await.unwrap();
        put(&opened.store, "/access/a", "2").await;
        next_put(&mut watch, "/access/a").await;
        servers.kill(0);
        servers.restart(0).await;
        let revision = put(&opened.store, "/access/a", "3").await;
        assert_eq!(next_put(&mut watch, "/access/a").await, revision);
    }
}

#[tokio::test]
async fn a_user_is_not_taken_where_there_are_none() {
    let Some(servers) = EtcdServers::start(1, EtcdVersion::V36).await else {
        return;
    };
    let credentials = EtcdCredentials {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let error = refused(brief(EtcdOptions {
        credentials: Some(credentials),
        ..options(&servers, "/hub")
    }))
    .await;
    assert!(error.contains("enable authentication in etcd"), "{error}");
}

#[tokio::test]
async fn every_endpoint_that_does_not_answer_is_named() {
    // Port 1 needs root to be listened on; nothing does.
    let endpoints = ["http://127.0.0.1:1", "http://localhost:1"];
    let error = refused(brief(EtcdOptions::new(endpoints))).await;
    for endpoint in endpoints {
        assert!(error.contains(&format!("{endpoint}: ")), "{error}");
    }
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_work_say_why() {
    let with = |endpoint: &str| EtcdOptions::new([endpoint]);
    let tls = Some(EtcdTls {
        ca: Vec::new(),
        identity: None,
    });
    for (options, expected) in [
        (EtcdOptions::new(Vec::<String>::new()), "there is no endpoint"),
        (with("127.0.0.1:2379"), "neither http:// nor https://"),
        (with("https://127.0.0.1:2379"), "needs the certificate of the authority"),
        (
            EtcdOptions {
                tls,
                ..with("http://127.0.0.1:2379")
            },
            "use https://",
        ),
        (
            EtcdOptions {
                prefix: "hub".to_owned(),
                ..with("http://127.0.0.1:2379")
            },
            "has to begin with a slash",
        ),
        (
            EtcdOptions {
                prefix: "/".to_owned(),
                ..with("http://127.0.0.1:2379")
            },
            "not to end with one",
        ),
    ] {
        let error = refused(options).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_full_database_fails_readiness() {
    // With users, 3.6 tells of alarms in another way.
    for (version, user) in [
        (EtcdVersion::V34, false),
        (EtcdVersion::V36, false),
        (EtcdVersion::V36, true),
    ] {
        let mut servers = EtcdServersOptions::new(1, version).flag("--quota-backend-bytes=2097152");
        if user {
            servers = servers.user(USER, PASSWORD, "/hub");
        }
        let Some(servers) = servers.start().await else { continue };
        let opened = open(options(&servers, "/hub")).await;
        opened.store.ready().await.unwrap();
        let value = "x".repeat(256 * 1024);
        let refusal = loop {
            match opened
                .store
                .put("/full", value.clone().into(), Precondition::None)
                .await
            {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let text = refusal.to_string();
        assert!(
            matches!(refusal, Error::Unavailable { .. }) && text.contains("disarm the alarm NOSPACE"),
            "{text}"
        );
        until("the alarm", || async { opened.store.ready().await.is_err() }).await;
        let error = opened.store.ready().await.unwrap_err().to_string();
        assert!(
            error.contains(&servers.endpoints()[0]) && error.contains("takes no writes"),
            "{error}"
        );
        opened.store.get("/full").await.unwrap();
    }
}
