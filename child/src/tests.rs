//! Children on loopback: what only shows on a wire.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use umbra_apimachinery::user::UserInfo;

use crate::{
    Authorization, Body, Child, ChildConfig, ChildError, Children, CredentialsConfig, ExecConfig, Health, Lane,
    ProbeConfig, RequestDeadline, Secret, boxed, collect, empty, full,
    proxy::{ProxyOptions, forward},
    testing::{ClientCertificates, Server, Speaks},
};

const HTTP1: Speaks = Speaks {
    alpn: &[b"http/1.1"],
    streams: 100,
};

/// Longer than anything here takes, so that what hangs fails.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("in time")
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
}

/// One line, and then nothing for ever.
fn open_ended(line: &'static str) -> Body {
    let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(line.as_bytes())))]);
    boxed(StreamBody::new(first.chain(futures::stream::pending())))
}

async fn api(mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/readyz" => text(StatusCode::OK, "ok"),
        "/never" => futures::future::pending().await,
        "/watch" => Response::new(open_ended("first\n")),
        "/echo" => Response::new(boxed(request.into_body())),
        "/missing" => text(
            StatusCode::NOT_FOUND,
            r#"{"kind":"Status","reason":"NotFound","message":"no such thing"}"#,
        ),
        "/moved" => {
            let mut response = text(StatusCode::FOUND, "");
            response
                .headers_mut()
                .insert(header::LOCATION, "/there?x=1".parse().expect("a header"));
            response
                .headers_mut()
                .insert(header::WARNING, "299 - \"careful\"".parse().expect("a header"));
            response
                .headers_mut()
                .insert(header::SET_COOKIE, "a=b".parse().expect("a header"));
            response
        }
        "/protected" => {
            let granted = request
                .headers()
                .get(header::AUTHORIZATION)
                .is_some_and(|value| value == "Bearer 2");
            text(
                if granted {
                    StatusCode::OK
                } else {
                    StatusCode::UNAUTHORIZED
                },
                "",
            )
        }
        "/exec" => {
            if !request.headers().contains_key(header::UPGRADE) {
                return text(StatusCode::BAD_REQUEST, "upgrade required");
            }
            let upgrade = hyper::upgrade::on(&mut request);
            #[expect(clippy::disallowed_methods, reason = "a test server")]
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
                let mut question = String::new();
                stream.write_all(b"hello ").await.expect("written");
                stream.read_to_string(&mut question).await.expect("read to the end");
                stream
                    .write_all(question.to_uppercase().as_bytes())
                    .await
                    .expect("written");
                stream.shutdown().await.expect("ended");
            });
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
            response
                .headers_mut()
                .insert(header::UPGRADE, "SPDY/3.1".parse().expect("a header"));
            response
                .headers_mut()
                .insert(header::CONNECTION, "Upgrade".parse().expect("a header"));
            response
                .headers_mut()
                .insert("x-stream-protocol-version", "v4".parse().expect("a header"));
            response
        }
        _ => {
            let certificates = request.extensions().get::<ClientCertificates>().map_or(0, |one| one.0);
            let headers: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                .collect();
            let seen = serde_json::json!({
                "version": format!("{:?}", request.version()),
                "path": request.uri().path_and_query().map(ToString::to_string),
                "headers": headers,
                "certificates": certificates,
            });
            text(StatusCode::OK, seen.to_string())
        }
    }
}

async fn started(speaks: Speaks) -> (Server, Child) {
    let server = Server::start(speaks, api).await;
    let child = Child::new(server.config()).expect("a child");
    (server, child)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).expect("a request")
}

async fn json(response: Response<Body>) -> serde_json::Value {
    let bytes = collect(response.into_body(), 1 << 20)
        .await
        .expect("read")
        .expect("short");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn a_child_is_spoken_to_in_the_protocol_it_knows() {
    for (speaks, version) in [(Speaks::default(), "HTTP/2.0"), (HTTP1, "HTTP/1.1")] {
        let (server, child) = started(speaks).await;
        for _ in 0..3 {
            let seen: serde_json::Value = soon(child.get_json("/api/v1/pods?limit=1")).await.expect("JSON");
            assert_eq!(seen["version"], version);
            assert_eq!(seen["path"], "/api/v1/pods?limit=1");
        }
        assert_eq!(server.accepted(), 1, "{version}: the connection is kept");
        soon(child.close()).await;
        assert!(matches!(
            soon(child.send(get("/x"))).await,
            Err(ChildError::Closed { .. } | ChildError::Http { .. })
        ));
    }
}

#[tokio::test]
async fn a_path_of_the_server_prefixes_all_requests() {
    let server = Server::start(Speaks::default(), api).await;
    let mut config = server.config();
    config.server = format!("https://{}/k8s/clusters/c-1/", server.address)
        .parse()
        .expect("a URL");
    let child = Child::new(config).expect("a child");
    let seen: serde_json::Value = soon(child.get_json("/api?x")).await.expect("JSON");
    assert_eq!(seen["path"], "/k8s/clusters/c-1/api?x");
}

#[tokio::test]
async fn more_watches_than_a_connection_carries_and_requests_beside_them() {
    let (_server, child) = started(Speaks::default()).await;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let mut lines = soon(child.watch_lines("/watch")).await.expect("a watch");
        assert_eq!(soon(lines.next()).await.expect("a line").expect("a line"), "first");
        watches.push(lines);
    }
    assert_eq!(child.watch_connections(), 3);
    soon(child.get_json::<serde_json::Value>("/api"))
        .await
        .expect("not behind the watches");
    // What ends makes room on the first connection.
    watches.truncate(40);
    let mut again = soon(child.watch_lines("/watch")).await.expect("a watch");
    assert_eq!(soon(again.next()).await.expect("a line").expect("a line"), "first");
    assert_eq!(child.watch_connections(), 3);
}

#[tokio::test]
async fn the_peers_stream_limit_is_respected() {
    let (server, child) = started(Speaks {
        streams: 3,
        ..Speaks::default()
    })
    .await;
    let mut watches = Vec::new();
    for _ in 0..10 {
        let mut lines = soon(child.watch_lines("/watch")).await.expect("a watch");
        soon(lines.next()).await.expect("a line").expect("a line");
        watches.push(lines);
    }
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    for speaks in [Speaks::default(), HTTP1] {
        let (_server, child) = started(speaks).await;
        let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        let body = boxed(StreamBody::new(receiver));
        let request = Request::post("/echo").body(body).expect("a request");
        let mut sender = sender;
        sender
            .try_send(Ok(Frame::data(Bytes::from_static(b"one"))))
            .expect("room");
        let mut response = soon(child.send(request)).await.expect("a response");
        // The second chunk is written after the first has come back.
        let first = soon(response.body_mut().frame())
            .await
            .expect("a frame")
            .expect("a frame");
        assert_eq!(first.into_data().expect("data"), "one");
        sender
            .try_send(Ok(Frame::data(Bytes::from_static(b"two"))))
            .expect("room");
        drop(sender);
        let rest = soon(collect(response.into_body(), 100))
            .await
            .expect("read")
            .expect("short");
        assert_eq!(rest, "two");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_deadline() {
    let (_server, child) = started(Speaks::default()).await;
    let mut request = get("/never");
    request
        .extensions_mut()
        .insert(RequestDeadline(Duration::from_millis(50)));
    let error = soon(child.send(request)).await.expect_err("a failure");
    assert!(matches!(error, ChildError::Timeout { .. }), "{error}");
    // The connection is still good.
    soon(child.send(get("/api"))).await.expect("an answer");

    // One that accepts and says nothing at all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = silent.local_addr().expect("an address");
    let child = Child::new(ChildConfig {
        insecure_skip_tls_verify: true,
        ..ChildConfig::new("silent", format!("https://{address}").parse().expect("a URL"))
    })
    .expect("a child");
    let started = tokio::time::Instant::now();
    let (one, two) = soon(async { tokio::join!(child.send(get("/a")), child.send(get("/b"))) }).await;
    for error in [one.expect_err("a failure"), two.expect_err("a failure")] {
        assert!(
            error.is_unreachable() && error.to_string().contains("no connection within 5 s"),
            "{error}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "those that wait share one failure"
    );
}

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
async fn the_childs_errors_are_told() {
    let (_server, child) = started(Speaks::default()).await;
    let error = soon(child.request_json(Method::PATCH, "/missing", "application/merge-patch+json", "{}"))
        .await
        .expect_err("an error");
    let ChildError::Status {
        code, reason, message, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (*code, reason.as_str(), message.as_str()),
        (StatusCode::NOT_FOUND, "NotFound", "no such thing")
    );
    let refused = soon(child.get_json::<serde_json::Value>("/protected"))
        .await
        .expect_err("an error");
    assert!(matches!(refused, ChildError::CredentialsRefused { .. }));
}

#[tokio::test]
async fn a_user_is_forwarded_without_what_is_theirs() {
    let server = Server::start(Speaks::default(), api).await;
    let mut config = server.config();
    config.credentials.authorization = Authorization::Token(Secret::new("hub"));
    let child = Child::new(config).expect("a child");
    let options = ProxyOptions {
        prefix: "/root/proxy".into(),
    };
    let jane = UserInfo::new("jane", ["dev"]);
    let request = Request::get("/api/v1//pods?x=%2F")
        .header("authorization", "Bearer jane")
        .header("x-remote-user", "admin")
        .header("impersonate-group", "system:masters")
        .header("audit-id", "7")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .body(empty())
        .expect("a request");
    let seen = json(
        soon(forward(&child, request, &jane, &options))
            .await
            .expect("an answer"),
    )
    .await;
    assert_eq!(seen["path"], "/api/v1/pods?x=%2F");
    let mut headers: Vec<_> = seen["headers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one.as_str())
        .collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "audit-id: 7",
            "authorization: Bearer hub",
            "impersonate-group: dev",
            "impersonate-group: system:authenticated",
            "impersonate-user: jane"
        ]
    );

    let moved = soon(forward(&child, get("/moved"), &jane, &options))
        .await
        .expect("an answer");
    assert_eq!(moved.status(), StatusCode::FOUND);
    assert_eq!(moved.headers()[header::LOCATION], "/root/proxy/there?x=1");
    assert_eq!(moved.headers()[header::WARNING], "299 - \"careful\"");
    assert!(!moved.headers().contains_key(header::SET_COOKIE));

    let refused = soon(forward(&child, get("/protected"), &jane, &options)).await;
    assert!(matches!(refused, Err(ChildError::CredentialsRefused { .. })));
    let anonymous = soon(forward(&child, get("/api"), &UserInfo::anonymous(), &options)).await;
    assert!(matches!(anonymous, Err(ChildError::Identity(_))));
}

/// A hub that forwards everything to one child, as jane.
async fn hub(child: Child) -> (Server, Child) {
    let server = Server::start(HTTP1, move |request: Request<Incoming>| {
        let child = child.clone();
        async move {
            let request = request.map(boxed);
            match forward(
                &child,
                request,
                &UserInfo::new("jane", ["dev"]),
                &ProxyOptions::default(),
            )
            .await
            {
                Ok(response) => response,
                Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
            }
        }
    })
    .await;
    let client = Child::new(server.config()).expect("a client");
    (server, client)
}

fn exec(path: &str) -> Request<Body> {
    Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(empty())
        .expect("a request")
}

#[tokio::test]
async fn upgrades_are_spliced_with_half_close() {
    let (_server, child) = started(Speaks::default()).await;
    let (_hub, client) = hub(child.clone()).await;
    let mut response = soon(client.upgrade(exec("/exec"))).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4");
    assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.expect("upgraded"));
    stream.write_all(b"question").await.expect("written");
    stream.shutdown().await.expect("ended");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("read to the end");
    assert_eq!(answer, "hello QUESTION");
}

#[tokio::test]
async fn a_refused_upgrade_is_relayed_and_a_removed_cluster_cuts_sessions() {
    let (_server, child) = started(Speaks::default()).await;
    let (_hub, client) = hub(child.clone()).await;
    let refused = soon(client.upgrade(exec("/missing"))).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(json(refused).await["reason"], "NotFound");

    let mut response = soon(client.upgrade(exec("/exec"))).await.expect("an answer");
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.expect("upgraded"));
    let mut hello = [0; 6];
    soon(stream.read_exact(&mut hello)).await.expect("read");
    soon(child.close()).await;
    let mut rest = Vec::new();
    // Cut or ended, but not open.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn probes_open_the_circuit_and_close_it_again() {
    // Answers with what this says: 0 is healthy.
    let failing = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&failing);
    let server = Server::start(Speaks::default(), move |_| {
        let failing = switch.load(Ordering::SeqCst);
        async move {
            let status = if failing == 0 {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            text(status, "")
        }
    })
    .await;
    let children = Children::new(ProbeConfig {
        interval: Duration::from_millis(10),
        failures: 3,
        ..ProbeConfig::default()
    });
    let child = children.insert(server.config()).await.expect("a child");
    let mut health = child.health();
    soon(health.wait_for(|health| *health == Health::Reachable))
        .await
        .expect("probed");
    failing.store(1, Ordering::SeqCst);
    soon(health.wait_for(|health| matches!(health, Health::Unreachable { .. })))
        .await
        .expect("probed");
    for lane in [Lane::Requests, Lane::Streams] {
        let error = soon(child.send_on(lane, get("/api")))
            .await
            .expect_err("the circuit is open");
        let ChildError::Unreachable { cluster, reason, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(&**cluster, "c1");
        assert!(reason.contains("503"), "{reason}");
    }
    failing.store(0, Ordering::SeqCst);
    soon(health.wait_for(|health| *health == Health::Reachable))
        .await
        .expect("probed");
    soon(child.send(get("/api"))).await.expect("the circuit is closed");

    // New credentials keep the handle; another place is another one.
    let mut config = server.config();
    config.credentials.authorization = Authorization::Token(Secret::new("new"));
    children.insert(config.clone()).await.expect("a child");
    assert!(
        children
            .get("c1")
            .expect("there")
            .credentials()
            .current()
            .await
            .expect("credentials")
            .header
            .is_some()
    );
    assert_eq!(children.all().len(), 1);
    config.server = "https://127.0.0.1:1/".parse().expect("a URL");
    children.insert(config).await.expect("a child");
    assert_eq!(children.get("c1").expect("there").config().server.port(), Some(1));
    assert!(children.remove("c1").await);
    assert!(!children.remove("c1").await);
    soon(children.close()).await;
}

#[tokio::test]
async fn requests_that_are_given_up_leave_nothing_behind() {
    let (server, child) = started(Speaks::default()).await;
    soon(child.send(get("/api"))).await.expect("an answer");
    for _ in 0..1000 {
        // More than the lane has places: each is dropped while it waits for its response.
        let mut request = std::pin::pin!(child.send(get("/never")));
        assert!(futures::poll!(request.as_mut()).is_pending());
    }
    soon(child.send(get("/api"))).await.expect("an answer");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let server = Server::start(Speaks::default(), api).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let mut config = server.config();
    let address = listener.local_addr().expect("an address");
    config.proxy_url = Some(format!("http://jane:p%40ss@{address}").parse().expect("a URL"));
    let child = Child::new(config).expect("a child");
    let proxy = async {
        let (mut inbound, _) = listener.accept().await.expect("accepted");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(inbound.read_u8().await.expect("read"));
        }
        inbound
            .write_all(b"HTTP/1.1 200 Connection established\r\nX-A: b\r\n\r\n")
            .await
            .expect("written");
        let mut outbound = tokio::net::TcpStream::connect(server.address).await.expect("connected");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound) => unreachable!("the child keeps its connection"),
            answer = child.send(get("/api")) => (String::from_utf8_lossy(&request).into_owned(), answer),
        }
    };
    let (first, (request, second)) = soon(async { tokio::join!(child.send(get("/api")), proxy) }).await;
    first.expect("an answer");
    second.expect("an answer on the same connection");
    assert!(
        request.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.address)),
        "{request}"
    );
    assert!(
        request.contains("Proxy-Authorization: Basic amFuZTpwQHNz\r\n"),
        "{request}"
    );

    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let mut config = server.config();
    config.proxy_url = Some(
        format!("http://{}", refusing.local_addr().expect("an address"))
            .parse()
            .expect("a URL"),
    );
    let child = Child::new(config).expect("a child");
    let refuse = async {
        let (mut inbound, _) = refusing.accept().await.expect("accepted");
        inbound
            .write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            .await
            .expect("written");
        // Open until the other side has read it.
        let _ = inbound.read_to_end(&mut Vec::new()).await;
    };
    let (refused, ()) = soon(async { tokio::join!(child.send(get("/api")), refuse) }).await;
    assert!(refused.expect_err("refused").to_string().contains("403 Forbidden"));
}

#[tokio::test]
async fn a_connection_that_the_child_closes_is_replaced() {
    for speaks in [Speaks::default(), HTTP1] {
        let (server, child) = started(speaks).await;
        soon(child.send(get("/api"))).await.expect("an answer");
        server.close_connections();
        // One that was being written when the end came may fail; then a new connection is dialled.
        soon(async {
            while child.send(get("/api")).await.is_err() || server.accepted() < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
