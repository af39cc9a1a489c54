//! Certificates of both sides, and credentials that a child refuses.

use super::*;
use crate::{Authorization, ChildConfig, ChildError, CredentialsConfig, ExecConfig};

#[tokio::test]
async fn certificates_are_verified_and_presented() {
    let server = Server::start(Speaks::default(), api).await;
    let mut stranger = server.config();
    stranger.certificate_authority = Some(
        Server::start(HTTP1, api)
            .await
            .config()
            .certificate_authority
            .expect("a CA"),
    );
    let error = soon(Child::new(stranger).expect("a child").send(get("/")))
        .await
        .expect_err("a failure");
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut renamed = server.config();
    renamed.tls_server_name = Some("other.test".into());
    assert!(
        soon(Child::new(renamed.clone()).expect("a child").send(get("/")))
            .await
            .is_err()
    );
    renamed.tls_server_name = Some("child.test".into());
    soon(Child::new(renamed.clone()).expect("a child").send(get("/")))
        .await
        .expect("the name is in the certificate");

    let child = Child::new(renamed).expect("a child");
    assert_eq!(
        json(soon(child.send(get("/"))).await.expect("an answer")).await["certificates"],
        0
    );
    child.credentials().replace(CredentialsConfig {
        certificate: Some(server.client_certificate("hub")),
        authorization: Authorization::None,
    });
    assert_eq!(
        json(soon(child.send(get("/"))).await.expect("an answer")).await["certificates"],
        1
    );

    let mut plain = ChildConfig::new("p", format!("http://{}", server.address).parse().expect("a URL"));
    assert!(matches!(
        Child::new(plain.clone()),
        Err(ChildError::Configuration { .. })
    ));
    plain.allow_plaintext = true;
    Child::new(plain).expect("permitted");
}

#[tokio::test]
async fn an_exec_credential_is_renewed_after_401() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Speaks::default(), api).await;
    let mut config = server.config();
    // Prints another token each time it runs.
    config.credentials.authorization = Authorization::Exec(Box::new(ExecConfig {
        command: "/bin/sh".into(),
        args: vec![
            "-c".into(),
            r#"echo >> runs; printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' $(($(wc -l < runs)))"#.into(),
        ],
        api_version: "client.authentication.k8s.io/v1".into(),
        directory: Some(folder.path().to_owned()),
        ..ExecConfig::default()
    }));
    let child = Child::new(config).expect("a child");
    for _ in 0..3 {
        assert_eq!(
            soon(child.send(get("/protected"))).await.expect("an answer").status(),
            StatusCode::OK
        );
    }
    let runs = std::fs::read_to_string(folder.path().join("runs")).expect("read");
    assert_eq!(runs.lines().count(), 2);
}

#[tokio::test]
async fn a_new_certificate_cuts_nothing_that_is_under_way() {
    let server = Server::start(Speaks::default(), |request: Request<Incoming>| async move {
        let certificates = request.extensions().get::<ClientCertificates>().map_or(0, |one| one.0);
        if request.uri().path() != "/watch" {
            return text(StatusCode::OK, certificates.to_string());
        }
        let lines = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let line = Bytes::from(format!("{certificates}\n"));
            Some((Ok::<_, Infallible>(Frame::data(line)), ()))
        });
        Response::new(boxed(StreamBody::new(lines)))
    })
    .await;
    let child = Child::new(server.config()).expect("a child");
    let mut watch = soon(child.watch_lines("/watch")).await.expect("a watch");
    for number in 0..4 {
        let certificate = Some(server.client_certificate(&format!("hub-{number}")));
        child.credentials().replace(CredentialsConfig {
            certificate,
            authorization: Authorization::None,
        });
        // Requests are sent with the new one at once, while others are under way.
        let requests = futures::future::join_all((0..20).map(|_| child.send(get("/api"))));
        for response in soon(requests).await {
            let body = collect(response.expect("an answer").into_body(), 10).await;
            assert_eq!(body.expect("read").expect("short"), "1");
        }
        for _ in 0..3 {
            let line = soon(watch.next()).await.expect("a line").expect("the watch goes on");
            assert_eq!(line, "0", "on the connection that it began on");
        }
    }
}
