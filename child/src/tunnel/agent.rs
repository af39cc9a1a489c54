//! The agent's side: asks the hub for a tunnel, and serves what comes through it.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use serde::Deserialize;
use tokio::{io::AsyncReadExt as _, sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CONTROL, GRACE, HTTP, PROTOCOL, SILENCE, control,
    mux::{self, STREAMS, Stream},
    requests,
};
use crate::{
    body::{collect, empty},
    connection::Child,
    error::ChildError,
    pool::HEADER_LIMIT,
    tasks::Tracked,
    transport::Io,
};

/// hyper's default of 100 is less than the groups some users have.
const HEADER_COUNT: usize = 2048;
/// Requests on one connection through the tunnel; the hub's pools use 80.
const REQUESTS: u32 = 250;
/// What a stream of HTTP/2 may be sent ahead of its reader, and a connection: as many streams as are used.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 80 * STREAM_WINDOW;
/// How long the first byte of a stream may take; it comes with the stream.
const KIND: Duration = Duration::from_secs(10);
/// How much of a refusal is read.
const REFUSAL: usize = 64 << 10;
/// How long the hub may take to switch protocols after it has agreed to.
const SWITCH: Duration = Duration::from_secs(10);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The hub does not answer.
    #[error(transparent)]
    Hub(#[from] ChildError),
    /// The hub says no.
    #[error("the hub refuses the tunnel ({code}): {message}")]
    Refused {
        /// The status: 401 and 403 where the certificate does not count any more.
        code: StatusCode,
        /// Why.
        message: String,
    },
    /// The hub agrees and does not do it.
    #[error("the hub did not switch to the tunnel")]
    Switch(#[source] io::Error),
}

/// An agreed tunnel, not served yet.
pub struct Tunnel {
    pub(super) io: Box<dyn Io>,
    /// Counts the connection, as long as it lives.
    pub(super) extensions: http::Extensions,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// How a tunnel is to end, and whether the hub wants it to.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Cancelled to end it: the hub opens no more streams, and the tunnel ends when nothing is under way any more.
    pub stop: CancellationToken,
    /// Cancelled beside `stop` where that must not take long: what is under way has [`GRACE`].
    pub hurry: CancellationToken,
    /// Is cancelled when the hub wants the agent to have another tunnel, because it goes.
    pub unwanted: CancellationToken,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    message: String,
}

/// Asks the hub, which `hub` is a handle on with the agent's certificate, for a tunnel to `cluster`. Ends within a minute.
///
/// # Errors
/// Where the hub cannot be reached, or refuses.
pub async fn request(hub: &Child, cluster: &str) -> Result<Tunnel, TunnelError> {
    let path = format!("/apis/umbra.dev/v1alpha1/managedclusters/{cluster}/tunnel");
    let request = Request::get(path)
        .header(CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(UPGRADE, HeaderValue::from_static(PROTOCOL))
        .body(empty())
        .map_err(ChildError::from)?;
    let mut response = hub.upgrade(request).await?;
    let code = response.status();
    let agreed = response
        .headers()
        .get(UPGRADE)
        .is_some_and(|protocol| *protocol == PROTOCOL);
    if code != StatusCode::SWITCHING_PROTOCOLS || !agreed {
        let body = collect(response.into_body(), REFUSAL).await.ok().flatten();
        let refusal: Refusal = body
            .and_then(|body| serde_json::from_slice(&body).ok())
            .unwrap_or_default();
        return Err(TunnelError::Refused {
            code,
            message: refusal.message,
        });
    }
    let upgraded = timeout(SWITCH, hyper::upgrade::on(&mut response)).await;
    let upgraded = upgraded
        .map_err(io::Error::other)
        .and_then(|switched| switched.map_err(io::Error::other))
        .map_err(TunnelError::Switch)?;
    Ok(Tunnel {
        io: Box::new(TokioIo::new(upgraded)),
        extensions: std::mem::take(response.extensions_mut()),
    })
}

/// Serves a tunnel: what comes through it goes to `child`, the agent's own cluster. Ends when the connection does, or as
/// `ending` says; dropping the future cuts everything.
///
/// # Errors
/// Where the connection breaks or the hub is silent.
pub async fn serve(tunnel: Tunnel, child: &Child, ending: &Ending) -> io::Result<()> {
    let Tunnel {
        io,
        extensions: _counted,
    } = tunnel;
    let (sender, mut streams) = mpsc::channel(STREAMS);
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    let _abort = abort.clone().drop_guard();
    let dead = CancellationToken::new();
    let serving = async {
        while let Some(stream) = streams.recv().await {
            let served = serve_stream(stream, child.clone(), ending.clone(), dead.clone());
            tasks.spawn(abort.clone().run_until_cancelled_owned(served));
        }
    };
    let drained = async {
        ending.stop.cancelled().await;
        tasks.close();
        // The stream of heartbeats is a task like others: it stays to the last.
        let ended = async {
            while tasks.len() > 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let late = async {
            ending.hurry.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = ended => {}
            () = late => {}
        }
    };
    let ended = tokio::select! {
        ended = mux::accept_streams(io, sender) => ended,
        () = serving => Ok(()),
        () = drained => Ok(()),
        () = dead.cancelled() => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard of the hub any more")),
        () = silent(&tasks) => Err(io::Error::new(io::ErrorKind::TimedOut, "the hub did not begin to use the tunnel")),
    };
    abort.cancel();
    tasks.close();
    tasks.wait().await;
    ended
}

/// Ends where the hub has opened nothing when the first heartbeat is overdue.
async fn silent(tasks: &TaskTracker) {
    tokio::time::sleep(SILENCE).await;
    if !tasks.is_empty() {
        std::future::pending::<()>().await;
    }
}

async fn serve_stream(mut stream: Stream, child: Child, ending: Ending, dead: CancellationToken) {
    match timeout(KIND, stream.read_u8()).await {
        Ok(Ok(CONTROL)) => {
            if let Err(error) = control::answer(stream, &ending.stop, &ending.unwanted).await {
                tracing::debug!(%error, "heartbeats have ended");
            }
            dead.cancel();
        }
        Ok(Ok(HTTP)) => serve_http(stream, child, &ending.stop).await,
        Ok(Ok(kind)) => tracing::warn!(kind, "the hub opened a stream of a kind that this agent does not know"),
        Ok(Err(_)) | Err(_) => {}
    }
}

async fn serve_http(stream: Stream, child: Child, stop: &CancellationToken) {
    let child = Arc::new(child);
    let service = service_fn(move |request: Request<Incoming>| {
        let child = Arc::clone(&child);
        async move { Ok::<_, Infallible>(requests::answer(&child, request).await) }
    });
    let tasks = TaskTracker::new();
    let builder = builder(Tracked::new(tasks.clone()));
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection through the tunnel ended with an error");
    }
    tasks.close();
    tasks.wait().await;
}

fn builder(executor: Tracked) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_headers(HEADER_COUNT)
        .max_buf_size(HEADER_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS)
        .max_header_list_size(HEADER_LIMIT as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(REQUESTS as usize);
    builder
}
