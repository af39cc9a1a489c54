//! `/livez` and `/readyz` of an agent, over plain HTTP for the kubelet: `ok`, or why not, and nothing that an agent knows.
//!
//! Live is an agent whose loop turns; whether the hub is there is no matter of that, because starting again does not bring a hub
//! back. Ready is one whose tunnel is up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A loop that has not turned for this long stands still. One turn takes four requests at most, each of which ends within 60 s.
const STILL: Duration = Duration::from_secs(300);
/// How often a loop that only waits turns.
pub(super) const TURN: Duration = Duration::from_secs(5);
/// Connections at a time. Where there are more, the oldest ends: a probe is answered within milliseconds, so whoever holds connections
/// open keeps no kubelet out unless they open as many within that time.
const CONNECTIONS: usize = 256;
/// A probe is over within this.
const PROBE: Duration = Duration::from_secs(3);
/// The whole head of a probe; hyper takes no less.
const HEAD_BYTES: usize = 8 << 10;
/// When accepting is tried again, where descriptors are short.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How an agent is. Cheap to share.
#[derive(Debug, Clone)]
pub(super) struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    began: Instant,
    /// Milliseconds after `began`.
    turned: AtomicU64,
    tunnels: AtomicUsize,
    unapproved: AtomicBool,
}

/// A tunnel that is up as long as this lives.
#[derive(Debug)]
pub(super) struct Up(Health);

impl Health {
    /// Of an agent that begins.
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            began: Instant::now(),
            turned: AtomicU64::new(0),
            tunnels: AtomicUsize::new(0),
            unapproved: AtomicBool::new(false),
        }))
    }

    /// The loop has turned.
    pub(super) fn turn(&self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.turned.store(now, Ordering::Relaxed);
    }

    /// Whether a person has to approve the agent before it goes on.
    pub(super) fn unapproved(&self, unapproved: bool) {
        self.0.unapproved.store(unapproved, Ordering::Relaxed);
    }

    /// A tunnel is up.
    pub(super) fn up(&self) -> Up {
        self.0.tunnels.fetch_add(1, Ordering::Relaxed);
        Up(self.clone())
    }

    fn live(&self) -> Result<(), &'static str> {
        let turned = Duration::from_millis(self.0.turned.load(Ordering::Relaxed));
        match self.0.began.elapsed().saturating_sub(turned) < STILL {
            true => Ok(()),
            false => Err("the agent stands still"),
        }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.0.tunnels.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        match self.0.unapproved.load(Ordering::Relaxed) {
            true => Err("waiting for approval"),
            false => Err("no tunnel to the hub"),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let judged = match request.uri().path() {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                return answer(StatusCode::METHOD_NOT_ALLOWED, "");
            }
            "/livez" => self.live(),
            "/readyz" => self.ready(),
            _ => return answer(StatusCode::NOT_FOUND, ""),
        };
        match judged {
            Ok(()) => answer(StatusCode::OK, "ok"),
            Err(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, reason),
        }
    }

    /// Answers probes until `stop`; what is under way then is cut.
    pub(super) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let accept = async {
            let mut open = VecDeque::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (health, end) = (self.clone(), make_room(&mut open, &stop));
                        tasks.spawn(async move {
                            // A client that breaks off or dawdles is no concern of the agent.
                            let _ = end
                                .run_until_cancelled(tokio::time::timeout(PROBE, health.connection(stream)))
                                .await;
                            end.cancel();
                        });
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
                }
            }
        };
        stop.run_until_cancelled(accept).await;
        tasks.close();
        tasks.wait().await;
    }

    async fn connection(&self, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(|request| {
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PROBE)
            .keep_alive(false)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .await
    }
}

/// What ends another connection, which is the youngest of `open` then. What has ended goes out of `open`, and where it is full all the
/// same, the oldest.
fn make_room(open: &mut VecDeque<CancellationToken>, stop: &CancellationToken) -> CancellationToken {
    if open.len() >= CONNECTIONS {
        open.retain(|one| !one.is_cancelled());
    }
    if open.len() >= CONNECTIONS
        && let Some(oldest) = open.pop_front()
    {
        oldest.cancel();
    }
    let end = stop.child_token();
    open.push_back(end.clone());
    end
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Listens on all addresses, as a pod's probes need: of both families, or of IPv4 where the machine has no IPv6.
///
/// # Errors
/// Where the port is taken.
pub(super) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

fn answer(code: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn get(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn probes_hear_ok_or_why_not_and_nothing_else() {
        let health = Health::new();
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(health.clone().serve(listener, stop.clone()));
        let probe = async |path: &str| get(port, &format!("GET {path} HTTP/1.1\r\nhost: pod\r\n\r\n")).await;

        let live = probe("/livez").await;
        assert!(
            live.starts_with("HTTP/1.1 200 ") && live.ends_with("\r\n\r\nok"),
            "{live}"
        );
        let unready = probe("/readyz").await;
        assert!(
            unready.starts_with("HTTP/1.1 503 ") && unready.ends_with("no tunnel to the hub"),
            "{unready}"
        );
        health.unapproved(true);
        assert!(probe("/readyz").await.ends_with("waiting for approval"));
        // While one tunnel takes the place of another, both are up.
        let (first, second) = (health.up(), health.up());
        drop(first);
        assert!(probe("/readyz").await.ends_with("ok"));
        drop(second);
        assert!(probe("/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(probe("/metrics").await.starts_with("HTTP/1.1 404 "));
        let posted = get(port, "POST /livez HTTP/1.1\r\nhost: pod\r\ncontent-length: 0\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[test]
    fn room_is_made_by_what_has_ended_and_then_by_the_oldest() {
        let (mut open, stop) = (VecDeque::new(), CancellationToken::new());
        let first: Vec<_> = (0..CONNECTIONS).map(|_| make_room(&mut open, &stop)).collect();
        first[7].cancel();
        make_room(&mut open, &stop);
        assert!(!first[0].is_cancelled() && open.len() == CONNECTIONS);
        make_room(&mut open, &stop);
        assert!(first[0].is_cancelled() && !first[1].is_cancelled() && open.len() == CONNECTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_not_live() {
        let health = Health::new();
        tokio::time::advance(STILL / 2).await;
        health.turn();
        tokio::time::advance(STILL - Duration::from_secs(1)).await;
        assert_eq!(health.live(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(health.live().is_err());
        health.turn();
        assert_eq!(health.live(), Ok(()));
    }
}
