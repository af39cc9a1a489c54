//! Credentials that are read again, run again, and replaced.

use super::*;

async fn header(credentials: &Credentials) -> String {
    let current = credentials.current().await.expect("credentials");
    current.header.expect("a header").to_str().expect("text").to_owned()
}

fn with(authorization: Authorization) -> Credentials {
    Credentials::new(CredentialsConfig {
        certificate: None,
        authorization,
    })
}

#[tokio::test]
async fn static_credentials_are_not_worth_a_second_try() {
    let credentials = with(Authorization::Token(Secret::new("t0ken")));
    assert_eq!(header(&credentials).await, "Bearer t0ken");
    let used = credentials.current().await.expect("credentials");
    assert!(!credentials.refused(&used));
    let basic = with(Authorization::Basic {
        username: "a".into(),
        password: Secret::new("b"),
    });
    assert_eq!(header(&basic).await, "Basic YTpi");
}

#[tokio::test]
async fn a_token_file_is_read_again_after_401() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").expect("written");
    let credentials = with(Authorization::TokenFile(path.clone()));
    assert_eq!(header(&credentials).await, "Bearer one");
    std::fs::write(&path, "two\n").expect("written");
    assert_eq!(header(&credentials).await, "Bearer one");
    let used = credentials.current().await.expect("credentials");
    assert!(credentials.refused(&used));
    assert_eq!(header(&credentials).await, "Bearer two");
    // Somebody else was refused with what has been replaced already: worth another try, but not another read.
    std::fs::write(&path, "three\n").expect("written");
    assert!(credentials.refused(&used));
    assert_eq!(header(&credentials).await, "Bearer two");
    std::fs::remove_file(&path).expect("removed");
    credentials.reload();
    let error = credentials.current().await.err().expect("the file is gone").to_string();
    assert!(error.contains("token file"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let config = CredentialsConfig {
        certificate: None,
        authorization: Authorization::Token(Secret::new("t0ken")),
    };
    assert!(!format!("{config:?} {:?}", Credentials::new(config.clone())).contains("t0ken"));
}

#[tokio::test]
async fn a_replaced_certificate_changes_the_generation() {
    let certificate = |text: &str| CredentialsConfig {
        certificate: Some(ClientCertificate {
            certificate: text.into(),
            key: Secret::new("key"),
        }),
        authorization: Authorization::None,
    };
    let credentials = Credentials::new(certificate("a"));
    let first = credentials.current().await.expect("credentials").generation;
    credentials.replace(certificate("a"));
    assert_eq!(credentials.current().await.expect("credentials").generation, first);
    credentials.replace(certificate("b"));
    assert_eq!(credentials.current().await.expect("credentials").generation, first + 1);
}

/// A program that waits for the file `go`, counts its runs in `runs`, and prints a token.
fn slow_plugin(folder: &std::path::Path) -> Authorization {
    let script = r#"echo >> runs; while [ ! -e go ]; do sleep 0.02; done
        printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t0ken"}}'"#;
    Authorization::Exec(Box::new(ExecConfig {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        api_version: "client.authentication.k8s.io/v1".into(),
        directory: Some(folder.to_owned()),
        ..ExecConfig::default()
    }))
}

fn runs(folder: &std::path::Path) -> usize {
    std::fs::read_to_string(folder.join("runs")).map_or(0, |runs| runs.lines().count())
}

#[tokio::test]
async fn a_program_outlives_who_has_asked_for_it_and_runs_once_for_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = with(slow_plugin(folder.path()));
    // Requests whose deadline is shorter than the program takes.
    while runs(folder.path()) == 0 {
        let given_up = tokio::time::timeout(Duration::from_millis(20), credentials.current()).await;
        assert!(given_up.is_err(), "it does not answer yet");
    }
    let asked: Vec<_> = (0..20).map(|_| credentials.current()).collect();
    std::fs::write(folder.path().join("go"), "").expect("written");
    for current in futures::future::join_all(asked).await {
        assert_eq!(current.expect("credentials").header.expect("a header"), "Bearer t0ken");
    }
    assert_eq!(runs(folder.path()), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_program_to_replace_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = with(slow_plugin(folder.path()));
    let mut waiting = std::pin::pin!(credentials.current());
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    assert_eq!(credentials.expiry(), None);
    credentials.replace(CredentialsConfig {
        certificate: None,
        authorization: Authorization::Token(Secret::new("other")),
    });
    assert_eq!(header(&credentials).await, "Bearer other");
    // Who has waited all the time gets what counts now.
    std::fs::write(folder.path().join("go"), "").expect("written");
    let current = waiting.await.expect("credentials");
    assert_eq!(current.header.expect("a header"), "Bearer other");
}

#[tokio::test]
async fn a_failure_is_shared_and_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let credentials = with(Authorization::TokenFile(path.clone()));
    let (one, two) = tokio::join!(credentials.current(), credentials.current());
    let (one, two) = (one.err().expect("no file"), two.err().expect("no file"));
    assert!(Arc::ptr_eq(&one, &two));
    std::fs::write(&path, "one").expect("written");
    assert_eq!(header(&credentials).await, "Bearer one");
}

#[tokio::test]
async fn a_refused_certificate_of_a_program_is_made_anew_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"echo >> runs
        printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{
            "clientCertificateData":"%s","clientKeyData":"key"}}' $(($(wc -l < runs)))"#;
    let credentials = with(Authorization::Exec(Box::new(ExecConfig {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        api_version: "client.authentication.k8s.io/v1".into(),
        directory: Some(folder.path().to_owned()),
        ..ExecConfig::default()
    })));
    let first = credentials.current().await.expect("credentials");
    assert!(credentials.refused(&first));
    let second = credentials.current().await.expect("credentials");
    assert_ne!(first.generation, second.generation);
    // Others were refused with the first one, too, and none of them has the program run again.
    for _ in 0..10 {
        assert!(credentials.refused(&first));
        assert_eq!(
            credentials.current().await.expect("credentials").generation,
            second.generation
        );
    }
    assert_eq!(runs(folder.path()), 2);
}
