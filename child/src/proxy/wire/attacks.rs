//! What an ill-meaning caller or child tries.

use super::*;

#[tokio::test]
async fn what_speaks_for_the_hub_or_its_connections_does_not_travel() {
    let item = Item::open("children.attacks.trailers");
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let child = Child::new(server.config()).expect("a child");
        let (hub, _) = hub(child.clone()).await;
        let answer = answered(&hub, &get("/of-the-origin").replace("Host", "TE: trailers\r\nHost")).await;
        assert!(answer.contains("content-security-policy: sandbox\r\n"), "{answer}");
        assert!(answer.ends_with("x-sum: 1\r\n\r\n"), "{answer}");
        for name in ["set-cookie:", "clear-site-data:", "service-worker-allowed:"] {
            assert!(!answer.contains(name), "{answer}");
        }
        let upload = "POST /names HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-sum, impersonate-user, authorization\r\n\r\n\
             0\r\nx-sum: 1\r\nImpersonate-User: admin\r\nAuthorization: Bearer x\r\n\r\n";
        let answer = answered(&hub, upload).await;
        assert!(answer.contains("x-sum behind the body"), "{answer}");
        assert_eq!(answer.matches("behind the body").count(), 1, "{answer}");
        for method in [Method::TRACE, Method::CONNECT] {
            let request = Request::builder().method(&method).uri("/names").body(empty());
            let jane = UserInfo::new("jane", ["dev"]);
            let sent = soon(forward(
                &child,
                request.expect("a request"),
                &jane,
                &ProxyOptions::default(),
            ))
            .await;
            assert!(matches!(sent, Err(ChildError::Method { .. })), "{sent:?}");
        }
    }
    item.pass("2 trailers, 2 methods, 3 headers of a child, over HTTP/2 and HTTP/1.1: none travels");
}

#[tokio::test]
async fn a_length_that_contradicts_the_body_is_not_sent_on() {
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let (hub, _) = hub(Child::new(server.config()).expect("a child")).await;
        let both = "POST /length HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n5\r\nfirst\r\n0\r\n\r\n";
        let answer = answered(&hub, both).await;
        let is_refused = answer.starts_with("HTTP/1.1 400 ");
        assert!(is_refused || answer.ends_with("said None, read b\"first\""), "{answer}");
        let plain = "POST /length HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst";
        let answer = answered(&hub, plain).await;
        assert!(answer.ends_with("said Some(\"5\"), read b\"first\""), "{answer}");

        let child = Child::new(server.config()).expect("a child");
        let mut response = Response::new(full("first"));
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        let options = ProxyOptions::default();
        let alone = inbound(&child, response, &options).expect("an answer");
        assert_eq!(alone.headers()[CONTENT_LENGTH], "3");
        let (mut parts, body) = alone.into_parts();
        parts
            .headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        let both = inbound(&child, Response::from_parts(parts, body), &options).expect("an answer");
        assert!(both.headers().is_empty(), "{both:?}");
    }
}

#[tokio::test]
async fn nobody_changes_to_a_protocol_that_carries_requests() {
    let item = Item::open("children.attacks.upgrade");
    for speaks in [Speaks::default(), HTTP1] {
        let server = Server::start(speaks, api).await;
        let (hub, _) = hub(Child::new(server.config()).expect("a child")).await;
        for protocol in ["h2c", "H2C", "TLS/1.0", "HTTP/2.0, h2c"] {
            let request = format!(
                "GET /names HTTP/1.1\r\nHost: hub\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            );
            let answer = answered(&hub, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(
                !answer.contains("upgrade") && !answer.contains("http2-settings"),
                "{answer}"
            );
        }
        let mixed = "GET /names HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n";
        let mut io = connect(&hub).await;
        io.write_all(mixed.as_bytes()).await.expect("written");
        assert!(read_until(&mut io, "upgrade").await.contains("upgrade"));
        // The child changes to something else than was asked for, and where nothing was.
        let other = "POST /exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n";
        let mut io = connect(&hub).await;
        io.write_all(other.as_bytes()).await.expect("written");
        let answer = read_until(&mut io, "not asked for").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    let server = Server::start(HTTP1, api).await;
    let (hub, _) = hub(Child::new(server.config()).expect("a child")).await;
    let answer = answered(&hub, &get("/unasked")).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    item.pass("4 protocols ignored, 2 changes that nobody asked for: 502");
}
