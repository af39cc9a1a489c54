//! Endpoints that fail and come back, and addresses that come to lead elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use hyper::body::Incoming;
use umbra_show::Item;

use super::*;
use crate::{
    Authorization, Endpoint, ExecConfig,
    body::{Body, collect},
    testing::{Front, Server, Speaks},
    tests::{get, soon, text},
};

/// A cluster that says who it is, answers everything else with its name, and counts that.
async fn cluster(uid: &'static str, name: &'static str) -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::start(Speaks::default(), move |request: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            if request.uri().path() == "/api/v1/namespaces/kube-system" {
                return text(StatusCode::OK, format!(r#"{{"metadata":{{"uid":"{uid}"}}}}"#));
            }
            count.fetch_add(1, Ordering::SeqCst);
            text(StatusCode::OK, name)
        }
    })
    .await;
    (server, asked)
}

fn at(front: &Front) -> ChildConfig {
    ChildConfig {
        // Each server has an authority of its own, as clusters have.
        insecure_skip_tls_verify: true,
        cluster_uid: Some("uid-a".into()),
        ..ChildConfig::new("c1", format!("https://{}", front.address).parse().expect("a URL"))
    }
}

fn endpoint(address: std::net::SocketAddr) -> Endpoint {
    let config = ChildConfig {
        insecure_skip_tls_verify: true,
        ..ChildConfig::new("c1", format!("https://{address}").parse().expect("a URL"))
    };
    config.endpoints().remove(0)
}

fn often() -> ProbeConfig {
    ProbeConfig {
        interval: Duration::from_millis(20),
        ..ProbeConfig::default()
    }
}

/// Who answers; an error as its text.
async fn who(child: &Child) -> String {
    async fn read(response: Response<Body>) -> String {
        let body = collect(response.into_body(), 100).await.expect("read").expect("short");
        String::from_utf8_lossy(&body).into_owned()
    }
    match child.send_regardless(Lane::Requests, get("/api")).await {
        Ok(response) => read(response).await,
        Err(error) => error.to_string(),
    }
}

/// Asks until `name` answers.
async fn until(child: &Child, name: &str) {
    soon(async {
        while who(child).await != name {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_finds_its_way_around_an_endpoint_that_is_gone_and_back() {
    let item = Item::open("children.endpoints");
    let ((a, _), (b, _)) = (cluster("uid-a", "a").await, cluster("uid-a", "b").await);
    let front = Front::start("127.0.0.1:0", a.address).await;
    let mut config = at(&front);
    config.alternatives = vec![endpoint(b.address)];
    let children = Children::new(often());
    let child = children.insert(config).await.expect("a child");
    assert_eq!(soon(who(&child)).await, "a");
    let preferred = child.endpoint().expect("one of two");

    front.fall_silent();
    until(&child, "b").await;
    assert_eq!(child.endpoint().as_deref(), Some(&*format!("https://{}", b.address)));
    // It keeps to that one, and knows that the other is not back.
    for _ in 0..20 {
        assert_eq!(soon(who(&child)).await, "b");
    }
    assert_eq!(*child.health().borrow(), Health::Reachable);

    front.lead_to(a.address);
    until(&child, "a").await;
    assert_eq!(child.endpoint(), Some(preferred));

    // A preferred endpoint that leads to another cluster is not gone back to, and gets nothing.
    let (stranger, asked) = cluster("uid-x", "x").await;
    front.lead_to(stranger.address);
    until(&child, "b").await;
    let before = front.accepted();
    soon(async {
        while front.accepted() < before + 5 {
            assert_eq!(who(&child).await, "b");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    soon(children.close()).await;
    item.pass("silent endpoint left for the second one, gone back to when it served; never to one of another cluster");
}

#[tokio::test]
async fn another_cluster_behind_the_address_gets_nothing() {
    let item = Item::open("children.moved");
    let ((a, _), (stranger, asked)) = (cluster("uid-a", "a").await, cluster("uid-x", "x").await);
    let front = Front::start("127.0.0.1:0", a.address).await;
    let children = Children::new(often());
    let child = children.insert(at(&front)).await.expect("a child");
    assert_eq!(soon(who(&child)).await, "a");
    let mut health = child.health();

    front.lead_to(stranger.address);
    let lost = health.wait_for(|health| matches!(health, Health::Unreachable { .. }));
    let lost = soon(lost).await.expect("probed").clone();
    let Health::Unreachable { failure, reason, .. } = lost else {
        unreachable!("waited for")
    };
    assert_eq!(failure, Failure::WrongCluster);
    assert!(reason.contains("uid-x") && reason.contains("uid-a"), "{reason}");
    for lane in [Lane::Requests, Lane::Watches, Lane::Streams] {
        let error = soon(child.send_regardless(lane, get("/api")))
            .await
            .expect_err("refused");
        assert!(matches!(error, ChildError::WrongCluster { .. }), "{error}");
    }
    soon(child.upgrade(get("/exec"))).await.expect_err("refused");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nothing is sent to it");

    // The same cluster at another machine is the same cluster.
    let (moved, _) = cluster("uid-a", "moved").await;
    front.lead_to(moved.address);
    until(&child, "moved").await;
    soon(health.wait_for(|health| *health == Health::Reachable))
        .await
        .expect("probed");
    soon(children.close()).await;
    item.pass("another cluster at the address got no request; the same one on another machine is served");
}

#[tokio::test]
async fn a_failure_has_a_reason() {
    let (a, _) = cluster("uid-a", "a").await;
    let front = Front::start("127.0.0.1:0", a.address).await;
    let unreachable = async |config: ChildConfig| {
        let children = Children::new(ProbeConfig {
            failures: 2,
            timeout: Duration::from_millis(500),
            ..often()
        });
        let child = children.insert(config).await.expect("a child");
        let mut health = child.health();
        let lost = soon(health.wait_for(|health| matches!(health, Health::Unreachable { .. }))).await;
        let failure = match &*lost.expect("probed") {
            Health::Unreachable { failure, .. } => *failure,
            health => unreachable!("waited for, not {health:?}"),
        };
        soon(children.close()).await;
        failure
    };
    let mut untrusted = a.config();
    untrusted.tls_server_name = Some("other.test".into());
    assert_eq!(unreachable(untrusted).await, Failure::Tls);
    let mut unknown = at(&front);
    unknown.server = "https://no-such-host.invalid".parse().expect("a URL");
    assert_eq!(unreachable(unknown).await, Failure::Dns);
    let mut nobody = at(&front);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    nobody.server = format!("https://{free}").parse().expect("a URL");
    assert_eq!(unreachable(nobody).await, Failure::ConnectionRefused);
    front.fall_silent();
    assert_eq!(unreachable(at(&front)).await, Failure::Timeout);
}

#[tokio::test]
async fn a_program_that_hangs_holds_up_no_other_child() {
    let item = Item::open("children.credentials.hanging");
    let ((a, _), (b, _)) = (cluster("uid-a", "a").await, cluster("uid-b", "b").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = a.config();
    config.credentials.authorization = Authorization::Exec(Box::new(ExecConfig {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), "echo > runs; exec sleep 3600".into()],
        api_version: "client.authentication.k8s.io/v1".into(),
        directory: Some(folder.path().to_owned()),
        ..ExecConfig::default()
    }));
    let children = Children::new(often());
    children.insert(config.clone()).await.expect("a child");
    soon(async {
        while !folder.path().join("runs").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // `soon` is far less than the 60 s that a program has.
    config.credentials.authorization = Authorization::None;
    let child = soon(children.insert(config)).await.expect("another credential");
    let other = ChildConfig {
        name: "c2".into(),
        ..b.config()
    };
    let other = soon(children.insert(other)).await.expect("another child");
    assert_eq!(soon(who(&other)).await, "b");
    assert_eq!(soon(who(&child)).await, "a");
    soon(children.close()).await;
    item.pass("while it runs, its credential is replaced and another child is added and served");
}
