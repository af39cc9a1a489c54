//! A child on loopback that answers what a test tells it to, and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_child::{ChildConfig, Children, ProbeConfig};

/// What a child was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// Whom the request impersonates.
    pub(crate) fn user(&self) -> &str {
        self.headers["impersonate-user"].to_str().unwrap()
    }

    /// Method and path.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Response<Bytes> + Send + Sync>;

/// A running child.
pub(crate) struct ScriptedChild {
    asked: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
    cancel: CancellationToken,
}

impl Drop for ScriptedChild {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// An answer of JSON.
pub(crate) fn json(code: u16, body: &Value) -> Response<Bytes> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

impl ScriptedChild {
    /// Starts a child and adds it to `children` as `name`.
    pub(crate) async fn start(
        children: &Children,
        name: &str,
        handler: impl Fn(&Asked) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let cancel = CancellationToken::new();
        let handler: Handler = Arc::new(handler);
        let accepting = accept(listener, handler, Arc::clone(&asked), Arc::new(sender));
        TaskTracker::new().spawn(cancel.clone().run_until_cancelled_owned(accepting));
        insert(children, name, address).await;
        Self { asked, count, cancel }
    }

    /// What has been asked so far, probes left out.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Waits until that much has been asked.
    pub(crate) async fn has_been_asked(&self, count: usize) {
        self.count.clone().wait_for(|asked| *asked >= count).await.unwrap();
    }
}

/// Adds a child to `children` that takes connections, and says nothing, until what is returned is dropped.
pub(crate) async fn silent(children: &Children, name: &str) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    insert(children, name, listener.local_addr().unwrap()).await;
    listener
}

/// Adds a child to `children` at an address where nobody listens, and returns the address.
pub(crate) async fn refusing(children: &Children, name: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    insert(children, name, address).await;
    address
}

async fn insert(children: &Children, name: &str, address: SocketAddr) {
    let mut config = ChildConfig::new(name, format!("http://{address}").parse().unwrap());
    config.allow_plaintext = true;
    children.insert(config).await.unwrap();
}

/// No children yet; probes are far apart.
pub(crate) fn children() -> Children {
    Children::new(ProbeConfig::default())
}

async fn accept(
    listener: TcpListener,
    handler: Handler,
    asked: Arc<Mutex<Vec<Asked>>>,
    count: Arc<watch::Sender<usize>>,
) {
    let tasks = TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (handler, asked, count) = (Arc::clone(&handler), Arc::clone(&asked), Arc::clone(&count));
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, asked, count) = (Arc::clone(&handler), Arc::clone(&asked), Arc::clone(&count));
            async move { Ok::<_, Infallible>(answer(request, &handler, &asked, &count).await) }
        });
        tasks.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // Ends with an error when the client leaves, which is the client's right.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: &Handler,
    asked: &Mutex<Vec<Asked>>,
    count: &watch::Sender<usize>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/readyz" {
        return Response::new(Full::default());
    }
    let one = Asked {
        method: parts.method,
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    };
    let response = handler(&one);
    asked.lock().push(one);
    count.send_modify(|count| *count += 1);
    response.map(Full::new)
}

/// 404 for whatever nobody has thought of.
pub(crate) fn nothing(_: &Asked) -> Response<Bytes> {
    let status = umbra_apimachinery::status::Status::no_such_path();
    json(StatusCode::NOT_FOUND.as_u16(), &serde_json::to_value(status).unwrap())
}
