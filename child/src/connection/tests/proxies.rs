//! What is on the way: proxies of all kinds, and IPv6.

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{testing::Front, tests::HTTP1};

/// A SOCKS 5 proxy for one connection, which it makes to `target`; gives what was asked for: user, password, name, port.
async fn socks(listener: &TcpListener, target: std::net::SocketAddr) -> (String, String, String, u16) {
    let (mut inbound, _) = listener.accept().await.expect("accepted");
    let text = async |length: u8, inbound: &mut TcpStream| {
        let mut bytes = vec![0; usize::from(length)];
        inbound.read_exact(&mut bytes).await.expect("read");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(inbound.read_u8().await.expect("read"), 5);
    let methods = inbound.read_u8().await.expect("read");
    text(methods, &mut inbound).await;
    inbound.write_all(&[5, 2]).await.expect("written");
    assert_eq!(inbound.read_u8().await.expect("read"), 1);
    let length = inbound.read_u8().await.expect("read");
    let user = text(length, &mut inbound).await;
    let length = inbound.read_u8().await.expect("read");
    let password = text(length, &mut inbound).await;
    inbound.write_all(&[1, 0]).await.expect("written");
    let mut request = [0; 4];
    inbound.read_exact(&mut request).await.expect("read");
    assert_eq!(request, [5, 1, 0, 3], "connect to a name");
    let length = inbound.read_u8().await.expect("read");
    let name = text(length, &mut inbound).await;
    let port = inbound.read_u16().await.expect("read");
    inbound
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .expect("written");
    let mut outbound = TcpStream::connect(target).await.expect("connected");
    // Ends with an error when the child leaves.
    let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
    (user, password, name, port)
}

#[tokio::test]
async fn socks_proxies_and_addresses_of_version_6_are_gone_through() {
    let item = Item::open("children.proxies");
    let server = Server::start(Speaks::default(), api).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    for scheme in ["socks5", "socks5h"] {
        let mut config = server.config();
        // Only the proxy knows the name.
        config.server = "https://child.test:6443".parse().expect("a URL");
        config.proxy_url = Some(format!("{scheme}://jane:p%40ss@{address}").parse().expect("a URL"));
        let child = Child::new(config).expect("a child");
        let asked = async {
            let response = child.send(get("/api")).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            drop(response);
            child.close().await;
        };
        let (seen, ()) = soon(async { tokio::join!(socks(&listener, server.address), asked) }).await;
        let wanted = ("jane".to_owned(), "p@ss".to_owned(), "child.test".to_owned(), 6443);
        assert_eq!(seen, wanted, "{scheme}");
    }

    let front = Front::start("[::1]:0", server.address).await;
    let mut config = server.config();
    config.server = format!("https://{}", front.address).parse().expect("a URL");
    config.tls_server_name = Some("child.test".into());
    let child = Child::new(config).expect("a child");
    soon(child.send(get("/api"))).await.expect("an answer");

    // Credentials of a proxy are in no error.
    let mut config = server.config();
    config.proxy_url = Some("socks5://jane:s3cret@127.0.0.1:1".parse().expect("a URL"));
    let error = soon(Child::new(config).expect("a child").send(get("/api")))
        .await
        .expect_err("nobody there");
    let said = format!("{error} {error:?}");
    assert_eq!(error.failure(), crate::Failure::Proxy);
    assert!(said.contains("127.0.0.1:1") && !said.contains("s3cret"), "{said}");
    item.pass("SOCKS 5 with a password and names for the proxy to resolve; an IPv6 address; no password in errors");
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let server = Server::start(Speaks::default(), api).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
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
        let mut outbound = TcpStream::connect(server.address).await.expect("connected");
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

    let refusing = TcpListener::bind("127.0.0.1:0").await.expect("bound");
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

/// Connects whoever asks, to wherever they ask for, and says who they are.
async fn tunnel(mut request: Request<Incoming>) -> Response<Body> {
    let known = request.headers().get("proxy-authorization");
    if request.method() != http::Method::CONNECT || known.is_none_or(|value| value != "Basic amFuZTpwQHNz") {
        return text(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "");
    }
    let target = request.uri().authority().expect("CONNECT names one").to_string();
    let upgrade = hyper::upgrade::on(&mut request);
    #[expect(clippy::disallowed_methods, reason = "a test server")]
    tokio::spawn(async move {
        let mut inbound = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut outbound = TcpStream::connect(target).await.expect("connected");
        // Ends with an error when the child leaves.
        let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
    });
    text(StatusCode::OK, "")
}

#[tokio::test]
async fn a_proxy_over_tls_is_gone_through_and_verified() {
    let item = Item::open("children.proxies.tls");
    let (server, proxy) = (
        Server::start(Speaks::default(), api).await,
        Server::start(HTTP1, tunnel).await,
    );
    let mut config = server.config();
    config.proxy_url = Some(format!("https://jane:p%40ss@{}", proxy.address).parse().expect("a URL"));
    let error = soon(Child::new(config.clone()).expect("a child").send(get("/api"))).await;
    let error = error.expect_err("nobody knows the authority of the proxy");
    assert_eq!(error.failure(), crate::Failure::Proxy, "{error}");
    assert_eq!(proxy.accepted(), 0);

    // The authorities of the cluster count for its proxy, too.
    let mut authorities = config.certificate_authority.take().expect("an authority");
    authorities.extend(proxy.config().certificate_authority.expect("an authority"));
    config.certificate_authority = Some(authorities);
    let child = Child::new(config.clone()).expect("a child");
    for lane in [Lane::Requests, Lane::Watches, Lane::Streams] {
        let response = soon(child.send_on(lane, get("/api"))).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
    soon(child.upgrade(get("/api"))).await.expect("an answer");
    assert_eq!((proxy.accepted(), server.accepted()), (4, 4));

    config.proxy_url = Some(format!("https://{}", proxy.address).parse().expect("a URL"));
    let error = soon(Child::new(config).expect("a child").send(get("/api"))).await;
    let error = error.expect_err("the proxy wants to know who asks");
    assert!(error.to_string().contains("407"), "{error}");
    item.pass(
        "all lanes and upgrades through a proxy over TLS; one of an unknown authority and one that refuses are told of",
    );
}
