//! Clients that begin and do not go on. Time is made to pass where everybody waits.

use umbra_show::Item;

use super::*;

/// Sends the beginning of something, and what the server has said when it has ended the connection.
async fn abandoned(listening: &Listening, protocol: &[u8], beginning: &[u8]) -> Vec<u8> {
    let mut stream = listening.connect(protocol).await;
    stream.write_all(beginning).await.unwrap();
    stream.flush().await.unwrap();
    others_are_served(listening).await;
    // From here on, waiting for anything lets the next deadline come.
    tokio::time::pause();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    tokio::time::resume();
    answer
}

#[tokio::test]
async fn what_does_not_go_on_ends() {
    let item = Item::open("children.attacks.slow");
    let listening = listen(FakeHub::new(0, 0).server()).await;
    let began = tokio::time::Instant::now();
    // Headers.
    let headers = abandoned(&listening, b"http/1.1", b"GET / HTTP/1.1\r\nX-").await;
    assert!(
        headers.is_empty() || headers.starts_with(b"HTTP/1.1 408"),
        "{headers:?}"
    );
    assert!(began.elapsed() <= Duration::from_secs(100));

    // A body.
    let head =
        "POST /api/v1/namespaces/shop/pods HTTP/1.1\r\nHost: x\r\nAuthorization: alice\r\nContent-Length: 100\r\n\r\n{";
    let body = abandoned(&listening, b"http/1.1", head.as_bytes()).await;
    assert!(body.starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&body));

    // Headers of HTTP/2 that never end: pings cannot be answered in between.
    let mut bytes = http2::PREFACE.to_vec();
    bytes.extend(http2::frame(http2::SETTINGS, 0, 0, &[]));
    bytes.extend(http2::frame(http2::HEADERS, 0, 1, &http2::headers(POD)));
    let answer = abandoned(&listening, b"h2", &bytes).await;
    assert!(!http2::frames(&answer).any(|frame| frame.kind == http2::HEADERS));
    others_are_served(&listening).await;
    item.pass("headers, a body and HTTP/2 headers that do not go on: ended within 95, 60 and 45 s");
}
