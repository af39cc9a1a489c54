//! Children on loopback: what only shows on a wire.

mod credentials;
mod forwarding;
mod health;
mod pools;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Body, Child, boxed, collect, empty, full,
    testing::{ClientCertificates, Server, Speaks},
};

pub(crate) const HTTP1: Speaks = Speaks {
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
