//! What time does: nothing to streams, an end to what hangs. The clock is paused and the child is in memory, so that hours take
//! no time and every figure is exact.

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

use super::{super::send::HEADER_DEADLINE, *};
use crate::{Children, Health, ProbeConfig, testing::Memory};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A line now, and another one after a day.
fn two_lines() -> Body {
    let later = futures::stream::once(async {
        sleep(DAY).await;
        line("second\n")
    });
    boxed(StreamBody::new(futures::stream::iter([line("first\n")]).chain(later)))
}

fn line(text: &'static str) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A child that takes its time.
async fn patient(mut request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/watch" => Response::new(two_lines()),
        "/log" => {
            // A container that has nothing to say: not even the headers come.
            sleep(3 * HOUR).await;
            Response::new(two_lines())
        }
        "/upload" => {
            let body = request.into_body().collect().await.expect("read").to_bytes();
            text(StatusCode::OK, body)
        }
        "/exec" => {
            let upgrade = hyper::upgrade::on(&mut request);
            #[expect(clippy::disallowed_methods, reason = "a test server")]
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
                sleep(DAY).await;
                stream.write_all(b"still here").await.expect("written");
                stream.shutdown().await.expect("ended");
            });
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
            let headers = response.headers_mut();
            headers.insert("upgrade", "SPDY/3.1".parse().expect("a header"));
            headers.insert("connection", "Upgrade".parse().expect("a header"));
            response
        }
        "/never" => std::future::pending().await,
        _ => text(StatusCode::OK, "ok"),
    }
}

async fn read(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.expect("read");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

#[tokio::test(start_paused = true)]
async fn no_deadline_cuts_a_stream() {
    let item = Item::open("children.timeouts");
    let memory = Memory::new(patient);
    let child = memory.child();
    let watch = async {
        let response = child.send_watch(get("/watch")).await.expect("an answer");
        assert_eq!(read(response).await, "first\nsecond\n");
    };
    let log = async {
        let response = child.send_on(Lane::Streams, get("/log")).await.expect("an answer");
        assert_eq!(read(response).await, "first\nsecond\n");
    };
    let exec = async {
        let request = Request::post("/exec")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1");
        let request = request.body(crate::body::empty()).expect("a request");
        let mut response = child.upgrade(request).await.expect("an answer");
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("upgraded"));
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "still here");
    };
    let upload = async {
        let request = Request::post("/upload").body(two_lines()).expect("a request");
        let response = child.send_on(Lane::Streams, request).await.expect("an answer");
        assert_eq!(read(response).await, "first\nsecond\n");
    };
    let began = Instant::now();
    // What is no stream ends, whatever the others do.
    let hanging = async {
        let error = child.send(get("/never")).await.expect_err("no answer");
        assert!(matches!(error, ChildError::Timeout { .. }), "{error}");
        began.elapsed()
    };
    let ((), (), (), (), ended) = tokio::join!(watch, log, exec, upload, hanging);
    assert_eq!(ended, HEADER_DEADLINE);
    assert!(began.elapsed() >= DAY + 3 * HOUR);
    // No connection was made anew meanwhile: requests, watches, streams, exec.
    assert_eq!(memory.connected(), 4);
    item.pass("watch, log, exec and upload silent for a day, on the connection that they began on; a request ended after 60 s");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_falls_silent_is_noticed() {
    let item = Item::open("children.keepalive");
    let memory = Memory::new(patient);
    let child = memory.child();
    let mut watch = child.watch_lines("/watch").await.expect("a watch");
    assert_eq!(watch.next().await.expect("a line").expect("a line"), "first");
    // Just after a ping, which is when the next one is farthest.
    sleep(HOUR + Duration::from_secs(1)).await;
    memory.set_silent(true);
    let began = Instant::now();
    let error = watch.next().await.expect("told").expect_err("the connection is dead");
    let noticed = began.elapsed();
    assert!(noticed <= Duration::from_secs(25), "{error} after {noticed:?}");
    memory.set_silent(false);
    let mut again = child.watch_lines("/watch").await.expect("a new connection");
    assert_eq!(again.next().await.expect("a line").expect("a line"), "first");
    item.pass(&format!(
        "a silent connection noticed after {:.0} s by pings",
        noticed.as_secs_f64()
    ));
}

#[tokio::test(start_paused = true)]
async fn probes_open_and_close_the_circuit_in_the_time_they_say() {
    let item = Item::open("children.probes");
    let memory = Memory::new(patient);
    let children = Children::new(ProbeConfig::default());
    let config = crate::testing::in_memory();
    let child = children
        .insert_with(config, Arc::clone(&memory) as _)
        .await
        .expect("a child");
    let mut health = child.health();
    health
        .wait_for(|health| *health == Health::Reachable)
        .await
        .expect("probed");
    sleep(HOUR).await;

    memory.set_silent(true);
    let began = Instant::now();
    let lost = health.wait_for(|health| matches!(health, Health::Unreachable { .. }));
    lost.await.expect("probed");
    let opened = began.elapsed();
    // Five probes of 5 s; 11 s at most until the first, and 10 s at most between two.
    let bounds = Duration::from_secs(25)..=Duration::from_secs(11 + 5 * 5 + 4 * 10);
    assert!(bounds.contains(&opened), "{opened:?}");
    let began = Instant::now();
    let error = child.send(get("/api")).await.expect_err("the circuit is open");
    assert!(
        matches!(error, ChildError::Unreachable { .. }) && began.elapsed().is_zero(),
        "{error}"
    );

    memory.set_silent(false);
    let began = Instant::now();
    health
        .wait_for(|health| *health == Health::Reachable)
        .await
        .expect("probed");
    let closed = began.elapsed();
    // The probe that is under way fails, and the next one comes after 10 s at most.
    assert!(closed <= Duration::from_secs(15), "{closed:?}");
    child.send(get("/api")).await.expect("an answer");
    children.close().await;
    item.pass(&format!(
        "unreachable after {:.0} s of silence, requests refused at once; reachable {:.0} s after its end",
        opened.as_secs_f64(),
        closed.as_secs_f64()
    ));
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_many_requests_makes_no_child_unreachable() {
    let item = Item::open("children.limits.probes");
    let memory = Memory::new(patient);
    let children = Children::new(ProbeConfig::default());
    let mut config = crate::testing::in_memory();
    config.limits.requests = 2;
    let child = children
        .insert_with(config, Arc::clone(&memory) as _)
        .await
        .expect("a child");
    let mut health = child.health();
    health
        .wait_for(|health| *health == Health::Reachable)
        .await
        .expect("probed");
    // All places are taken for an hour, and others wait for them all the time.
    let slow = || {
        let mut request = get("/never");
        request.extensions_mut().insert(RequestDeadline(HOUR));
        child.send(request)
    };
    let all = futures::future::join_all((0..2).map(|_| slow()));
    let began = Instant::now();
    let others = async {
        while let Err(refused) = child.send(get("/api")).await {
            assert!(matches!(refused, ChildError::Busy { .. }), "{refused}");
        }
        began.elapsed()
    };
    health.mark_unchanged();
    let (_, served) = tokio::join!(all, others);
    assert!(served >= HOUR, "no place until then");
    assert!(!health.has_changed().expect("probed") && *health.borrow() == Health::Reachable);
    children.close().await;
    item.pass("all places taken for an hour: probed all the time, and reachable");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_reads_waits() {
    const CHUNK: usize = 64 << 10;
    /// The windows of a stream on both ways (1 MiB at most each), what hyper buffers (400 KiB), and the pipes.
    const AHEAD: usize = 4 << 20;
    let item = Item::open("children.backpressure.upload");
    let memory = Memory::new(patient);
    let child = memory.child();
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let endless = futures::stream::repeat_with(move || {
        count.fetch_add(CHUNK as u64, Ordering::SeqCst);
        Ok::<_, Infallible>(Frame::data(chunk.clone()))
    });
    let request = Request::post("/never")
        .body(boxed(StreamBody::new(endless)))
        .expect("a request");
    let mut upload = Box::pin(child.send_on(Lane::Streams, request));
    tokio::select! {
        _ = &mut upload => unreachable!("it is never answered"),
        () = sleep(HOUR) => {}
    }
    let held = taken.load(Ordering::SeqCst);
    assert!(held > 0 && held <= AHEAD as u64, "{held}");
    child
        .send_on(Lane::Streams, get("/api"))
        .await
        .expect("others on the same connection are served");
    item.pass(&format!(
        "{} KiB taken from who sends without end to a child that does not read",
        held >> 10
    ));
}
