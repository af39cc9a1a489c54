//! HTTP/1.1: requests that a front proxy and the server could read differently (RFC 9112 §11.2), and ones that are too large.

use umbra_show::Item;

use super::*;

/// A request that must never be seen as one.
const SMUGGLED: &str =
    "GET /api/v1/namespaces/shop/pods/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: mallory-in\r\n\r\n";

/// The statuses of all answers.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let answers = text.split("HTTP/1.1 ").skip(1);
    answers.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// A read of a pod with more header lines, as they are.
fn with(lines: &str) -> String {
    format!("GET {POD} HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\n{lines}\r\n{SMUGGLED}")
}

#[tokio::test]
async fn smuggled_requests_are_not_seen() {
    let item = Item::open("children.attacks.smuggling");
    let hub = FakeHub::new(0, 0);
    let listening = listen(hub.server()).await;
    let refused = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X-Folded: a\r\n b\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X-Nul: a\0b\r\n",
        "X-Return: a\rTransfer-Encoding: chunked\r\n",
        "X\0: a\r\n",
        "X Y: a\r\n",
        ": a\r\n",
        "no colon\r\n",
    ];
    for lines in refused {
        let seen = statuses(&exchange(&listening, b"http/1.1", with(lines).as_bytes()).await);
        assert_eq!(seen, [400], "{lines:?}");
    }
    assert!(hub.users.lock().is_empty(), "nothing of it was a request");

    // Two lengths that contradict each other: the chunks count (RFC 9112 §6.1), the connection ends with the answer.
    for lines in [
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            SMUGGLED.len() + 5
        ),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n".to_owned(),
    ] {
        let seen = statuses(&exchange(&listening, b"http/1.1", with(&lines).as_bytes()).await);
        assert_eq!(seen, [200], "{lines:?}");
    }
    assert_eq!(hub.users.lock().len(), 2);

    // Chunks that are none. The pod is read, and what stands behind is not a request.
    for chunks in ["zz\r\n", "fffffffffffffffff\r\n", "-1\r\n", "5\r\nabcdefg\r\n"] {
        let lines = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
        let seen = statuses(&exchange(&listening, b"http/1.1", with(&lines).as_bytes()).await);
        assert!(seen.len() <= 1, "{chunks:?}: {seen:?}");
    }
    let old = format!("GET {POD} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    assert_eq!(
        statuses(&exchange(&listening, b"http/1.1", old.as_bytes()).await),
        [400]
    );
    let smuggled = hub.users.lock().iter().filter(|user| user.name == "mallory-in").count();
    assert_eq!(smuggled, 0);
    others_are_served(&listening).await;
    item.pass(&format!(
        "{} requests, none of what they hid was seen",
        refused.len() + 7
    ));
}

#[tokio::test]
async fn what_claims_an_identity_is_not_sent_on() {
    let item = Item::open("children.attacks.headers");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let root = "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy/api/v1/pods";
    let head = format!("GET {root} HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\nConnection: close\r\n");
    // Also where `Connection` names what the server itself goes by.
    for lines in [
        "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n",
        "Connection: X-Remote-User\r\nX-Remote-User: admin\r\n",
        "X-Proxied-User: admin\r\n",
    ] {
        let answer = exchange(&listening, b"http/1.1", format!("{head}{lines}\r\n").as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(text.contains(r#""user":"alice""#), "{text}");
        assert!(
            !text.contains(r#""x-remote"#) && !text.contains(r#""x-proxied"#),
            "{text}"
        );
    }
    // Impersonation is judged before anything is sent on, whatever else is said of it.
    for (lines, code) in [
        ("Impersonate-User: admin\r\n", 403),
        ("Impersonate-User: admin\r\nConnection: Impersonate-User\r\n", 403),
        ("Impersonate-Group: system:masters\r\n", 400),
        ("Impersonate-Extra-scopes: all\r\n", 400),
        ("Impersonate-Uid: 0\r\n", 400),
    ] {
        let answer = exchange(&listening, b"http/1.1", format!("{head}{lines}\r\n").as_bytes()).await;
        assert_eq!(statuses(&answer), [code], "{lines:?}");
    }
    item.pass("8 claims of an identity, none believed or sent on");
}

#[tokio::test]
async fn paths_reach_the_root_that_they_name_or_none() {
    let item = Item::open("children.attacks.paths");
    let hub = FakeHub::new(0, 0);
    let listening = listen(hub.server()).await;
    let proxy = "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy";
    let ask = async |target: String| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\nConnection: close\r\n\r\n");
        exchange(&listening, b"http/1.1", request.as_bytes()).await
    };
    let climbing = [
        format!("{proxy}/../../../../../../api/v1/namespaces/shop/pods/a"),
        format!("{proxy}/..%2f..%2f..%2f..%2f..%2f..%2fapi/v1/namespaces/shop/pods/a"),
        format!("{proxy}/%2e%2e/x"),
        format!("{proxy}/%2E./x"),
        format!("{proxy}/./x"),
        "/apis/umbra.dev/v1alpha1/managedclusters/member2/../member1/proxy/api".to_owned(),
    ];
    for target in &climbing {
        assert_eq!(statuses(&ask(target.clone()).await), [400], "{target}");
    }
    // Not what names the root: neither served by it, nor taken for another.
    let other = [
        "/apis/umbra.dev/v1alpha1/managedclusters/member1%2fproxy/api".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters/member1/%70roxy/api".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters/m%65mber1/proxy/api".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters//proxy/api".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxyx/api".to_owned(),
        "/apis/umbra.dev/v1alpha1/managedclusters/member1/proxy;x/api".to_owned(),
        "/apis%2fumbra.dev/v1alpha1/managedclusters/member1/proxy/api".to_owned(),
    ];
    for target in &other {
        let answer = ask(target.clone()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            statuses(&answer).iter().all(|code| (400..500).contains(code)),
            "{target}: {text}"
        );
        assert!(!text.contains(r#""user":"alice""#), "{target} was passed on: {text}");
    }
    // Whatever the request line says of hosts, the path decides.
    for target in [
        format!("https://elsewhere.example{proxy}/api/v1/pods"),
        format!("{proxy}/api/v1/pods"),
    ] {
        let answer = ask(target.clone()).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(r#""uri":"/api/v1/pods""#), "{target}: {text}");
    }
    // No requests at all.
    for line in [
        format!("GET {proxy}/a b HTTP/1.1"),
        format!("GET {proxy}/\u{1} HTTP/1.1"),
        "GET  HTTP/1.1".to_owned(),
        "GET /".to_owned() + &"a".repeat(70_000) + " HTTP/1.1",
        format!("GET {proxy}/api HTTP/3.0"),
        format!("G@T\u{7f} {proxy}/api HTTP/1.1"),
    ] {
        let answer = exchange(&listening, b"http/1.1", format!("{line}\r\nHost: x\r\n\r\n").as_bytes()).await;
        let seen = statuses(&answer);
        assert!(
            seen.iter().all(|code| matches!(code, 400 | 414)),
            "{line:.80}: {seen:?}"
        );
    }
    assert!(hub.users.lock().is_empty(), "nothing reached the hub's pods");
    item.pass(&format!(
        "{} paths, each where it belongs",
        climbing.len() + other.len() + 8
    ));
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let item = Item::open("children.attacks.sizes");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let long = format!("X-Long: {}\r\n", "x".repeat(2 << 20));
    let many: String = (0..3000).map(|number| format!("X-{number}: x\r\n")).collect();
    for lines in [long, many] {
        let request = format!("GET {POD} HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\n{lines}\r\n");
        let seen = statuses(&exchange(&listening, b"http/1.1", request.as_bytes()).await);
        assert_eq!(seen, [431], "{lines:.20}");
    }
    let large = 4 << 20;
    let head = "POST /api/v1/namespaces/shop/pods HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\n";
    let announced = format!("{head}Content-Length: {large}\r\n\r\n{}", "x".repeat(large));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(large / 0x10000)
    );
    let waiting = format!("{head}Expect: 100-continue\r\nContent-Length: {large}\r\n\r\n");
    for request in [announced, chunked, waiting] {
        let seen = over_http1(&listening, request.as_bytes()).await;
        // Not even asked for, where the client waits to be.
        assert_eq!(seen, [413]);
    }
    let seen = over_http2(&listening, large).await;
    assert_eq!(seen, [413, 413], "with a length and without");
    others_are_served(&listening).await;
    item.pass("headers of 2 MB and 3000 headers: 431; bodies of 4 MB over either protocol: 413");
}

/// Sends while it reads, as clients do.
async fn over_http1(listening: &Listening, request: &[u8]) -> Vec<u16> {
    let (mut read, mut write) = tokio::io::split(listening.connect(b"http/1.1").await);
    let sending = async {
        let _ = write.write_all(request).await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut answer = Vec::new();
        while statuses(&answer).is_empty() {
            if read.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                break;
            }
        }
        statuses(&answer)
    };
    tokio::select! {
        () = sending => unreachable!("it waits for ever"),
        seen = tokio::time::timeout(PATIENCE, reading) => seen.unwrap(),
    }
}

async fn over_http2(listening: &Listening, size: usize) -> Vec<u16> {
    let mut seen = Vec::new();
    for announced in [true, false] {
        let io = TokioIo::new(listening.connect(b"h2").await);
        let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        TaskTracker::new().spawn(connection);
        let chunks =
            (0..size / 0x10000).map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(vec![b'x'; 0x10000].into())));
        let body = http_body_util::StreamBody::new(futures::stream::iter(chunks));
        let mut request =
            Request::post("https://localhost/api/v1/namespaces/shop/pods").header("authorization", "alice");
        if announced {
            request = request.header("content-length", size);
        }
        let body: http_body_util::combinators::BoxBody<Bytes, std::io::Error> = http_body_util::BodyExt::boxed(body);
        let answer = tokio::time::timeout(PATIENCE, requests.send_request(request.body(body).unwrap()));
        let answer = answer.await.unwrap().expect("an answer, and not a reset");
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("the whole answer").to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("RequestEntityTooLarge"));
        seen.push(code);
    }
    seen
}
